//! Places inside of replaced functions whose address is a value.
//!
//! `goto *next`, and a label that an object remembers, lead into the middle of a function: of
//! the version that took the address. What old code left in an object leads new code into the
//! old body, with a frame that is laid out otherwise.

use crate::carry::Carried;
use crate::registry;
use iced_x86::{Instruction, Mnemonic};
use salve_elf::{Binding, Function, Va};
use salve_match::{ImageDiff, Side};
use salve_patch::{Evidence, Reason};
use std::collections::BTreeSet;

pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    let mut evidence = Vec::new();
    for pair in &carried.pairs {
        let functions = (diff.old.image.functions().get(pair.old), diff.new.image.functions().get(pair.new));
        let (Some(f), Some(g)) = functions else { continue };
        let places = (taken(&diff.old, f), taken(&diff.new, g));
        if let (Some(first), _) | (None, Some(first)) = (places.0.first(), places.1.first()) {
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

/// Instructions of the function, but for its first, whose address it takes or data hold.
fn taken(side: &Side<'_, '_>, function: &Function) -> BTreeSet<Va> {
    let code: Vec<Instruction> = salve_code::decode(side.image, function.range).into_iter().flatten().collect();
    let starts: BTreeSet<Va> = code.iter().skip(1).map(|i| Va::new(i.ip())).collect();
    let made = code.iter().filter(|i| i.mnemonic() == Mnemonic::Lea && i.is_ip_rel_memory_operand());
    let made = made.map(|i| Va::new(i.ip_rel_memory_address()));
    let held = side.image.relocs().iter().filter_map(|reloc| match reloc.binding {
        Binding::Relative { target } => Some(target),
        _ => None,
    });
    made.chain(held).filter(|place| starts.contains(place)).collect()
}
