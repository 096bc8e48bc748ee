//! Tables of pointers that the payload brings: a copy of `.data.rel.ro`.
//!
//! The loader fills the pointers there and makes the section read-only, so a copy means what
//! the table means if each word that the loader would fill is filled alike, every other byte
//! is the same, and nobody ever writes there. A few programs do, before the section becomes
//! read-only; then it is no table.

use crate::correspond::Correspondence;
use crate::decode::{Base, Decoder, Field, Instr, Use};
use crate::image::{Binding, Image, Section};
use crate::invalid::{Invalid, Side};
use salve_elf::{Va, VaRange};
use salve_patch::{Livepatch, OwnAddress, Pointer};

/// What a word is, read as a field that holds an address.
pub(crate) const WORD: Field = Field { offset: 0, width: 8, base: Base::Absolute, role: Use::Pointer };

/// The section that may be brought.
pub(crate) fn is_table(image: &Image<'_>, section: &Section<'_>) -> bool {
    let read_only =
        image.relro.is_some_and(|relro| relro.start() <= section.range.start() && section.range.end() <= relro.end());
    section.name == b".data.rel.ro" && !section.is_nobits() && read_only
}

/// What the payload has to hold there: the section's bytes, and zeros where the loader, and
/// then whoever applies it, puts addresses.
pub(crate) fn expected(image: &Image<'_>, range: VaRange) -> Option<Vec<u8>> {
    let mut bytes = image.bytes(range)?.to_vec();
    let before = range.start().checked_sub(8).unwrap_or(range.start());
    let around = VaRange::try_from((before, range.end())).ok()?;
    for slot in image.slots_in(around) {
        for at in (0..slot.len_bytes).filter_map(|i| slot.at.checked_add(i)).filter(|at| range.contains(*at)) {
            let offset = usize::try_from(at.raw().checked_sub(range.start().raw())?).ok()?;
            *bytes.get_mut(offset)? = 0;
        }
    }
    Some(bytes)
}

/// Whether each word that the loader fills in the table has its pointer or import, and the
/// pointers that lead nowhere but to where the loader's would, by `leads`.
pub(crate) fn check_words(
    map: &Correspondence<'_>,
    livepatch: &Livepatch,
    table: VaRange,
    mut leads: impl FnMut(&Pointer, Va) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    for slot in map.new.slots_in(table) {
        let at = slot.at;
        let imported = livepatch.imports.binary_search_by_key(&at, |import| import.new_va).is_ok();
        match (slot.binding, livepatch.pointers.binary_search_by_key(&at, |pointer| pointer.new_va)) {
            (Binding::Relative(target), Ok(index)) if slot.len_bytes == 8 && !imported => {
                let pointer = livepatch.pointers.get(index).ok_or(Invalid::Pointer { at })?;
                if let OwnAddress::Payload(to) = pointer.to
                    && to != target
                {
                    return Err(Invalid::Pointer { at });
                }
                leads(pointer, target)?;
            }
            (_, Err(_)) if imported => {}
            _ => return Err(Invalid::Pointer { at }),
        }
    }
    Ok(())
}

/// Pointers are in order, and in tables only.
pub(crate) fn check_order(map: &Correspondence<'_>, livepatch: &Livepatch) -> Result<(), Invalid> {
    let mut last = None;
    for pointer in &livepatch.pointers {
        let at = pointer.new_va;
        let in_table = map.new.section_at(at).is_some_and(|section| is_table(map.new, section));
        let filled = map.new.slot(at).is_some_and(|slot| matches!(slot.binding, Binding::Relative(_)));
        if last >= Some(at) || !in_table || !filled {
            return Err(Invalid::Pointer { at });
        }
        last = Some(at);
    }
    Ok(())
}

/// No instruction of either image writes into its section of this name.
pub(crate) fn check_never_written(
    map: &Correspondence<'_>,
    decoder: &Decoder,
    gone: &[VaRange],
) -> Result<(), Invalid> {
    let olds = map.index.pairs.iter().map(|pair| pair.old).chain(gone.iter().copied());
    let news = map.index.pairs.iter().map(|pair| pair.new).chain(map.index.carried.iter().copied());
    never_written(map.old, Side::Old, decoder, olds)?;
    never_written(map.new, Side::New, decoder, news)
}

fn never_written(
    image: &Image<'_>,
    side: Side,
    decoder: &Decoder,
    functions: impl Iterator<Item = VaRange>,
) -> Result<(), Invalid> {
    let Some(table) = image.section_named(b".data.rel.ro").map(|section| section.range) else { return Ok(()) };
    for range in functions {
        each_reference((image, side), decoder, range, |at, instr, field, target| {
            let writes = instr.writes && matches!(field.role, Use::Access(_)) && table.contains(target);
            if writes { Err(Invalid::TableWritten { side, at }) } else { Ok(()) }
        })?;
    }
    Ok(())
}

/// Every place that an instruction of the function leads to, with the instruction's own.
pub(crate) fn each_reference(
    (image, side): (&Image<'_>, Side),
    decoder: &Decoder,
    range: VaRange,
    mut found: impl FnMut(Va, &Instr, Field, Va) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    let mut at = range.start();
    while at < range.end() {
        let undecodable = Invalid::Undecodable { side, at };
        let code = image.section_at(at).and_then(|section| section.from(at)).ok_or(undecodable.clone())?;
        let instr = decoder.decode(code, image.fixed).ok_or(undecodable.clone())?;
        let next = at.wrapping_offset(i64::try_from(instr.len).map_err(|_| undecodable)?);
        for field in instr.fields() {
            let target = field.read(code).map(|value| match field.base {
                Base::Next => next.wrapping_offset(value),
                Base::Absolute => Va::new(value.cast_unsigned()),
            });
            target.map_or(Ok(()), |target| found(at, &instr, field, target))?;
        }
        at = next;
    }
    Ok(())
}
