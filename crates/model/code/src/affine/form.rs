//! Sums of multiples of unknown values, each kept once.

use foldhash::HashMap;
use smallvec::{SmallVec, smallvec};
use std::collections::hash_map::Entry;

/// Where an unknown value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Held by this register when the function began.
    Entry(u8),
    /// Made by the instruction at this address, in this register.
    Made(u64, u8),
    /// Returned by the call at this address.
    Returned(u64),
    /// Where paths meet: at this address, in this register.
    Joined(u64, u8),
    /// Where paths meet: at this address, in this slot of the frame.
    JoinedSlot(u64, i64),
    /// The address of something in the image.
    Static(u64),
}

/// Most forms have one.
pub type Terms = SmallVec<[(Origin, i64); 1]>;

/// `Σ factor × origin + constant`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Form {
    /// Sorted by origin; no factor is zero.
    pub terms: Terms,
    pub constant: i64,
}

impl Form {
    fn plus(&self, other: &Self, factor: i64) -> Self {
        let mut terms = Terms::with_capacity(self.terms.len().saturating_add(other.terms.len()));
        let mut ours = self.terms.iter().copied().peekable();
        for (origin, theirs) in &other.terms {
            while let Some(term) = ours.next_if(|(o, _)| o < origin) {
                terms.push(term);
            }
            let before = ours.next_if(|(o, _)| o == origin).map_or(0, |(_, f)| f);
            terms.push((*origin, before.wrapping_add(theirs.wrapping_mul(factor))));
        }
        terms.extend(ours);
        terms.retain(|(_, f)| *f != 0);
        Self { terms, constant: self.constant.wrapping_add(other.constant.wrapping_mul(factor)) }
    }

    /// The number it is, if it is one.
    pub fn as_constant(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }
}

/// A form by its number in the [`Store`] that made it: equal forms have equal numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(u32);

/// Every form that occurs in a function, once. What a state holds is then a few bytes,
/// and two states are compared number by number.
#[derive(Default)]
pub(super) struct Store {
    forms: Vec<Form>,
    /// Those with other than one term, or more to it.
    ids: HashMap<Form, Id>,
    /// Forms that are one origin and nothing else, most by far.
    origins: HashMap<Origin, Id>,
    sums: HashMap<(Id, Id, i64), Id>,
    shifted: HashMap<(Id, i64), Id>,
    nothing: Form,
}

impl Store {
    pub(super) fn form(&self, id: Id) -> &Form {
        // Only this store makes numbers, so there is a form for each.
        usize::try_from(id.0).ok().and_then(|index| self.forms.get(index)).unwrap_or(&self.nothing)
    }

    pub(super) fn constant(&mut self, constant: i64) -> Id {
        self.keep(Form { terms: Terms::new(), constant })
    }

    pub(super) fn unknown(&mut self, origin: Origin) -> Id {
        let next = self.next();
        let id = *self.origins.entry(origin).or_insert(next);
        if id == next {
            self.forms.push(Form { terms: smallvec![(origin, 1)], constant: 0 });
        }
        id
    }

    /// `a + factor × b`.
    pub(super) fn plus(&mut self, a: Id, b: Id, factor: i64) -> Id {
        if let Some(id) = self.sums.get(&(a, b, factor)) {
            return *id;
        }
        let sum = self.form(a).plus(self.form(b), factor);
        let id = self.keep(sum);
        self.sums.insert((a, b, factor), id);
        id
    }

    pub(super) fn plus_constant(&mut self, a: Id, constant: i64) -> Id {
        if constant == 0 {
            return a;
        }
        if let Some(id) = self.shifted.get(&(a, constant)) {
            return *id;
        }
        let mut sum = self.form(a).clone();
        sum.constant = sum.constant.wrapping_add(constant);
        let id = self.keep(sum);
        self.shifted.insert((a, constant), id);
        id
    }

    pub(super) fn times(&mut self, a: Id, factor: i64) -> Id {
        let nothing = self.constant(0);
        self.plus(nothing, a, factor)
    }

    fn next(&self) -> Id {
        Id(u32::try_from(self.forms.len()).unwrap_or(u32::MAX))
    }

    fn keep(&mut self, form: Form) -> Id {
        if let ([(origin, 1)], 0) = (form.terms.as_slice(), form.constant) {
            return self.unknown(*origin);
        }
        let next = self.next();
        let entry = match self.ids.entry(form) {
            Entry::Occupied(known) => return *known.get(),
            Entry::Vacant(entry) => entry,
        };
        self.forms.push(entry.key().clone());
        *entry.insert(next)
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, Origin, Store};
    use smallvec::smallvec;

    #[test]
    fn equal_sums_have_one_number_however_they_came_about() {
        let mut store = Store::default();
        let (a, b) = (store.unknown(Origin::Entry(0)), store.unknown(Origin::Made(0x10, 3)));
        let left = store.plus(a, b, 4);
        let left = store.plus_constant(left, 8);
        let right = store.times(b, 4);
        let right = store.plus_constant(right, 8);
        let right = store.plus(right, a, 1);
        assert_eq!(left, right);
        let terms = smallvec![(Origin::Entry(0), 1), (Origin::Made(0x10, 3), 4)];
        assert_eq!(*store.form(left), Form { terms, constant: 8 });
        // What cancels out leaves no term behind.
        let back = store.plus(left, b, -4);
        let back = store.plus_constant(back, -8);
        assert_eq!(back, a);
        let nothing = store.plus(back, a, -1);
        assert_eq!(store.form(nothing).as_constant(), Some(0));
    }
}
