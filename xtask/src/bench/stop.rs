//! The longest stop of a process, as one of its own threads sees it.
//!
//! The victim has a thread that never sleeps and notes the longest time that it
//! did not run. Four things are done to it, in turn: nothing (the machine's
//! noise), a stop of all threads by the smallest tracer there can be (the
//! floor), `salve apply`, `salve revert`.

use super::table::{Table, Unit};
use anyhow::{Context as _, Result, ensure};
use salve_testkit::salve::{Salve, exit, values};
use salve_testkit::spinner::{Programs, Spinner};
use salve_testkit::{patchfile, tools, tree};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

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
    let name = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    let (mut idle, mut stops, mut applies, mut reverts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut floor_tracer, mut apply_tracer) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        idle.push(victim.gap(|| Ok(()))?);
        stops.push(victim.gap(|| {
            floor_tracer.push(smallest_tracer(floor, &pid)?);
            Ok(())
        })?);
        let apply = ["apply", "--pid", &pid, "--accept", "direction-unknown"];
        let apply: Vec<&OsStr> = apply.iter().map(AsRef::as_ref).chain([patch.as_os_str()]).collect();
        let applied = victim.gap(|| {
            let report = salve.json(&apply)?.expect_code(exit::DONE)?.report()?;
            let stop = values(&report, "longest_stop_ns").into_iter().find_map(Value::as_u64);
            apply_tracer.push(micros(stop.context("no stop in the report")?));
            Ok(())
        });
        match applied {
            Ok(gap) => applies.push(gap),
            Err(error) => {
                table.note(format!("{name}: salve apply is not measured: {error:#}"));
                break;
            }
        }
        reverts.push(victim.gap(|| salve.json(&["revert", "--pid", &pid])?.expect_code(exit::DONE).map(drop))?);
    }
    victim.must_run()?;
    table.add(format!("{name}: noise, longest gap untouched"), Unit::Microseconds, idle);
    let floor = table.add(format!("{name}: floor, stop and read all threads"), Unit::Microseconds, stops);
    let row = table.add(format!("{name}: longest gap during salve apply"), Unit::Microseconds, applies);
    table.against(row, floor, Some("≤ 2 × floor"));
    let row = table.add(format!("{name}: longest gap during salve revert"), Unit::Microseconds, reverts);
    table.against(row, floor, None);
    let floor = table.add(format!("{name}: the floor's stop, as its tracer saw it"), Unit::Microseconds, floor_tracer);
    let row = table.add(format!("{name}: salve's stop, as its tracer saw it"), Unit::Microseconds, apply_tracer);
    table.against(row, floor, Some("≤ 2 × floor"));
    Ok(())
}

/// Stops all threads once; gives the stop in µs as the tracer saw it.
fn smallest_tracer(program: &Path, pid: &str) -> Result<f64> {
    let output = Command::new(program).args([pid, "1", "0"]).output().context("cannot run the tracer")?;
    ensure!(output.status.success(), "the smallest tracer failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(micros(text.trim().parse().context("the smallest tracer printed no number")?))
}

fn micros(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64() * 1e6
}
