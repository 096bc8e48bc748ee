//! The whole comparison.

use crate::align::{Alignments, Difference};
use crate::content::ContentDifference;
use crate::data::{DataChange, DataChangeKind, DataMap};
use crate::evidence::{PairEvidence, Roles, slot_pairs};
use crate::only_read::OnlyRead;
use crate::pair::Pairing;
use crate::side::Side;
use crate::takes::{Taking, takes_any, takings};
use crate::verify::{Class, Learnt, Mismatch, Verifier};
use crate::votes::{code_votes, slot_votes};
use crate::words::WordRun;
use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};
use rayon::prelude::*;
use salve_elf::{Function, Image, Va, VaRange};
use salve_patch::{DataRun, JumpTable};
use std::sync::Arc;

/// A reference of otherwise identical functions whose read-only objects differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteDifference {
    /// Addresses of the instructions.
    pub old_at: Va,
    pub new_at: Va,
    pub difference: ContentDifference,
}

/// Two versions of one function that are not identical. Indices into `functions()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedPair {
    pub old: usize,
    pub new: usize,
    /// The code is equal and every reference corresponds, but these contents differ.
    /// Empty where the code itself differs.
    pub sites: Vec<SiteDifference>,
}

/// What became of everything.
#[derive(Debug)]
pub struct ImageDiff<'i, 'a> {
    pub old: Side<'i, 'a>,
    pub new: Side<'i, 'a>,
    /// `(old, new)`, by new.
    pub identical: Vec<(usize, usize)>,
    /// Those of them that would differ if they were code, and that nothing does anything to
    /// but read.
    pub read_only: Vec<(usize, usize)>,
    pub changed: Vec<ChangedPair>,
    /// Functions of the new image without a counterpart.
    pub added: Vec<usize>,
    /// Functions of the old image without a counterpart.
    pub gone: Vec<usize>,
    pub data: DataMap,
    pub data_changes: Vec<DataChange>,
    /// Runs of data found to be the same, in no order, perhaps overlapping.
    pub runs: Vec<DataRun>,
    /// Jump tables of functions that stay.
    pub tables: Vec<JumpTable>,
    /// Parts of runs in writable data whose initial bytes differ.
    pub kept: Vec<DataRun>,
    /// Runs of tables of which only whole words differ.
    pub word_runs: Vec<WordRun>,
    /// Where changed functions take the address of others.
    pub takings: Vec<Taking>,
    roles: Roles,
    alignments: Alignments,
    pub(crate) old_of_new: Vec<Option<usize>>,
    pub(crate) new_of_old: Vec<Option<usize>>,
}

impl ImageDiff<'_, '_> {
    /// The old counterpart of a function of the new image.
    pub fn old_of(&self, new: usize) -> Option<usize> {
        self.old_of_new.get(new).copied().flatten()
    }

    /// The new counterpart of a function of the old image.
    pub fn new_of(&self, old: usize) -> Option<usize> {
        self.new_of_old.get(old).copied().flatten()
    }

    /// Whether an address of the new image lies between two mapped ones whose distance is
    /// another one in the old image: where data has another size.
    pub fn is_resized(&self, new: Va) -> bool {
        self.data_changes.iter().any(|change| match change.kind {
            DataChangeKind::Resized { new_len_bytes, .. } => {
                VaRange::new(change.new, new_len_bytes).is_some_and(|run| run.contains(new))
            }
            DataChangeKind::Bytes { .. } | DataChangeKind::Text { .. } | DataChangeKind::Slot { .. } => false,
        })
    }

    /// Why two functions are taken for versions of one.
    pub fn evidence_of(&self, old: usize, new: usize) -> PairEvidence {
        let functions = (self.old.image.functions().get(old), self.new.image.functions().get(new));
        let entry_points = (self.old.image.entry(), self.new.image.entry());
        let named = |(f, g): (&Function, &Function)| {
            (f.name.is_some() && f.name == g.name) || (f.range.start(), g.range.start()) == entry_points
        };
        PairEvidence { name: functions.0.zip(functions.1).is_some_and(named), ..self.roles.of(old, new) }
    }

