//! State that replaced functions agree on.
//!
//! Two functions that write and read one field keep a bargain about it: what a number in it
//! means, in which form it is, who frees it, which lock stands for it. An update that changes
//! the bargain changes both, in one go; a livepatch changes them while what old code left
//! there still stands. So where two replaced functions each do something else with the same
//! field or variable than before, and one of them leaves something there, a person looks.
//!
//! The types of objects are unknown, so one offset of two objects counts as one field where
//! what else is accessed beside it does not tell the objects apart.

use crate::carry::Carried;
use crate::followed::Versions;
use crate::meaning::MOST_FOLLOWED;
use crate::registry;
use crate::uses::{Callee, InOld, Place, Use, Uses};
use salve_code::affine::{Form, Forms, Origin, argument, forms};
use salve_elf::{Function, Va};
use salve_match::ImageDiff;
use salve_patch::{Evidence, Reason};
use std::collections::{BTreeMap, BTreeSet};

/// What a replaced function does otherwise than its old version.
struct Change {
    name: String,
    old_va: Option<Va>,
    new_va: Option<Va>,
    /// What it does now and did not, and what it did and does not any more.
    places: BTreeMap<Place, (Vec<Use>, Vec<Use>)>,
    /// Where it writes, in both versions.
    writes: BTreeSet<Place>,
    /// What it compared with two numbers at least.
    states: BTreeSet<Place>,
    /// What it accessed before, and what it finds now.
    known: BTreeSet<Place>,
    finds: BTreeSet<Place>,
    /// Offsets that are accessed in one object each.
    objects: Vec<BTreeSet<i64>>,
}

/// Enough for a person to judge by.
const MOST_EVIDENCE: usize = 64;

/// What was found so far.
pub(crate) struct Shared {
    replaced: usize,
    changes: Vec<Change>,
}

impl Shared {
    pub(crate) fn of(carried: &Carried) -> Self {
        Self { replaced: carried.pairs.len(), changes: Vec::new() }
    }

    pub(crate) fn look(&mut self, diff: &ImageDiff<'_, '_>, versions: &Versions<'_>) {
        if self.replaced > MOST_FOLLOWED {
            return;
        }
        let Versions { f, g, before, after, .. } = *versions;
        let mut old = Uses::of(&diff.old, before, &InOld { va: &Some, function: &Some });
        let mut new = new_uses(diff, after);
        // Whom only one version calls does for it what the other does itself, or does not do.
        let called = |uses: &Uses| uses.given.iter().map(|(function, ..)| *function).collect::<BTreeSet<usize>>();
        let (had, has) = (called(&old), called(&new));
        for (uses, others) in [(&mut old, &has), (&mut new, &had)] {
            for (function, argument, origin, constant) in uses.given.clone() {
                if !others.contains(&function) {
                    uses.add_callee(&what_is_done_with(diff, function, argument), origin, constant);
                }
            }
        }
        self.add(Some(f), Some(g), &old, &new);
    }

    /// Functions that only one image has do everything anew, or nothing any more.
    fn look_at_others(&mut self, diff: &ImageDiff<'_, '_>, carried: &Carried) {
        for g in carried.added.iter().filter_map(|added| diff.new.image.functions().get(*added)) {
            let new = new_uses(diff, &forms(diff.new.image, g.range));
            self.add(None, Some(g), &Uses::default(), &new);
        }
        for f in diff.gone.iter().filter_map(|gone| diff.old.image.functions().get(*gone)) {
            let in_old = InOld { va: &Some, function: &Some };
            let old = Uses::of(&diff.old, &forms(diff.old.image, f.range), &in_old);
            self.add(Some(f), None, &old, &Uses::default());
        }
    }

    /// What one function ceases to do and another begins to do, while neither does so elsewhere
    /// instead, moved with the code that does it.
    fn forget_moved(&mut self) {
        let mut by_place: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
        for (index, change) in self.changes.iter().enumerate() {
            for place in change.places.keys() {
                by_place.entry(*place).or_default().push(index);
            }
        }
        let mut moved = Vec::new();
        for (place, indices) in &by_place {
            let changes = || indices.iter().filter_map(|index| Some((*index, self.changes.get(*index)?)));
            for (from, one) in changes() {
                let Some((_, lost)) = one.places.get(place) else { continue };
                for what in lost.iter().filter(|what| !one.does_elsewhere(*place, what, |(gained, _)| gained)) {
                    let begins = |(to, other): (usize, &Change)| {
                        let begun = other.places.get(place).is_some_and(|(gained, _)| gained.contains(what));
                        (to != from && begun && !other.does_elsewhere(*place, what, |(_, lost)| lost)).then_some(to)
                    };
                    moved.extend(changes().find_map(begins).map(|to| (*place, from, to, what.clone())));
                }
            }
        }
        for (place, from, to, what) in moved {
            for (index, begins) in [(from, false), (to, true)] {
                let uses = self.changes.get_mut(index).and_then(|change| change.places.get_mut(&place));
                if let Some((gained, lost)) = uses {
                    (if begins { gained } else { lost }).retain(|one| *one != what);
                }
            }
        }
        for change in &mut self.changes {
            change.places.retain(|_, (gained, lost)| !gained.is_empty() || !lost.is_empty());
        }
    }

