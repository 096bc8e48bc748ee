//! Running the tests, cheapest first, and saying what could not be run.
//!
//! Test binaries called `process_*` start, stop and change real processes; they
//! run one at a time, after the others. `cargo nextest` is used where it is
//! there (`.config/nextest.toml` has the group), `cargo test` otherwise.

use crate::cargo;
use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use salve_testkit::needs::{self, Need};
use salve_testkit::{not_run, salve, tree};
use serde_json::Value;
use std::path::Path;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this part [default: all, in this order]
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Fail where something cannot be run, rather than say so
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Tests that need nothing but files
    Unprivileged,
    /// The examples in the documentation
    Doc,
    /// Tests that change real processes
    Process,
}

impl Part {
    const ALL: [Self; 3] = [Self::Unprivileged, Self::Doc, Self::Process];

    const fn name(self) -> &'static str {
        match self {
            Self::Unprivileged => "unprivileged tests",
            Self::Doc => "documentation tests",
            Self::Process => "tests that change processes",
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Err(error) = needs::ensure(&Need::ALL) {
        eprintln!("NOT INSTALLED: {error:#}\nwhat needs it will fail or be listed as not run");
    }
    cargo::build_programs()?;
    // What is read at every turn is not to grow from run to run.
    for file in [not_run::ledger(), salve::events()] {
        forget(&file)?;
    }
    let parts = arguments.part.map_or_else(|| Part::ALL.to_vec(), |part| vec![part]);
    let mut failed = Vec::new();
    for part in parts {
        println!("==> {}", part.name());
        if let Err(error) = run_part(part, arguments.strict) {
            eprintln!("{}: {error:#}", part.name());
            failed.push(part.name());
        }
    }
    print_ledger();
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

fn run_part(part: Part, strict: bool) -> Result<()> {
    let mut command = match part {
        Part::Doc => {
            let mut command = cargo::command("test");
            command.args(["--workspace", "--doc"]);
            command
        }
        Part::Unprivileged | Part::Process if cargo::has_nextest() => {
            let filter = if part == Part::Process { "binary(/^process_/)" } else { "not binary(/^process_/)" };
            let mut command = cargo::command("nextest");
            command.args(["run", "--workspace", "--filterset", filter]);
            command
        }
        Part::Unprivileged => {
            let mut command = cargo::command("test");
            command.args(["--no-fail-fast", "--workspace", "--lib", "--bins"]).args(named_tests(false)?);
            command
        }
        Part::Process => {
            let mut command = cargo::command("test");
            command.args(["--no-fail-fast", "--workspace"]).args(named_tests(true)?).args(["--", "--test-threads=1"]);
            command
        }
    };
    if strict {
        command.env("SALVE_RUN_EVERYTHING", "1");
    }
    cargo::check(command.env("SALVE_BIN_DIR", tree::target().join("release")))
}

/// `--test NAME` for the test binaries that do or do not change processes.
fn named_tests(process: bool) -> Result<Vec<String>> {
    let output = cargo::command("metadata")
        .args(["--format-version", "1", "--no-deps", "--locked"])
        .output()
        .context("cannot run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let mut arguments = Vec::new();
    let packages = metadata.get("packages").and_then(Value::as_array).into_iter().flatten();
    for target in packages.filter_map(|p| p.get("targets")?.as_array()).flatten() {
        let is_test = target.get("kind").and_then(Value::as_array).is_some_and(|k| k.iter().any(|k| k == "test"));
        let name = target.get("name").and_then(Value::as_str).unwrap_or_default();
        if is_test && name.starts_with("process_") == process {
            arguments.extend(["--test".to_owned(), name.to_owned()]);
        }
    }
    Ok(arguments)
}

fn forget(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

fn print_ledger() {
    if let Ok(lines) = std::fs::read_to_string(not_run::ledger()) {
        println!("==> not run on this machine");
        print!("{lines}");
    }
}
