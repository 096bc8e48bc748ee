//! What changed data means.

use crate::carry::Carried;
use crate::kept::{Kept, Standing};
use crate::registry;
use crate::tables::is_brought;
use crate::words::{Staying, Words, in_place};
use salve_code::ReferenceKind;
use salve_elf::{Binding, SectionRole, Va, VaRange};
use salve_match::{ContentDifference, DataChangeKind, ImageDiff, NoiseContext, Place, Side, data_stamp, text_at};
use salve_patch::{Evidence, Reason};
use std::collections::BTreeSet;

pub(crate) fn reasons(
    diff: &ImageDiff<'_, '_>,
    carried: &Carried,
    copied: Option<VaRange>,
    context: &NoiseContext,
) -> (Vec<Reason>, Words) {
    let kept = Kept::of(diff, carried, context);
    let mut stamps = Vec::new();
    let mut named = Vec::new();
    let mut initialisers = Vec::new();
    let mut tables = Vec::new();
    let mut resized = Vec::new();
    let mut brought = Vec::new();
    let mut staying = Staying::default();
    for change in &diff.data_changes {
        let at = |offset: u64| (change.old.checked_add(offset), change.new.checked_add(offset));
        let seen = |(old_va, new_va), seen: String| Evidence { function: None, old_va, new_va, seen };
        let stamp_at = |old: Va, new: Va| data_stamp(diff, old, new, context);
        match &change.kind {
            DataChangeKind::Bytes { offset, old, new } => {
                let place = at(*offset);
                let written =
                    diff.new.image.section_at(change.new).is_some_and(|s| s.role == SectionRole::WritableData);
                let stamp = place.0.zip(place.1).and_then(|(o, n)| stamp_at(o, n));
                let Some(stamp) = stamp else {
                    let differ = format!("{} holds {new:02x?}, before {old:02x?}", change.section);
                    let list = if written { &mut initialisers } else { &mut tables };
                    list.push(seen(place, differ));
                    continue;
                };
                let holds = format!("{} holds {:?}, before {:?}", change.section, stamp.new, stamp.old);
                staying.texts.extend(place.1);
                match kept.text(stamp.old_range, stamp.new_range) {
                    Standing::WrittenOut(how) => stamps.push(seen(place, format!("{holds}; {how}"))),
                    Standing::Named(how) => named.push(seen(place, format!("{holds}; {how}"))),
                    Standing::Matters(how) if written => initialisers.push(seen(place, format!("{holds}; {how}"))),
                    Standing::Matters(how) => tables.push(seen(place, format!("{holds}; {how}"))),
                }
            }
            DataChangeKind::Text { offset, difference } => {
                let place = at(*offset);
                let stamp = match difference {
                    ContentDifference::Text { old, new } => stamp_at(*old, *new),
                    ContentDifference::Bytes { .. } => None,
                };
                let slots = place.0.and_then(|o| VaRange::new(o, 8)).zip(place.1.and_then(|n| VaRange::new(n, 8)));
                let (Some(stamp), Some((old, new))) = (stamp, slots) else {
                    tables.push(seen(place, points_elsewhere(diff, &change.section, difference)));
                    continue;
                };
                let points = format!("points to {:?}, before to {:?}", stamp.new, stamp.old);
                staying.pointers.extend(place.1);
                match kept.pointer(old, new) {
                    Standing::WrittenOut(how) => stamps.push(seen(place, format!("{points}; {how}"))),
                    Standing::Named(how) => named.push(seen(place, format!("{points}; {how}"))),
                    Standing::Matters(how) => tables.push(seen(place, format!("{points}; {how}"))),
                }
            }
            DataChangeKind::Slot { offset } => {
                let (old, new) = at(*offset);
                let (before, after) = (slot(&diff.old, old), slot(&diff.new, new));
                tables.push(seen((old, new), format!("{} holds {after}, before {before}", change.section)));
            }
            DataChangeKind::Resized { old_len_bytes, new_len_bytes } => {
                for (target, evidence) in refers_into(diff, carried, copied, change.new, *new_len_bytes) {
                    let seen = format!(
                        "{}: {new_len_bytes:#x} bytes in {}, before {old_len_bytes:#x}",
                        evidence.seen, change.section
                    );
                    let is_copied = copied.is_some_and(|copied| is_brought(diff, copied, target));
                    let list = if is_copied { &mut brought } else { &mut resized };
                    list.push(Evidence { seen, ..evidence });
                }
            }
        }
    }
    let (words, in_place, tables) = in_place(diff, carried, tables, &staying);
    let mut reasons = Vec::new();
    let mut add = |code: registry::ReasonCode, summary: &str, evidence: Vec<Evidence>| {
        if !evidence.is_empty() {
            reasons.push(code.because(summary, evidence));
        }
    };
    add(registry::BUILD_STAMP, "texts in data name the build; the old ones stay", stamps);
    add(registry::BUILD_NAME_KEPT, "the process goes on to give the name of the build it was started from", named);
    add(registry::CHANGED_INITIALISER, "variables start with another value", initialisers);
    add(registry::DATA_CHANGED, "tables that unchanged code reads differ", tables);
    add(
        registry::TABLE_BROUGHT,
        "replaced code gets tables of its own, or takes the end of what lies before them",
        brought,
    );
    add(registry::DATA_RESIZED, "static data that replaced code refers to has another size", resized);
    let summary = match words.readers.len() {
        0 => "a table that code which stays reads is changed where it lies".to_owned(),
        1 => "a table that a function which stays reads is changed where it lies".to_owned(),
        readers => format!("a table that {readers} functions which stay read is changed where it lies"),
    };
    add(registry::DATA_IN_PLACE, &summary, in_place);
    (reasons, words)
}

