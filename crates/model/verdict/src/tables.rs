//! Tables of pointers that nobody writes, of which the payload may have a copy.
//!
//! A table of texts or functions lies in `.data.rel.ro`: the loader fills its pointers and
//! makes it read-only. Where replaced code refers to such a table that the old image lacks,
//! or that has another size there, the payload can bring it. How far it reaches is not known,
//! so all of the section is brought; but what the old image has as well is referred to there,
//! where old state and code that stays know it.
//!
//! An address between two tables is the end of one and the start of the other. Where these
//! would be told differently in the old image, and no older version of the code refers to it
//! in the same place, nobody can say which is meant.
//!
//! A few programs (the C library and its loader) keep variables there that are written
//! before the section becomes read-only; where any code writes into it, it is no constant.

use crate::carry::Carried;
use crate::witness::Witnesses;
use iced_x86::{InstructionInfoFactory, OpAccess};
use salve_code::{Reference, ReferenceKind};
use salve_elf::{Binding, Section, SectionRole, Va, VaRange};
use salve_match::{Correspondence, ImageDiff, Side, TABLES};
use salve_patch::Evidence;

/// Each process has its own copy, because of the addresses in it.
const LARGEST_BYTES: u64 = 64 << 10;

/// The section of the new image that the payload is to have a copy of, if any.
pub(crate) fn copied(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<VaRange> {
    let tables = table_section(&diff.new)?.range;
    let needed = references(diff, carried).any(|(_, reference)| is_brought(diff, tables, reference.target));
    (needed && tables.len_bytes() <= LARGEST_BYTES && is_constant(&diff.old) && is_constant(&diff.new))
        .then_some(tables)
}

/// Whether no instruction writes into the tables, as far as it says so itself.
pub(crate) fn is_constant(side: &Side<'_, '_>) -> bool {
    table_section(side).is_none_or(|section| !is_written(side, section.range))
}

/// Whether replaced code finds what is at `va` in the copy of the `tables`: the old image
/// lacks it, or has it in another size.
pub fn is_brought(diff: &ImageDiff<'_, '_>, tables: VaRange, va: Va) -> bool {
    tables.contains(va)
        && match diff.data.old_of(va, &diff.new) {
            None => true,
            Some(Correspondence::Between(_)) => diff.is_resized(va),
            // Code that stays knows it, so there is only one.
            Some(Correspondence::Exact(_)) => false,
        }
}

/// Addresses of tables, and in tables that are brought, that may be the end of something
/// instead of the start of what the old image has there.
pub(crate) fn doubts(
    diff: &ImageDiff<'_, '_>,
    carried: &Carried,
    copied: Option<VaRange>,
    witnesses: &Witnesses,
) -> Vec<Evidence> {
    let Some(tables) = table_section(&diff.new).map(|section| section.range) else { return Vec::new() };
    let is_brought = |va| copied.is_some() && is_brought(diff, tables, va);
    let seen = "may be the end of what lies before it, which has another size";
    let mut doubts = Vec::new();
    for (n, reference) in references(diff, carried) {
        let target = reference.target;
        let taken = reference.kind == ReferenceKind::Address && tables.contains(target) && !is_brought(target);
        let Some(old) = diff.data.old_of(target, &diff.new).map(Correspondence::old).filter(|_| taken) else {
            continue;
        };
        let witnessed = witnesses.get(&target).is_some_and(|olds| olds.iter().all(|o| *o == old));
        if !witnessed && may_be_end(diff, target, old) {
            let function = diff.new.image.functions().get(n);
            doubts.push(Evidence {
                function: function.map(salve_elf::Function::display_name),
                old_va: Some(old),
                new_va: function.map(|f| f.range.start().wrapping_offset(i64::from(reference.at))),
                seen: format!("refers to {target}, which {seen}"),
            });
        }
    }
    for reloc in diff.new.image.relocs().iter().filter(|reloc| copied.is_some_and(|copied| copied.contains(reloc.at))) {
        let Binding::Relative { target } = reloc.binding else { continue };
        let role = diff.new.image.section_at(target).map(|section| section.role);
        let variable = matches!(role, Some(SectionRole::RelroData | SectionRole::WritableData));
        let old = diff.data.old_of(target, &diff.new).map(Correspondence::old);
        if let Some(old) = old.filter(|_| variable && !is_brought(target))
            && may_be_end(diff, target, old)
        {
            let (function, old_va, new_va) = (None, Some(old), Some(reloc.at));
            let seen = format!("leads in a table to {target}, which {seen}");
            doubts.push(Evidence { function, old_va, new_va, seen });
        }
    }
    doubts
}

/// Whether what lies before `new` ends elsewhere in the old image than at `old`.
fn may_be_end(diff: &ImageDiff<'_, '_>, new: Va, old: Va) -> bool {
    let sections = (diff.old.image.section_at(old), diff.new.image.section_at(new));
    let (Some(before), Some(section)) = sections else { return true };
    let start = section.range.start();
    if new == start {
        return false;
    }
    let anchor = new.checked_sub(1).and_then(|last| diff.new.anchor_up_to(last));
    let (from, old_from) = match anchor {
        Some(anchor) => (anchor, diff.data.old_of(anchor, &diff.new).map(Correspondence::old)),
        None => (start, Some(before.range.start())),
    };
    old_from.is_none_or(|old_from| new.wrapping_distance_from(from) != old.wrapping_distance_from(old_from))
}

/// Of all functions that the payload has, with their indices.
fn references<'d>(
    diff: &'d ImageDiff<'_, '_>,
    carried: &Carried,
) -> impl Iterator<Item = (usize, &'d Reference)> + use<'d> {
    let functions = carried.new_functions().into_iter();
    functions.flat_map(|n| {
        diff.new.code.get(n).into_iter().flat_map(move |code| code.references.iter().map(move |r| (n, r)))
    })
}

/// Made read-only once the loader is done with it.
fn table_section<'s>(side: &'s Side<'_, '_>) -> Option<&'s Section<'s>> {
    let section = side.image.section_named(TABLES)?;
    (section.bytes.is_some() && section.role == SectionRole::RelroData).then_some(section)
}

/// Whether any instruction writes there, as far as it says so itself.
fn is_written(side: &Side<'_, '_>, section: VaRange) -> bool {
    let mut factory = InstructionInfoFactory::new();
    side.image.functions().iter().zip(&side.code).any(|(function, code)| {
        let refers = |r: &Reference| r.kind == ReferenceKind::Memory && section.contains(r.target);
        code.references.iter().filter(|r| refers(r)).any(|reference| {
            let at = function.range.start().wrapping_offset(i64::from(reference.at));
            salve_code::decode_at(side.image, at).is_none_or(|instruction| {
                let accesses = factory.info(&instruction).used_memory();
                let reads = |access| matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
                accesses.iter().any(|memory| !reads(memory.access()))
            })
        })
    })
}
