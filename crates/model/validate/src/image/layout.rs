//! Sections and segments: what lies where, and what it may be used for.
//!
//! Invariants of a parsed [`Image`]: allocated sections are sorted and do not
//! overlap; each lies in one loadable segment that maps its bytes from where the
//! section header says; executable sections are not writable, and executable
//! segments hold nothing executable that is in no executable section.
//! `.tbss`, which occupies no addresses, is left out.

use super::frames::Common;
use super::{Frame, Slot, Symbol, frames, slots, symbols};
use crate::invalid::ImageFault;
use object::elf;
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{Endianness, elf::FileHeader64};
use salve_elf::{Va, VaRange};

pub(super) type Header = FileHeader64<Endianness>;

/// What a section holds, as far as references into it are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Executable and no stubs.
    Code,
    /// Executable stubs that jump through a slot (`.plt*`).
    Stubs,
    /// Slots that the loader fills (`.got*`); order and number are the linker's business.
    Got,
    Data,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Section<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) range: VaRange,
    /// Empty where `nobits`.
    pub(crate) data: &'a [u8],
    pub(crate) flags: u64,
    pub(crate) kind: u32,
    pub(crate) role: Role,
}

impl<'a> Section<'a> {
    pub(crate) fn is_code(&self) -> bool {
        matches!(self.role, Role::Code | Role::Stubs)
    }

    pub(crate) fn is_nobits(&self) -> bool {
        self.kind == elf::SHT_NOBITS.0
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.flags & elf::SHF_WRITE.0 != 0
    }

    /// Read-only, with contents, not code.
    pub(crate) fn is_constant(&self) -> bool {
        !self.is_code() && !self.is_writable() && !self.is_nobits()
    }

    /// Whether a word of it may be a pointer that a program uses, in an image
    /// without relocations for them: not in the tables of loader and unwinder.
    pub(crate) fn may_hold_pointers(&self) -> bool {
        let program = self.kind == elf::SHT_PROGBITS.0 || self.is_run_by_loader();
        program && !self.is_code() && !self.name.starts_with(b".eh_frame")
    }

    /// Whether the loader runs what the slots of this section point to.
    pub(crate) fn is_run_by_loader(&self) -> bool {
        [elf::SHT_INIT_ARRAY.0, elf::SHT_FINI_ARRAY.0, elf::SHT_PREINIT_ARRAY.0].contains(&self.kind)
    }

    /// The contents from `at` to the end of the section.
    pub(crate) fn from(&self, at: Va) -> Option<&'a [u8]> {
        let offset = at.raw().checked_sub(self.range.start().raw())?;
        self.data.get(usize::try_from(offset).ok()?..)
    }
}

/// Thread-local storage as `PT_TLS` states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tls<'a> {
    pub(crate) start: Va,
    pub(crate) image: &'a [u8],
    pub(crate) len_bytes: u64,
    pub(crate) align: u64,
}

#[derive(Debug)]
pub(crate) struct Image<'a> {
    /// `ET_EXEC`: addresses are absolute and may be written into instructions and data without relocation.
    pub(crate) fixed: bool,
    /// Sorted by address.
    pub(crate) sections: Vec<Section<'a>>,
    /// From the first to past the last loaded address.
    pub(crate) span: VaRange,
    pub(crate) tls: Option<Tls<'a>>,
    /// What the loader makes read-only after relocation.
    pub(crate) relro: Option<VaRange>,
    /// The file's headers, where they are loaded: from the start of `span` to the first section.
    pub(crate) headers: &'a [u8],
    pub(crate) symbols: Vec<Symbol<'a>>,
    /// Every dynamic relocation, sorted by address.
    pub(crate) slots: Vec<Slot>,
    /// Sorted by start.
    pub(crate) frames: Vec<Frame<'a>>,
    pub(crate) common: Vec<Common>,
    /// `DT_INIT` and `DT_FINI`.
    pub(crate) run_by_loader: [Option<Va>; 2],
    pub(crate) entry: Va,
    /// What the static symbol table, where the file has one, calls functions.
    pub(crate) static_names: Vec<(Va, &'a [u8])>,
}

