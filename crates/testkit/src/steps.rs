//! How many instructions a call takes, counted one by one in a running process.

use crate::{tools, tree};
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::process::Command;

/// Instructions of one call of `function` of `program`, which the first thread of `pid` runs and
/// calls again and again: from entry to return, whatever it calls included.
pub fn of_call(pid: u32, program: &Path, function: &str) -> Result<u32> {
    let scratch = tree::scratch("steps")?;
    let tool = tools::compile("steps.c", scratch.path())?;
    let at = base(pid, program)? + address(program, function)?;
    let count = text(Command::new(tool).arg(pid.to_string()).arg(format!("{at:x}")))?;
    count.trim().parse().with_context(|| format!("no number: {count:?}"))
}

/// Of a function, before the program is loaded.
fn address(program: &Path, function: &str) -> Result<u64> {
    let names = text(Command::new("nm").arg(program))?;
    let line = names.lines().find(|line| line.split_ascii_whitespace().nth(2) == Some(function));
    let digits = line.and_then(|line| line.split_ascii_whitespace().next());
    let digits = digits.with_context(|| format!("no {function} in {}", program.display()))?;
    u64::from_str_radix(digits, 16).context("nm prints no address")
}

/// Where the program was loaded.
fn base(pid: u32, program: &Path) -> Result<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).context("no maps")?;
    let name = program.to_string_lossy();
    let first = maps.lines().find(|line| line.ends_with(&*name)).context("it does not run that program")?;
    let start = first.split('-').next().unwrap_or_default();
    u64::from_str_radix(start, 16).context("a line of maps without an address")
}

fn text(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
