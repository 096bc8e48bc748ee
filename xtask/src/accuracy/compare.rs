//! Matches, changes and references of one pair of images, against the names.

use super::symbols::Symbols;
use anyhow::{Context as _, Result};
use salve_code::Reference;
use salve_compose::{claims, compose};
use salve_elf::{Binding, ImageLimits, SectionRole, Va};
use salve_match::{ImageDiff, NoiseContext, Place, Side, diff};
use salve_patch::{FixupKind, Verdict};
use salve_verdict::judge;
use std::collections::{BTreeMap, BTreeSet};

/// What was checked, what was right, and every miss.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub verdict: String,
    /// Pairs of functions where both sides have a name.
    pub pairs: u64,
    /// Functions that are in both images by a name that nothing else has, and differ.
    pub changed: u64,
    /// Of these, left alone as noise, each with its proof.
    pub noise: u64,
    /// References of functions said to be identical that lead to something with a name.
    pub references: u64,
    /// References of the livepatch into the old image that do.
    pub bound: u64,
    /// References of either kind to constants that are the same under another name: a
    /// table whose members changed places.
    pub moved: u64,
    /// References where a side has no name, or differs in nothing that has one.
    pub unnamed: u64,
    pub wrong_pairs: Vec<String>,
    pub missed: Vec<String>,
    pub wrong_references: Vec<String>,
    pub wrong_bound: Vec<String>,
}

impl Counts {
    pub(crate) fn is_right(&self) -> bool {
        let wrong = [&self.wrong_pairs, &self.missed, &self.wrong_references, &self.wrong_bound];
        wrong.iter().all(|misses| misses.is_empty())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Agreement {
    Same,
    Different,
    /// Another name, and the same constant there.
    Moved,
    Unnamed,
}

struct Compared<'d, 'i, 'a> {
    diff: &'d ImageDiff<'i, 'a>,
    symbols: &'d [Symbols; 2],
}

pub(crate) fn images([old, new]: [&[u8]; 2], symbols: &[Symbols; 2], versions: (&str, &str)) -> Result<Counts> {
    let limits = ImageLimits::default();
    let a = salve_code::parse(old, &limits).context("the old image")?;
    let b = salve_code::parse(new, &limits).context("the new image")?;
    let diff = diff(&a, &b);
    let context = NoiseContext { versions: Some((versions.0.to_owned(), versions.1.to_owned())) };
    let judgement = judge(&diff, &context);
    let compared = Compared { diff: &diff, symbols };
    let mut counts = Counts::default();
    compared.pairs(&mut counts);
    let noise: BTreeSet<usize> = judgement.noise_pairs.iter().map(|(_, n)| *n).collect();
    compared.changes(&noise, &mut counts);
    compared.references(&mut counts);
    let mut verdict = judgement.verdict();
    if verdict < Verdict::Refused {
        match compose(&diff, &judgement) {
            Err(_) => verdict = Verdict::Refused,
            Ok(composed) => {
                if salve_validate::validate(old, new, &composed.livepatch, &claims(&diff, &judgement)).is_err() {
                    verdict = Verdict::Refused;
                }
                compared.bound(&composed.livepatch.fixups, &mut counts);
            }
        }
    }
    counts.verdict = format!("{verdict:?}").to_lowercase();
    Ok(counts)
}

impl Compared<'_, '_, '_> {
    fn start(side: &Side<'_, '_>, function: usize) -> Option<Va> {
        side.image.functions().get(function).map(|f| f.range.start())
    }

    fn names(&self, side: usize, function: usize) -> BTreeSet<&str> {
        let of = if side == 0 { &self.diff.old } else { &self.diff.new };
        Self::start(of, function).map_or_else(BTreeSet::new, |va| self.symbols[side].functions_at(va.raw()))
    }

    /// Every pair that was made: identical, changed or noise.
    fn pairs(&self, counts: &mut Counts) {
        let changed = self.diff.changed.iter().map(|pair| (pair.old, pair.new));
        for (o, n) in self.diff.identical.iter().copied().chain(changed) {
            let (a, b) = (self.names(0, o), self.names(1, n));
            if a.is_empty() || b.is_empty() {
                continue;
            }
            counts.pairs += 1;
            if a.is_disjoint(&b) {
                counts.wrong_pairs.push(format!("{} was taken for {}", listed(&a), listed(&b)));
            }
        }
    }

    /// Functions that differ by the names, and are said to be identical.
    fn changes(&self, noise: &BTreeSet<usize>, counts: &mut Counts) {
        let at = |side: &Side<'_, '_>| -> BTreeMap<u64, usize> {
            side.image.functions().iter().enumerate().map(|(index, f)| (f.range.start().raw(), index)).collect()
        };
        let (olds, news) = (at(&self.diff.old), at(&self.diff.new));
        let identical: BTreeSet<usize> = self.diff.identical.iter().map(|(_, n)| *n).collect();
        let before = self.symbols[0].unique_functions();
        for (name, there) in self.symbols[1].unique_functions() {
            let Some(here) = before.get(name) else { continue };
            let (Some(o), Some(n)) = (olds.get(here), news.get(&there)) else { continue };
            if !self.differs(*o, *n) {
                continue;
            }
            counts.changed += 1;
            if noise.contains(n) {
                counts.noise += 1;
            } else if identical.contains(n) {
                counts.missed.push(name.to_owned());
            }
        }
    }