/// What the loader puts into a slot.
fn slot(side: &Side<'_, '_>, at: Option<Va>) -> String {
    let binding = at.and_then(|at| side.image.reloc_at(at)).map(|reloc| reloc.binding);
    match binding {
        Some(Binding::Relative { target }) => match side.place(target) {
            Place::Code { function, offset: 0 } => {
                let function = side.image.functions().get(function).map(salve_elf::Function::display_name);
                format!("the address of {}", function.unwrap_or_else(|| target.to_string()))
            }
            _ => format!("the address {target}"),
        },
        Some(Binding::Symbol { symbol, .. }) => {
            let name = side.image.symbols().get(symbol).map(salve_elf::Symbol::display_name);
            format!("the address of {}", name.unwrap_or_default())
        }
        Some(Binding::Indirect { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. }) => {
            "what the loader finds out".to_owned()
        }
        None => "no address".to_owned(),
    }
}

/// What a pointer leads to and led to.
fn points_elsewhere(diff: &ImageDiff<'_, '_>, section: &str, difference: &ContentDifference) -> String {
    let (ContentDifference::Text { old, new } | ContentDifference::Bytes { old, new, .. }) = difference;
    let text = |side, at| text_at(side, at, 0).map(|text| String::from_utf8_lossy(text).into_owned());
    match (text(&diff.old, *old), text(&diff.new, *new)) {
        (Some(before), Some(after)) => format!("{section} points to {after:?}, before to {before:?}"),
        _ => format!("{section} points to {new}, before to {old}, which differ"),
    }
}

/// References of replaced code, and of tables that it brings, into the run or to what may reach
/// into it: the first of each function to each place.
fn refers_into(
    diff: &ImageDiff<'_, '_>,
    carried: &Carried,
    copied: Option<VaRange>,
    new: Va,
    len_bytes: u64,
) -> Vec<(Va, Evidence)> {
    let Some(run) = VaRange::new(new, len_bytes) else { return Vec::new() };
    // Where the last thing before the run ends, nobody says.
    let before = new.checked_sub(1).and_then(|last| diff.new.anchor_up_to(last));
    let before =
        before.filter(|before| diff.new.image.section_index_at(*before) == diff.new.image.section_index_at(new));
    let reaches = |target: Va, taken: bool| run.contains(target) || taken && Some(target) == before;
    let how = |target: Va| if run.contains(target) { "refers to" } else { "what it refers to may reach behind" };
    let mut found = Vec::new();
    for function in carried.new_functions() {
        let (Some(code), Some(f)) = (diff.new.code.get(function), diff.new.image.functions().get(function)) else {
            continue;
        };
        let mut targets = BTreeSet::new();
        for reference in &code.references {
            let (target, taken) = (reference.target, reference.kind == ReferenceKind::Address);
            if !reaches(target, taken) || !targets.insert(target) {
                continue;
            }
            let evidence = Evidence {
                function: Some(f.display_name()),
                old_va: None,
                new_va: Some(f.range.start().wrapping_offset(i64::from(reference.at))),
                seen: format!("{} {target}", how(target)),
            };
            found.push((target, evidence));
        }
    }
    for reloc in diff.new.image.relocs().iter().filter(|reloc| copied.is_some_and(|copied| copied.contains(reloc.at))) {
        if let Binding::Relative { target } = reloc.binding
            && reaches(target, true)
        {
            let (function, old_va, new_va) = (None, None, Some(reloc.at));
            found.push((target, Evidence { function, old_va, new_va, seen: format!("{} {target}", how(target)) }));
        }
    }
    found
}
