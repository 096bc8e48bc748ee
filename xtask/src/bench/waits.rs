//! How much longer a call sleeps whose timeout the kernel does not carry over a stop.
//!
//! Salve begins such a call anew as soon as its thread stands (decision 0010), with the
//! whole timeout: it ends later by what had passed before the last stop. Each call is
//! measured untouched, and with an apply that begins a part of the timeout into it; `poll`,
//! whose timeout the kernel carries over, stands beside them.

use super::table::{Table, Unit};
use anyhow::{Context as _, Result, ensure};
use salve_testkit::running::Running;
use salve_testkit::salve::{Salve, exit};
use salve_testkit::victim::Source;
use salve_testkit::{patchfile, tools, tree};
use std::process::Command;
use std::time::Duration;

const TIMEOUT_MS: u32 = 400;
const CALLS: [&str; 4] = ["poll", "epoll_wait", "sigtimedwait", "semtimedop"];

pub(crate) fn measure(table: &mut Table, runs: u32) -> Result<()> {
    if !tools::is_root() {
        table.note("the waits are not measured: that needs root");
        return Ok(());
    }
    let scratch = tree::scratch("waits")?;
    let salve = Salve::built()?.events_to(&scratch.path().join("events.jsonl"));
    let [old, new] = Source::named("waits.c")?.programs(scratch.path(), &[])?;
    let derived = patchfile::derive(&salve, &old, &new)?;
    let file = derived.file.display().to_string();
    for call in CALLS {
        let mut victim = Running::start(
            Command::new(&old).args([call, &TIMEOUT_MS.to_string()]),
            scratch.path().join(format!("{call}.out")),
        )?;
        victim.wait_for_line("ready")?;
        let pid = victim.pid().to_string();
        let salve = |words: &[&str]| -> Result<()> {
            let words = [words, &["--pid", &pid]].concat();
            salve.json(&words)?.expect_code(exit::DONE).map(drop)
        };
        // The first wait is over when the second one begins.
        let mut waits = Waits { victim: &mut victim, read: 0 };
        waits.next()?;
        let untouched = (0..runs).map(|_| waits.next()).collect::<Result<Vec<_>>>()?;
        let floor = table.add(format!("{call} of {TIMEOUT_MS} ms: untouched"), Unit::Milliseconds, untouched);
        for part in [1, 2, 3] {
            let into = TIMEOUT_MS * part / 4;
            let mut values = Vec::new();
            for _ in 0..runs {
                waits.next()?;
                std::thread::sleep(Duration::from_millis(into.into()));
                salve(&["apply", "--accept", "direction-unknown", &file])?;
                values.push(waits.next()?);
                salve(&["revert"])?;
                waits.next()?;
            }
            let row = table.add(format!("the same: an apply begun {into} ms into it"), Unit::Milliseconds, values);
            table.against(row, floor, None);
        }
    }
    Ok(())
}

/// What a victim says of its waits, one after the other.
struct Waits<'v> {
    victim: &'v mut Running,
    read: usize,
}

impl Waits<'_> {
    fn next(&mut self) -> Result<f64> {
        let read = self.read;
        let line = self.victim.wait_for("the end of a wait", |victim| {
            let output = victim.output().ok()?;
            let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
            whole.lines().filter(|line| line.starts_with("waited ")).nth(read).map(str::to_owned)
        })?;
        self.read += 1;
        let mut words = line.split_whitespace().skip(1);
        let waited = words.next().and_then(|word| word.parse().ok());
        ensure!(line.contains(" got 0 "), "a wait ended otherwise than by its timeout: {line}");
        waited.with_context(|| format!("no time: {line}"))
    }
}
