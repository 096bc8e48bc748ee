//! Functions whose values are followed, each once.
//!
//! To follow values through a function (`salve_code::affine`) is the dearest thing that
//! rules ask for, and several ask it of the same functions. Rules that compare the two
//! versions of a replaced function therefore look at them in one pass
//! ([`each_rewritten`]) and keep only what they found. Rules that look into other
//! functions, callees above all, ask for a [`Digest`]: what any of them may want to
//! know of a function, which is little enough to be kept for all of them.

use crate::callers::led_to;
use crate::carry::Carried;
use rayon::prelude::*;
use salve_code::affine::{Form, Forms, Origin, forms};
use salve_code::{CodeSummary, ReferenceKind};
use salve_elf::{Function, Va};
use salve_match::{ImageDiff, Place, Side};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// A replaced function whose code differs, in both versions.
pub(crate) struct Versions<'v> {
    /// Indices into `functions()`.
    pub(crate) old: usize,
    pub(crate) new: usize,
    pub(crate) f: &'v Function,
    pub(crate) g: &'v Function,
    pub(crate) before: &'v Forms,
    pub(crate) after: &'v Forms,
}

/// So many pairs are followed beside one another; what that gives is held until each was looked at.
const BATCH: usize = 8;

/// Shows every replaced function whose code differs, or that refers to something else, in the
/// order of the new image; where only the content of that does, if it takes the address of a
/// function.
pub(crate) fn each_rewritten(
    diff: &ImageDiff<'_, '_>,
    carried: &Carried,
    followed: &Followed<'_, '_, '_>,
    mut look: impl FnMut(&Versions<'_>),
) {
    // The same instructions that call another function, or use another variable, do something else.
    let refers_elsewhere: BTreeSet<usize> =
        diff.changed.iter().filter(|pair| pair.sites.is_empty()).map(|pair| pair.new).collect();
    let rewritten = carried.pairs.iter().filter_map(|pair| {
        let (f, g) = (diff.old.image.functions().get(pair.old)?, diff.new.image.functions().get(pair.new)?);
        let codes = diff.old.code.get(pair.old).zip(diff.new.code.get(pair.new));
        let is_same = codes.is_some_and(|(a, b)| {
            a.hash == b.hash
                && !refers_elsewhere.contains(&pair.new)
                && !carried.joined.contains(&pair.new)
                && !takes_functions(&diff.new, b)
        });
        (!is_same).then_some((pair, f, g))
    });
    let rewritten: Vec<_> = rewritten.collect();
    for batch in rewritten.chunks(BATCH) {
        let both = |(_, f, g): &(_, &Function, &Function)| {
            rayon::join(|| forms(diff.old.image, f.range), || forms(diff.new.image, g.range))
        };
        let forms: Vec<(Forms, Forms)> = batch.par_iter().map(both).collect();
        for ((pair, f, g), (before, after)) in batch.iter().zip(&forms) {
            followed.keep(pair.new, after);
            look(&Versions { old: pair.old, new: pair.new, f, g, before, after });
        }
    }
}

fn takes_functions(side: &Side<'_, '_>, code: &CodeSummary) -> bool {
    let entry = |target| matches!(led_to(side, target), Place::Code { offset: 0, .. });
    let value = |kind| matches!(kind, ReferenceKind::Address | ReferenceKind::Memory);
    code.references.iter().any(|r| value(r.kind) && entry(r.target))
}

/// Part of an argument that a function hands on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handed {
    pub(crate) call: Va,
    pub(crate) argument: usize,
    /// What the argument is calculated from: an argument of the function itself, or
    /// the address of something in the image. Its factor is positive.
    pub(crate) from: Origin,
    /// The argument is that and nothing else.
    pub(crate) whole: bool,
}

/// What rules ask of functions that they look into.
#[derive(Debug, Default)]
pub(crate) struct Digest {
    pub(crate) too_large: bool,
    /// Writes memory outside its frame.
    pub(crate) writes: bool,
    /// Addresses in the image from which others are calculated.
    pub(crate) indexed: BTreeSet<Va>,
    /// Arguments and addresses that are compared with what is not calculated from them.
    pub(crate) compared: Vec<(Origin, Va)>,
    /// Comparisons of what is reached by steps from constants with what is: the end of a loop
    /// over a table.
    pub(crate) walks: BTreeSet<Va>,
    /// By call, then by argument.
    pub(crate) handed: Vec<Handed>,
}

