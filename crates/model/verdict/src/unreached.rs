//! Changed functions that no process runs.
//!
//! A program that is linked with an archive gets whole object files of it, and in them
//! functions that it never calls. Where all that differs is such functions, the update
//! changes nothing that a process does. A function is unreached if in both images no
//! other code refers to it, to its entry or its inside, nor runs on into it, no
//! relocation or symbol names it, it is no entry point, and no word of the constants
//! leads to it as a distance from itself or from where its table may begin. Code that
//! is not understood, and programs at fixed addresses, whose data hold addresses that
//! nothing marks, prove nothing.

use crate::carry::Carried;
use crate::registry;
use iced_x86::FlowControl;
use salve_elf::{Binding, ImageKind, SectionRole, Va};
use salve_match::{ImageDiff, Place, Side};
use salve_patch::{Evidence, Reason};
use std::collections::BTreeSet;

/// The reason why nothing is carried, if nothing that differs is ever run.
pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    let proven = carried.pairs.iter().any(|p| p.evidence.proves_role());
    if carried.pairs.is_empty() || !carried.added.is_empty() || !diff.gone.is_empty() || proven {
        return None;
    }
    let sides = [
        (&diff.old, carried.pairs.iter().map(|p| p.old).collect::<BTreeSet<_>>()),
        (&diff.new, carried.pairs.iter().map(|p| p.new).collect()),
    ];
    if sides.iter().any(|(side, functions)| is_any_reached(side, functions)) {
        return None;
    }
    let evidence = carried.pairs.iter().filter_map(|p| {
        let (f, g) = (diff.old.image.functions().get(p.old)?, diff.new.image.functions().get(p.new)?);
        Some(Evidence {
            function: Some(g.display_name()),
            old_va: Some(f.range.start()),
            new_va: Some(g.range.start()),
            seen: "no code, slot, symbol or table of either image leads to it".to_owned(),
        })
    });
    let evidence: Vec<Evidence> = evidence.collect();
    Some(registry::UNREACHABLE_CODE.because("only functions differ that nothing leads to", evidence))
}

fn is_any_reached(side: &Side<'_, '_>, functions: &BTreeSet<usize>) -> bool {
    let ours = |va: Va| matches!(side.place(va), Place::Code { function, .. } if functions.contains(&function));
    let understood = side.image.kind() == ImageKind::PositionIndependent && side.code.iter().all(|code| code.decoded);
    let others = side.code.iter().enumerate().filter(|(index, _)| !functions.contains(index));
    let called = others.flat_map(|(_, code)| &code.references).any(|reference| ours(reference.target));
    let held = side.image.relocs().iter().any(|reloc| match reloc.binding {
        Binding::Relative { target } | Binding::Indirect { resolver: target } => ours(target),
        Binding::Symbol { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. } => false,
    });
    let named = side.image.symbols().iter().any(|symbol| symbol.defined && ours(symbol.value));
    let ordinary = functions.iter().all(|index| {
        // What nothing describes may be data, which others reach by calculation.
        let start = side.image.functions().get(*index).filter(|f| f.is_described()).map(|f| f.range.start());
        start.and_then(|va| side.image.section_at(va)).is_some_and(|section| section.name == ".text")
    });
    !understood
        || called
        || held
        || named
        || !ordinary
        || ours(side.image.entry())
        || functions.iter().any(|index| runs_on_into(side, *index))
        || in_tables(side, &ours)
}

/// Whether the function before does not end.
fn runs_on_into(side: &Side<'_, '_>, function: usize) -> bool {
    let Some(before) = function.checked_sub(1).and_then(|before| side.image.functions().get(before)) else {
        return false;
    };
    let last = salve_code::decode(side.image, before.range).into_iter().flatten().last();
    last.is_none_or(|last| matches!(last.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch))
}

/// Whether a word of the constants is a distance to one of the functions.
fn in_tables(side: &Side<'_, '_>, ours: &impl Fn(Va) -> bool) -> bool {
    let constants = side.image.sections().iter().filter(|section| section.role == SectionRole::ReadOnlyData);
    for section in constants {
        let mut table = section.range.start();
        for (word, at) in section.bytes.unwrap_or_default().chunks_exact(4).zip((0_i64..).step_by(4)) {
            let at = section.range.start().wrapping_offset(at);
            table = side.anchor_up_to(at).unwrap_or(table);
            let Some(distance) = word.first_chunk().map(|word| i64::from(i32::from_le_bytes(*word))) else { continue };
            if ours(at.wrapping_offset(distance)) || ours(table.wrapping_offset(distance)) {
                return true;
            }
        }
    }
    false
}
