//! How to get from a function's frame to its caller's: the call frame information of
//! `.eh_frame` (DWARF 5 §6.4, LSB "Exception Frames"), function by function.
//!
//! For whoever puts a function elsewhere and wants a debugger to see through it: the
//! instructions are given as they stand in the file. Where an instruction states an
//! address (`DW_CFA_set_loc`), or the entry is a signal's trampoline, there is none.

use crate::section::Section;
use crate::{Va, VaRange};
use gimli::{BaseAddresses, CieOrFde, EhFrame, EndianSlice, LittleEndian, Reader as _, UnwindSection as _};
use std::collections::{HashMap, HashSet};

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Cie<'a> = gimli::CommonInformationEntry<Slice<'a>>;

/// What the frames of many functions have in common (DWARF's CIE).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameCommon<'a> {
    pub code_alignment: u64,
    pub data_alignment: i64,
    /// As DWARF numbers registers.
    pub return_register: u16,
    pub instructions: &'a [u8],
}

/// The frames of one function (DWARF's FDE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub range: VaRange,
    pub common: FrameCommon<'a>,
    pub instructions: &'a [u8],
}

/// Every frame that covers exactly one of `wanted`, in the order of their addresses.
pub(crate) fn frames<'a>(sections: &[Section<'a>], wanted: &[VaRange]) -> Vec<Frame<'a>> {
    let Some(section) = sections.iter().find(|s| s.name == ".eh_frame") else { return Vec::new() };
    let Some(bytes) = section.bytes else { return Vec::new() };
    let eh_frame = EhFrame::new(bytes, LittleEndian);
    let mut bases = BaseAddresses::default().set_eh_frame(section.range.start().raw());
    if let Some(text) = sections.iter().find(|s| s.name == ".text") {
        bases = bases.set_text(text.range.start().raw());
    }
    let wanted: HashSet<VaRange> = wanted.iter().copied().collect();
    let mut cies: HashMap<usize, Cie<'a>> = HashMap::new();
    let mut found: Vec<Frame<'a>> = Vec::new();
    let mut entries = eh_frame.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let parsed = partial.parse(|section, bases, offset| {
            if let Some(cie) = cies.get(&offset.0) {
                return Ok(cie.clone());
            }
            let cie = section.cie_from_offset(bases, offset)?;
            cies.insert(offset.0, cie.clone());
            Ok(cie)
        });
        let Ok(fde) = parsed else { continue };
        let range = VaRange::new(Va::new(fde.initial_address()), fde.len());
        let Some(range) = range.filter(|range| wanted.contains(range)) else { continue };
        let cie = fde.cie();
        let plain =
            all_are_plain(cie.instructions(&eh_frame, &bases)) && all_are_plain(fde.instructions(&eh_frame, &bases));
        if !plain || cie.is_signal_trampoline() {
            continue;
        }
        let of_cie = entry_bytes(bytes, cie.offset(), cie.entry_len()).and_then(|entry| common(cie, entry));
        let of_fde = entry_bytes(bytes, fde.offset(), fde.entry_len()).and_then(|entry| instructions(cie, entry));
        if let (Some(common), Some(instructions)) = (of_cie, of_fde) {
            found.push(Frame { range, common, instructions });
        }
    }
    found.sort_by_key(|frame| frame.range.start());
    found.dedup_by_key(|frame| frame.range);
    found
}

/// Whether every instruction is understood and none states an address.
fn all_are_plain(mut instructions: gimli::CallFrameInstructionIter<'_, Slice<'_>>) -> bool {
    loop {
        match instructions.next() {
            Ok(None) => return true,
            Ok(Some(gimli::CallFrameInstruction::SetLoc { .. })) | Err(_) => return false,
            Ok(Some(_)) => {}
        }
    }
}

/// What follows an entry's length, which has to be of four bytes.
fn entry_bytes(section: &[u8], offset: usize, len: usize) -> Option<Slice<'_>> {
    let start = offset.checked_add(4)?;
    let stated = section.get(offset..start)?;
    let bytes = section.get(start..start.checked_add(len)?)?;
    (usize::try_from(u32::from_le_bytes(stated.try_into().ok()?)) == Ok(len))
        .then(|| EndianSlice::new(bytes, LittleEndian))
}

fn common<'a>(cie: &Cie<'a>, mut entry: Slice<'a>) -> Option<FrameCommon<'a>> {
    entry.skip(4).ok()?;
    let version = entry.read_u8().ok()?;
    let augmentation = entry.read_null_terminated_slice().ok()?;
    if version == 4 {
        // Sizes of an address and of a segment's selector.
        entry.skip(2).ok()?;
    }
    let code_alignment = entry.read_uleb128().ok()?;
    let data_alignment = entry.read_sleb128().ok()?;
    let return_register = if version == 1 { u64::from(entry.read_u8().ok()?) } else { entry.read_uleb128().ok()? };
    if !augmentation.slice().is_empty() {
        skip_augmentation(augmentation.slice().first() == Some(&b'z'), &mut entry)?;
    }
    let agreed = cie.code_alignment_factor() == code_alignment
        && cie.data_alignment_factor() == data_alignment
        && u64::from(cie.return_address_register().0) == return_register;
    agreed.then(|| FrameCommon {
        code_alignment,
        data_alignment,
        return_register: cie.return_address_register().0,
        instructions: entry.slice(),
    })
}

/// Behind the CIE's pointer, the place, the length and the augmentation.
fn instructions<'a>(cie: &Cie<'a>, mut entry: Slice<'a>) -> Option<&'a [u8]> {
    let place_and_length_bytes = match cie.fde_address_encoding().map_or(0, |encoding| encoding.format().0) {
        0x00 | 0x04 | 0x0c => 16,
        0x03 | 0x0b => 8,
        _ => return None,
    };
    entry.skip(4).ok()?;
    entry.skip(place_and_length_bytes).ok()?;
    if cie.augmentation().is_some() {
        skip_augmentation(true, &mut entry)?;
    }
    Some(entry.slice())
}

/// Only data that state their length can be skipped.
fn skip_augmentation(stated: bool, entry: &mut Slice<'_>) -> Option<()> {
    if !stated {
        return None;
    }
    let len = usize::try_from(entry.read_uleb128().ok()?).ok()?;
    entry.skip(len).ok()
}
