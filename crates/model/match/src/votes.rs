//! What speaks for a data address of the new image being one of the old.
//!
//! Equal code votes for what it refers to, exported names for what they name, and slots of
//! data that is mapped already for what they point to. How votes are weighed is the
//! [`DataMap`]'s business.

use crate::data::DataMap;
use crate::pair::Pairing;
use crate::side::{Place, Side, namesakes};
use crate::verify::Class;
use foldhash::{HashMap, HashMapExt as _};
use rayon::prelude::*;
use salve_elf::{Binding, Symbol, SymbolKind, Va};

/// Votes `new → old`, with how many distinct functions cast each.
pub(crate) type Votes = HashMap<Va, Vec<(Va, u32)>>;

fn vote(votes: &mut Votes, new: Va, old: Va) {
    let entries = votes.entry(new).or_default();
    match entries.iter_mut().find(|(va, _)| *va == old) {
        Some((_, count)) => *count = count.saturating_add(1),
        None => entries.push((old, 1)),
    }
}

/// Votes of every pair with equal code about data addresses.
pub(crate) fn code_votes(old: &Side<'_, '_>, new: &Side<'_, '_>, pairing: &Pairing, classes: &[Class]) -> Votes {
    let equal = classes.par_iter().enumerate().filter(|(_, class)| **class != Class::Changed);
    let pairs =
        equal.filter_map(|(n, _)| pairing.old_of(n).and_then(|o| Some((n, old.code.get(o)?, new.code.get(n)?))));
    // What data looks like refers to nothing.
    let decoded = pairs.filter(|(_, a, b)| a.decoded && b.decoded);
    let mut ballots: Vec<(usize, Va, Va)> = decoded
        .flat_map_iter(|(n, a, b)| {
            a.references.iter().zip(&b.references).filter_map(move |(x, y)| {
                match (old.place(x.target), new.place(y.target)) {
                    (Place::Data { section: s }, Place::Data { section: t }) if same_section(old, s, new, t) => {
                        Some((n, y.target, x.target))
                    }
                    (Place::Slot(Binding::Relative { target: p }), Place::Slot(Binding::Relative { target: q }))
                        if are_data(old, p, new, q) =>
                    {
                        Some((n, q, p))
                    }
                    _no_data => None,
                }
            })
        })
        .collect();
    ballots.par_sort_unstable();
    ballots.dedup();
    let mut votes = Votes::new();
    for (_, x, y) in ballots {
        vote(&mut votes, x, y);
    }
    symbol_votes(old, new, &mut votes);
    votes
}
/// Exported data has names.
fn symbol_votes(old: &Side<'_, '_>, new: &Side<'_, '_>, votes: &mut Votes) {
    let exported = |_: &Side<'_, '_>, symbol: &Symbol<'_>| symbol.defined && symbol.kind == SymbolKind::Data;
    for (y, x) in namesakes(old, new, exported) {
        for _ in 0..2 {
            vote(votes, x, y);
        }
    }
}

/// Slots of mapped data that hold addresses of data vote for what they point to.
pub(crate) fn slot_votes(old: &Side<'_, '_>, new: &Side<'_, '_>, data: &DataMap, votes: &mut Votes) {
    for (p, q) in slot_targets(old, new, data).filter(|(p, q)| are_data(old, *p, new, *q)) {
        vote(votes, q, p);
    }
}

/// What slots of mapped data point to, in the old image and in the new one.
pub(crate) fn slot_targets(old: &Side<'_, '_>, new: &Side<'_, '_>, data: &DataMap) -> impl Iterator<Item = (Va, Va)> {
    new.image.relocs().iter().filter_map(|reloc| {
        let Binding::Relative { target: after } = reloc.binding else { return None };
        let at = data.old_of(reloc.at, new)?.old();
        match old.image.reloc_at(at)?.binding {
            Binding::Relative { target: before } => Some((before, after)),
            Binding::Symbol { .. } | Binding::Indirect { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. } => {
                None
            }
        }
    })
}

/// Whether both are data, of sections of one name.
fn are_data(old: &Side<'_, '_>, p: Va, new: &Side<'_, '_>, q: Va) -> bool {
    match (old.place(p), new.place(q)) {
        (Place::Data { section: s }, Place::Data { section: t }) => same_section(old, s, new, t),
        _other_kinds => false,
    }
}

fn same_section(old: &Side<'_, '_>, s: usize, new: &Side<'_, '_>, t: usize) -> bool {
    matches!(
        (old.image.sections().get(s), new.image.sections().get(t)),
        (Some(a), Some(b)) if a.name == b.name
    )
}
