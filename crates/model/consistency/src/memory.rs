//! Memory that was asked for and handed over, for the unwinder.

use salve_elf::RuntimeAddr;
use std::collections::BTreeMap;

/// Bytes asked for at once: a cache line's worth holds a small frame.
pub(crate) const LINE_BYTES: u64 = 64;

/// A word that is not here yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) RuntimeAddr);

#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    lines: BTreeMap<u64, Vec<u8>>,
}

impl Memory {
    /// Eight bytes, little endian. They may lie across two lines.
    pub(crate) fn word(&self, at: u64) -> Result<u64, Missing> {
        let mut word = [0_u8; 8];
        for (offset, byte) in (0_u64..).zip(word.iter_mut()) {
            let address = at.wrapping_add(offset);
            let start = address & !LINE_BYTES.wrapping_sub(1);
            let index = usize::try_from(address.wrapping_sub(start)).unwrap_or(usize::MAX);
            let line = self.lines.get(&start).ok_or(Missing(RuntimeAddr::new(start)))?;
            *byte = *line.get(index).ok_or(Missing(RuntimeAddr::new(start)))?;
        }
        Ok(u64::from_le_bytes(word))
    }

    pub(crate) fn insert(&mut self, start: RuntimeAddr, bytes: &[u8]) {
        self.lines.insert(start.raw(), bytes.to_vec());
    }
}
