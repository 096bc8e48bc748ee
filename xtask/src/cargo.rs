//! Calling cargo from a task.

use anyhow::{Context as _, Result, bail};
use std::process::Command;

/// The cargo that runs this task.
pub(crate) fn command(subcommand: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(salve_testkit::tree::root()).arg(subcommand);
    command
}

pub(crate) fn run(subcommand: &str, arguments: &[&str]) -> Result<()> {
    check(command(subcommand).args(arguments))
}

pub(crate) fn check(command: &mut Command) -> Result<()> {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let status = command.status().with_context(|| format!("cannot run cargo {}", words.join(" ")))?;
    if status.success() { Ok(()) } else { bail!("cargo {} ended with {status}", words.join(" ")) }
}

/// `salve` and `salve-derive`, as they would be shipped.
pub(crate) fn build_programs() -> Result<()> {
    run("build", &["--quiet", "--release", "--package", "salve", "--package", "salve-derive"])
}

/// Whether `cargo nextest` is there.
pub(crate) fn has_nextest() -> bool {
    let version = command("nextest").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}