impl<'a> Image<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, ImageFault> {
        let header = Header::parse(bytes).map_err(ImageFault::Malformed)?;
        let endian = header.endian().map_err(ImageFault::Malformed)?;
        let kind = header.e_type.get(endian);
        if endian != Endianness::Little
            || header.e_machine.get(endian) != elf::EM_X86_64
            || !(kind == elf::ET_EXEC || kind == elf::ET_DYN)
        {
            return Err(ImageFault::Unsupported);
        }
        let headers = header.program_headers(endian, bytes).map_err(ImageFault::Malformed)?;
        let loads = loads(headers, endian)?;
        let table = header.sections(endian, bytes).map_err(ImageFault::Malformed)?;
        let mut sections = Vec::new();
        for section in table.iter() {
            let flags = section.sh_flags(endian).0;
            let kind = section.sh_type(endian).0;
            let tbss = flags & elf::SHF_TLS.0 != 0 && kind == elf::SHT_NOBITS.0;
            if flags & elf::SHF_ALLOC.0 == 0 || tbss || section.sh_size(endian) == 0 {
                continue;
            }
            let at = Va::new(section.sh_addr(endian));
            let range = VaRange::new(at, section.sh_size(endian)).ok_or(ImageFault::SectionOutside(at))?;
            let name = table.section_name(endian, section).map_err(ImageFault::Malformed)?;
            let data = section.data(endian, bytes).map_err(ImageFault::Malformed)?;
            let executable = flags & elf::SHF_EXECINSTR.0 != 0;
            let section = Section { name, range, data, flags, kind, role: role(name, executable) };
            check_mapped(&section, section_offset(bytes, data), &loads)?;
            sections.push(section);
        }
        if sections.is_empty() {
            return Err(ImageFault::NoSections);
        }
        sections.sort_unstable_by_key(|s| s.range.start());
        for pair in sections.windows(2) {
            if let [a, b] = pair
                && a.range.overlaps(b.range)
            {
                return Err(ImageFault::SectionsOverlap(b.range.start()));
            }
        }
        check_code_is_named(&sections, &loads, bytes)?;
        let start = loads.iter().map(|l| l.range.start()).min().unwrap_or(Va::new(0));
        let first = sections.first().map_or(start, |s| s.range.start());
        let end = loads.iter().map(|l| l.range.end()).max().unwrap_or(Va::new(0));
        let span = VaRange::try_from((start, end)).map_err(|_| ImageFault::Unsupported)?;
        let mut image = Self {
            fixed: kind == elf::ET_EXEC,
            sections,
            span,
            tls: tls(headers, endian, bytes)?,
            relro: relro(headers, endian),
            headers: loaded_headers(bytes, &loads, start, first),
            symbols: symbols::read(&table, endian, bytes)?,
            slots: Vec::new(),
            frames: Vec::new(),
            common: Vec::new(),
            run_by_loader: [None; 2],
            entry: Va::new(header.e_entry.get(endian)),
            static_names: symbols::static_names(&table, endian, bytes)?,
        };
        slots::read(&mut image)?;
        frames::read(&mut image)?;
        Ok(image)
    }

    pub(crate) fn section_at(&self, at: Va) -> Option<&Section<'a>> {
        let next = self.sections.partition_point(|s| s.range.start() <= at);
        let section = self.sections.get(next.checked_sub(1)?)?;
        section.range.contains(at).then_some(section)
    }

    pub(crate) fn section_named(&self, name: &[u8]) -> Option<&Section<'a>> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// The last section that ends at `at` or before it, with nothing between, and
    /// the alignment (1 for none) that led from its end to `at`.
    pub(crate) fn section_ending(&self, at: Va) -> Option<(&Section<'a>, u64)> {
        let next = self.sections.partition_point(|s| s.range.start() < at);
        let section = self.sections.get(next.checked_sub(1)?)?;
        let distance = at.raw().checked_sub(section.range.end().raw())?;
        let align = [1_u64, 8, 16, 32].into_iter().find(|a| distance < *a && at.raw().is_multiple_of(*a))?;
        Some((section, align))
    }

    /// Contents of a range inside one section; `None` where there are none.
    pub(crate) fn bytes(&self, range: VaRange) -> Option<&'a [u8]> {
        self.section_at(range.start())?.from(range.start())?.get(..usize::try_from(range.len_bytes()).ok()?)
    }

    pub(crate) fn array<const N: usize>(&self, at: Va) -> Option<[u8; N]> {
        self.section_at(at)?.from(at)?.first_chunk::<N>().copied()
    }

    /// The frame description that covers `at`.
    pub(crate) fn frame_at(&self, at: Va) -> Option<&Frame<'a>> {
        let next = self.frames.partition_point(|f| f.range.start() <= at);
        self.frames.get(next.checked_sub(1)?).filter(|f| f.range.contains(at))
    }
}

struct Load {
    range: VaRange,
    file_start: u64,
    file_len: u64,
    execute: bool,
    write: bool,
}

fn loads(headers: &[elf::ProgramHeader64<Endianness>], endian: Endianness) -> Result<Vec<Load>, ImageFault> {
    let mut loads = Vec::new();
    for header in headers.iter().filter(|h| h.p_type(endian) == elf::PT_LOAD) {
        let at = Va::new(header.p_vaddr(endian));
        let range = VaRange::new(at, header.p_memsz(endian)).ok_or(ImageFault::SectionOutside(at))?;
        let flags = header.p_flags(endian).0;
        loads.push(Load {
            range,
            file_start: header.p_offset(endian),
            file_len: header.p_filesz(endian),
            execute: flags & elf::PF_X.0 != 0,
            write: flags & elf::PF_W.0 != 0,
        });
    }
    Ok(loads)
}

