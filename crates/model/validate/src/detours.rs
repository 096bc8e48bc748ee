//! Detours and the list of replaced functions.

use crate::correspond::Correspondence;
use crate::decode::{Base, Decoder, Flow, Instr};
use crate::image::Image;
use crate::index::{Class, Index};
use crate::invalid::{Invalid, Side};
use crate::lockstep::{Seen, code, decode, looks_like_table, table_entry};
use salve_elf::{Va, VaRange};
use salve_patch::{Claims, Detour, Livepatch};

const JUMP_BYTES: u64 = 5;
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Checks the detours one by one and marks the pairs that have one.
///
/// A detour may reach beyond a function that is shorter than the jump: into bytes of
/// the same section that no claim has, which were found to be padding before this.
pub(crate) fn check(old: &Image<'_>, index: &mut Index, claims: &Claims, detours: &[Detour]) -> Result<(), Invalid> {
    let mut end = Va::new(0);
    let mut starts = claimed_starts(claims);
    starts.sort_unstable();
    let changed = index.pairs.iter_mut().filter(|p| p.class == Class::Changed);
    let mut changed: Vec<_> = changed.map(|p| (p.old.start(), p)).collect();
    changed.sort_unstable_by_key(|(entry, _)| *entry);
    for detour in detours {
        let old_va = detour.old_va;
        if old_va < end {
            return Err(Invalid::DetourOrder { old_va });
        }
        let written = VaRange::new(old_va, JUMP_BYTES).ok_or(Invalid::DetourTooLong { old_va })?;
        end = written.end();
        let unclaimed = Invalid::DetourUnclaimed { old_entry: detour.old_entry };
        let found = changed.binary_search_by_key(&detour.old_entry, |(entry, _)| *entry);
        let (_, pair) = found.ok().and_then(|at| changed.get_mut(at)).ok_or(unclaimed)?;
        let marked = old.array(detour.old_entry) == Some(ENDBR64);
        let place = detour.old_entry.checked_add(if marked { 4 } else { 0 });
        if place != Some(old_va) {
            return Err(Invalid::DetourPlace { old_entry: detour.old_entry, old_va });
        }
        let inside = old.section_at(old_va).is_some_and(|section| written.end() <= section.range.end());
        let next = starts.get(starts.partition_point(|start| *start < pair.old.end()));
        if old_va >= pair.old.end() || !inside || next.is_some_and(|next| *next < written.end()) {
            return Err(Invalid::DetourTooLong { old_va });
        }
        if old.bytes(written) != Some(detour.expected.as_slice()) {
            return Err(Invalid::DetourExpected { old_va });
        }
        if detour.new_target != pair.new.start() {
            return Err(Invalid::DetourTarget { old_va, new_target: detour.new_target });
        }
        pair.detoured = true;
    }
    Ok(())
}

/// Where anything claimed of the old image starts.
fn claimed_starts(claims: &Claims) -> Vec<Va> {
    let pairs = claims.same.iter().chain(claims.noise.iter().map(|n| &n.pair)).chain(&claims.changed);
    let mut starts: Vec<Va> = pairs.map(|p| p.old.start()).collect();
    starts.extend(claims.gone.iter().map(|r| r.start()));
    starts.extend(claims.data.iter().map(|run| run.old));
    starts
}

/// Reads the old code that does not stay, for where it leads: nothing may lead into
/// the bytes that a detour overwrites but to their first. (Code that stays leads
/// only to entries of changed functions; that was proven reference by reference.)
pub(crate) struct OldCode<'c, 'a> {
    pub(crate) map: &'c Correspondence<'a>,
    pub(crate) decoder: &'c Decoder,
    pub(crate) livepatch: &'c Livepatch,
    pub(crate) claims: &'c Claims,
}

impl OldCode<'_, '_> {
    /// Records what the old code refers to in `seen`.
    pub(crate) fn check(&self, seen: &mut Seen) -> Result<(), Invalid> {
        let mut parts = Vec::new();
        for range in self.claims.changed.iter().map(|p| p.old).chain(self.claims.gone.iter().copied()) {
            self.check_function(range, seen, &mut parts)?;
        }
        for slot in &self.map.old.slots {
            if let Some(target) = slot.binding.target() {
                self.check_target(slot.at, target)?;
            }
        }
        self.check_words()?;
        self.check_replaced(&parts)
    }

    fn check_function(&self, range: VaRange, seen: &mut Seen, parts: &mut Vec<VaRange>) -> Result<(), Invalid> {
        let old = self.map.old;
        let bytes = code(old, Side::Old, range)?;
        let mut offset = 0_usize;
        while offset < bytes.len() {
            let at = range.start().wrapping_offset(i64::try_from(offset).unwrap_or(i64::MAX));
            let instr = decode(self.decoder, bytes.get(offset..).unwrap_or_default(), at, old.fixed, Side::Old)?;
            let end = offset.saturating_add(instr.len);
            let own = bytes.get(offset..end).ok_or(Invalid::Straddles { side: Side::Old, at })?;
            let next = range.start().wrapping_offset(i64::try_from(end).unwrap_or(i64::MAX));
            if matches!(instr.flow, Flow::Call | Flow::IndirectCall) {
                // The callee returns there; the jump would be half executed.
                self.check_target(at, next)?;
            }
            for target in targets(&instr, own, next) {
                self.check_target(at, target)?;
                if old.section_at(target).is_some_and(|s| !s.is_code()) {
                    seen.old_data.push(target);
                    if looks_like_table(old, target) {
                        seen.old_tables.push(target);
                    }
                }
                if matches!(instr.flow, Flow::Jump | Flow::Branch) {
                    parts.extend(self.gone_at(target));
                }
            }
            offset = end;
        }
        Ok(())
    }

