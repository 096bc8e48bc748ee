//! Who runs code that is older than what is installed, and why it is so still.
//!
//! Found as `salve heal` finds it, without deriving anything: processes are
//! compared with the disk, the direction is proven from the package database.
//! What was tried last is read from the log of events.

#[cfg(test)]
mod example;
mod exposed;
mod not_installed;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use example::{example, process};
pub(crate) use exposed::Exposed;
#[cfg(test)]
pub(crate) use exposed::Waiting;

use crate::event::{History, ProcessRef};
use crate::heal::Left;
use crate::machine::debian::{self, Debian};
use crate::machine::processes::Processes;
use crate::problem::{Problem, one_line};
use crate::view::{SHOWN, programs};
use not_installed::NotInstalled;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{self, Write};

/// What is known of it, or why nothing is.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Exposure {
    pub(crate) exposed: Vec<Exposed>,
    /// Found, and not to be judged or treated.
    pub(crate) left: Vec<Left>,
    pub(crate) unknown: Option<String>,
    /// What the archive has for it that is not installed.
    pub(crate) not_installed: NotInstalled,
}

impl Exposure {
    /// Of all processes, or of those named.
    pub(crate) fn of(processes: &Processes, named: &[u32], history: &History) -> Self {
        let found = || -> Result<Self, Problem> {
            let root = debian::root()?;
            let packages = Debian::read(&root)?;
            let (seen, _) = processes.survey(named)?;
            let (exposed, left) = exposed::find(&seen, processes, &packages, history)?;
            Ok(Self { exposed, left, unknown: None, not_installed: NotInstalled::among(&seen, &packages) })
        };
        found().unwrap_or_else(|problem| Self { unknown: Some(problem.report().message), ..Self::default() })
    }

    /// Processes that run something old, each once.
    pub(crate) fn count(&self) -> usize {
        self.exposed.iter().flat_map(|one| &one.processes).map(|one| &one.process).collect::<BTreeSet<_>>().len()
    }

    pub(crate) fn lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        if let Some(why) = &self.unknown {
            return writeln!(out, "what is exposed is not known: {}", one_line(why));
        }
        if self.exposed.is_empty() && self.left.is_empty() {
            writeln!(out, "exposed: nothing; no process that was looked at runs older code than the disk has")?;
        }
        for one in &self.exposed {
            one.lines(out, verbose)?;
        }
        left_lines(&self.left, out, verbose)?;
        self.not_installed.lines(out, verbose)
    }
}

/// `1 process runs`, `7 processes run`.
fn so_many_run(count: usize) -> String {
    format!("{count} {}", if count == 1 { "process runs" } else { "processes run" })
}

fn left_lines(left: &[Left], out: &mut dyn Write, verbose: bool) -> io::Result<()> {
    for ((code, why), what) in Left::by_reason(left) {
        writeln!(out, "not to be healed from disk: {} [{}]", one_line(why), one_line(code))?;
        let paths: BTreeSet<&str> = what.iter().filter_map(|left| left.path.as_deref()).collect();
        for path in paths.iter().take(if verbose { usize::MAX } else { SHOWN }) {
            writeln!(out, "  {}", one_line(path))?;
        }
        let processes: BTreeSet<&ProcessRef> = what.iter().filter_map(|left| left.process.as_ref()).collect();
        programs(&processes.into_iter().collect::<Vec<_>>(), out, verbose)?;
    }
    Ok(())
}
