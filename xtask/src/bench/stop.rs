//! The longest stop of a process, as one of its own threads sees it.
//!
//! The victim has a thread that never sleeps and notes the longest time that it
//! did not run. Four things are done to it, in turn: nothing (the machine's
//! noise), a stop of all threads by the smallest tracer there can be (the
//! floor), `salve apply`, `salve revert`.

use super::table::{Table, Unit};
use anyhow::{Context as _, Result};
use salve_testkit::running::Running;
use salve_testkit::salve::Salve;
use salve_testkit::victim::{Kind, Source};
use salve_testkit::{patchfile, tools, tree};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
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
    let source = Source::named("spin.c")?;
    let (old, new) = (scratch.path().join("spin"), scratch.path().join("spin-new"));
    source.compile(Kind::Program, false, &old, &[])?;
    source.compile(Kind::Program, true, &new, &[])?;
    let salve = Salve::built()?.events_to(&scratch.path().join("events.jsonl"));
    let derived = patchfile::derive(&salve, &old, &new)?;
    for threads in [1, 10] {
        one_size(table, runs, threads, &old, &floor, &salve, &derived.file)?;
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
    let pid = victim.process.pid().to_string();
    let (mut idle, mut stops, mut applies, mut reverts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        idle.push(victim.gap(|| Ok(()))?);
        stops.push(victim.gap(|| {
            let done = Command::new(floor).args([&pid, "1", "0"]).status().context("cannot run the tracer")?;
            anyhow::ensure!(done.success(), "the smallest tracer failed");
            Ok(())
        })?);
        let apply = [Path::new("apply"), patch, Path::new("--pid"), Path::new(&pid)];
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
    victim.process.must_run()?;
    let name = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    table.add(format!("{name}: noise, longest gap untouched"), Unit::Microseconds, idle);
    let floor = table.add(format!("{name}: floor, stop and read all threads"), Unit::Microseconds, stops);
    let row = table.add(format!("{name}: longest gap during salve apply"), Unit::Microseconds, applies);
    table.against(row, floor, Some("≤ 2 × floor"));
    let row = table.add(format!("{name}: longest gap during salve revert"), Unit::Microseconds, reverts);
    table.against(row, floor, None);
    Ok(())
}

/// `victims/spin.c`, running.
struct Spinner {
    process: Running,
    /// u64 longest gap in ns, u64 reset request, u64 answer.
    shared: File,
    resets: u64,
    _directory: tempfile::TempDir,
}

impl Spinner {
    fn start(program: &Path, threads: u32) -> Result<Self> {
        let directory = tree::scratch("spin")?;
        let path = directory.path().join("shared");
        std::fs::write(&path, vec![0; 4096]).context("cannot write the shared file")?;
        let shared = File::options().read(true).write(true).open(&path).context("cannot open the shared file")?;
        let mut command = Command::new(program);
        command.arg(&path).arg(threads.to_string());
        let mut process = Running::start(&mut command, directory.path().join("output"))?;
        process.wait_for_line("ready")?;
        Ok(Self { process, shared, resets: 0, _directory: directory })
    }

    /// The longest gap, in µs, around `act`.
    fn gap(&mut self, act: impl FnOnce() -> Result<()>) -> Result<f64> {
        self.resets += 1;
        self.shared.write_all_at(&self.resets.to_ne_bytes(), 8).context("cannot ask for a reset")?;
        std::thread::sleep(Duration::from_millis(20));
        act()?;
        std::thread::sleep(Duration::from_millis(20));
        let mut gap = [0; 8];
        self.shared.read_exact_at(&mut gap, 0).context("cannot read the gap")?;
        let ns = u64::from_ne_bytes(gap);
        Ok(Duration::from_nanos(ns).as_secs_f64() * 1e6)
    }
}
