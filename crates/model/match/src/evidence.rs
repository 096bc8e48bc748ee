//! What shows that two functions are versions of one: that they have one role.

use crate::data::DataMap;
use crate::diff::ImageDiff;
use crate::side::{Place, Side};
use crate::votes::slot_targets;
use foldhash::{HashMap, HashSet};
use salve_elf::Binding;

/// Why two functions are taken for versions of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairEvidence {
    /// They have the same name.
    pub name: bool,
    /// References from identical functions, in the same place, to both entries.
    pub callers: u32,
    /// Slots of corresponding data that hold both addresses.
    pub slots: u32,
    /// References in the same place of changed functions.
    pub changed_callers: u32,
    /// Places where two versions of a changed function take both addresses, in equal
    /// surroundings.
    pub takers: u32,
    /// Aligned instructions take the address of one of them and of something else.
    pub contradicted: bool,
    /// Only the places that take their addresses say that one replaces the other.
    pub unlike: bool,
}

impl PairEvidence {
    /// Something outside the two bodies says that they have one role.
    pub fn proves_role(self) -> bool {
        self.is_named_or_reached() || (self.takers > 0 && !self.contradicted)
    }

    /// Only places that take its address say so, or some say otherwise.
    pub fn is_by_place_only(self) -> bool {
        self.proves_role() && (self.contradicted || !self.is_named_or_reached())
    }

    fn is_named_or_reached(self) -> bool {
        self.name || self.callers > 0 || self.slots > 0
    }
}

/// What leads to functions, of both images. Functions are indices into `functions()`.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    seen: HashMap<(usize, usize), PairEvidence>,
    /// Old functions, and new ones.
    contradicted: (HashSet<usize>, HashSet<usize>),
    /// New functions.
    unlike: HashSet<usize>,
}

impl Roles {
    /// All but the names.
    pub(crate) fn of(&self, old: usize, new: usize) -> PairEvidence {
        PairEvidence {
            contradicted: self.contradicted.0.contains(&old) || self.contradicted.1.contains(&new),
            unlike: self.unlike.contains(&new),
            ..self.seen.get(&(old, new)).copied().unwrap_or_default()
        }
    }

    pub(crate) fn seen_in(diff: &ImageDiff<'_, '_>, unlike: HashSet<usize>) -> Self {
        let mut roles = Self { unlike, ..Self::default() };
        roles.count_takers(diff);
        roles.count_callers(diff);
        for pair in slot_pairs(&diff.old, &diff.new, &diff.data) {
            add(&mut roles.entry(pair).slots);
        }
        roles
    }

    fn entry(&mut self, pair: (usize, usize)) -> &mut PairEvidence {
        self.seen.entry(pair).or_default()
    }

    fn count_takers(&mut self, diff: &ImageDiff<'_, '_>) {
        for taking in &diff.takings {
            let (f, g) = taking.taken;
            if diff.old_of(g) != Some(f) {
                self.contradicted.0.insert(f);
                self.contradicted.1.insert(g);
            } else if taking.surrounded {
                add(&mut self.entry((f, g)).takers);
            }
        }
    }

    fn count_callers(&mut self, diff: &ImageDiff<'_, '_>) {
        let code = |(o, n): (usize, usize)| diff.old.code.get(o).zip(diff.new.code.get(n));
        // What data looks like shows nobody's role.
        for (a, b) in diff.identical.iter().filter_map(|pair| code(*pair)).filter(|(a, b)| a.decoded && b.decoded) {
            for (x, y) in a.references.iter().zip(&b.references) {
                let slot = |side: &Side<'_, '_>, va| match side.place(va) {
                    Place::Slot(Binding::Relative { target }) => side.place(target),
                    place => place,
                };
                if let Some(pair) = entries(slot(&diff.old, x.target), slot(&diff.new, y.target)) {
                    add(&mut self.entry(pair).callers);
                }
            }
        }
        let changed = diff.changed.iter().filter_map(|pair| code((pair.old, pair.new)));
        for (a, b) in changed.filter(|(a, b)| a.hash == b.hash && a.decoded) {
            for (x, y) in a.references.iter().zip(&b.references) {
                if let Some(pair) = entries(diff.old.place(x.target), diff.new.place(y.target)) {
                    add(&mut self.entry(pair).changed_callers);
                }
            }
        }
    }
}

/// Functions whose addresses stand in corresponding slots.
pub(crate) fn slot_pairs(old: &Side<'_, '_>, new: &Side<'_, '_>, data: &DataMap) -> Vec<(usize, usize)> {
    slot_targets(old, new, data).filter_map(|(before, after)| entries(old.place(before), new.place(after))).collect()
}

/// The functions that both places are entries of.
fn entries(old: Place, new: Place) -> Option<(usize, usize)> {
    match (old, new) {
        (Place::Code { function: f, offset: 0 }, Place::Code { function: g, offset: 0 }) => Some((f, g)),
        _no_entries => None,
    }
}

fn add(count: &mut u32) {
    *count = count.saturating_add(1);
}
