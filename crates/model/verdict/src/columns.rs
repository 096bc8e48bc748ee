//! Read-only tables that code which stays reaches by calculation.
//!
//! An object is taken to end where something refers to the next one. In a table
//! of rows that may be its second column: `&table[0].b` is an address of its own.
//! If only replaced code refers to that column, nobody compared it for the code
//! that stays, which reaches it through the first one. So for every table that
//! staying code indexes, what follows is compared up to the next address that
//! staying code, data or a symbol refers to.

use crate::carry::Carried;
use crate::followed::Followed;
use crate::registry;
use salve_code::ReferenceKind;
use salve_elf::{Binding, SectionRole, Va, VaRange};
use salve_match::{ImageDiff, Place, Side, text_at};
use salve_patch::{Evidence, Reason};
use std::collections::BTreeSet;

pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried, followed: &Followed<'_, '_, '_>) -> Option<Reason> {
    let replaced = carried.new_functions();
    let staying: Vec<(usize, usize)> = diff
        .identical
        .iter()
        .copied()
        .chain(diff.changed.iter().map(|p| (p.old, p.new)))
        .filter(|(_, n)| !replaced.contains(n))
        .collect();
    let ends = (
        known(&diff.old, &staying.iter().map(|(o, _)| *o).collect::<Vec<_>>()),
        known(&diff.new, &staying.iter().map(|(_, n)| *n).collect::<Vec<_>>()),
    );
    let mut evidence = Vec::new();
    let mut seen = BTreeSet::new();
    for (o, n) in staying {
        let (Some(a), Some(b)) = (diff.old.code.get(o), diff.new.code.get(n)) else { continue };
        for (x, y) in a.references.iter().zip(&b.references).filter(|(_, y)| y.kind == ReferenceKind::Address) {
            if !is_read_only(&diff.new, y.target) || !seen.insert((n, y.target)) {
                continue;
            }
            let Some(at) = differs_behind(diff, &ends, x.target, y.target) else { continue };
            if indexes(followed, n, y.target) {
                let function = diff.new.image.functions().get(n);
                evidence.push(Evidence {
                    function: function.map(salve_elf::Function::display_name),
                    old_va: Some(x.target),
                    new_va: Some(y.target),
                    seen: format!("indexes the table at {}, which may reach to {at}, where contents differ", y.target),
                });
            }
        }
    }
    let summary = "code that stays may reach changed contents by calculation";
    (!evidence.is_empty()).then(|| registry::READ_ONLY_DATA_CHANGED.because(summary, evidence))
}

fn is_read_only(side: &Side<'_, '_>, va: Va) -> bool {
    side.image.section_at(va).is_some_and(|s| s.role == SectionRole::ReadOnlyData)
}

/// Addresses of read-only data that staying code, data or a symbol refers to.
fn known(side: &Side<'_, '_>, staying: &[usize]) -> BTreeSet<Va> {
    let from_code =
        staying.iter().filter_map(|f| side.code.get(*f)).flat_map(|c| c.references.iter().map(|r| r.target));
    let from_relocs = side.image.relocs().iter().filter_map(|r| match r.binding {
        Binding::Relative { target } => Some(target),
        Binding::Symbol { .. } | Binding::Indirect { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. } => None,
    });
    let from_symbols = side.image.symbols().iter().filter(|s| s.defined).map(|s| s.value);
    from_code.chain(from_relocs).chain(from_symbols).filter(|va| is_read_only(side, *va)).collect()
}

/// Where, behind the next address that anybody refers to, the contents differ
/// that may still belong to the object.
fn differs_behind(diff: &ImageDiff<'_, '_>, ends: &(BTreeSet<Va>, BTreeSet<Va>), old: Va, new: Va) -> Option<Va> {
    let stop = |side: &Side<'_, '_>, known: &BTreeSet<Va>, va: Va| {
        let end = side.image.section_at(va)?.range.end();
        let next = known.range(va.checked_add(1)?..).next().copied().unwrap_or(end).min(end);
        next.raw().checked_sub(va.raw())
    };
    let from = diff.new.next_anchor(new)?.raw().checked_sub(new.raw())?;
    let to = stop(&diff.old, &ends.0, old)?.min(stop(&diff.new, &ends.1, new)?);
    if from >= to || text_at(&diff.new, new, 2).is_some() || leads_to_code(&diff.new, new) {
        return None;
    }
    let behind = |va: Va| VaRange::new(va.checked_add(from)?, to.checked_sub(from)?);
    let (a, b) = (diff.old.image.read(behind(old)?)?, diff.new.image.read(behind(new)?)?);
    let offset = u64::try_from(a.iter().zip(b).position(|(m, n)| m != n)?).ok()?;
    let at = new.checked_add(from)?.checked_add(offset)?;
    // Texts and jump tables of replaced code are no columns.
    let column = diff.new.anchor_up_to(at)?;
    (text_at(&diff.new, column, 2).is_none() && !leads_to_code(&diff.new, column)).then_some(at)
}

/// Whether a distance stands here that leads to code: the first of a jump table.
fn leads_to_code(side: &Side<'_, '_>, va: Va) -> bool {
    VaRange::new(va, 4)
        .and_then(|r| side.image.read(r))
        .and_then(|b| b.first_chunk::<4>().copied())
        .is_some_and(|d| matches!(side.place(va.wrapping_offset(i64::from(i32::from_le_bytes(d)))), Place::Code { .. }))
}

/// Whether the function calculates addresses from that of the table.
fn indexes(followed: &Followed<'_, '_, '_>, function: usize, table: Va) -> bool {
    if followed.side.image.functions().get(function).is_none() {
        return true;
    }
    let digest = followed.digest(function);
    digest.too_large || digest.indexed.contains(&table)
}
