//! A process, and what is to be taken out of it.

use super::wanted::{Wanted, in_force};
use crate::event::ProcessRef;
use crate::machine::processes::{self, Processes};
use crate::problem::Problem;
use salve_patch::LivepatchId;
use salve_tracee::{OpenError, Process, ProcessId, ReadError, Selection, Tie};
use std::collections::BTreeSet;

pub(super) struct Carrier {
    pub(super) id: ProcessId,
    pub(super) name: ProcessRef,
    pub(super) ties: BTreeSet<Tie>,
    pub(super) selection: Selection,
    /// What would be taken out.
    pub(super) carried: Vec<LivepatchId>,
    /// What it carries besides.
    pub(super) others: Vec<LivepatchId>,
    /// What a Salve that was killed left is taken away in passing.
    pub(super) untidy: bool,
}

impl Carrier {
    pub(super) fn has_something(&self) -> bool {
        self.untidy || self.selection != Selection::These(Vec::new())
    }
}

/// One of many, which may be gone, or somebody else's.
pub(super) fn look_at_any(
    processes: &Processes,
    pid: i32,
    wanted: &Wanted,
) -> Result<Result<Carrier, ReadError>, Problem> {
    match Process::open(pid) {
        Ok(process) => look(processes, &process, wanted),
        Err(OpenError::NoSuchProcess | OpenError::Zombie | OpenError::KernelThread) => Ok(Err(ReadError::Exited)),
        Err(OpenError::NoPermission) => Ok(Err(ReadError::NoPermission { what: "process" })),
        Err(OpenError::Read(error)) => Ok(Err(error)),
    }
}

pub(super) fn look(
    processes: &Processes,
    process: &Process,
    wanted: &Wanted,
) -> Result<Result<Carrier, ReadError>, Problem> {
    let read = || Ok((processes.patcher.status(process)?, processes.facts(process)?, processes.ties(process)?));
    let (status, facts, ties) = match read() {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    let (name, untidy) = (processes::name(&facts), status.has_leftovers());
    let selection = wanted.among(&status, untidy)?;
    let others = match &selection {
        Selection::All => Vec::new(),
        Selection::These(ids) => in_force(&status).filter(|id| !ids.contains(id)).collect(),
    };
    let carried = in_force(&status).filter(|id| selection.contains(*id)).collect();
    Ok(Ok(Carrier { id: process.id(), name, ties, selection, carried, others, untidy }))
}
