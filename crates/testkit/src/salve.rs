//! Running the built `salve` as an operator does, and reading what it reports.

use crate::tree;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The exit codes that operators rely on.
pub mod exit {
    pub const DONE: i32 = 0;
    pub const FAILED: i32 = 1;
    pub const USAGE: i32 = 2;
    pub const REFUSED: i32 = 3;
    pub const INCOMPLETE: i32 = 4;
}

/// The directory with `salve` and `salve-derive`, built for release.
///
/// `SALVE_BIN_DIR` names another one. Otherwise cargo is asked to build them,
/// which is a moment's work when they are current, so that no test can pass
/// with a binary older than the source.
pub fn directory() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(directory) = std::env::var_os("SALVE_BIN_DIR") {
        return Ok(PathBuf::from(directory));
    }
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(tree::root())
        .args(["build", "--quiet", "--release", "--package", "salve", "--package", "salve-derive"])
        .output()
        .context("cannot run cargo")?;
    if !built.status.success() {
        bail!("salve does not build: {}", String::from_utf8_lossy(&built.stderr));
    }
    Ok(tree::target().join("release"))
}

/// What one run of `salve` came to.
#[derive(Clone, Debug)]
pub struct Run {
    /// The command line, for messages.
    pub asked: String,
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Where all tests' events go that name no other place: the machine's own log is not theirs.
pub fn events() -> PathBuf {
    tree::target().join("test-events.jsonl")
}

/// A place to keep one test's events and records apart from the machine's.
#[derive(Clone, Debug)]
pub struct Salve {
    program: PathBuf,
    events: PathBuf,
}

impl Salve {
    pub fn built() -> Result<Self> {
        Ok(Self { program: directory()?.join("salve"), events: events() })
    }

    /// With its events in a file of the caller's.
    #[must_use]
    pub fn events_to(mut self, file: &Path) -> Self {
        self.events = file.to_path_buf();
        self
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--events").arg(&self.events).stdin(Stdio::null());
        command
    }

    /// Runs it to its end, for a reader.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Run> {
        Run::of(&mut self.command(arguments))
    }

    /// Runs it to its end with `--json`.
    pub fn json<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Run> {
        Run::of(self.command(arguments).arg("--json"))
    }
}

impl Run {
    pub fn of(command: &mut Command) -> Result<Self> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let asked = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let output = command.output().with_context(|| format!("cannot run {asked}"))?;
        Ok(Self {
            asked,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// An error with all it said, unless it ended with `code`.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        if self.code == Some(code) {
            return Ok(self);
        }
        bail!("{} ended with {:?}, not {code}\nstdout: {}\nstderr: {}", self.asked, self.code, self.stdout, self.stderr)
    }

    /// Its report.
    pub fn report(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| {
            format!("{} printed no JSON document: {:?}; stderr: {}", self.asked, self.stdout, self.stderr)
        })
    }
}

impl Run {
    /// The code of the error that it reported, if it reported one.
    pub fn error_code(&self) -> Result<Option<String>> {
        let report = self.report()?;
        let code = report.get("error").and_then(|error| error.get("code")).and_then(Value::as_str);
        Ok(code.map(str::to_owned))
    }

    /// The outcome on the only process that the report names, and its code.
    pub fn only_outcome(&self) -> Result<(String, Option<String>)> {
        let report = self.report()?;
        let actions = report.get("result").and_then(|result| result.get("processes")).and_then(Value::as_array);
        match actions.map(Vec::as_slice) {
            Some([action]) => {
                let text = |key| action.get(key).and_then(Value::as_str).map(str::to_owned);
                Ok((text("outcome").context("an action without an outcome")?, text("code")))
            }
            _ => bail!("{} does not name exactly one process: {}", self.asked, self.stdout),
        }
    }
}

/// Every value that stands under `key` anywhere in a report, in order.
///
/// Tests that only care that a thing is said somewhere use this; those that
/// pin the documented shape read it by path.
pub fn values<'a>(report: &'a Value, key: &str) -> Vec<&'a Value> {
    let mut found = Vec::new();
    collect(report, key, &mut found);
    found
}

fn collect<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                if name == key {
                    found.push(inner);
                }
                collect(inner, key, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, key, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The strings among [`values`].
pub fn texts<'a>(report: &'a Value, key: &str) -> Vec<&'a str> {
    values(report, key).into_iter().filter_map(Value::as_str).collect()
}
