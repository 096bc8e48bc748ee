//! Unwinding information of the images that are mapped.

use gimli::{BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, LittleEndian};
use salve_elf::{LoadBias, RuntimeAddr, Va};

/// `.eh_frame_hdr` and `.eh_frame` of one image's file, copied out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnwindTables {
    pub header_va: Va,
    pub header: Vec<u8>,
    pub frames_va: Va,
    pub frames: Vec<u8>,
}

/// An image's tables and where its code is in the process.
#[derive(Clone, Copy, Debug)]
pub struct UnwindTablesOf<'a> {
    pub start: RuntimeAddr,
    pub end: RuntimeAddr,
    pub bias: LoadBias,
    pub tables: &'a UnwindTables,
}

pub(crate) type Slice<'a> = EndianSlice<'a, LittleEndian>;
pub(crate) type Fde<'a> = gimli::FrameDescriptionEntry<Slice<'a>>;

/// The FDE for one address, with what is needed to read its rules.
pub(crate) struct Entry<'a> {
    pub(crate) fde: Fde<'a>,
    pub(crate) section: EhFrame<Slice<'a>>,
    pub(crate) bases: BaseAddresses,
    pub(crate) va: u64,
}

impl<'a> UnwindTablesOf<'a> {
    pub(crate) fn covers(&self, at: RuntimeAddr) -> bool {
        self.start <= at && at < self.end
    }

    /// By the header's binary search table, so that nothing long happens while threads are stopped.
    pub(crate) fn entry(&self, at: RuntimeAddr) -> Option<Entry<'a>> {
        let tables = self.tables;
        let va = at.in_file(self.bias).raw();
        let bases =
            BaseAddresses::default().set_eh_frame_hdr(tables.header_va.raw()).set_eh_frame(tables.frames_va.raw());
        let section = EhFrame::from(Slice::new(&tables.frames, LittleEndian));
        let header = EhFrameHdr::from(Slice::new(&tables.header, LittleEndian)).parse(&bases, 8).ok()?;
        let fde = header
            .table()?
            .fde_for_address(&section, &bases, va, |section, bases, offset| {
                gimli::UnwindSection::cie_from_offset(section, bases, offset)
            })
            .ok()?;
        Some(Entry { fde, section, bases, va })
    }
}
