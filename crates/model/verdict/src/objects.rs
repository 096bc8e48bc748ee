//! Whether objects have another size: elements of arrays, and what is allocated.
//!
//! The forms in which two versions of a function calculate addresses and arguments
//! are compared (`salve_code::affine`), so it does not matter with which
//! instructions a compiler multiplies. An array's elements show as a factor that
//! gave way to another one. An allocation shows as another number handed to an
//! allocator, to a function that hands it on to one, or to any function whose
//! result is then written through as an object.

use crate::callers::own;
use crate::followed::{Followed, Versions};
use crate::layout::{ALLOCATORS, import_at};
use crate::registry;
use salve_code::affine::{Call, Forms, Origin};
use salve_elf::Va;
use salve_match::{ImageDiff, Place, Side};
use salve_patch::{Evidence, Reason};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// `from` bytes became `to`, with where.
type Elements = BTreeMap<(i64, i64), Vec<Evidence>>;

/// What was found so far.
#[derive(Default)]
pub(crate) struct Objects {
    elements: Elements,
    /// Sizes that reach an allocator.
    allocated: Vec<Evidence>,
    /// Numbers given to a function that returns an object.
    likely: Vec<Evidence>,
    sizes: Sizes,
}

impl Objects {
    pub(crate) fn look(&mut self, diff: &ImageDiff<'_, '_>, followed: &Followed<'_, '_, '_>, versions: &Versions<'_>) {
        let Versions { f, g, before, after, .. } = *versions;
        let seen = |old_va, new_va, seen| Evidence { function: Some(g.display_name()), old_va, new_va, seen };
        for (from, to) in changed_factors(before, after) {
            let said = format!("elements of {to:#x} bytes, before of {from:#x}");
            let places = (Some(f.range.start()), Some(g.range.start()));
            self.elements.entry((from, to)).or_default().push(seen(places.0, places.1, said));
        }
        let (old_calls, new_calls) = (by_address(before), by_address(after));
        for aligned in &diff.difference(versions.old, versions.new).aligned {
            let (old_at, new_at) = (Va::new(aligned.old.ip()), Va::new(aligned.new.ip()));
            let (Some(a), Some(b)) = (old_calls.get(&old_at), new_calls.get(&new_at)) else { continue };
            let callees = (callee(&diff.old, &aligned.old), callee(&diff.new, &aligned.new));
            if !same_callee(diff, callees) {
                continue;
            }
            for (n, (x, y)) in a.arguments.iter().zip(&b.arguments).enumerate() {
                let (Some(x), Some(y)) = (x.as_constant(), y.as_constant()) else { continue };
                if x == y || x <= 0 || y <= 0 {
                    continue;
                }
                let said = format!("{y:#x} is handed over as argument {}, before {x:#x}", n.saturating_add(1));
                let evidence = seen(Some(old_at), Some(new_at), said);
                if self.sizes.is_size(followed, callees.1, n, 0) {
                    self.allocated.push(evidence);
                } else if written_through(after, new_at, x.max(y)) {
                    self.likely.push(evidence);
                }
            }
        }
    }

    pub(crate) fn reasons(self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if !self.allocated.is_empty() {
            reasons.push(registry::STRUCT_LAYOUT.because("an object is allocated with another size", self.allocated));
        }
        if !self.likely.is_empty() {
            let summary = "another number is given to functions that return an object";
            reasons.push(registry::OBJECT_SIZE.because(summary, self.likely));
        }
        let (mut certain, mut single) = (Vec::new(), Vec::new());
        for places in self.elements.into_values() {
            let functions: BTreeSet<_> = places.iter().map(|e| e.function.clone()).collect();
            if functions.len() >= 2 { certain.extend(places) } else { single.extend(places) }
        }
        if !certain.is_empty() {
            reasons.push(registry::STRUCT_LAYOUT.because("elements of arrays have another size", certain));
        }
        if !single.is_empty() {
            reasons.push(registry::ELEMENT_SIZE.because("an array is stepped through in other steps", single));
        }
        reasons
    }
}

fn by_address(forms: &Forms) -> BTreeMap<Va, &Call> {
    forms.calls.iter().map(|call| (call.at, call)).collect()
}

