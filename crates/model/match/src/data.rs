//! Which data address of the new image is which of the old one.
//!
//! Every reference of an identical pair of functions is a vote `new → old`. An
//! address counts as mapped when its votes agree and its neighbourhood does:
//! objects keep their order and their distances within a translation unit, so
//! a lone vote whose distance fits neither neighbour is a sign that one
//! instruction refers to something else now, not that an object moved.

use crate::content::ContentDifference;
use crate::side::Side;
use crate::verify::{Learnt, Verifier};
use crate::votes::Votes;
use crate::words::differing;
use foldhash::{HashMap, HashMapExt as _};
use salve_elf::{SectionRole, Va, VaRange};
use salve_patch::DataRun;

/// How well an address is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correspondence {
    /// Identical functions refer to exactly these two addresses.
    Exact(Va),
    /// Between two mapped addresses that lie equally far from their counterparts.
    Between(Va),
}

impl Correspondence {
    pub fn old(self) -> Va {
        match self {
            Self::Exact(va) | Self::Between(va) => va,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    new: Va,
    old: Va,
    votes: u32,
    trusted: bool,
}

impl Anchor {
    fn distance(self) -> i64 {
        self.new.wrapping_distance_from(self.old)
    }
}

/// The correspondence of data addresses.
#[derive(Debug, Default)]
pub struct DataMap {
    /// Sorted by `new`, one for each address.
    anchors: Vec<Anchor>,
    /// For each section of the new image, how far its start and end lie from
    /// those of its namesake in the old one.
    bounds: Vec<Option<(i64, i64)>>,
}

/// A run of data that differs although nothing said it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataChange {
    pub section: String,
    pub old: Va,
    pub new: Va,
    pub kind: DataChangeKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataChangeKind {
    /// Initial bytes differ, first at `offset` from the start of the run.
    Bytes { offset: u64, old: Vec<u8>, new: Vec<u8> },
    /// A slot is bound to something else.
    Slot { offset: u64 },
    /// A slot points to text that differs.
    Text { offset: u64, difference: ContentDifference },
    /// The run between two mapped addresses has another length.
    Resized { old_len_bytes: u64, new_len_bytes: u64 },
}

impl DataMap {
    pub(crate) fn from_votes(votes: &Votes, old: &Side<'_, '_>, new: &Side<'_, '_>) -> Self {
        let mut anchors: Vec<Anchor> = Vec::with_capacity(votes.len());
        for (&new_va, candidates) in votes {
            let Some(&(old_va, count)) = candidates.iter().max_by_key(|(va, count)| (*count, core::cmp::Reverse(*va)))
            else {
                continue;
            };
            let rivals = candidates.iter().filter(|(va, n)| *va != old_va && *n >= count).count();
            if rivals == 0 {
                anchors.push(Anchor { new: new_va, old: old_va, votes: count, trusted: false });
            }
        }
        anchors.sort_by_key(|a| a.new);
        let bounds = new
            .image
            .sections()
            .iter()
            .map(|s| {
                let before = old.image.section_named(s.name)?;
                let start = s.range.start().wrapping_distance_from(before.range.start());
                Some((start, s.range.end().wrapping_distance_from(before.range.end())))
            })
            .collect();
        let mut map = Self { anchors, bounds };
        map.judge(old, new);
        map
    }

    /// Decides which anchors their neighbours bear out.
    fn judge(&mut self, old: &Side<'_, '_>, new: &Side<'_, '_>) {
        // Two new addresses for one old one: only the better attested keeps it.
        let mut best: HashMap<Va, u32> = HashMap::new();
        for anchor in &self.anchors {
            let votes = best.entry(anchor.old).or_default();
            *votes = (*votes).max(anchor.votes);
        }
        let sections: Vec<_> = self.anchors.iter().map(|a| new.image.section_index_at(a.new)).collect();
        let agrees = |i: usize, j: Option<usize>| {
            j.and_then(|j| Some((self.anchors.get(i)?, self.anchors.get(j)?, sections.get(i)?, sections.get(j)?)))
                .is_some_and(|(a, b, s, t)| s == t && a.distance() == b.distance())
        };
        let trusted: Vec<bool> = self
            .anchors
            .iter()
            .enumerate()
            .map(|(i, anchor)| {
                let neighbour = agrees(i, i.checked_sub(1)) || agrees(i, i.checked_add(1));
                // Sections begin together and end together: their bounds are anchors too.
                let bound = sections
                    .get(i)
                    .copied()
                    .flatten()
                    .and_then(|s| self.bounds.get(s).copied().flatten())
                    .is_some_and(|(start, end)| anchor.distance() == start || anchor.distance() == end);
                let read_only = new.role_at(anchor.new) == Some(SectionRole::ReadOnlyData);
                let same_text = read_only
                    && match (crate::content::text_at(old, anchor.old, 2), crate::content::text_at(new, anchor.new, 2))
                    {
                        (Some(a), Some(b)) => a == b,
                        _ => false,
                    };
                let rival = best.get(&anchor.old).is_some_and(|v| *v > anchor.votes);
                // Read-only objects are proven by their contents, compared on use.
                read_only || same_text || neighbour || (bound && !rival) || (anchor.votes >= 2 && !rival)
            })
            .collect();
        for (anchor, trusted) in self.anchors.iter_mut().zip(trusted) {
            anchor.trusted = trusted;
        }
    }

    /// The old address that `new` corresponds to.
    pub fn old_of(&self, new: Va, new_side: &Side<'_, '_>) -> Option<Correspondence> {
        let index = self.anchors.partition_point(|a| a.new < new);
        if let Some(anchor) = self.anchors.get(index).filter(|a| a.new == new) {
            return anchor.trusted.then_some(Correspondence::Exact(anchor.old));
        }
        let section = new_side.image.section_index_at(new)?;
        let range = new_side.image.sections().get(section)?.range;
        let bounds = self.bounds.get(section).copied().flatten();
        let in_section = |a: &&Anchor| a.trusted && range.contains(a.new);
        let before = self
            .anchors
            .get(..index)?
            .iter()
            .rev()
            .take(8)
            .find(in_section)
            .map(|a| a.distance())
            .or(bounds.map(|(start, _)| start))?;
        let after = self
            .anchors
            .get(index..)?
            .iter()
            .take(8)
            .find(in_section)
            .map(|a| a.distance())
            .or(bounds.map(|(_, end)| end))?;
        (before == after).then(|| Correspondence::Between(new.wrapping_offset(before.wrapping_neg())))
    }

    /// Whether an identical pair may refer to these two.
    pub(crate) fn agrees(&self, new: Va, old: Va) -> bool {
        self.anchors
            .binary_search_by_key(&new, |a| a.new)
            .ok()
            .and_then(|i| self.anchors.get(i))
            .is_some_and(|a| a.old == old && a.trusted)
    }

    /// Trusted pairs `(new, old)` in `range`, by address.
    pub(crate) fn anchors_in(&self, range: VaRange) -> impl Iterator<Item = (Va, Va)> + '_ {
        let from = self.anchors.partition_point(|a| a.new < range.start());
        self.anchors
            .get(from..)
            .unwrap_or_default()
            .iter()
            .take_while(move |a| a.new < range.end())
            .filter(|a| a.trusted)
            .map(|a| (a.new, a.old))
    }
}

/// Every run of mapped data that differs.
pub(crate) fn changes(verifier: &Verifier<'_, '_, '_>, learnt: &mut Learnt) -> Vec<DataChange> {
    let (old, new) = (verifier.old, verifier.new);
    let mut changes = Vec::new();
    for section in new.image.sections() {
        let ours =
            matches!(section.role, SectionRole::RelroData | SectionRole::WritableData | SectionRole::ThreadLocal);
        if !ours || section.name.starts_with(".got") || section.name == ".dynamic" {
            continue;
        }
        let Some(before) = old.image.section_named(section.name) else {
            changes.push(DataChange {
                section: section.name.to_owned(),
                old: Va::new(0),
                new: section.range.start(),
                kind: DataChangeKind::Resized { old_len_bytes: 0, new_len_bytes: section.range.len_bytes() },
            });
            continue;
        };
        let mut points = vec![(section.range.start(), before.range.start())];
        points.extend(verifier.data.anchors_in(section.range).filter(|(x, _)| *x != section.range.start()));
        points.push((section.range.end(), before.range.end()));
        for window in points.windows(2) {
            let [(x1, y1), (x2, y2)] = *window else { continue };
            let (Some(new_len), Some(old_len)) = (x2.raw().checked_sub(x1.raw()), y2.raw().checked_sub(y1.raw()))
            else {
                continue;
            };
            if new_len != old_len {
                changes.push(DataChange {
                    section: section.name.to_owned(),
                    old: y1,
                    new: x1,
                    kind: DataChangeKind::Resized { old_len_bytes: old_len, new_len_bytes: new_len },
                });
            }
            let len = new_len.min(old_len);
            let before = changes.len();
            compare_run(verifier, section.name, (y1, x1), len, &mut changes, learnt);
            if changes.len() > before && new_len == old_len {
                learnt.words.extend(differing(verifier, DataRun { new: x1, old: y1, len_bytes: len }));
            }
        }
    }
    changes
}

/// Compares one run; what precedes the first difference is learnt as the same.
fn compare_run(
    verifier: &Verifier<'_, '_, '_>,
    section: &str,
    (y, x): (Va, Va),
    len_bytes: u64,
    changes: &mut Vec<DataChange>,
    learnt: &mut Learnt,
) {
    let (Some(old_range), Some(new_range)) = (VaRange::new(y, len_bytes), VaRange::new(x, len_bytes)) else { return };
    let mut same_until = len_bytes;
    let mut report = |offset: u64, kind: DataChangeKind| {
        // Behind a pointer to another text the object goes on; the claims name the slot.
        let goes_on = matches!(&kind, DataChangeKind::Text { difference: ContentDifference::Text { .. }, .. });
        if !goes_on {
            same_until = same_until.min(offset);
        }
        changes.push(DataChange { section: section.to_owned(), old: y, new: x, kind });
    };
    let slots = |relocs: &[salve_elf::Reloc], start: Va| -> Vec<(u64, salve_elf::Binding)> {
        relocs.iter().map(|r| (r.at.raw().wrapping_sub(start.raw()), r.binding)).collect()
    };
    let (a, b) = (slots(verifier.old.image.relocs_in(old_range), y), slots(verifier.new.image.relocs_in(new_range), x));
    let mut ignored = Learnt::default();
    for (offset, binding) in &b {
        let counterpart = a.iter().find(|(at, _)| at == offset);
        match counterpart.map(|(_, before)| verifier.same_binding(*before, *binding, &mut ignored)) {
            Some(Ok(true)) => {}
            Some(Err(difference)) => report(*offset, DataChangeKind::Text { offset: *offset, difference }),
            Some(Ok(false)) | None => report(*offset, DataChangeKind::Slot { offset: *offset }),
        }
    }
    for (offset, _) in a.iter().filter(|(offset, _)| b.binary_search_by_key(offset, |(o, _)| *o).is_err()) {
        report(*offset, DataChangeKind::Slot { offset: *offset });
    }
    learnt.runs.append(&mut ignored.runs);
    if let (Some(p), Some(q)) = (verifier.old.image.read(old_range), verifier.new.image.read(new_range)) {
        let in_slot = |i: u64| {
            let after = b.partition_point(|(o, _)| *o <= i);
            after.checked_sub(1).and_then(|k| b.get(k)).is_some_and(|(o, _)| i < o.saturating_add(8))
        };
        let differs: Vec<u64> = p
            .iter()
            .zip(q)
            .enumerate()
            .filter(|(_, (m, n))| m != n)
            .filter_map(|(i, _)| u64::try_from(i).ok())
            .filter(|i| !in_slot(*i))
            .collect();
        if let (Some(first), Some(last)) = (differs.first().copied(), differs.last().copied()) {
            let has_slots = b.iter().any(|(o, _)| (first..=last).contains(o));
            let written = verifier.new.role_at(x) == Some(SectionRole::WritableData);
            let kept = written && !has_slots;
            let mut variables = Vec::new();
            for offset in groups(verifier, (y, x), &differs) {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let cut = |bytes: &[u8]| bytes.iter().skip(from).take(16).copied().collect();
                let kind = DataChangeKind::Bytes { offset, old: cut(p), new: cut(q) };
                if kept {
                    variables.push(DataChange { section: section.to_owned(), old: y, new: x, kind });
                } else {
                    report(offset, kind);
                }
            }
            changes.append(&mut variables);
            if kept {
                // The variables are the same ones; the process keeps their values.
                let at = |start: Va| start.checked_add(first).unwrap_or(start);
                let len_bytes = last.saturating_sub(first).saturating_add(1);
                learnt.kept.push(DataRun { new: at(x), old: at(y), len_bytes });
            }
        }
    }
    if same_until > 0 {
        learnt.runs.push(DataRun { new: x, old: y, len_bytes: same_until });
    }
}

/// Where each group of differing bytes begins: what lies in one text, or within
/// eight bytes, is one difference. Each is judged by itself.
fn groups(verifier: &Verifier<'_, '_, '_>, (y, x): (Va, Va), differs: &[u64]) -> Vec<u64> {
    let text_end = |side: &Side<'_, '_>, start: Va, offset: u64| {
        let text = crate::content::text_around(side, start.checked_add(offset)?)?;
        text.end().raw().checked_sub(start.raw())
    };
    let mut groups = Vec::new();
    let mut until = 0;
    for &offset in differs {
        if offset < until {
            continue;
        }
        groups.push(offset);
        let text = text_end(verifier.old, y, offset).max(text_end(verifier.new, x, offset));
        let word = offset.saturating_add(1).next_multiple_of(8);
        until = text.filter(|end| *end > offset).unwrap_or(word);
    }
    groups
}