    fn differs(&self, o: usize, n: usize) -> bool {
        let (Some(a), Some(b)) = (self.diff.old.code.get(o), self.diff.new.code.get(n)) else { return true };
        a.hash != b.hash
            || a.references.len() != b.references.len()
            || a.references
                .iter()
                .zip(&b.references)
                .any(|(x, y)| self.agree(x.target, y.target) == Agreement::Different)
    }

    fn references(&self, counts: &mut Counts) {
        for (o, n) in &self.diff.identical {
            let (Some(a), Some(b)) = (self.diff.old.code.get(*o), self.diff.new.code.get(*n)) else { continue };
            let both = a.references.iter().zip(&b.references);
            for (x, y) in both {
                match self.agree(x.target, y.target) {
                    Agreement::Same => counts.references += 1,
                    Agreement::Unnamed => counts.unnamed += 1,
                    Agreement::Moved => counts.moved += 1,
                    Agreement::Different => {
                        counts.references += 1;
                        counts.wrong_references.push(self.miss(*n, y, x.target));
                    }
                }
            }
        }
    }

    fn miss(&self, function: usize, reference: &Reference, old: Va) -> String {
        let name = listed(&self.names(1, function));
        format!("{name}+{:#x}: old {}, new {}", reference.at, self.told(0, old), self.told(1, reference.target))
    }

    fn told(&self, side: usize, va: Va) -> String {
        let names = self.symbols[side].names(va.raw());
        let name = names.first().map_or_else(String::new, |(name, at)| format!(" ({name}+{at:#x})"));
        format!("{va}{name}")
    }

    /// What the livepatch's fix-ups were bound to, and what the new image meant there.
    fn bound(&self, fixups: &[salve_patch::Fixup], counts: &mut Counts) {
        for fixup in fixups {
            let FixupKind::PcRel32 { new_next, old_target } = fixup.kind;
            let field = salve_elf::VaRange::new(fixup.new_va, 4).and_then(|range| self.diff.new.image.read(range));
            let Some(field) = field.and_then(|bytes| bytes.first_chunk()) else { continue };
            let meant = new_next.wrapping_offset(i64::from(i32::from_le_bytes(*field)));
            match self.agree(old_target, meant) {
                Agreement::Same => counts.bound += 1,
                Agreement::Unnamed => counts.unnamed += 1,
                Agreement::Moved => counts.moved += 1,
                Agreement::Different => {
                    counts.bound += 1;
                    let at = self.told(1, fixup.new_va);
                    counts.wrong_bound.push(format!(
                        "{at}: old {}, new {}",
                        self.told(0, old_target),
                        self.told(1, meant)
                    ));
                }
            }
        }
    }

    /// Whether two addresses have the same name, going through loader slots.
    fn agree(&self, old: Va, new: Va) -> Agreement {
        let same = |same| if same { Agreement::Same } else { Agreement::Different };
        match (self.diff.old.place(old), self.diff.new.place(new)) {
            (Place::Import(a), Place::Import(b)) => same(a == b),
            (Place::Slot(a), Place::Slot(b)) => self.agree_slots(a, b),
            _ => {
                let (a, b) = (self.symbols[0].names(old.raw()), self.symbols[1].names(new.raw()));
                match (a.is_empty() || b.is_empty(), a.is_disjoint(&b)) {
                    (true, _) => Agreement::Unnamed,
                    (false, true) if self.is_same_constant(old, new) => Agreement::Moved,
                    (false, disjoint) => same(!disjoint),
                }
            }
        }
    }

    /// Eight equal bytes of constants, on both sides.
    fn is_same_constant(&self, old: Va, new: Va) -> bool {
        let bytes = |side: &Side<'_, '_>, va| {
            let constant = side.image.section_at(va).is_some_and(|s| s.role == SectionRole::ReadOnlyData);
            salve_elf::VaRange::new(va, 8)
                .filter(|_| constant)
                .and_then(|range| side.image.read(range).map(<[u8]>::to_vec))
        };
        bytes(&self.diff.old, old).is_some_and(|found| Some(found) == bytes(&self.diff.new, new))
    }

    fn agree_slots(&self, old: Binding, new: Binding) -> Agreement {
        let name = |side: &Side<'_, '_>, symbol: usize| side.image.symbols().get(symbol).map(|s| s.name.to_owned());
        match (old, new) {
            (Binding::Symbol { symbol: a, .. }, Binding::Symbol { symbol: b, .. }) => {
                if name(&self.diff.old, a) == name(&self.diff.new, b) { Agreement::Same } else { Agreement::Different }
            }
            (Binding::Relative { target: a }, Binding::Relative { target: b }) => self.agree(a, b),
            _ => Agreement::Unnamed,
        }
    }
}

fn listed(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join("/")
}
