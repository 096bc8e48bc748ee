//! Whether replaced code and the old image mean the same variable.
//!
//! An address between two mapped ones that lie equally far from their
//! counterparts is *probably* the same variable. Where only replaced code refers
//! to it, nothing outside says so: the compiler may have laid out two variables
//! in another order, or a new one may have taken the place of one that is gone.
//! The two versions of a replaced function bear witness: instructions that are
//! aligned refer to the same variable.

use crate::carry::Carried;
use crate::registry;
use crate::tables::is_brought;
use iced_x86::Instruction;
use salve_code::ReferenceKind;
use salve_elf::{Binding, SectionRole, Va, VaRange};
use salve_match::{Correspondence, DataChange, DataChangeKind, ImageDiff, Side};
use salve_patch::{Evidence, Reason};
use std::collections::{BTreeMap, BTreeSet};

/// For each address of the new image, the old ones that aligned instructions refer to.
pub(crate) type Witnesses = BTreeMap<Va, BTreeSet<Va>>;

pub(crate) fn reasons(
    diff: &ImageDiff<'_, '_>,
    carried: &Carried,
    copied: Option<VaRange>,
    witnesses: &Witnesses,
) -> Vec<Reason> {
    let symbolic = symbolic(diff);
    let inside = inside(diff, carried);
    let mut elsewhere = Vec::new();
    let mut contradicted = Vec::new();
    let mut unwitnessed = Vec::new();
    for function in carried.new_functions() {
        let (Some(code), Some(f)) = (diff.new.code.get(function), diff.new.image.functions().get(function)) else {
            continue;
        };
        let is_copied = |va| copied.is_some_and(|copied| is_brought(diff, copied, va));
        for reference in code.references.iter().filter(|r| is_variable(&diff.new, r.target) && !is_copied(r.target)) {
            let found = diff.data.old_of(reference.target, &diff.new);
            if let Some(name) = found.and_then(|c| symbolic.get(&c.old())) {
                elsewhere.push(Evidence {
                    function: Some(f.display_name()),
                    old_va: found.map(Correspondence::old),
                    new_va: Some(f.range.start().wrapping_offset(i64::from(reference.at))),
                    seen: format!("refers to {name} itself, where the old image asks the loader for it"),
                });
            }
            let Some(Correspondence::Between(old)) = found else { continue };
            if inside.contains(&reference.target) || is_same_constant(diff, reference.target) {
                continue;
            }
            let seen = |what: &str| Evidence {
                function: Some(f.display_name()),
                old_va: Some(old),
                new_va: Some(f.range.start().wrapping_offset(i64::from(reference.at))),
                seen: format!("refers to {}; {what}", reference.target),
            };
            match witnesses.get(&reference.target) {
                Some(olds) if olds.iter().all(|o| *o == old) => {}
                Some(_) => contradicted.push(seen("its older version refers to another variable in the same place")),
                None => unwitnessed.push(seen("no older version of replaced code does in the same place")),
            }
        }
    }
    let mut reasons = Vec::new();
    if !elsewhere.is_empty() {
        let summary = "the process may have a variable elsewhere that replaced code expects in this image";
        reasons.push(registry::UNPROVEN_REFERENCE.because(summary, elsewhere));
    }
    if !contradicted.is_empty() {
        let summary = "replaced code refers to variables whose places in the old image contradict each other";
        reasons.push(registry::NEW_DATA.because(summary, contradicted));
    }
    if !unwitnessed.is_empty() {
        let summary = "replaced code refers to variables that only their neighbours place in the old image";
        reasons.push(registry::DATA_UNWITNESSED.because(summary, unwitnessed));
    }
    reasons
}

