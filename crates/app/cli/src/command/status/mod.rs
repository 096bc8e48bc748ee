//! `salve status [PID]`: what processes carry, read from the processes, and which run code that is older than the disk.
//!
//! A host is shown by update and by livepatch, one process alone in full.

mod carried;
#[cfg(test)]
mod example;
mod look;
mod process;
mod report;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use example::example;
pub(crate) use report::StatusReport;

use super::windows::{self, Window};
use crate::args::{Global, Status};
use crate::console::Console;
use crate::event::{History, log_path};
use crate::host;
use crate::machine::debian::{self, Debian};
use crate::machine::packages::PackageFacts;
use crate::problem::Problem;
use crate::view::page;

pub(crate) fn run(args: &Status, global: &Global, console: Console) -> Result<StatusReport, Problem> {
    let euid = rustix::process::geteuid().as_raw();
    let history = History::read(log_path(global.events.as_deref(), euid).as_deref(), host::boot_id().as_deref());
    let report = look::look(args.process.pid(), &history, console)?;
    if let Some(file) = &args.html {
        page::write(file, &report, &history, &windows(&report, &history))?;
    }
    Ok(report)
}

/// A machine whose packages cannot be read has windows all the same: from the log.
fn windows(report: &StatusReport, history: &History) -> Vec<Window> {
    let root = debian::root().ok();
    let packages = root.as_ref().and_then(|root| Debian::read(root).ok());
    let packages = packages.as_ref().map(|packages| packages as &dyn PackageFacts);
    let now = jiff::Timestamp::now().as_second();
    windows::find(report, history, packages, host::boot_id().as_deref(), now)
}
