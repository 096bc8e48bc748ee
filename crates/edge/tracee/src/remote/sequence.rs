//! Restartable sequences (`rseq(2)`): who is stopped inside of one begins it anew.

use crate::memory::Memory;
use crate::{Errno, sys};
use salve_elf::RuntimeAddr;

/// Where a thread begins anew if it is inside a restartable sequence, as `struct rseq` and
/// `struct rseq_cs` of `include/uapi/linux/rseq.h` tell.
pub(crate) fn restart_of(memory: &Memory, tid: i32, rip: u64) -> Result<Option<u64>, Errno> {
    let Some(configuration) = sys::rseq(tid)?.filter(|known| known.pointer != 0) else { return Ok(None) };
    let at = |base: u64, offset: u64| RuntimeAddr::new(base.wrapping_add(offset));
    let sequence = memory.word(at(configuration.pointer, 8))?;
    if sequence == 0 {
        return Ok(None);
    }
    let start = memory.word(at(sequence, 8))?;
    let len = memory.word(at(sequence, 16))?;
    if rip.wrapping_sub(start) < len { memory.word(at(sequence, 24)).map(Some) } else { Ok(None) }
}