/// Addresses in the middle of variables that identical code places: an access that begins in a
/// variable does not reach into another one.
fn inside(diff: &ImageDiff<'_, '_>, carried: &Carried) -> BTreeSet<Va> {
    let mut accesses: BTreeMap<Va, i64> = BTreeMap::new();
    for function in carried.new_functions() {
        let (Some(code), Some(f)) = (diff.new.code.get(function), diff.new.image.functions().get(function)) else {
            continue;
        };
        for reference in code.references.iter().filter(|r| r.kind == ReferenceKind::Memory) {
            let at = f.range.start().wrapping_offset(i64::from(reference.at));
            let bytes = salve_code::decode_at(diff.new.image, at).map_or(0, |i| i.memory_size().size());
            let longest = accesses.entry(reference.target).or_default();
            *longest = (*longest).max(i64::try_from(bytes).unwrap_or(0));
        }
    }
    let mut inside = BTreeSet::new();
    // How far the last variable that was placed reaches at least, and how far it lies from its old place.
    let mut reached: Option<(Va, i64)> = None;
    for (at, len_bytes) in accesses {
        let Some(found) = diff.data.old_of(at, &diff.new) else { continue };
        let (end, distance) = (at.wrapping_offset(len_bytes), at.wrapping_distance_from(found.old()));
        let within = reached.filter(|(end, same)| at < *end && distance == *same);
        match (within, found) {
            (Some((so_far, _)), _) => {
                inside.insert(at);
                reached = Some((so_far.max(end), distance));
            }
            (None, Correspondence::Exact(_)) => reached = Some((end, distance)),
            (None, Correspondence::Between(_)) => {}
        }
    }
    inside
}

/// Whether what lies there is never written by the program and the same in both images up to
/// where another thing begins: whichever table it is, it says the same.
fn is_same_constant(diff: &ImageDiff<'_, '_>, at: Va) -> bool {
    let role = diff.new.image.section_at(at).map(|section| section.role);
    let Some(end) = diff.new.next_anchor(at).filter(|_| role == Some(SectionRole::RelroData)) else { return false };
    let mut runs = diff.runs.iter();
    let covered = runs.any(|run| run.new <= at && run.new.checked_add(run.len_bytes).is_some_and(|to| to >= end));
    // Runs go on behind pointers to other texts.
    covered && !diff.data_changes.iter().filter_map(changed_at).any(|va| va >= at && va < end)
}

/// Where a change of data is, in the new image.
fn changed_at(change: &DataChange) -> Option<Va> {
    match change.kind {
        DataChangeKind::Bytes { offset, .. }
        | DataChangeKind::Slot { offset }
        | DataChangeKind::Text { offset, .. } => change.new.checked_add(offset),
        // Such a run is no longer than what is the same.
        DataChangeKind::Resized { .. } => None,
    }
}

/// Exported variables that the old image's own code reaches only through slots that the
/// loader binds by name: a program's copy, or another library's variable, may be the live one.
fn symbolic<'d>(diff: &'d ImageDiff<'_, '_>) -> BTreeMap<Va, &'d str> {
    let image = diff.old.image;
    let mut found: BTreeMap<Va, &str> = BTreeMap::new();
    for reloc in image.relocs() {
        let Binding::Symbol { symbol, .. } = reloc.binding else { continue };
        if let Some(symbol) = image.symbols().get(symbol).filter(|s| s.defined && is_variable(&diff.old, s.value)) {
            found.insert(symbol.value, symbol.name);
        }
    }
    for reference in diff.old.code.iter().flat_map(|code| &code.references) {
        found.remove(&reference.target);
    }
    found
}

fn is_variable(side: &Side<'_, '_>, va: Va) -> bool {
    side.image.section_at(va).is_some_and(|s| matches!(s.role, SectionRole::RelroData | SectionRole::WritableData))
}

pub(crate) fn witnesses(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Witnesses {
    let mut witnesses = Witnesses::new();
    let target = |side: &Side<'_, '_>, i: &Instruction| {
        let va = i.is_ip_rel_memory_operand().then(|| Va::new(i.ip_rel_memory_address()))?;
        is_variable(side, va).then_some(va)
    };
    for pair in &carried.pairs {
        for aligned in &diff.difference(pair.old, pair.new).aligned {
            if let (Some(old), Some(new)) = (target(&diff.old, &aligned.old), target(&diff.new, &aligned.new)) {
                witnesses.entry(new).or_default().insert(old);
            }
        }
    }
    witnesses
}
