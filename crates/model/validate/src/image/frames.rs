//! Frame descriptions (`.eh_frame`, LSB Core §10.6): which code has unwind
//! information, and which has exception handlers.

use super::Image;
use crate::invalid::ImageFault;
use gimli::{
    BaseAddresses, CallFrameInstruction, CieOrFde, CommonInformationEntry, EhFrame, EndianSlice, LittleEndian, Pointer,
    UnwindSection as _,
};
use salve_elf::{Va, VaRange};

/// What the unwinder knows of one stretch of code.
#[derive(Clone, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) range: VaRange,
    /// Call frame instructions after the common ones, as bytes.
    pub(crate) instructions: &'a [u8],
    /// Index into [`Image::common`].
    pub(crate) common: usize,
    /// Exception tables (`.gcc_except_table`).
    pub(crate) handlers: Option<Va>,
}

/// What many frames share (a CIE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Common {
    offset: usize,
    pub(crate) rules: Rules,
    /// Holds the personality routine, or is it.
    pub(crate) personality: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    instructions: Vec<CallFrameInstruction<usize>>,
    code_align: u64,
    data_align: i64,
    return_register: u16,
    is_signal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Direct(Va),
    Indirect(Va),
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

pub(super) fn read(image: &mut Image<'_>) -> Result<(), ImageFault> {
    let Some(section) = image.section_named(b".eh_frame").copied() else { return Ok(()) };
    let eh_frame = EhFrame::new(section.data, LittleEndian);
    let mut bases = BaseAddresses::default().set_eh_frame(section.range.start().raw());
    if let Some(text) = image.section_named(b".text") {
        bases = bases.set_text(text.range.start().raw());
    }
    let mut last: Option<CommonInformationEntry<Slice<'_>>> = None;
    let mut entries = eh_frame.entries(&bases);
    while let Some(entry) = entries.next().map_err(ImageFault::Unwind)? {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial
            .parse(|section, bases, offset| match &last {
                Some(cie) if cie.offset() == offset.0 => Ok(cie.clone()),
                Some(_) | None => {
                    let cie = section.cie_from_offset(bases, offset)?;
                    last = Some(cie.clone());
                    Ok(cie)
                }
            })
            .map_err(ImageFault::Unwind)?;
        if fde.len() == 0 {
            continue;
        }
        let start = Va::new(fde.initial_address());
        let range = VaRange::new(start, fde.len()).ok_or(ImageFault::SectionOutside(start))?;
        let handlers = match fde.lsda() {
            Some(Pointer::Direct(0)) | None => None,
            Some(Pointer::Direct(at)) => Some(Va::new(at)),
            Some(Pointer::Indirect(_)) => return Err(ImageFault::Unsupported),
        };
        let common = common(image, fde.cie(), &eh_frame, &bases)?;
        let is_augmented = fde.cie().augmentation().is_some();
        // Four-byte addresses, whatever they are relative to.
        if fde.cie().fde_address_encoding().is_none_or(|e| e.0 & 0x07 != 0x03) {
            return Err(ImageFault::Unsupported);
        }
        let instructions =
            tail(section.data, fde.offset(), fde.entry_len(), is_augmented).ok_or(ImageFault::Unsupported)?;
        image.frames.push(Frame { range, instructions, common, handlers });
    }
    image.frames.sort_unstable_by_key(|f| f.range.start());
    Ok(())
}

fn common<'a>(
    image: &mut Image<'a>,
    cie: &CommonInformationEntry<Slice<'a>>,
    eh_frame: &EhFrame<Slice<'a>>,
    bases: &BaseAddresses,
) -> Result<usize, ImageFault> {
    let offset = cie.offset();
    if let Some(index) = image.common.iter().rposition(|c| c.offset == offset) {
        return Ok(index);
    }
    let mut instructions = Vec::new();
    let mut iter = cie.instructions(eh_frame, bases);
    while let Some(instruction) = iter.next().map_err(ImageFault::Unwind)? {
        instructions.push(instruction);
    }
    image.common.push(Common {
        offset,
        rules: Rules {
            instructions,
            code_align: cie.code_alignment_factor(),
            data_align: cie.data_alignment_factor(),
            return_register: cie.return_address_register().0,
            is_signal: cie.is_signal_trampoline(),
        },
        personality: cie.personality().map(|pointer| match pointer {
            Pointer::Direct(at) => Place::Direct(Va::new(at)),
            Pointer::Indirect(at) => Place::Indirect(Va::new(at)),
        }),
    });
    Ok(image.common.len().saturating_sub(1))
}

/// The instructions of an FDE in the only shape that linkers write for the small
/// and medium code models: 32-bit length, CIE pointer, start and size, then the
/// augmentation's length and bytes. `None` for anything else.
fn tail(section: &[u8], offset: usize, len: usize, is_augmented: bool) -> Option<&[u8]> {
    let entry = section.get(offset..)?;
    if entry.first_chunk()? == &[0xff; 4] {
        return None;
    }
    let entry = entry.get(4..)?.get(..len)?;
    let rest = entry.get(12..)?;
    if !is_augmented {
        return Some(rest);
    }
    // An augmentation longer than 127 bytes does not exist.
    let (&length, rest) = rest.split_first()?;
    if length >= 0x80 { None } else { rest.get(usize::from(length)..) }
}
