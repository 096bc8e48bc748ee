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
use salve_elf::{Binding, SectionRole, Va, VaRange};
use salve_match::{Correspondence, ImageDiff, Side};
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
