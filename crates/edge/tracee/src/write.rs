//! The writes of a transition: each read back, all or none.

use crate::Errno;
use crate::maps::Mapping;
use crate::memory::Memory;
use crate::outcome::{Lost, NotApplied, WriteFault};
use crate::spot::Bytes;
use crate::transition::Blocked;
use salve_elf::{RuntimeAddr, Va};

/// One write of a transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) at: RuntimeAddr,
    pub(crate) expected: Bytes,
    /// As many as are expected.
    pub(crate) new: Bytes,
    /// For a reader.
    pub(crate) path: String,
    /// The function of a detour, or what else is written to.
    pub(crate) function: String,
    pub(crate) va: Va,
    /// The mapping that has to be there still.
    pub(crate) mapping: Mapping,
}

pub(crate) enum Act {
    Blocked(Vec<Blocked>),
    Not(NotApplied),
    RolledBack(WriteFault),
    Lost(Lost),
}

/// One write, read back.
fn put(memory: &Memory, write: &Write) -> Option<WriteFault> {
    if let Err(errno) = memory.write(write.at, &write.new) {
        return Some(WriteFault::Write { at: write.at, errno });
    }
    let found = write.new.now(|into| memory.read_exact(write.at, into).is_ok());
    (found != Some(write.new)).then_some(WriteFault::ReadBack { at: write.at })
}

/// All writes, each read back; or none.
pub(crate) fn write(memory: &Memory, writes: &[Write]) -> Result<(), Act> {
    for (index, write) in writes.iter().enumerate() {
        let fault = put(memory, write);
        if let Some(fault) = fault {
            undo(memory, writes.get(..=index).unwrap_or(writes))?;
            let forbidden =
                matches!(fault, WriteFault::Write { errno: Errno(libc::EIO | libc::EPERM | libc::EACCES), .. });
            // The very first write failing is how a hardened kernel says no: nothing was changed.
            return Err(if forbidden && index == 0 {
                Act::Not(NotApplied::TextWriteForbidden)
            } else {
                Act::RolledBack(fault)
            });
        }
    }
    Ok(())
}

pub(crate) fn undo(memory: &Memory, writes: &[Write]) -> Result<(), Act> {
    for write in writes.iter().rev() {
        let lost = |errno| Act::Lost(Lost::UndoFailed { at: write.at, errno });
        let read = || write.expected.now(|into| memory.read_exact(write.at, into).is_ok());
        if read().ok_or_else(|| lost(Errno::EIO))? == write.expected {
            continue;
        }
        memory.write(write.at, &write.expected).map_err(lost)?;
        if read() != Some(write.expected) {
            return Err(lost(Errno::EIO));
        }
    }
    Ok(())
}
