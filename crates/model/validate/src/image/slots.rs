//! Dynamic relocations: what the loader writes, and where.
//!
//! They are found the way the loader finds them, through the dynamic table
//! (gABI "Dynamic Section"; RELR as in the gABI's "Relative Relocation Table");
//! a static program has its `IRELATIVE` ones in a section only.

use super::{Image, Symbol};
use crate::invalid::ImageFault;
use object::elf;
use salve_elf::{Va, VaRange};

/// psABI table 4.9.
mod kind {
    pub(super) const NONE: u32 = 0;
    pub(super) const ABS64: u32 = 1;
    pub(super) const COPY: u32 = 5;
    pub(super) const GLOB_DAT: u32 = 6;
    pub(super) const JUMP_SLOT: u32 = 7;
    pub(super) const RELATIVE: u32 = 8;
    pub(super) const DTPMOD64: u32 = 16;
    pub(super) const DTPOFF64: u32 = 17;
    pub(super) const TPOFF64: u32 = 18;
    pub(super) const TLSDESC: u32 = 36;
    pub(super) const IRELATIVE: u32 = 37;
}

/// A relocated place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) at: Va,
    pub(crate) len_bytes: u64,
    pub(crate) binding: Binding,
}

/// What the loader makes a slot hold. `symbol` indexes [`Image::symbols`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    /// An address in the image itself.
    Relative(Va),
    /// What the resolver at this address returns.
    Resolved(Va),
    /// The address of a symbol plus an addend (`R_X86_64_64`, `GLOB_DAT`).
    Address {
        symbol: u32,
        addend: i64,
    },
    /// The address of a function, perhaps bound late.
    Jump {
        symbol: u32,
        addend: i64,
    },
    /// The initial contents of another image's object.
    Copy {
        symbol: u32,
    },
    /// Thread-local storage: module, offset in the module, offset from the thread pointer, descriptor.
    TlsModule {
        symbol: u32,
        addend: i64,
    },
    TlsOffset {
        symbol: u32,
        addend: i64,
    },
    TlsFromThread {
        symbol: u32,
        addend: i64,
    },
    TlsDescriptor {
        symbol: u32,
        addend: i64,
    },
}

impl Binding {
    /// Where in this image the slot leads, if it does.
    pub(crate) fn target(self) -> Option<Va> {
        match self {
            Self::Relative(at) | Self::Resolved(at) => Some(at),
            Self::Address { .. }
            | Self::Jump { .. }
            | Self::Copy { .. }
            | Self::TlsModule { .. }
            | Self::TlsOffset { .. }
            | Self::TlsFromThread { .. }
            | Self::TlsDescriptor { .. } => None,
        }
    }
}

impl<'a> Image<'a> {
    /// The slot that starts at `at`.
    pub(crate) fn slot(&self, at: Va) -> Option<&Slot> {
        let index = self.slots.binary_search_by_key(&at, |s| s.at).ok()?;
        self.slots.get(index)
    }

    /// Slots that start in `range`.
    pub(crate) fn slots_in(&self, range: VaRange) -> &[Slot] {
        let from = self.slots.partition_point(|s| s.at < range.start());
        let to = self.slots.partition_point(|s| s.at < range.end());
        self.slots.get(from..to).unwrap_or_default()
    }

    pub(crate) fn symbol(&self, index: u32) -> Option<&Symbol<'a>> {
        self.symbols.get(usize::try_from(index).ok()?)
    }
}

#[derive(Default)]
struct Tags {
    rela: (u64, u64),
    jump: (u64, u64),
    relr: (u64, u64),
}

pub(super) fn read(image: &mut Image<'_>) -> Result<(), ImageFault> {
    let mut slots = Vec::new();
    let dynamic = image.sections.iter().find(|s| s.kind == elf::SHT_DYNAMIC.0).copied();
    if let Some(dynamic) = dynamic {
        let tags = tags(image, dynamic.data)?;
        read_rela(image, tags.rela, &mut slots)?;
        let jump_is_part = tags.rela.0 <= tags.jump.0
            && tags.jump.0.saturating_add(tags.jump.1) <= tags.rela.0.saturating_add(tags.rela.1);
        if !jump_is_part {
            read_rela(image, tags.jump, &mut slots)?;
        }
        read_relr(image, tags.relr, &mut slots)?;
    } else {
        let tables: Vec<_> = image.sections.iter().filter(|s| s.kind == elf::SHT_RELA.0).map(|s| s.range).collect();
        for table in tables {
            read_rela(image, (table.start().raw(), table.len_bytes()), &mut slots)?;
        }
    }
    slots.sort_unstable_by_key(|s: &Slot| s.at);
    for pair in slots.windows(2) {
        if let [a, b] = pair
            && a.at.raw().saturating_add(a.len_bytes) > b.at.raw()
        {
            return Err(ImageFault::RelocationsOverlap(b.at));
        }
    }
    image.slots = slots;
    Ok(())
}

