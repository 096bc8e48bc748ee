//! Which functions the livepatch carries.

use salve_code::ReferenceKind;
use salve_elf::{SectionRole, VaRange};
use salve_match::{ImageDiff, PairEvidence, Place};
use std::collections::BTreeSet;

/// A changed function that the payload replaces; indices into `functions()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarriedPair {
    pub old: usize,
    pub new: usize,
    pub evidence: PairEvidence,
}

/// What goes into the payload.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    /// Sorted by `new`.
    pub pairs: Vec<CarriedPair>,
    /// Functions of the new image without a counterpart.
    pub added: Vec<usize>,
    /// Identical pairs that had to join because something refers to their
    /// inside or they refer to the inside of a changed one; `(old, new)`.
    pub joined: BTreeSet<usize>,
    /// Those of them that nothing but a short jump leads to: unchanged, and with constants
    /// of which the payload has a copy.
    pub beside: BTreeSet<usize>,
}

impl Carried {
    pub(crate) fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.added.is_empty()
    }

    /// All functions of the new image that the payload holds, sorted.
    pub fn new_functions(&self) -> BTreeSet<usize> {
        self.pairs.iter().map(|p| p.new).chain(self.added.iter().copied()).collect()
    }
}

/// Closes the changed functions that are no noise over references into their
/// insides: `.cold` parts, hand-written assembly with several entries.
pub(crate) fn carried(diff: &ImageDiff<'_, '_>, noise: &BTreeSet<usize>) -> Carried {
    let mut carried = Carried {
        pairs: diff
            .changed
            .iter()
            .enumerate()
            .filter(|(index, _)| !noise.contains(index))
            .map(|(_, p)| CarriedPair { old: p.old, new: p.new, evidence: diff.evidence_of(p.old, p.new) })
            .collect(),
        added: diff.added.clone(),
        joined: BTreeSet::new(),
        beside: BTreeSet::new(),
    };
    loop {
        let new = carried.new_functions();
        let staying = diff.identical.iter().copied().filter(|(_, n)| !new.contains(n));
        let noisy = diff.changed.iter().map(|p| (p.old, p.new)).filter(|(_, n)| !new.contains(n));
        let parts: BTreeSet<usize> = new.iter().flat_map(|n| parts_by_table(diff, *n)).collect();
        let beside: BTreeSet<usize> = new.iter().flat_map(|n| branched_to_shortly(diff, *n)).collect();
        let joins = |n: usize| parts.contains(&n) || enters_inside(diff, n, &new);
        let joining: Vec<(usize, usize)> =
            staying.chain(noisy).filter(|(_, n)| beside.contains(n) || joins(*n)).collect();
        carried.beside.extend(joining.iter().map(|(_, n)| *n).filter(|n| !joins(*n)));
        if joining.is_empty() {
            break;
        }
        for (old, n) in joining {
            carried.joined.insert(n);
            // Those who call it may come along as well: who stays is counted below.
            let evidence = PairEvidence { callers: 0, ..diff.evidence_of(old, n) };
            carried.pairs.push(CarriedPair { old, new: n, evidence });
        }
    }
    carried.pairs.sort_by_key(|p| p.new);
    count_callers(diff, &mut carried);
    carried
}

fn enters_inside(diff: &ImageDiff<'_, '_>, function: usize, carried: &BTreeSet<usize>) -> bool {
    diff.new.code.get(function).is_some_and(|code| {
        code.references.iter().any(|r| {
            matches!(diff.new.place(r.target), Place::Code { function, offset } if offset != 0 && carried.contains(&function))
        })
    })
}

/// Functions that this one jumps to over so short a way that nothing else can be reached by
/// that instruction: they lie as near in the payload.
fn branched_to_shortly(diff: &ImageDiff<'_, '_>, function: usize) -> impl Iterator<Item = usize> {
    let references = diff.new.code.get(function).into_iter().flat_map(|code| &code.references);
    let short = references.filter(|r| r.kind == ReferenceKind::Jump && r.field_len_bytes < 4);
    short.filter_map(|r| diff.new.image.function_index_at(r.target))
}

/// Functions that a jump table of this one leads into: parts of it that the
/// compiler put elsewhere (`.cold`). The payload's copy of the table leads to the
/// payload's copy of them.
fn parts_by_table(diff: &ImageDiff<'_, '_>, function: usize) -> BTreeSet<usize> {
    let mut parts = BTreeSet::new();
    let side = &diff.new;
    let (Some(code), Some(f)) = (side.code.get(function), side.image.functions().get(function)) else { return parts };
    if !code.indirect_jump {
        return parts;
    }
    for reference in code.references.iter().filter(|r| r.kind == ReferenceKind::Address) {
        let table = reference.target;
        let read_only = side.image.section_at(table).is_some_and(|s| s.role == SectionRole::ReadOnlyData);
        let range = side.next_anchor(table).and_then(|end| VaRange::try_from((table, end)).ok());
        let Some(bytes) = range.filter(|_| read_only).and_then(|r| side.image.read(r)) else { continue };
        let mut leads_to = BTreeSet::new();
        for distance in bytes.chunks_exact(4).filter_map(|c| c.first_chunk::<4>()) {
            let target = table.wrapping_offset(i64::from(i32::from_le_bytes(*distance)));
            let Place::Code { function, .. } = side.place(target) else { break };
            leads_to.insert(function);
        }
        // A table of this function leads into it; numbers that look like one do not.
        let own = side.image.function_index_at(f.range.start());
        if own.is_some_and(|own| leads_to.remove(&own)) {
            parts.append(&mut leads_to);
        }
    }
    parts
}

/// References from every function that stays, noise included, bear out a role.
fn count_callers(diff: &ImageDiff<'_, '_>, carried: &mut Carried) {
    let new = carried.new_functions();
    let staying = diff.identical.iter().copied().chain(diff.changed.iter().map(|p| (p.old, p.new)));
    let mut callers = std::collections::HashMap::<(usize, usize), u32>::new();
    for (o, n) in staying.filter(|(_, n)| !new.contains(n)) {
        let (Some(a), Some(b)) = (diff.old.code.get(o), diff.new.code.get(n)) else { continue };
        for (x, y) in a.references.iter().zip(&b.references) {
            if let (Place::Code { function: f, offset: 0 }, Place::Code { function: g, offset: 0 }) =
                (diff.old.place(x.target), diff.new.place(y.target))
            {
                let count = callers.entry((f, g)).or_default();
                *count = count.saturating_add(1);
            }
        }
    }
    for pair in &mut carried.pairs {
        let count = callers.get(&(pair.old, pair.new)).copied().unwrap_or(0);
        pair.evidence.callers = pair.evidence.callers.max(count);
    }
}
