//! The claims, ordered for look-up, and the well-formedness that look-up relies on.

use crate::image::{Image, Role, Section};
use crate::invalid::{Invalid, Side};
use core::cell::Cell;
use salve_elf::{Va, VaRange};
use salve_patch::{Claims, DataRun, TextPair};

/// What is claimed of a function pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Same,
    /// Index into `Claims::noise`.
    Noise(usize),
    Changed,
    /// It differs, and nothing leads to it.
    Unreached,
}

#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) old: VaRange,
    pub(crate) new: VaRange,
    pub(crate) class: Class,
    /// Something that stays as it is, or another image, leads to the entry.
    pub(crate) reached: Cell<bool>,
    /// The livepatch has a detour for it.
    pub(crate) detoured: bool,
    /// Something besides the claim says that the two are versions of one function.
    pub(crate) witnessed: Cell<bool>,
}

impl Pair {
    pub(crate) fn stays(&self) -> bool {
        match self.class {
            Class::Same | Class::Noise(_) => true,
            Class::Changed | Class::Unreached => false,
        }
    }
}

pub(crate) struct Index {
    /// Sorted by `new`, not overlapping on either side.
    pub(crate) pairs: Vec<Pair>,
    /// Functions in the payload, sorted, not overlapping.
    pub(crate) carried: Vec<VaRange>,
    /// Sorted by `new`, not overlapping on either side.
    pub(crate) runs: Vec<DataRun>,
    /// The same, sorted by `old`.
    runs_by_old: Vec<DataRun>,
    /// The one distance by which all constants moved, if there is one.
    pub(crate) constants_moved: Option<i64>,
    /// Sorted, each proven equal.
    texts: Vec<TextPair>,
}

impl Index {
    pub(crate) fn new(old: &Image<'_>, new: &Image<'_>, claims: &Claims) -> Result<Self, Invalid> {
        let pair = |p: &salve_patch::FunctionPair, class| Pair {
            old: p.old,
            new: p.new,
            class,
            reached: Cell::new(false),
            detoured: false,
            witnessed: Cell::new(false),
        };
        let mut pairs: Vec<Pair> = claims.same.iter().map(|p| pair(p, Class::Same)).collect();
        pairs.extend(claims.noise.iter().enumerate().map(|(i, n)| pair(&n.pair, Class::Noise(i))));
        pairs.extend(claims.changed.iter().map(|p| pair(p, Class::Changed)));
        pairs.extend(claims.unreached.iter().map(|p| pair(p, Class::Unreached)));
        pairs.sort_unstable_by_key(|p| p.new.start());
        let mut carried: Vec<VaRange> = claims.changed.iter().map(|p| p.new).collect();
        carried.extend(&claims.added);
        carried.sort_unstable();
        // A slot with another text is part of its object; what it holds is checked with the slot.
        let mut claimed = claims.data.clone();
        let is_covered = |slot: &&TextPair| claims.data.iter().any(|r| holds_slot(r, slot));
        let slots = claims.text_slots.iter().filter(|slot| !is_covered(slot));
        claimed.extend(slots.map(|slot| DataRun { new: slot.new, old: slot.old, len_bytes: 8 }));
        let runs = sorted_runs(old, new, &claimed)?;
        let texts = proven_texts(old, new, &claims.texts)?;
        let mut runs_by_old = runs.clone();
        runs_by_old.sort_unstable_by_key(|r| r.old);
        for two in runs_by_old.windows(2) {
            if let [a, b] = two
                && a.old.raw().saturating_add(a.len_bytes) > b.old.raw()
            {
                return Err(Invalid::RunOutside { old: b.old, new: b.new });
            }
        }
        let constant = |r: &&DataRun| new.section_at(r.new).is_some_and(Section::is_constant);
        let mut moved = runs.iter().filter(constant).map(|r| r.new.wrapping_distance_from(r.old));
        let constants_moved = moved.next().filter(|first| moved.all(|next| next == *first));
        Ok(Self { pairs, carried, runs, runs_by_old, constants_moved, texts })
    }

    /// The pair whose new range holds `at`.
    pub(crate) fn pair_at(&self, at: Va) -> Option<&Pair> {
        let next = self.pairs.partition_point(|p| p.new.start() <= at);
        self.pairs.get(next.checked_sub(1)?).filter(|p| p.new.contains(at))
    }

    pub(crate) fn carried_at(&self, at: Va) -> Option<VaRange> {
        let next = self.carried.partition_point(|r| r.start() <= at);
        self.carried.get(next.checked_sub(1)?).copied().filter(|r| r.contains(at))
    }

    /// Whether equal texts are claimed to start at the two addresses.
    pub(crate) fn is_text(&self, old: Va, new: Va) -> bool {
        self.texts.binary_search(&TextPair { new, old }).is_ok()
    }