    fn add(&mut self, f: Option<&Function>, g: Option<&Function>, old: &Uses, new: &Uses) {
        let none = BTreeSet::new();
        let (mut places, mut writes, mut states) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let both: BTreeSet<Place> = old.of.keys().chain(new.of.keys()).copied().collect();
        for place in both {
            let before = old.of.get(&place).unwrap_or(&none);
            let after = new.of.get(&place).unwrap_or(&none);
            if stores(before) && stores(after) {
                writes.insert(place);
            }
            if old.fixed.contains(&place) && before.iter().filter(|what| matches!(what, Use::Tested(_))).count() >= 2 {
                states.insert(place);
            }
            let mut gained: Vec<Use> = after.difference(before).cloned().collect();
            let mut lost: Vec<Use> = before.difference(after).cloned().collect();
            // That it is read says something only where it is read in another width.
            let reads = |uses: &[Use]| uses.iter().any(|what| matches!(what, Use::Read(_)));
            if !(reads(&gained) && reads(&lost)) {
                gained.retain(|what| !matches!(what, Use::Read(_)));
                lost.retain(|what| !matches!(what, Use::Read(_)));
            }
            if !gained.is_empty() || !lost.is_empty() {
                places.insert(place, (gained, lost));
            }
        }
        let mut objects: Vec<BTreeSet<i64>> = Vec::new();
        for (origin, offsets) in &new.objects {
            // An argument is the same object in both versions.
            let before = matches!(origin, Origin::Entry(_)).then(|| old.objects.get(origin)).flatten();
            objects.push(offsets.iter().chain(before.into_iter().flatten()).copied().collect());
        }
        objects.extend(old.objects.values().cloned());
        let start = |function: Option<&Function>| function.map(|function| function.range.start());
        self.changes.push(Change {
            name: g.or(f).map(Function::display_name).unwrap_or_default(),
            old_va: start(f),
            new_va: start(g),
            places,
            writes,
            states,
            known: old.of.keys().copied().collect(),
            finds: new
                .of
                .iter()
                .filter(|(_, uses)| uses.iter().any(Use::finds_something))
                .map(|(place, _)| *place)
                .collect(),
            objects,
        });
    }

    pub(crate) fn reason(mut self, diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
        if self.replaced > MOST_FOLLOWED {
            // That is said already, with what a field is taken for.
            return None;
        }
        self.look_at_others(diff, carried);
        self.forget_moved();
        let mut by_place: BTreeMap<Place, Vec<&Change>> = BTreeMap::new();
        for change in &self.changes {
            for place in change.places.keys().chain(&change.finds).collect::<BTreeSet<_>>() {
                by_place.entry(*place).or_default().push(change);
            }
        }
        let mut evidence = Vec::new();
        for (place, changes) in &by_place {
            for change in changes.iter().filter(|change| change.places.contains_key(place)) {
                if change.says_otherwise_what_comes_next(*place) || change.stores_other_multiples(*place) {
                    evidence.push(change.evidence(*place));
                    continue;
                }
                let mut others = changes.iter().filter(|other| !std::ptr::eq(*change, **other));
                if others.any(|other| change.meets(other, *place)) {
                    evidence.push(change.evidence(*place));
                }
            }
        }
        evidence.truncate(MOST_EVIDENCE);
        let summary = "replaced functions do something else with the same field or variable";
        (!evidence.is_empty()).then(|| registry::SHARED_STATE.because(summary, evidence))
    }
}

/// What a function of the old image does itself with the object that an argument is.
fn what_is_done_with(diff: &ImageDiff<'_, '_>, function: usize, n: usize) -> Uses {
    let Some(function) = diff.old.image.functions().get(function) else { return Uses::default() };
    let mut forms = forms(diff.old.image, function.range);
    let object = |form: &Form| matches!(form.terms.as_slice(), [(origin, 1)] if *origin == argument(n));
    forms.accesses.retain(|access| object(&access.address));
    forms.calls.clear();
    Uses::of(&diff.old, &forms, &InOld { va: &Some, function: &Some })
}

fn stores<'u>(uses: impl IntoIterator<Item = &'u Use>) -> bool {
    uses.into_iter().any(|what| matches!(what, Use::Stored(_)))
}

fn new_uses(diff: &ImageDiff<'_, '_>, forms: &Forms) -> Uses {
    let va = |va| Some(diff.data.old_of(va, &diff.new)?.old());
    Uses::of(&diff.new, forms, &InOld { va: &va, function: &|new| diff.old_of(new) })
}

