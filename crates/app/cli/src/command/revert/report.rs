//! What the command says.

use super::reversion::Reversion;
use crate::carry::{blocker_lines, with_others};
use crate::console::Report;
use crate::exit::Exit;
use crate::problem::one_line;
use crate::view::{duration_for_people, not_looked_at_line};
use core::time::Duration;
use serde::Serialize;
use std::io::{self, Write};

#[derive(Serialize)]
pub(crate) struct RevertReport {
    pub(super) dry_run: bool,
    pub(super) processes: Vec<Reversion>,
    /// Somebody else's, which may carry livepatches.
    pub(super) not_looked_at: u64,
}

impl Report for RevertReport {
    fn exit(&self) -> Exit {
        self.processes.iter().fold(Exit::Done, |exit, end| exit.and(end.outcome.exit()))
    }

    fn human(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        if self.processes.is_empty() {
            writeln!(out, "no process carries a livepatch")?;
        }
        for end in &self.processes {
            write!(out, "pid {} {}: {}", end.process.pid, one_line(&end.process.program), end.outcome.words())?;
            if let Some(stopped) = end.longest_stop_ns {
                write!(out, " (stopped {})", duration_for_people(Duration::from_nanos(stopped)))?;
            }
            write!(out, "{}", with_others(end.process.pid, &end.group))?;
            if let (Some(why), Some(code)) = (&end.why, &end.code) {
                write!(out, "; {} [{code}]", one_line(why))?;
            }
            writeln!(out)?;
            if end.payload_kept == Some(true) {
                writeln!(out, "  the payload stays mapped, because an address of its data may have escaped")?;
            }
            blocker_lines(end.process.pid, &end.blocking, "  ", out)?;
            if verbose || self.dry_run {
                end.livepatches.iter().try_for_each(|id| writeln!(out, "  {id}"))?;
            }
        }
        not_looked_at_line(self.not_looked_at, out)
    }
}
