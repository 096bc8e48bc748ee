//! Functions whose addresses the process holds: who calls what after the change.
//!
//! An address that was handed out leads to the old entry for ever, and from there to the version
//! that the payload has. So each needs one, and a proof that it has the old one's role.

use crate::callers::Callers;
use crate::carry::{Carried, CarriedPair};
use crate::registry;
use salve_match::ImageDiff;
use salve_patch::{Evidence, Reason};

/// Callbacks that have no counterpart.
pub(crate) fn unpaired(diff: &ImageDiff<'_, '_>, carried: &Carried, old: &Callers, new: &Callers) -> Vec<Reason> {
    let gone: Vec<Evidence> = diff
        .gone
        .iter()
        .filter(|o| old.is_held(**o))
        .filter_map(|o| diff.old.image.functions().get(*o))
        .map(|f| Evidence {
            function: Some(f.display_name()),
            old_va: Some(f.range.start()),
            new_va: None,
            seen: "its address was taken; it has no counterpart".to_owned(),
        })
        .collect();
    let added: Vec<Evidence> = carried
        .added
        .iter()
        .filter(|n| new.taken.contains(n))
        .filter_map(|n| diff.new.image.functions().get(*n))
        .map(|f| Evidence {
            function: Some(f.display_name()),
            old_va: None,
            new_va: Some(f.range.start()),
            seen: "its address is taken; it has no counterpart".to_owned(),
        })
        .collect();
    match (gone.is_empty(), added.is_empty()) {
        (true, true) => Vec::new(),
        (false, true) => vec![registry::CALLBACK_GONE.because("a callback is gone", gone)],
        (true, false) => vec![registry::NEW_CALLBACK.because("a callback is new", added)],
        (false, false) => {
            let evidence = gone.into_iter().chain(added).collect();
            vec![registry::CALLBACK_REPLACED.because("callbacks are gone and others are new", evidence)]
        }
    }
}

/// A changed function whose address is held somewhere needs a proven role.
pub(crate) fn roles(diff: &ImageDiff<'_, '_>, carried: &Carried, old: &Callers) -> Option<Reason> {
    let unproven = |pair: &CarriedPair| old.is_held(pair.old) && !pair.evidence.proves_role();
    let evidence = evidence(diff, carried, unproven, |_| {
        "its address is taken; no caller, slot or name says which new function has its role".to_owned()
    });
    (!evidence.is_empty())
        .then(|| registry::ROLE_UNPROVEN.because("the role of a changed function is not proven", evidence))
}

/// Functions that only the places which take their addresses call two versions of one.
pub(crate) fn rewritten(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    let unlike = |pair: &CarriedPair| pair.evidence.unlike && pair.evidence.proves_role();
    let evidence = evidence(diff, carried, unlike, |pair| {
        let takers = pair.evidence.takers;
        format!("{takers} places take its address where the old one's was taken; its code is another")
    });
    (!evidence.is_empty())
        .then(|| registry::CALLBACK_REWRITTEN.because("a function whose address is held was rewritten", evidence))
}

/// Functions whose address changed code takes where the old one's was taken, or also takes
/// where another's was: with what and when it is handed over was not followed.
pub(crate) fn by_place_only(diff: &ImageDiff<'_, '_>, carried: &Carried, old: &Callers) -> Option<Reason> {
    let by_place =
        |pair: &CarriedPair| old.is_held(pair.old) && !pair.evidence.unlike && pair.evidence.is_by_place_only();
    let evidence = evidence(diff, carried, by_place, |_| {
        "changed code takes its address; when, and what else is handed over with it, was not followed".to_owned()
    });
    (!evidence.is_empty())
        .then(|| registry::CALLBACK_BY_PLACE.because("who gets a function's address when was not followed", evidence))
}

/// What is seen of each carried pair that is `wanted`.
fn evidence(
    diff: &ImageDiff<'_, '_>,
    carried: &Carried,
    wanted: impl Fn(&CarriedPair) -> bool,
    seen: impl Fn(&CarriedPair) -> String,
) -> Vec<Evidence> {
    let one = |pair: &CarriedPair| {
        let old = diff.old.image.functions().get(pair.old)?;
        let new = diff.new.image.functions().get(pair.new)?;
        Some(Evidence {
            function: Some(new.display_name()),
            old_va: Some(old.range.start()),
            new_va: Some(new.range.start()),
            seen: seen(pair),
        })
    };
    carried.pairs.iter().filter(|pair| wanted(pair)).filter_map(one).collect()
}
