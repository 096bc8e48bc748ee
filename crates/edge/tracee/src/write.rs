//! The writes of a transition: each read back, all or none.

use crate::Errno;
use crate::maps::Mapping;
use crate::memory::Memory;
use crate::outcome::{Lost, NotApplied, WriteFault};
use crate::transition::Blocked;
use salve_elf::{RuntimeAddr, Va};

pub(crate) const JUMP_BYTES: usize = 5;

/// One write of a transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) at: RuntimeAddr,
    pub(crate) expected: [u8; JUMP_BYTES],
    pub(crate) new: [u8; JUMP_BYTES],
    /// For a reader.
    pub(crate) path: String,
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
    let mut found = [0; JUMP_BYTES];
    let same = memory.read_exact(write.at, &mut found).is_ok() && found == write.new;
    (!same).then_some(WriteFault::ReadBack { at: write.at })
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
        let mut found = [0; JUMP_BYTES];
        let lost = |errno| Act::Lost(Lost::UndoFailed { at: write.at, errno });
        memory.read_exact(write.at, &mut found).map_err(lost)?;
        if found == write.expected {
            continue;
        }
        memory.write(write.at, &write.expected).map_err(lost)?;
        memory.read_exact(write.at, &mut found).map_err(lost)?;
        if found != write.expected {
            return Err(lost(Errno::EIO));
        }
    }
    Ok(())
}