    /// The run whose new range holds `at`, and the old address of the same thing.
    pub(crate) fn run_at(&self, at: Va) -> Option<(&DataRun, Va)> {
        let next = self.runs.partition_point(|r| r.new <= at);
        let run = self.runs.get(next.checked_sub(1)?)?;
        let inside = at.raw().checked_sub(run.new.raw()).filter(|inside| *inside < run.len_bytes)?;
        Some((run, run.old.checked_add(inside)?))
    }

    pub(crate) fn run_at_old(&self, at: Va) -> Option<&DataRun> {
        let next = self.runs_by_old.partition_point(|r| r.old <= at);
        let run = self.runs_by_old.get(next.checked_sub(1)?)?;
        let inside = at.raw().checked_sub(run.old.raw())?;
        (inside < run.len_bytes).then_some(run)
    }

    /// Whether `len_bytes` from `at` are claimed to be the same without a break.
    pub(crate) fn covers(&self, at: Va, len_bytes: u64) -> bool {
        let Some((_, old)) = self.run_at(at) else { return false };
        let (mut at, mut old, mut left) = (at, old, len_bytes);
        while left > 0 {
            let Some((run, there)) = self.run_at(at) else { return false };
            let inside = at.raw().saturating_sub(run.new.raw());
            let step = run.len_bytes.saturating_sub(inside).min(left);
            let (Some(next), Some(next_old)) = (at.checked_add(step), old.checked_add(step)) else { return false };
            if there != old {
                return false;
            }
            (at, old, left) = (next, next_old, left.saturating_sub(step));
        }
        true
    }
}

/// Each pair equal to its terminating zero, in constant data, and text: not the
/// first bytes of some table that happen to precede a zero. One of a short pair has
/// to be the tail of a longer text, which is what makes such a claim necessary.
fn proven_texts(old: &Image<'_>, new: &Image<'_>, claimed: &[TextPair]) -> Result<Vec<TextPair>, Invalid> {
    const TELLING_BYTES: usize = 8;
    let is_text = |b: &u8| matches!(b, b'\t'..=b'\r' | 0x1b | b' '..=b'~' | 0x80..);
    for pair in claimed {
        let (a, b) = (text(old, pair.old), text(new, pair.new));
        let proven = a.zip(b).is_some_and(|(a, b)| {
            let follows_text = [(old, pair.old), (new, pair.new)].into_iter().any(|(image, at)| {
                at.checked_sub(1).and_then(|before| image.array(before)).is_some_and(|[byte]| is_text(&byte))
            });
            a == b && a.iter().all(is_text) && (a.len() >= TELLING_BYTES || follows_text)
        });
        if !proven {
            return Err(Invalid::DataDiffers { old: pair.old, new: pair.new });
        }
    }
    let mut texts = claimed.to_vec();
    texts.sort_unstable();
    Ok(texts)
}

/// A zero-terminated text without its zero. Constant data has no relocations.
fn text<'a>(image: &Image<'a>, at: Va) -> Option<&'a [u8]> {
    let bytes = image.section_at(at).filter(|s| s.is_constant())?.from(at)?;
    bytes.get(..bytes.iter().position(|b| *b == 0)?)
}

fn holds_slot(run: &DataRun, slot: &TextPair) -> bool {
    let inside = slot.new.raw().checked_sub(run.new.raw());
    inside.is_some_and(|inside| inside < run.len_bytes && run.old.checked_add(inside) == Some(slot.old))
}

fn sorted_runs(old: &Image<'_>, new: &Image<'_>, claimed: &[DataRun]) -> Result<Vec<DataRun>, Invalid> {
    let mut runs = claimed.to_vec();
    runs.sort_unstable();
    let mut end = Va::new(0);
    for run in &runs {
        let outside = Invalid::RunOutside { old: run.old, new: run.new };
        let there = VaRange::new(run.old, run.len_bytes).ok_or(outside.clone())?;
        let here = VaRange::new(run.new, run.len_bytes).ok_or(outside.clone())?;
        let (a, b) = (old.section_at(run.old), new.section_at(run.new));
        let (Some(a), Some(b)) = (a, b) else { return Err(outside) };
        let alike = a.name == b.name && a.flags == b.flags && a.kind == b.kind && b.role != Role::Stubs;
        let inside = there.end() <= a.range.end() && here.end() <= b.range.end();
        if run.len_bytes == 0 || run.new < end || !alike || !inside {
            return Err(outside);
        }
        end = here.end();
        if b.role == Role::Code {
            for (side, image, range) in [(Side::Old, old, there), (Side::New, new, here)] {
                let next = image.frames.partition_point(|f| f.range.end() <= range.start());
                if image.frames.get(next).is_some_and(|f| f.range.overlaps(range)) {
                    return Err(Invalid::RunOverCode { side, at: range.start() });
                }
            }
        }
    }
    Ok(runs)
}
