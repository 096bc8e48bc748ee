//! The built program, as a shell sees it: what it prints, where, and how it ends.
//!
//! Everything here runs without `salve-derive` and changes no process. What
//! needs real packages and real processes is in `salve-testkit`.

mod bad_input;
mod events;
mod help;
mod inspect;
mod processes;
mod shell;
mod usage;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A patch file of format 1 that uses every part of the format, and is never regenerated.
fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model/patch/tests/fixtures/format-1.salve")
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ended by itself"),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

/// Without the caller's settings, in a width that does not depend on the terminal.
fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_salve"));
    command.args(words).stdin(Stdio::null());
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "SUDO_UID", "SUDO_USER"] {
        command.env_remove(name);
    }
    command
}

fn salve(words: &[&str]) -> Ran {
    Ran::of(command(words).output().expect("it runs"))
}

/// For snapshots: the fixture's place and the program's version are not part of the shape.
fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r#"[^" \n]*/format-1\.salve"#, "[FIXTURE]");
    settings.add_filter(r#""salve_version": "[^"]*""#, r#""salve_version": "[VERSION]""#);
    settings
}