    /// How two functions differ, instruction by instruction.
    pub fn difference(&self, old: usize, new: usize) -> Arc<Difference> {
        self.alignments.of((&self.old, old), (&self.new, new))
    }
}

/// Compares two images.
pub fn diff<'i, 'a>(old: &'i Image<'a>, new: &'i Image<'a>) -> ImageDiff<'i, 'a> {
    let (old, new) = Side::both(old, new);
    let mut pairing = Pairing::new(&old, &new);
    let alignments = Alignments::default();
    let only_read = OnlyRead::default();
    let mut unlike = HashSet::new();
    let (classes, data, takings) = loop {
        let (classes, data) = fixpoint(&old, &new, &pairing, &only_read);
        if pair_by_slots(&old, &new, &data, &mut pairing) {
            continue;
        }
        let verifier =
            Verifier { old: &old, new: &new, pairing: &pairing, classes: &classes, data: &data, only_read: &only_read };
        let takings = all_takings(&verifier, &alignments);
        if !pair_by_takings(&takings, &mut pairing, &mut unlike) {
            break (classes, data, takings);
        }
    };
    let mut learnt = Learnt::default();
    let mut identical = Vec::new();
    let mut read_only = Vec::new();
    let mut changed = Vec::new();
    let mut added = Vec::new();
    for (n, class) in classes.iter().enumerate() {
        let Some(o) = pairing.old_of(n) else {
            added.push(n);
            continue;
        };
        let verifier =
            Verifier { old: &old, new: &new, pairing: &pairing, classes: &classes, data: &data, only_read: &only_read };
        match class {
            Class::Identical => {
                // It is identical all the same: because nobody executes it.
                if !verifier.check_as_code(o, n, &mut learnt).is_empty() {
                    read_only.push((o, n));
                }
                identical.push((o, n));
            }
            Class::Content | Class::Changed => {
                let sites = differences(&verifier, o, n, &mut learnt);
                changed.push(ChangedPair { old: o, new: n, sites });
            }
        }
    }
    let gone = pairing.of_old.iter().enumerate().filter(|(_, n)| n.is_none()).map(|(o, _)| o).collect();
    let data_changes = {
        let verifier =
            Verifier { old: &old, new: &new, pairing: &pairing, classes: &classes, data: &data, only_read: &only_read };
        verifier.learn_exports(&mut learnt);
        crate::data::changes(&verifier, &mut learnt)
    };
    let mut diff = ImageDiff {
        old,
        new,
        identical,
        read_only,
        changed,
        added,
        gone,
        data,
        data_changes,
        runs: learnt.runs,
        tables: learnt.tables,
        kept: learnt.kept,
        word_runs: learnt.words,
        takings,
        roles: Roles::default(),
        alignments,
        old_of_new: pairing.of_new,
        new_of_old: pairing.of_old,
    };
    diff.roles = Roles::seen_in(&diff, unlike);
    diff
}

/// Where contents are all that differs, the places.
fn differences(verifier: &Verifier<'_, '_, '_>, o: usize, n: usize, learnt: &mut Learnt) -> Vec<SiteDifference> {
    let code = verifier.old.code.get(o).zip(verifier.new.code.get(n));
    let starts = verifier.old.image.functions().get(o).zip(verifier.new.image.functions().get(n));
    let Some(((a, b), (f, g))) = code.zip(starts).filter(|((a, b), _)| a.hash == b.hash && a.decoded) else {
        return Vec::new();
    };
    let mut sites = Vec::new();
    for mismatch in verifier.check(o, n, learnt) {
        let Mismatch::Content(index, difference) = mismatch else { return Vec::new() };
        let (Some(x), Some(y)) = (a.references.get(index), b.references.get(index)) else { continue };
        sites.push(SiteDifference {
            old_at: f.range.start().wrapping_offset(i64::from(x.at)),
            new_at: g.range.start().wrapping_offset(i64::from(y.at)),
            difference,
        });
    }
    sites
}

