//! `cargo xtask bench peers`: other live patchers beside Salve, on one victim in one run.
//!
//! Nothing of theirs is here. A directory for each (`--peer DIR`) has three
//! programs, a few lines of shell around the peer's own tools:
//!
//! | program | does |
//! |---|---|
//! | `prepare SOURCE WORK` | builds from SOURCE (`-DNEW=0`, `-DNEW=1`), as the peer demands, WORK/victim and its patch |
//! | `apply PID WORK` | applies it |
//! | `revert PID WORK` | takes it out |
//!
//! Whether it did is not believed: the victim has to answer as the new code does,
//! and as the old one again. Peer and Salve take turns, each on its own victim.

use super::stop::Stage;
use super::table::{Table, Unit};
use anyhow::{Context as _, Result, bail, ensure};
use salve_testkit::needs::on_path;
use salve_testkit::spinner::Spinner;
use salve_testkit::tree;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Known ones, by a program of theirs: what is on the machine and was not named is said.
const KNOWN: [(&str, &str); 2] = [("libcare", "libcare-ctl"), ("libpulp", "ulp")];
const THREADS: [u32; 3] = [1, 10, 100];

pub(super) fn measure(table: &mut Table, stage: &Stage<'_>, peers: &[PathBuf]) -> Result<()> {
    for (name, program) in KNOWN {
        if !peers.iter().any(|peer| name_of(peer).contains(name)) {
            let there =
                if on_path(program) { "is on this machine and was not named" } else { "is not on this machine" };
            table.note(format!("NOT RUN: {name}: {program} {there}; --peer DIR names one (xtask/src/bench/peers.rs)"));
        }
    }
    for peer in peers {
        let name = name_of(peer);
        let work = tree::scratch("peer")?;
        let source = tree::root().join("crates/testkit/victims/spin.c");
        if let Err(error) = call(peer, "prepare", &[source.as_os_str(), work.path().as_os_str()]) {
            table.note(format!("NOT RUN: {name}: {error:#}"));
            continue;
        }
        for threads in THREADS {
            if let Err(error) = beside(table, stage, peer, work.path(), threads) {
                table.note(format!("{name}, {threads} threads: not measured: {error:#}"));
            }
        }
    }
    Ok(())
}

fn name_of(peer: &Path) -> String {
    peer.file_name().map_or_else(|| peer.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn beside(table: &mut Table, stage: &Stage<'_>, peer: &Path, work: &Path, threads: u32) -> Result<()> {
    let mut theirs = Spinner::start_to_measure(&work.join("victim"), threads, 0)?;
    let their_pid = theirs.pid().to_string();
    let mut ours = Spinner::start_to_measure(stage.program, threads, 0)?;
    let our_pid = ours.pid().to_string();
    let [mut idle, mut them_apply, mut them_revert, mut us_apply, mut us_revert] = [const { Vec::new() }; 5];
    let of_them = |what: &str| call(peer, what, &[their_pid.as_ref(), work.as_os_str()]);
    for _ in 0..stage.runs {
        idle.push(ours.gap(|| Ok(()))?);
        them_apply.push(theirs.gap(|| of_them("apply"))?);
        theirs.wait_for_answer(true).context("it says that it applied")?;
        us_apply.push(ours.gap(|| stage.apply(&our_pid).map(drop))?);
        ours.wait_for_answer(true)?;
        them_revert.push(theirs.gap(|| of_them("revert"))?);
        theirs.wait_for_answer(false).context("it says that it reverted")?;
        us_revert.push(ours.gap(|| stage.revert(&our_pid))?);
        ours.wait_for_answer(false)?;
    }
    theirs.must_run()?;
    ours.must_run()?;
    let peer = name_of(peer);
    let rows = format!("{threads} thread{}", if threads == 1 { "" } else { "s" });
    table.add(format!("{rows}: idle, longest gap"), Unit::Microseconds, idle);
    for (what, theirs, ours) in [("apply", them_apply, us_apply), ("revert", them_revert, us_revert)] {
        let floor = table.add(format!("{rows}: {peer} {what}, longest gap"), Unit::Microseconds, theirs);
        let row = table.add(format!("{rows}: salve {what}, longest gap"), Unit::Microseconds, ours);
        table.against(row, floor, None);
    }
    Ok(())
}

fn call(peer: &Path, what: &str, arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let program = peer.join(what);
    ensure!(program.is_file(), "there is no {}", program.display());
    let output =
        Command::new(&program).args(arguments).output().with_context(|| format!("cannot run {}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{what} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
}
