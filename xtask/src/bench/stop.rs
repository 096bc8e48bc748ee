//! The longest stop of a process, as one of its own threads sees it.
//!
//! The victim has a thread that never sleeps and notes the longest time that it
//! did not run. Four things are done to it, in turn: nothing (the machine's
//! noise), a stop of all threads by the smallest tracer there can be (the
//! floor), `salve apply`, `salve revert`.

use super::table::{Table, Unit};
use anyhow::{Context as _, Result};
use salve_testkit::salve::Salve;
use salve_testkit::spinner::{Programs, Spinner};
use salve_testkit::{patchfile, tools, tree};
use std::path::Path;
use std::process::Command;

pub(crate) fn measure(table: &mut Table, runs: u32) -> Result<()> {
    if !tools::is_root() {
        table.note("the stops are not measured: that needs root");
        return Ok(());
    }
    let scratch = tree::scratch("bench")?;
    let floor = tools::compile("floor.c", scratch.path())?;
    let programs = Programs::compile(&[])?;
    let salve = Salve::built()?.events_to(&scratch.path().join("events.jsonl"));
    let derived = patchfile::derive(&salve, &programs.old, &programs.new)?;
    for threads in [1, 10] {
        one_size(table, runs, threads, &programs.old, &floor, &salve, &derived.file)?;
    }
    Ok(())
}

fn one_size(
    table: &mut Table,
    runs: u32,
    threads: u32,
    program: &Path,
    floor: &Path,
    salve: &Salve,
    patch: &Path,
) -> Result<()> {
    let mut victim = Spinner::start(program, threads)?;
    let pid = victim.pid().to_string();
    let (mut idle, mut stops, mut applies, mut reverts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        idle.push(victim.gap(|| Ok(()))?);
        stops.push(victim.gap(|| {
            let done = Command::new(floor).args([&pid, "1", "0"]).status().context("cannot run the tracer")?;
            anyhow::ensure!(done.success(), "the smallest tracer failed");
            Ok(())
        })?);
        let apply = [
            Path::new("apply"),
            patch,
            Path::new("--pid"),
            Path::new(&pid),
            Path::new("--accept"),
            Path::new("direction-unknown"),
        ];
        let applied = victim.gap(|| salve.json(&apply)?.expect_code(0).map(drop));
        match applied {
            Ok(gap) => applies.push(gap),
            Err(error) => {
                table.note(format!("{threads} threads: salve apply is not measured: {error:#}"));
                break;
            }
        }
        reverts.push(victim.gap(|| salve.json(&["revert", "--pid", &pid])?.expect_code(0).map(drop))?);
    }
    victim.must_run()?;
    let name = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    table.add(format!("{name}: noise, longest gap untouched"), Unit::Microseconds, idle);
    let floor = table.add(format!("{name}: floor, stop and read all threads"), Unit::Microseconds, stops);
    let row = table.add(format!("{name}: longest gap during salve apply"), Unit::Microseconds, applies);
    table.against(row, floor, Some("≤ 2 × floor"));
    let row = table.add(format!("{name}: longest gap during salve revert"), Unit::Microseconds, reverts);
    table.against(row, floor, None);
    Ok(())
}