impl Digest {
    fn of(forms: &Forms) -> Self {
        let known = |origin: Origin| matches!(origin, Origin::Entry(_) | Origin::Static(_));
        let mut digest = Self { too_large: forms.too_large, ..Self::default() };
        for access in &forms.accesses {
            digest.writes |= access.writes;
            if access.address.terms.len() >= 2 {
                digest.indexed.extend(access.address.terms.iter().filter_map(|(origin, _)| match origin {
                    Origin::Static(va) => Some(Va::new(*va)),
                    _ => None,
                }));
            }
        }
        let apart = |form: &Form, origin| !form.terms.is_empty() && form.terms.iter().all(|(o, _)| *o != origin);
        for comparison in &forms.comparisons {
            if [&comparison.left, &comparison.right].iter().all(|side| forms.reached_from(side).is_some()) {
                digest.walks.insert(comparison.at);
                continue;
            }
            let sides = (&comparison.left, &comparison.right);
            for (one, other) in [sides, (sides.1, sides.0)] {
                let origin = only(one).filter(|origin| known(*origin) && apart(other, *origin));
                digest.compared.extend(origin.map(|origin| (origin, comparison.at)));
            }
        }
        for call in &forms.calls {
            for (argument, form) in call.arguments.iter().enumerate() {
                let from = form.terms.iter().filter(|(origin, factor)| *factor > 0 && known(*origin));
                let whole = only(form).is_some();
                digest.handed.extend(from.map(|(from, _)| Handed { call: call.at, argument, from: *from, whole }));
            }
        }
        digest
    }
}

/// The origin that a form is, if it is nothing else.
fn only(form: &Form) -> Option<Origin> {
    match form.terms.as_slice() {
        [(origin, 1)] if form.constant == 0 => Some(*origin),
        _ => None,
    }
}

/// Functions of one image that were followed.
pub(crate) struct Followed<'s, 'i, 'a> {
    pub(crate) side: &'s Side<'i, 'a>,
    digests: RefCell<HashMap<usize, Rc<Digest>>>,
}

impl<'s, 'i, 'a> Followed<'s, 'i, 'a> {
    pub(crate) fn new(side: &'s Side<'i, 'a>) -> Self {
        Self { side, digests: RefCell::default() }
    }

    /// Follows the function, unless that was done; one that does not exist does nothing.
    pub(crate) fn digest(&self, function: usize) -> Rc<Digest> {
        if let Some(known) = self.digests.borrow().get(&function) {
            return Rc::clone(known);
        }
        let range = self.side.image.functions().get(function).map(|f| f.range);
        self.keep(function, &range.map(|range| forms(self.side.image, range)).unwrap_or_default())
    }

    fn keep(&self, function: usize, forms: &Forms) -> Rc<Digest> {
        let digest = Rc::new(Digest::of(forms));
        self.digests.borrow_mut().insert(function, Rc::clone(&digest));
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Form, Forms, Origin, Va};
    use salve_code::affine::{Access, Call, Comparison, argument};

    fn form(terms: &[(Origin, i64)], constant: i64) -> Form {
        Form { terms: terms.into(), constant }
    }

    #[test]
    fn a_digest_tells_what_is_handed_on_whole_from_what_is_calculated_with() {
        let whole = form(&[(argument(0), 1)], 0);
        let shifted = form(&[(argument(0), 1)], 8);
        let scaled = form(&[(argument(1), 24), (Origin::Returned(5), 1)], 0);
        let less = form(&[(argument(1), -1)], 64);
        let none = Form::default();
        let call = Call { at: Va::new(0x10), arguments: [whole, shifted, scaled, less, none.clone(), none] };
        let digest = Digest::of(&Forms { calls: vec![call], ..Forms::default() });
        let handed: Vec<_> = digest.handed.iter().map(|h| (h.argument, h.from, h.whole)).collect();
        assert_eq!(handed, [(0, argument(0), true), (1, argument(0), false), (2, argument(1), false)]);
    }

    #[test]
    fn a_digest_knows_what_is_compared_on_either_side_but_not_with_itself() {
        let (token, index) = (Origin::Static(0x2000), argument(0));
        let other = form(&[(Origin::Returned(1), 1)], 0);
        let compare = |at, left, right| Comparison { at: Va::new(at), left, right };
        let comparisons = vec![
            compare(1, form(&[(token, 1)], 0), other.clone()),
            compare(2, other, form(&[(index, 1)], 0)),
            compare(3, form(&[(token, 1)], 0), form(&[(token, 1), (index, 8)], 0)),
            compare(4, form(&[(token, 1)], 0), form(&[], 0)),
        ];
        let digest = Digest::of(&Forms { comparisons, ..Forms::default() });
        assert_eq!(digest.compared, [(token, Va::new(1)), (index, Va::new(2))]);
    }

    #[test]
    fn a_digest_knows_the_tables_that_are_indexed_and_whether_anything_is_written() {
        let access = |address, writes| Access {
            at: Va::new(1),
            address,
            len_bytes: 8,
            writes,
            stored: None,
            is_integer: true,
            is_float: false,
        };
        let plain = access(form(&[(Origin::Static(0x3000), 1)], 0), false);
        let indexed = access(form(&[(argument(0), 8), (Origin::Static(0x2000), 1)], 0), false);
        let reads = Digest::of(&Forms { accesses: vec![plain.clone(), indexed], ..Forms::default() });
        assert_eq!(reads.indexed.iter().copied().collect::<Vec<_>>(), [Va::new(0x2000)]);
        assert!(!reads.writes);
        assert!(Digest::of(&Forms { accesses: vec![Access { writes: true, ..plain }], ..Forms::default() }).writes);
    }
}