fn role(name: &[u8], executable: bool) -> Role {
    match (name, executable) {
        (b".plt" | b".plt.got" | b".plt.sec" | b".plt.bnd" | b".iplt", true) => Role::Stubs,
        (_, true) => Role::Code,
        (b".got" | b".got.plt" | b".igot.plt", false) => Role::Got,
        (_, false) => Role::Data,
    }
}

/// Where `data`, a part of `bytes`, starts in it.
fn section_offset(bytes: &[u8], data: &[u8]) -> Option<u64> {
    let (whole, part) = (bytes.as_ptr().addr(), data.as_ptr().addr());
    u64::try_from(part.checked_sub(whole)?).ok()
}

/// The loader goes by segments, the checker by sections: they have to agree.
fn check_mapped(section: &Section<'_>, offset: Option<u64>, loads: &[Load]) -> Result<(), ImageFault> {
    let outside = ImageFault::SectionOutside(section.range.start());
    let load = loads
        .iter()
        .find(|l| l.range.start() <= section.range.start() && section.range.end() <= l.range.end())
        .ok_or(outside.clone())?;
    let inside = section.range.start().raw().wrapping_sub(load.range.start().raw());
    if section.is_nobits() {
        // What has no bytes must not be given any by the segment.
        if inside < load.file_len {
            return Err(outside);
        }
    } else {
        let end = inside.checked_add(section.range.len_bytes()).ok_or(outside.clone())?;
        if end > load.file_len || load.file_start.checked_add(inside) != offset {
            return Err(outside);
        }
    }
    if section.is_code() && (load.write || section.is_writable()) {
        return Err(ImageFault::WritableCode(section.range.start()));
    }
    if section.is_code() && !load.execute || section.is_writable() && !load.write {
        return Err(outside);
    }
    Ok(())
}

/// Bytes of an executable segment that are in no section have to be zero or the
/// file's own headers, or there would be code that nothing accounts for.
fn check_code_is_named(sections: &[Section<'_>], loads: &[Load], bytes: &[u8]) -> Result<(), ImageFault> {
    for load in loads.iter().filter(|l| l.execute) {
        let mut at = load.range.start();
        let inside = sections.iter().filter(|s| load.range.contains(s.range.start())).map(|s| s.range);
        let end = VaRange::new(load.range.end(), 0);
        for range in inside.chain(end) {
            let from = at.raw().wrapping_sub(load.range.start().raw());
            let to = range.start().raw().wrapping_sub(load.range.start().raw()).min(load.file_len);
            // A segment that starts the file holds its headers.
            let headers = load.file_start == 0 && from == 0;
            if from < to && !headers {
                let gap = gap_bytes(bytes, load.file_start, from, to).ok_or(ImageFault::SectionOutside(at))?;
                if !gap.iter().all(|b| matches!(b, 0 | 0xcc | 0x90)) {
                    return Err(ImageFault::UnnamedCode(at));
                }
            }
            at = range.end();
        }
    }
    Ok(())
}

fn gap_bytes(bytes: &[u8], start: u64, from: u64, to: u64) -> Option<&[u8]> {
    let from = usize::try_from(start.checked_add(from)?).ok()?;
    let to = usize::try_from(start.checked_add(to)?).ok()?;
    bytes.get(from..to)
}

fn relro(headers: &[elf::ProgramHeader64<Endianness>], endian: Endianness) -> Option<VaRange> {
    let header = headers.iter().find(|h| h.p_type(endian) == elf::PT_GNU_RELRO)?;
    VaRange::new(Va::new(header.p_vaddr(endian)), header.p_memsz(endian))
}

fn loaded_headers<'a>(bytes: &'a [u8], loads: &[Load], start: Va, first: Va) -> &'a [u8] {
    let from_start = loads.iter().any(|l| l.range.start() == start && l.file_start == 0);
    let len = first.raw().saturating_sub(start.raw());
    let headers = usize::try_from(len).ok().and_then(|len| bytes.get(..len));
    headers.filter(|_| from_start).unwrap_or_default()
}

fn tls<'a>(
    headers: &[elf::ProgramHeader64<Endianness>],
    endian: Endianness,
    bytes: &'a [u8],
) -> Result<Option<Tls<'a>>, ImageFault> {
    let Some(header) = headers.iter().find(|h| h.p_type(endian) == elf::PT_TLS) else { return Ok(None) };
    let start = Va::new(header.p_vaddr(endian));
    let image = header.data(endian, bytes).map_err(|()| ImageFault::SectionOutside(start))?;
    Ok(Some(Tls { start, image, len_bytes: header.p_memsz(endian), align: header.p_align(endian) }))
}
