//! Places inside of replaced functions whose address is a value.
//!
//! `goto *next`, and a label that an object remembers, lead into the middle of a function: of
//! the version that took the address. What old code left in an object leads new code into the
//! old body, with a frame that is laid out otherwise.

use crate::carry::Carried;
use crate::registry;
use iced_x86::{Instruction, Mnemonic};
use salve_elf::{Binding, Function, SectionRole, Va};
use salve_match::{ImageDiff, Side};
use salve_patch::{Evidence, Reason};
use std::collections::BTreeSet;

pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    let held = (held(&diff.old), held(&diff.new));
    let mut evidence = Vec::new();
    for pair in &carried.pairs {
        let functions = (diff.old.image.functions().get(pair.old), diff.new.image.functions().get(pair.new));
        let (Some(f), Some(g)) = functions else { continue };
        let first = taken(&diff.old, f, &held.0).or_else(|| taken(&diff.new, g, &held.1));
        if let Some(first) = first {
            evidence.push(Evidence {
                function: Some(g.display_name()),
                old_va: Some(f.range.start()),
                new_va: Some(g.range.start()),
                seen: format!("the address of a place in it, {first}, is a value"),
            });
        }
    }
    let summary = "an address inside a replaced function may be kept, and lead into its other version";
    (!evidence.is_empty()).then(|| registry::LABEL_ADDRESS.because(summary, evidence))
}

/// The first instruction of the function, but for its entry, whose address it takes or data hold.
fn taken(side: &Side<'_, '_>, function: &Function, held: &BTreeSet<Va>) -> Option<Va> {
    let code = || salve_code::decode(side.image, function.range).into_iter().flatten();
    let made = code().filter(|i| i.mnemonic() == Mnemonic::Lea && i.is_ip_rel_memory_operand());
    let made = made.map(|i| Va::new(i.ip_rel_memory_address())).filter(|place| function.range.contains(*place));
    let places: BTreeSet<Va> = made.chain(held.range(function.range.start()..function.range.end()).copied()).collect();
    if places.is_empty() {
        return None;
    }
    let starts: BTreeSet<Va> = code().skip(1).map(|i: Instruction| Va::new(i.ip())).collect();
    places.intersection(&starts).next().copied()
}

/// Addresses of code that data hold.
fn held(side: &Side<'_, '_>) -> BTreeSet<Va> {
    let targets = side.image.relocs().iter().filter_map(|reloc| match reloc.binding {
        Binding::Relative { target } => Some(target),
        _ => None,
    });
    let is_code = |at: &Va| side.image.section_at(*at).is_some_and(|section| section.role == SectionRole::Code);
    targets.filter(is_code).collect()
}
