//! Tables of pointers that nobody writes, of which the payload may have a copy.
//!
//! A table of texts or functions lies in `.data.rel.ro`: the loader fills its pointers and
//! makes it read-only. Where replaced code refers to such a table that the old image lacks,
//! or that has another size there, the payload can bring all of the section, as it brings
//! all constants. How far a table reaches is not known, nor are a part of the references
//! and the rest ever to meet two copies, so it is all of them or none.
//!
//! A few programs (the C library and its loader) keep variables there that are written
//! before the section becomes read-only; where any code writes into it, it is no constant.

use crate::carry::Carried;
use iced_x86::{InstructionInfoFactory, OpAccess};
use salve_elf::{Section, Va, VaRange};
use salve_match::{DataChangeKind, ImageDiff, Side};

/// Each process has its own copy, because of the addresses in it.
const LARGEST_BYTES: u64 = 64 << 10;
const NAME: &str = ".data.rel.ro";

/// The section of the new image that the payload is to have a copy of, if any.
pub(crate) fn copied(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<VaRange> {
    let section = table_section(&diff.new)?.range;
    let needed = carried.new_functions().into_iter().filter_map(|n| diff.new.code.get(n)).any(|code| {
        let inside = code.references.iter().map(|r| r.target).filter(|target| section.contains(*target));
        inside.into_iter().any(|target| diff.data.old_of(target, &diff.new).is_none() || is_resized(diff, target))
    });
    let constant = |side: &Side<'_, '_>| table_section(side).is_none_or(|s| !is_written(side, s.range));
    (needed && section.len_bytes() <= LARGEST_BYTES && constant(&diff.old) && constant(&diff.new)).then_some(section)
}

fn table_section<'s>(side: &'s Side<'_, '_>) -> Option<&'s Section<'s>> {
    side.image.section_named(NAME).filter(|section| section.bytes.is_some())
}

fn is_resized(diff: &ImageDiff<'_, '_>, target: Va) -> bool {
    diff.data_changes.iter().any(|change| match change.kind {
        DataChangeKind::Resized { new_len_bytes, .. } => {
            VaRange::new(change.new, new_len_bytes).is_some_and(|run| run.contains(target))
        }
        DataChangeKind::Bytes { .. } | DataChangeKind::Text { .. } | DataChangeKind::Slot { .. } => false,
    })
}

/// Whether any instruction writes there, as far as it says so itself.
fn is_written(side: &Side<'_, '_>, section: VaRange) -> bool {
    let mut factory = InstructionInfoFactory::new();
    side.image.functions().iter().zip(&side.code).any(|(function, code)| {
        let refers =
            |r: &salve_code::Reference| r.kind == salve_code::ReferenceKind::Memory && section.contains(r.target);
        code.references.iter().filter(|r| refers(r)).any(|reference| {
            let at = function.range.start().wrapping_offset(i64::from(reference.at));
            salve_code::decode_at(side.image, at).is_none_or(|instruction| {
                let accesses = factory.info(&instruction).used_memory();
                accesses.iter().any(|memory| {
                    !matches!(memory.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
                })
            })
        })
    })
}