impl Change {
    /// Whether one leaves something in this place that the other finds, and both changed in that.
    fn meets(&self, other: &Self, place: Place) -> bool {
        let leaves = |one: &Self| {
            let in_form = one.writes.contains(&place) && one.any(place, Use::tells_the_form);
            in_form || one.any(place, Use::leaves_something)
        };
        let passes = |one: &Self, other: &Self| {
            let moves = one.stops_writing(place) && other.begins_to_write(place);
            let made_otherwise = one.is_made_otherwise(place) && other.finds.contains(&place);
            moves || made_otherwise || leaves(one) && other.any(place, Use::finds_something)
        };
        let in_form = || self.any(place, Use::tells_the_form) && other.any(place, Use::tells_the_form);
        let is_new = || !self.known.contains(&place) && !other.known.contains(&place) && place != Place::Field(0);
        let one = || in_form() || is_new() || self.may_be_of_one_type(other, place);
        (passes(self, other) || passes(other, self)) && one()
    }

    /// A state that it tells by several numbers and sets itself, and tells by others now or by
    /// some of its bits: those that old code left mean what they meant, and old code that runs
    /// again does not know what new code leaves.
    fn says_otherwise_what_comes_next(&self, place: Place) -> bool {
        let more = |(gained, _): &(Vec<Use>, Vec<Use>)| gained.iter().any(Use::tells_a_state);
        self.states.contains(&place) && self.writes.contains(&place) && self.places.get(&place).is_some_and(more)
    }

    /// What it stores there it stores in other units: objects that exist hold the old ones.
    fn stores_other_multiples(&self, place: Place) -> bool {
        let factors = |uses: &[Use]| -> BTreeSet<i64> {
            uses.iter().filter_map(|what| if let Use::Value(factor, _) = what { Some(*factor) } else { None }).collect()
        };
        self.places.get(&place).is_some_and(|(gained, lost)| {
            let (now, before) = (factors(gained), factors(lost));
            !now.is_empty() && !before.is_empty() && now.is_disjoint(&before)
        })
    }

    /// What is kept there comes from the same import, which is asked for another size or kind.
    fn is_made_otherwise(&self, place: Place) -> bool {
        let made = |uses: &[Use]| -> BTreeSet<Callee> {
            let makers = uses.iter().filter_map(|what| match what {
                Use::Result(callee, _) => Some(callee.clone()),
                _ => None,
            });
            makers.collect()
        };
        self.places.get(&place).is_some_and(|(gained, lost)| !made(gained).is_disjoint(&made(lost)))
    }

    fn begins_to_write(&self, place: Place) -> bool {
        self.places.get(&place).is_some_and(|(gained, lost)| stores(gained) && !stores(lost))
    }

    fn stops_writing(&self, place: Place) -> bool {
        self.places.get(&place).is_some_and(|(gained, lost)| stores(lost) && !stores(gained))
    }

    /// Whether it also begins, or ceases, to do so in another place.
    fn does_elsewhere(&self, place: Place, what: &Use, list: impl Fn(&(Vec<Use>, Vec<Use>)) -> &Vec<Use>) -> bool {
        self.places.iter().any(|(other, uses)| *other != place && list(uses).contains(what))
    }

    /// Whether any use of it that came or went is such.
    fn any(&self, place: Place, such: impl Fn(&Use) -> bool) -> bool {
        self.places.get(&place).is_some_and(|(gained, lost)| gained.iter().chain(lost).any(such))
    }

    /// Whether the objects in which the two functions have a field there may be of one type.
    fn may_be_of_one_type(&self, other: &Self, place: Place) -> bool {
        let Place::Field(offset) = place else { return true };
        let with = |one: &Self| one.objects.iter().filter(|o| o.contains(&offset)).cloned().collect::<Vec<_>>();
        let (ours, theirs) = (with(self), with(other));
        if ours.is_empty() || theirs.is_empty() {
            // Somebody who is only given its address.
            return offset != 0;
        }
        ours.iter().any(|a| {
            theirs.iter().any(|b| a.intersection(b).count() >= 2 || offset != 0 && (a.len() == 1 || b.len() == 1))
        })
    }

    fn evidence(&self, place: Place) -> Evidence {
        let none = (Vec::new(), Vec::new());
        let (gained, lost) = self.places.get(&place).unwrap_or(&none);
        let list = |uses: &[Use]| uses.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let seen = match (gained.is_empty(), lost.is_empty()) {
            (false, true) => format!("{place}: {}, which it did not", list(gained)),
            (true, false) => format!("{place}: {} no more", list(lost)),
            _ => format!("{place}: {}; before {}", list(gained), list(lost)),
        };
        Evidence { function: Some(self.name.clone()), old_va: self.old_va, new_va: self.new_va, seen }
    }
}
