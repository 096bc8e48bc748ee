//! The longest stop of a process, as one of its own threads sees it.
//!
//! The victim has a thread that never sleeps and notes the longest time that it
//! did not run. Four things are done to it, in turn: nothing (the machine's
//! noise), a stop of all threads by the smallest tracer there can be (the
//! floor), `salve apply`, `salve revert`. With 1 to 1,000 threads, which have shallow
//! stacks or a hundred frames each.

use super::table::{Table, Unit};
use anyhow::{Context as _, Result, ensure};
use salve_testkit::salve::{Salve, exit, values};
use salve_testkit::spinner::{Programs, Spinner};
use salve_testkit::{patchfile, steps, tools, tree};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Threads, frames, and the target for the tracer's stop in µs where there is one.
const SIZES: [(u32, u32, Option<&str>); 8] = [
    (1, 0, Some("≤ 1.5 × floor, 150 µs")),
    (1, 100, None),
    (10, 0, Some("≤ 1.5 × floor, 300 µs")),
    (10, 100, None),
    (100, 0, Some("≤ 1.5 × floor, 1000 µs")),
    (100, 100, None),
    (1000, 0, None),
    (1000, 100, None),
];

/// A victim, its patch, and what is done to it.
pub(super) struct Stage<'a> {
    pub(super) program: &'a Path,
    newer: &'a Path,
    floor: &'a Path,
    salve: &'a Salve,
    patch: &'a Path,
    pub(super) runs: u32,
}

pub(crate) fn measure(table: &mut Table, runs: u32) -> Result<()> {
    on_stage(table, runs, |table, stage| {
        if let Err(error) = stage.call(table) {
            table.note(format!("what a call of a changed function costs: not measured: {error:#}"));
        }
        for (threads, frames, target) in SIZES {
            if let Err(error) = stage.one_size(table, threads, frames, target) {
                table.note(format!("{threads} threads, {frames} frames: not measured: {error:#}"));
            }
        }
        if let Err(error) = super::crowd::measure(table, stage.salve, stage.runs) {
            table.note(format!("a crowd: not measured: {error:#}"));
        }
        Ok(())
    })
}

/// Compiles and derives what is measured with.
pub(super) fn on_stage(
    table: &mut Table,
    runs: u32,
    act: impl FnOnce(&mut Table, &Stage<'_>) -> Result<()>,
) -> Result<()> {
    if !tools::is_root() {
        table.note("the stops are not measured: that needs root");
        return Ok(());
    }
    let scratch = tree::scratch("bench")?;
    let floor = tools::compile("floor.c", scratch.path())?;
    let programs = Programs::compile(&[])?;
    let salve = Salve::built()?.events_to(&scratch.path().join("events.jsonl"));
    let derived = patchfile::derive(&salve, &programs.old, &programs.new)?;
    let Programs { old: program, new: newer, .. } = &programs;
    act(table, &Stage { program, newer, floor: &floor, salve: &salve, patch: &derived.file, runs })
}

impl Stage<'_> {
    /// What the new program executes for one call of the changed function, and what the old one
    /// does with the livepatch in it.
    fn call(&self, table: &mut Table) -> Result<()> {
        let count = |victim: &Spinner, program: &Path| steps::of_call(victim.pid(), program, "answer").map(f64::from);
        let newer = count(&Spinner::start(self.newer, 1)?, self.newer)?;
        let mut victim = Spinner::start(self.program, 1)?;
        self.apply(&victim.pid().to_string())?;
        victim.wait_for_answer(true)?;
        let patched = count(&victim, self.program)?;
        let floor = table.add("a call of the changed function: the new program", Unit::Steps, vec![newer]);
        let row = table.add("a call of the changed function: the old one, patched", Unit::Steps, vec![patched]);
        table.against(row, floor, Some("the old entry's endbr64 and one jump more"));
        Ok(())
    }

    fn one_size(&self, table: &mut Table, threads: u32, frames: u32, target: Option<&'static str>) -> Result<()> {
        let mut victim = Spinner::start_to_measure(self.program, threads, frames)?;
        let pid = victim.pid().to_string();
        let stacks = if frames == 0 { String::new() } else { format!(", {frames} frames") };
        let name = format!("{threads} thread{}{stacks}", if threads == 1 { "" } else { "s" });
        let (mut idle, mut stops, mut applies, mut reverts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut floor_tracer, mut apply_tracer, mut wall) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.runs {
            idle.push(victim.gap(|| Ok(()))?);
            stops.push(victim.gap(|| {
                floor_tracer.push(smallest_tracer(self.floor, &pid)?);
                Ok(())
            })?);
            applies.push(victim.gap(|| {
                let start = Instant::now();
                apply_tracer.push(self.apply(&pid)?);
                wall.push(start.elapsed().as_secs_f64() * 1e3);
                Ok(())
            })?);
            reverts.push(victim.gap(|| self.revert(&pid))?);
        }
        victim.must_run()?;
        table.add(format!("{name}: idle, longest gap"), Unit::Microseconds, idle);
        let floor = table.add(format!("{name}: floor, longest gap"), Unit::Microseconds, stops);
        let row = table.add(format!("{name}: salve apply, longest gap"), Unit::Microseconds, applies);
        table.against(row, floor, Some("≤ 2 × floor"));
        let row = table.add(format!("{name}: salve revert, longest gap"), Unit::Microseconds, reverts);
        table.against(row, floor, Some("≤ 2 × floor"));
        let floor = table.add(format!("{name}: floor, its tracer's stop"), Unit::Microseconds, floor_tracer);
        let row = table.add(format!("{name}: salve, its tracer's stop"), Unit::Microseconds, apply_tracer);
        table.against(row, floor, target);
        table.add(format!("{name}: salve apply, wall time"), Unit::Milliseconds, wall);
        Ok(())
    }

    /// Applies; gives the longest stop in µs as the tracer saw it.
    pub(super) fn apply(&self, pid: &str) -> Result<f64> {
        let apply = ["apply", "--pid", pid, "--wait", "30s", "--accept", "direction-unknown"];
        let apply: Vec<&OsStr> = apply.iter().map(AsRef::as_ref).chain([self.patch.as_os_str()]).collect();
        let report = self.salve.json(&apply)?.expect_code(exit::DONE)?.report()?;
        let stop = values(&report, "longest_stop_ns").into_iter().find_map(Value::as_u64);
        Ok(micros(stop.context("no stop in the report")?))
    }

    pub(super) fn revert(&self, pid: &str) -> Result<()> {
        self.salve.json(&["revert", "--pid", pid, "--wait", "30s"])?.expect_code(exit::DONE).map(drop)
    }
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
