//! Call frame information of the payload, for debuggers.
//!
//! Nothing of it is loaded or acted on: Salve itself never unwinds by it. It is written
//! into the patch file, and so into the file that a process maps, as a section
//! `.debug_frame` (DWARF 5 §6.4.1), which debuggers and profilers read by themselves.
//! `.debug_frame` and not `.eh_frame`: it is not part of any segment, states plain
//! addresses, and has no handlers for exceptions, of which a copy would mean something.

use crate::check::contains;
use crate::{Access, Fault, Segment, layout};
use salve_elf::{Va, VaRange};
use serde::{Deserialize, Serialize};

/// Instructions of one entry are not longer, nor of use if they were.
const MAX_INSTRUCTION_BYTES: usize = 1 << 16;

/// `DW_CFA_nop`.
const NOP: u8 = 0;
/// What a CIE says in place of a pointer to one.
const IS_CIE: u32 = u32::MAX;
/// The oldest version, whose return register is one byte: every reader knows it.
const CIE_VERSION: u8 = 1;
/// Entries begin at multiples of an address.
const ADDRESS_BYTES: usize = 8;

/// How to get from a frame of new code to its caller's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwind {
    pub cies: Vec<Cie>,
    /// Sorted by address, not overlapping.
    pub fdes: Vec<Fde>,
}

/// Common information entry (DWARF 5 §6.4.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cie {
    pub code_alignment: u64,
    pub data_alignment: i64,
    /// As DWARF numbers registers.
    pub return_register: u8,
    /// Call frame instructions, as DWARF encodes them.
    pub instructions: Vec<u8>,
}

/// Frame description entry (DWARF 5 §6.4.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fde {
    /// Which of the CIEs, from zero.
    pub cie: usize,
    pub new_range: VaRange,
    pub instructions: Vec<u8>,
}

impl Unwind {
    pub fn is_empty(&self) -> bool {
        self.cies.is_empty() && self.fdes.is_empty()
    }

    /// Every entry is of code of the payload, and every CIE of use.
    pub(crate) fn check(&self, segments: &[Segment]) -> Result<(), Fault> {
        let mut end = Va::new(0);
        let mut used = vec![false; self.cies.len()];
        for fde in &self.fdes {
            let new_range = fde.new_range;
            let segment = layout::segment_of(segments, new_range.start()).map(|(_, segment)| segment);
            let code = segment.is_some_and(|s| s.access == Access::ReadExecute && contains(s, new_range));
            let fits = code && !new_range.is_empty() && new_range.start() >= end;
            let Some(cie) = used.get_mut(fde.cie).filter(|_| fits) else {
                return Err(Fault::UnwindPlace { new_range });
            };
            *cie = true;
            end = new_range.end();
        }
        let instructions = self.cies.iter().map(|cie| &cie.instructions);
        let mut instructions = instructions.chain(self.fdes.iter().map(|fde| &fde.instructions));
        let short = instructions.all(|instructions| instructions.len() <= MAX_INSTRUCTION_BYTES);
        if short && used.iter().all(|used| *used) { Ok(()) } else { Err(Fault::UnwindEntry) }
    }

    /// Appends its entries to a `.debug_frame`; `address` gives the place in the file of an
    /// address of the new image. `None` where it has none, or the section grows too long.
    pub(crate) fn write(&self, section: &mut Vec<u8>, address: impl Fn(u64) -> Option<u64>) -> Option<()> {
        let mut cies = Vec::with_capacity(self.cies.len());
        for cie in &self.cies {
            cies.push(u32::try_from(section.len()).ok()?);
            let mut body = IS_CIE.to_le_bytes().to_vec();
            // No augmentation.
            body.extend([CIE_VERSION, 0]);
            unsigned_leb128(cie.code_alignment, &mut body);
            signed_leb128(cie.data_alignment, &mut body);
            body.push(cie.return_register);
            body.extend(&cie.instructions);
            entry(body, section)?;
        }
        for fde in &self.fdes {
            let mut body = cies.get(fde.cie)?.to_le_bytes().to_vec();
            body.extend(address(fde.new_range.start().raw())?.to_le_bytes());
            body.extend(fde.new_range.len_bytes().to_le_bytes());
            body.extend(&fde.instructions);
            entry(body, section)?;
        }
        Some(())
    }
}

/// An entry's length, and the entry, filled up with instructions that do nothing.
fn entry(mut body: Vec<u8>, section: &mut Vec<u8>) -> Option<()> {
    let whole = body.len().checked_add(4)?.next_multiple_of(ADDRESS_BYTES);
    body.resize(whole.checked_sub(4)?, NOP);
    section.extend(u32::try_from(body.len()).ok()?.to_le_bytes());
    section.extend(body);
    Some(())
}

/// DWARF 5 §7.6.
fn unsigned_leb128(mut value: u64, bytes: &mut Vec<u8>) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            bytes.push(low & 0x7f);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn signed_leb128(mut value: i64, bytes: &mut Vec<u8>) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        let sign = low & 0x40 != 0;
        if (value == 0 && !sign) || (value == -1 && sign) {
            bytes.push(low & 0x7f);
            return;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_encoded_as_the_standards_examples() {
        let unsigned = |value| {
            let mut bytes = Vec::new();
            unsigned_leb128(value, &mut bytes);
            bytes
        };
        let signed = |value| {
            let mut bytes = Vec::new();
            signed_leb128(value, &mut bytes);
            bytes
        };
        // DWARF 5, figures 6 and 7 of appendix C.
        assert_eq!(
            [unsigned(2), unsigned(127), unsigned(128), unsigned(12857)],
            [vec![2], vec![127], vec![0x80, 1], vec![0x39 | 0x80, 100]]
        );
        assert_eq!(
            [signed(2), signed(-2), signed(127), signed(-127), signed(-128)],
            [vec![2], vec![0x7e], vec![127 | 0x80, 0], vec![1 | 0x80, 0x7f], vec![0x80, 0x7f]]
        );
    }
}