fn tags(image: &mut Image<'_>, dynamic: &[u8]) -> Result<Tags, ImageFault> {
    let mut tags = Tags::default();
    for entry in dynamic.chunks_exact(16) {
        let tag = i64::from_le_bytes(*entry.first_chunk().ok_or(ImageFault::Dynamic)?);
        let value = u64::from_le_bytes(*entry.last_chunk().ok_or(ImageFault::Dynamic)?);
        match object::elf::DynamicTag(tag) {
            elf::DT_NULL => break,
            elf::DT_RELA => tags.rela.0 = value,
            elf::DT_RELASZ => tags.rela.1 = value,
            elf::DT_JMPREL => tags.jump.0 = value,
            elf::DT_PLTRELSZ => tags.jump.1 = value,
            elf::DT_RELR => tags.relr.0 = value,
            elf::DT_RELRSZ => tags.relr.1 = value,
            elf::DT_INIT => image.run_by_loader[0] = Some(Va::new(value)),
            elf::DT_FINI => image.run_by_loader[1] = Some(Va::new(value)),
            elf::DT_REL | elf::DT_TEXTREL => return Err(ImageFault::Dynamic),
            elf::DT_PLTREL if value != 7 => return Err(ImageFault::Dynamic),
            _ => {}
        }
    }
    Ok(tags)
}

fn table<'a>(image: &Image<'a>, (at, len): (u64, u64)) -> Result<&'a [u8], ImageFault> {
    if len == 0 {
        return Ok(&[]);
    }
    let len = usize::try_from(len).map_err(|_| ImageFault::Dynamic)?;
    // `.rela.dyn` and `.rela.plt` may be one table that spans two sections.
    let at = Va::new(at);
    let section = image.section_at(at).ok_or(ImageFault::Dynamic)?;
    section.from(at).and_then(|bytes| bytes.get(..len)).ok_or(ImageFault::Dynamic)
}

fn read_rela(image: &Image<'_>, place: (u64, u64), slots: &mut Vec<Slot>) -> Result<(), ImageFault> {
    let bytes = table(image, place)?;
    if !bytes.len().is_multiple_of(24) {
        return Err(ImageFault::Dynamic);
    }
    let word = |entry: &[u8], at: usize| -> Result<u64, ImageFault> {
        entry.get(at..).and_then(|b| b.first_chunk()).map(|b| u64::from_le_bytes(*b)).ok_or(ImageFault::Dynamic)
    };
    slots.reserve(bytes.len() / 24);
    for entry in bytes.chunks_exact(24) {
        let at = Va::new(word(entry, 0)?);
        let info = word(entry, 8)?;
        let addend = word(entry, 16)?.cast_signed();
        let symbol = u32::try_from(info >> 32).map_err(|_| ImageFault::Dynamic)?;
        let kind = u32::try_from(info & 0xffff_ffff).map_err(|_| ImageFault::Dynamic)?;
        let target = Va::new(addend.cast_unsigned());
        let mut len_bytes = 8;
        let binding = match kind {
            kind::NONE => continue,
            kind::RELATIVE => Binding::Relative(target),
            kind::IRELATIVE => Binding::Resolved(target),
            kind::ABS64 | kind::GLOB_DAT => Binding::Address { symbol, addend },
            kind::JUMP_SLOT => Binding::Jump { symbol, addend },
            kind::DTPMOD64 => Binding::TlsModule { symbol, addend },
            kind::DTPOFF64 => Binding::TlsOffset { symbol, addend },
            kind::TPOFF64 => Binding::TlsFromThread { symbol, addend },
            kind::TLSDESC => {
                len_bytes = 16;
                Binding::TlsDescriptor { symbol, addend }
            }
            kind::COPY => {
                let copied = image.symbol(symbol).and_then(|s| s.defined).ok_or(ImageFault::RelocationOutside(at))?;
                len_bytes = copied.len_bytes;
                Binding::Copy { symbol }
            }
            kind => return Err(ImageFault::UnknownRelocation { at, kind }),
        };
        push(image, Slot { at, len_bytes, binding }, symbol, slots)?;
    }
    Ok(())
}

fn push(image: &Image<'_>, slot: Slot, symbol: u32, slots: &mut Vec<Slot>) -> Result<(), ImageFault> {
    let outside = ImageFault::RelocationOutside(slot.at);
    let section = image.section_at(slot.at).ok_or(outside.clone())?;
    if !section.is_writable() {
        return Err(ImageFault::TextRelocation(slot.at));
    }
    let range = VaRange::new(slot.at, slot.len_bytes).ok_or(outside.clone())?;
    if range.end() > section.range.end() || symbol != 0 && image.symbol(symbol).is_none() {
        return Err(outside);
    }
    slots.push(slot);
    Ok(())
}

fn read_relr(image: &Image<'_>, place: (u64, u64), slots: &mut Vec<Slot>) -> Result<(), ImageFault> {
    let bytes = table(image, place)?;
    let mut next = Va::new(0);
    for entry in bytes.chunks_exact(8) {
        let entry = u64::from_le_bytes(*entry.first_chunk().ok_or(ImageFault::Dynamic)?);
        if entry & 1 == 0 {
            next = relative(image, Va::new(entry), slots)?;
            continue;
        }
        let mut at = next;
        for bit in 1..64_u32 {
            if (entry >> bit) & 1 == 1 {
                relative(image, at, slots)?;
            }
            at = at.checked_add(8).ok_or(ImageFault::Dynamic)?;
        }
        next = at;
    }
    Ok(())
}

/// A slot whose target is written in the place itself. Returns the place after it.
fn relative(image: &Image<'_>, at: Va, slots: &mut Vec<Slot>) -> Result<Va, ImageFault> {
    let target = image.array(at).map(u64::from_le_bytes).ok_or(ImageFault::RelocationOutside(at))?;
    push(image, Slot { at, len_bytes: 8, binding: Binding::Relative(Va::new(target)) }, 0, slots)?;
    at.checked_add(8).ok_or(ImageFault::Dynamic)
}