/// Greatest fixpoint: everything with equal code is identical until a reference says otherwise.
fn fixpoint(old: &Side<'_, '_>, new: &Side<'_, '_>, pairing: &Pairing, only_read: &OnlyRead) -> (Vec<Class>, DataMap) {
    let mut classes: Vec<Class> = (0..new.code.len())
        .map(|n| {
            let equal = pairing
                .old_of(n)
                .and_then(|o| Some((old.code.get(o)?, new.code.get(n)?)))
                .is_some_and(|(a, b)| a.hash == b.hash);
            if equal { Class::Identical } else { Class::Changed }
        })
        .collect();
    loop {
        let mut votes = code_votes(old, new, pairing, &classes);
        let first = DataMap::from_votes(&votes, old, new);
        slot_votes(old, new, &first, &mut votes);
        let data = DataMap::from_votes(&votes, old, new);
        let verifier = Verifier { old, new, pairing, classes: &classes, data: &data, only_read };
        let equal = classes.par_iter().enumerate().filter(|(_, class)| **class != Class::Changed);
        let checked: Vec<(usize, usize, Vec<Mismatch>)> = equal
            .filter_map(|(n, _)| {
                let o = pairing.old_of(n)?;
                Some((o, n, verifier.check_as_code(o, n, &mut Learnt::default())))
            })
            .collect();
        let mut next = classes.clone();
        for (o, n, mismatches) in checked {
            let Some(class) = next.get_mut(n) else { continue };
            let mismatches = verifier.unless_only_read(o, n, mismatches);
            *class = if mismatches.iter().any(|m| matches!(m, Mismatch::Target)) {
                Class::Changed
            } else if mismatches.is_empty() {
                Class::Identical
            } else {
                Class::Content
            };
        }
        if next == classes {
            return (classes, data);
        }
        classes = next;
    }
}

/// Slots of corresponding data that hold addresses of unpaired functions pair them.
fn pair_by_slots(old: &Side<'_, '_>, new: &Side<'_, '_>, data: &DataMap, pairing: &mut Pairing) -> bool {
    let mut votes: HashMap<(usize, usize), u32> = HashMap::new();
    for (f, g) in slot_pairs(old, new, data) {
        let unpaired = pairing.of_old.get(f).is_some_and(Option::is_none) && pairing.old_of(g).is_none();
        if unpaired {
            let count = votes.entry((f, g)).or_default();
            *count = count.saturating_add(1);
        }
    }
    pairing.take_unanimous(&votes)
}

/// Every place where two versions of a changed function take addresses of others.
fn all_takings(verifier: &Verifier<'_, '_, '_>, alignments: &Alignments) -> Vec<Taking> {
    let differing = verifier.classes.par_iter().enumerate().filter(|(_, class)| **class != Class::Identical);
    let pairs = differing.filter_map(|(n, _)| Some((verifier.pairing.old_of(n)?, n)));
    pairs
        .filter(|(o, n)| takes_any(verifier.old, *o) && takes_any(verifier.new, *n))
        .flat_map_iter(|(o, n)| {
            let difference = alignments.of((verifier.old, o), (verifier.new, n));
            takings(verifier, (o, n), &difference)
        })
        .collect()
}

/// Where equal surroundings take the addresses of two functions that nothing else
/// pairs, one was rewritten, or replaced, by the other.
fn pair_by_takings(takings: &[Taking], pairing: &mut Pairing, unlike: &mut HashSet<usize>) -> bool {
    let mut votes: HashMap<(usize, usize), u32> = HashMap::new();
    for taking in takings.iter().filter(|t| t.unique) {
        let (f, g) = taking.taken;
        if pairing.of_old.get(f).is_some_and(Option::is_none) && pairing.old_of(g).is_none() {
            let count = votes.entry((f, g)).or_default();
            *count = count.saturating_add(1);
        }
    }
    let found = pairing.take_unanimous(&votes);
    unlike.extend(votes.keys().filter(|(f, g)| pairing.old_of(*g) == Some(*f)).map(|(_, g)| *g));
    found
}
