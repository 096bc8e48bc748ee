//! What a machine cannot run is said by name, never passed over.
//!
//! A test that lacks something it cannot get (root, an archive that answers)
//! calls [`record`] and returns. The line goes to stderr, and into a file that
//! `cargo xtask test` prints after the runners' own closing lines, so that a
//! green run shows what it did not cover. With `SALVE_RUN_EVERYTHING=1` a
//! missing thing fails the test instead.

use crate::tree;
use std::io::Write as _;
use std::path::PathBuf;

/// The file that collects the lines of one run of all tests.
pub fn ledger() -> PathBuf {
    tree::target().join("not-run.txt")
}

/// Says that `what` (a test, by name) was not run, and why.
#[expect(clippy::print_stderr, reason = "the reader of a test run has to see it")]
pub fn record(what: &str, why: &str) {
    assert!(std::env::var_os("SALVE_RUN_EVERYTHING").is_none_or(|v| v != "1"), "cannot run {what}: {why}");
    let line = format!("NOT RUN: {what}: {why}\n");
    eprint!("{line}");
    let appended = std::fs::OpenOptions::new().create(true).append(true).open(ledger());
    if let Err(error) = appended.and_then(|mut file| file.write_all(line.as_bytes())) {
        eprintln!("cannot write {}: {error}", ledger().display());
    }
}

/// Whether this process may trace processes of others; records the test as not run when it may not.
pub fn unless_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        record(what, "needs root to trace the processes of others");
    }
    !root
}
