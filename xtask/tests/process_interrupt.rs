//! A task that is told to end in the middle of its work.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::running::Running;
use salve_testkit::{not_run, tree};
use std::path::Path;
use std::process::Command;

const MARK: &str = "SALVE_TEST_MARK";

/// Processes that this run started, by a mark in their environment.
fn marked(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}");
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes())
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn roots(directory: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory).context("no directory for scratch")?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

#[test]
fn an_e2e_run_that_is_told_to_end_leaves_no_root_and_no_server_behind() -> Result<()> {
    let what = "cargo xtask e2e, ended by SIGTERM while its service works";
    if not_run::unless_root(what) {
        return Ok(());
    }
    // Both outlive the scratch directories of the run itself.
    let (scratch, log) = (tree::scratch("interrupt")?, tree::scratch("interrupt-log")?);
    let mark = scratch.path().display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["e2e", "rsyslog", "--own"]).env("TMPDIR", scratch.path()).env(MARK, &mark);
    command.env("SALVE_BIN_DIR", salve_testkit::salve::directory()?);
    let mut run = Running::start(&mut command, log.path().join("said"))?;
    // The first root of a day takes a while.
    let mut started = Ok(String::new());
    for _patience in 0..5 {
        started = run.wait_for_line("rsyslog: rsyslogd");
        if started.is_ok() || run.ended()?.is_some() {
            break;
        }
    }
    if let Err(error) = started {
        ensure!(run.output()?.contains("NOT RUN"), "{error:#}");
        not_run::record(what, "the archive does not answer");
        return Ok(());
    }
    let (before, places) = (marked(&mark), roots(scratch.path())?);
    ensure!(before.len() > 2, "only {before:?} run");
    ensure!(places.iter().any(|name| name.starts_with("salve-debian-")), "no root in {places:?}");

    let ended = run.terminate()?;
    ensure!(ended.code() == Some(143), "it ended with {ended}");
    ensure!(marked(&mark).is_empty(), "still there: {:?}", marked(&mark));
    let left = roots(scratch.path())?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}
