//! Dynamic relocations, as what they bind rather than as records (psABI §4.4).

use crate::Va;
use crate::error::ImageError;
use crate::image::ImageLimits;
use crate::section::Section;
use crate::symbol::Symbol;
use object::LittleEndian as LE;
use object::elf;

/// What a relocated slot holds once the dynamic linker is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// `B + A`: an address of this image.
    Relative { target: Va },
    /// The address of a symbol, plus `addend`; index into [`crate::Image::symbols`].
    Symbol { symbol: usize, addend: i64, kind: SymbolBinding },
    /// What the resolver at this address returns.
    Indirect { resolver: Va },
    /// Thread-local: offset, module id or descriptor of a symbol (`None`: of this image itself).
    ThreadLocal { symbol: Option<usize>, addend: i64, r_type: u32 },
    /// `R_X86_64_COPY`: the data of a library's symbol is copied here at start-up.
    Copy { symbol: usize },
}

/// How a symbol's address gets into the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SymbolBinding {
    /// `R_X86_64_64`: in data.
    Absolute,
    /// `R_X86_64_GLOB_DAT`: in the GOT.
    Global,
    /// `R_X86_64_JUMP_SLOT`: in the GOT, perhaps lazily.
    JumpSlot,
}

/// One relocated slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloc {
    pub at: Va,
    pub binding: Binding,
}

pub(crate) fn relocations(
    sections: &[Section<'_>],
    symbols: &[Symbol<'_>],
    limits: &ImageLimits,
) -> Result<Vec<Reloc>, ImageError> {
    let mut relocs = Vec::new();
    for section in sections {
        let Some(bytes) = section.bytes else { continue };
        let sh_type = section.sh_type;
        if sh_type == elf::SHT_RELA.0 {
            rela(bytes, symbols, limits, &mut relocs)?;
        } else if sh_type == elf::SHT_RELR.0 {
            relr(bytes, sections, limits, &mut relocs)?;
        } else if sh_type == elf::SHT_REL.0 {
            return Err(ImageError::Malformed { what: "relocations (SHT_REL is not used on x86-64)" });
        }
    }
    relocs.sort_by_key(|r| r.at);
    if let Some([first, _]) = relocs.windows(2).find(|w| matches!(w, [a, b] if a.at == b.at)) {
        return Err(ImageError::MalformedAt { what: "relocations (two for one place)", at: first.at.raw() });
    }
    Ok(relocs)
}

fn check_limit(relocs: &[Reloc], limits: &ImageLimits) -> Result<(), ImageError> {
    if relocs.len() > limits.max_relocations {
        return Err(ImageError::TooLarge {
            what: "relocations",
            have: u64::try_from(relocs.len()).unwrap_or(u64::MAX),
            limit: u64::try_from(limits.max_relocations).unwrap_or(u64::MAX),
        });
    }
    Ok(())
}

fn rela(bytes: &[u8], symbols: &[Symbol<'_>], limits: &ImageLimits, relocs: &mut Vec<Reloc>) -> Result<(), ImageError> {
    let count = bytes.len().div_euclid(size_of::<elf::Rela64<LE>>());
    let (records, _) = object::pod::slice_from_bytes::<elf::Rela64<LE>>(bytes, count)
        .map_err(|()| ImageError::Malformed { what: "relocation section" })?;
    for record in records {
        check_limit(relocs, limits)?;
        let at = Va::new(record.r_offset.get(LE));
        let r_info = record.r_info.get(LE);
        let r_type = u32::try_from(r_info & 0xffff_ffff).unwrap_or(u32::MAX);
        let index = usize::try_from(r_info >> 32).unwrap_or(usize::MAX);
        let addend = record.r_addend.get(LE);
        if index >= symbols.len() && index != 0 {
            return Err(ImageError::MalformedAt { what: "relocation symbol index", at: at.raw() });
        }
        let symbol = (index != 0).then_some(index);
        let named = |kind| match symbol {
            Some(symbol) => Ok(Binding::Symbol { symbol, addend, kind }),
            None => Err(ImageError::MalformedAt { what: "relocation without a symbol", at: at.raw() }),
        };
        let binding = match elf::RelocationType(r_type) {
            elf::R_X86_64_NONE => continue,
            elf::R_X86_64_RELATIVE => Binding::Relative { target: Va::new(addend.cast_unsigned()) },
            elf::R_X86_64_IRELATIVE => Binding::Indirect { resolver: Va::new(addend.cast_unsigned()) },
            elf::R_X86_64_64 => named(SymbolBinding::Absolute)?,
            elf::R_X86_64_GLOB_DAT => named(SymbolBinding::Global)?,
            elf::R_X86_64_JUMP_SLOT => named(SymbolBinding::JumpSlot)?,
            elf::R_X86_64_COPY => match symbol {
                Some(symbol) => Binding::Copy { symbol },
                None => return Err(ImageError::MalformedAt { what: "copy relocation", at: at.raw() }),
            },
            elf::R_X86_64_DTPMOD64 | elf::R_X86_64_DTPOFF64 | elf::R_X86_64_TPOFF64 | elf::R_X86_64_TLSDESC => {
                Binding::ThreadLocal { symbol, addend, r_type }
            }
            _unknown => return Err(ImageError::UnknownRelocation { r_type, at: at.raw() }),
        };
        relocs.push(Reloc { at, binding });
    }
    Ok(())
}

/// `SHT_RELR`: relative relocations as addresses and bitmaps; the addend is in place.
fn relr(
    bytes: &[u8],
    sections: &[Section<'_>],
    limits: &ImageLimits,
    relocs: &mut Vec<Reloc>,
) -> Result<(), ImageError> {
    let mut base: Option<u64> = None;
    let malformed = |at| ImageError::MalformedAt { what: "RELR relocation", at };
    let push = |at: u64, relocs: &mut Vec<Reloc>| -> Result<(), ImageError> {
        check_limit(relocs, limits)?;
        let va = Va::new(at);
        let after = sections.partition_point(|s| s.range.start() <= va);
        let section = after.checked_sub(1).and_then(|i| sections.get(i)).ok_or(malformed(at))?;
        let slot = section.tail(va).and_then(|tail| tail.first_chunk::<8>()).ok_or(malformed(at))?;
        relocs.push(Reloc { at: va, binding: Binding::Relative { target: Va::new(u64::from_le_bytes(*slot)) } });
        Ok(())
    };
    for chunk in bytes.chunks_exact(8) {
        let mut raw = [0; 8];
        raw.copy_from_slice(chunk);
        let entry = u64::from_le_bytes(raw);
        if entry & 1 == 0 {
            push(entry, relocs)?;
            base = Some(entry.checked_add(8).ok_or(malformed(entry))?);
        } else {
            let from = base.ok_or(malformed(entry))?;
            for bit in 1..64_u64 {
                if entry >> bit & 1 == 1 {
                    let skip = bit.wrapping_sub(1).wrapping_mul(8);
                    push(from.checked_add(skip).ok_or(malformed(entry))?, relocs)?;
                }
            }
            base = Some(from.checked_add(63 * 8).ok_or(malformed(entry))?);
        }
    }
    Ok(())
}