    fn check_target(&self, at: Va, target: Va) -> Result<(), Invalid> {
        let detours = &self.livepatch.detours;
        let next = detours.partition_point(|d| d.old_va < target);
        let inside = next.checked_sub(1).and_then(|i| detours.get(i));
        let inside = inside.is_some_and(|d| target.raw().saturating_sub(d.old_va.raw()) < JUMP_BYTES);
        if inside { Err(Invalid::DetourEntered { at, target }) } else { Ok(()) }
    }

    /// Every entry of what may be a jump table of old code that does not stay: to
    /// where it stops leading into code, or to the next place that something refers to.
    pub(crate) fn check_tables(&self, tables: &[Va], old_data: &[Va]) -> Result<(), Invalid> {
        for table in tables {
            let limit = old_data.get(old_data.partition_point(|t| t <= table)).copied();
            let mut at = *table;
            while limit.is_none_or(|l| at < l)
                && let Some(target) = table_entry(self.map.old, *table, at)
            {
                self.check_target(at, target)?;
                at = at.wrapping_offset(4);
            }
        }
        Ok(())
    }

    /// In a fixed image any aligned word of data may be a pointer without relocation.
    fn check_words(&self) -> Result<(), Invalid> {
        if !self.map.old.fixed || self.livepatch.detours.is_empty() {
            return Ok(());
        }
        for section in self.map.old.sections.iter().filter(|s| !s.is_code()) {
            let skip = section.range.start().raw().wrapping_neg() & 7;
            let skip = usize::try_from(skip).unwrap_or(0);
            for (index, word) in section.data.get(skip..).unwrap_or_default().chunks_exact(8).enumerate() {
                let target = word.first_chunk().map_or(0, |w| u64::from_le_bytes(*w));
                let offset = index.saturating_mul(8).saturating_add(skip);
                let at = section.range.start().wrapping_offset(i64::try_from(offset).unwrap_or(0));
                self.check_target(at, Va::new(target))?;
            }
        }
        Ok(())
    }

    fn gone_at(&self, target: Va) -> Option<VaRange> {
        self.claims.gone.iter().copied().find(|r| r.contains(target))
    }

    /// The list for the stack checks: exactly the carried functions on the new side;
    /// on the old side every changed function, the parts that it jumps to, and
    /// nothing that stays.
    fn check_replaced(&self, parts: &[VaRange]) -> Result<(), Invalid> {
        let listed = |new: bool| {
            let ranges =
                self.livepatch.replaced.iter().flat_map(move |r| if new { &r.new_ranges } else { &r.old_ranges });
            let mut ranges: Vec<VaRange> = ranges.copied().collect();
            ranges.sort_unstable();
            ranges
        };
        let (old, new) = (listed(false), listed(true));
        check_no_doubles(Side::Old, &old)?;
        check_no_doubles(Side::New, &new)?;
        let missing = |side, range| Err(Invalid::Replaced { side, range });
        if let Some(range) = self.map.index.carried.iter().find(|r| new.binary_search(r).is_err()) {
            return missing(Side::New, *range);
        }
        if let Some(range) = new.iter().find(|r| self.map.index.carried.binary_search(r).is_err()) {
            return missing(Side::New, *range);
        }
        let changed = self.claims.changed.iter().map(|p| p.old);
        if let Some(range) = changed.chain(parts.iter().copied()).find(|r| old.binary_search(r).is_err()) {
            return missing(Side::Old, range);
        }
        let mut allowed: Vec<VaRange> = self.claims.changed.iter().map(|p| p.old).collect();
        allowed.extend(&self.claims.gone);
        allowed.sort_unstable();
        match old.iter().find(|r| allowed.binary_search(r).is_err()) {
            Some(range) => missing(Side::Old, *range),
            None => Ok(()),
        }
    }
}

fn check_no_doubles(side: Side, ranges: &[VaRange]) -> Result<(), Invalid> {
    for two in ranges.windows(2) {
        if let [a, b] = two
            && a == b
        {
            return Err(Invalid::Replaced { side, range: *b });
        }
    }
    Ok(())
}

fn targets(instr: &Instr, bytes: &[u8], next: Va) -> impl Iterator<Item = Va> {
    instr.fields().filter_map(move |field| {
        let value = field.read(bytes)?;
        Some(match field.base {
            Base::Next => next.wrapping_offset(value),
            Base::Absolute => Va::new(value.cast_unsigned()),
        })
    })
}

/// A changed function that anything else than replaced code reaches has a detour.
pub(crate) fn check_reached(map: &Correspondence<'_>) -> Result<(), Invalid> {
    for pair in map.index.pairs.iter().filter(|p| p.class == Class::Changed && !p.detoured) {
        let old_entry = pair.old.start();
        // A slot of the old image that no run covers is still there, and may be used.
        let pointed_at = map.old.slots.iter().any(|s| s.binding.target() == Some(old_entry));
        let exported =
            map.old.symbols.iter().filter(|s| !s.local).any(|s| s.defined.is_some_and(|d| d.at == old_entry));
        if pair.reached.get() || pointed_at || exported {
            return Err(Invalid::DetourMissing { old_entry });
        }
    }
    Ok(())
}