/// Factors and steps of the old version that are gone, with those of the new one
/// that are in their place.
fn changed_factors(before: &Forms, after: &Forms) -> Vec<(i64, i64)> {
    let (a, b) = (factors(before), factors(after));
    let fewer: Vec<i64> =
        a.iter().filter(|(factor, count)| b.get(*factor).is_none_or(|n| n < *count)).map(|(f, _)| *f).collect();
    let appeared: Vec<i64> = b.keys().filter(|factor| !a.contains_key(*factor)).copied().collect();
    let gone: Vec<i64> = fewer.iter().copied().filter(|f| !b.contains_key(f)).collect();
    let from = if gone.is_empty() { fewer } else { gone };
    from.iter().flat_map(|x| appeared.iter().map(move |y| (*x, *y))).collect()
}

/// How often each factor takes part in an address or an argument.
fn factors(forms: &Forms) -> BTreeMap<i64, usize> {
    let mut counts = BTreeMap::new();
    let mut add = |factor: i64| {
        if factor.unsigned_abs() >= 2 {
            let count: &mut usize = counts.entry(factor).or_default();
            *count = count.saturating_add(1);
        }
    };
    for access in &forms.accesses {
        access.address.terms.iter().for_each(|(_, factor)| add(*factor));
    }
    forms.steps.iter().for_each(|step| add(*step));
    counts
}

/// Where a call leads, as far as it is stated.
pub(crate) fn callee(side: &Side<'_, '_>, call: &iced_x86::Instruction) -> Option<Place> {
    let target = crate::layout::call_target(call)?;
    let slot = side.plt.slot_of(target).unwrap_or(target);
    let own = side.image.reloc_at(slot).and_then(|reloc| own(side, reloc.binding));
    Some(own.unwrap_or_else(|| side.place(target)))
}

fn same_callee(diff: &ImageDiff<'_, '_>, callees: (Option<Place>, Option<Place>)) -> bool {
    match callees {
        (Some(Place::Code { function: f, offset: 0 }), Some(Place::Code { function: g, offset: 0 })) => {
            diff.old_of(g) == Some(f)
        }
        (Some(Place::Import(a)), Some(Place::Import(b))) => a == b,
        (Some(Place::Slot(_)), Some(Place::Slot(_)))
        | (Some(Place::Data { .. }), Some(Place::Data { .. }))
        | (None, None) => true,
        _ => false,
    }
}

/// Which arguments are sizes of allocations, by function, argument and how deep it was called.
#[derive(Default)]
struct Sizes(HashMap<(usize, usize, u8), bool>);

impl Sizes {
    /// Whether the callee takes its n-th argument for the size of an allocation.
    fn is_size(&mut self, followed: &Followed<'_, '_, '_>, callee: Option<Place>, argument: usize, depth: u8) -> bool {
        const DEEPEST: u8 = 4;
        let Some(Place::Code { function, offset: 0 }) = callee else { return false };
        if depth >= DEEPEST {
            return false;
        }
        if let Some(known) = self.0.get(&(function, argument, depth)) {
            return *known;
        }
        let side = followed.side;
        let origin = salve_code::affine::argument(argument);
        let is_size = followed.digest(function).handed.iter().filter(|handed| handed.from == origin).any(|handed| {
            let Some(call) = salve_code::decode_at(side.image, handed.call) else { return false };
            match import_at(side, &call) {
                Some(name) => ALLOCATORS.iter().any(|(other, size)| *other == name && *size == handed.argument),
                None => self.is_size(followed, self::callee(side, &call), handed.argument, depth.saturating_add(1)),
            }
        });
        self.0.insert((function, argument, depth), is_size);
        is_size
    }
}

/// Whether what the call returns is written to, within an object of that size.
fn written_through(forms: &Forms, call: Va, len_bytes: i64) -> bool {
    let returned = Origin::Returned(call.raw());
    forms.accesses.iter().any(|access| {
        access.writes
            && access.address.terms.as_slice() == [(returned, 1)]
            && (0..len_bytes).contains(&access.address.constant)
    })
}
