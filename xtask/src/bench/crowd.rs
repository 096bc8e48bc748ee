//! Many processes of one program, changed by one command.

use super::table::{Table, Unit};
use anyhow::{Result, ensure};
use salve_testkit::behaviour::{Asked, Behaviour};
use salve_testkit::salve::{Salve, exit, texts};
use std::ffi::OsStr;
use std::process::Command;
use std::time::Instant;

const CROWD: usize = 500;
/// Each starts and ends nothing, so a few tell enough.
const MOST_RUNS: u32 = 3;

pub(super) fn measure(table: &mut Table, salve: &Salve, runs: u32) -> Result<()> {
    let prepared = Behaviour::named("one_function")?.prepare(salve)?;
    let start = |_| Asked::start(&mut Command::new(prepared.program()));
    let crowd: Vec<Asked> = (0..CROWD).map(start).collect::<Result<_>>()?;
    let words = ["apply", "--all", "--wait", "30s", "--accept", "direction-unknown"];
    let words: Vec<&OsStr> = words.iter().map(AsRef::as_ref).chain([prepared.derived.file.as_os_str()]).collect();
    let apply = |outcome: &str| -> Result<f64> {
        let began = Instant::now();
        let report = salve.json(&words)?.expect_code(exit::DONE)?.report()?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        let so = texts(&report, "outcome").iter().filter(|one| **one == outcome).count();
        ensure!(so == CROWD, "{so} of {CROWD} processes are {outcome}");
        Ok(took)
    };
    let (mut applies, mut again, mut reverts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs.min(MOST_RUNS) {
        applies.push(apply("applied")?);
        again.push(apply("already-applied")?);
        let began = Instant::now();
        salve.json(&["revert", "--all", "--wait", "30s"])?.expect_code(exit::DONE)?;
        reverts.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let floor = table.add(format!("{CROWD} processes: salve apply, nothing to do"), Unit::Milliseconds, again);
    let row = table.add(format!("{CROWD} processes: salve apply"), Unit::Milliseconds, applies);
    table.against(row, floor, Some("2000 ms"));
    let row = table.add(format!("{CROWD} processes: salve revert"), Unit::Milliseconds, reverts);
    table.against(row, floor, None);
    crowd.into_iter().try_for_each(Asked::end)
}
