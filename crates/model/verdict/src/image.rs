//! What rules a livepatch out, or most of one, whatever it is that changed: how the image as a whole was built.

use crate::registry;
use salve_elf::{ImageKind, Reloc, SectionRole};
use salve_match::ImageDiff;
use salve_patch::{Evidence, FunctionCounts, Reason};

/// Most of the code differs: nothing else that is found means anything.
pub(crate) fn rebuilt(counts: &FunctionCounts) -> Option<Reason> {
    const FEWEST: u64 = 16;
    let differing = counts.changed.saturating_add(counts.added);
    let share = differing.saturating_mul(100).checked_div(counts.new).unwrap_or(0);
    (differing >= FEWEST && share >= 50).then(|| {
        let seen = format!("{differing} of {} functions differ ({share} %)", counts.new);
        registry::REBUILT.because(seen, Vec::new())
    })
}

/// Linked to begin at one address only.
pub(crate) fn fixed_address(diff: &ImageDiff<'_, '_>) -> Option<Reason> {
    let first = diff.new.image.sections().first().map(|section| section.range.start());
    let fixed = diff.new.image.kind() == ImageKind::FixedAddress;
    fixed.then(|| {
        let at = first.map_or_else(|| "an unknown address".to_owned(), |at| at.to_string());
        let seen = format!("an ELF file of type ET_EXEC, linked to begin at {at}");
        let evidence = Evidence { function: None, old_va: None, new_va: first, seen };
        registry::FIXED_ADDRESS.because("the program is no position-independent executable", vec![evidence])
    })
}

/// `DT_TEXTREL` without trusting it: a relocation that lies in code.
pub(crate) fn text_relocations(diff: &ImageDiff<'_, '_>) -> Option<Reason> {
    let in_code = |reloc: &&Reloc| {
        let section = diff.old.image.section_at(reloc.at);
        section.is_some_and(|section| section.role == SectionRole::Code)
    };
    let evidence: Vec<Evidence> = diff
        .old
        .image
        .relocs()
        .iter()
        .filter(in_code)
        .take(64)
        .map(|reloc| Evidence {
            function: None,
            old_va: Some(reloc.at),
            new_va: None,
            seen: "a relocation lies in executable memory".to_owned(),
        })
        .collect();
    (!evidence.is_empty())
        .then(|| registry::TEXT_RELOCATIONS.because("its code is relocated when it is loaded", evidence))
}
