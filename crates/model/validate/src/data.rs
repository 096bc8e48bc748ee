//! Runs of data said to be the same: bytes, slots and jump tables.

use crate::correspond::Correspondence;
use crate::decode::Use;
use crate::image::{Binding, Image, Section, Slot};
use crate::index::Pair;
use crate::invalid::{Invalid, Mismatch};
use crate::lockstep::{Seen, TableUse, is_string, table_entry};
use crate::words::Words;
use salve_elf::{Va, VaRange};
use salve_patch::{DataRun, JumpTable, TextPair};

pub(crate) struct Data<'c, 'a> {
    pub(crate) map: &'c Correspondence<'a>,
    /// Sorted by `new`.
    pub(crate) tables: &'c [JumpTable],
    /// Writable data whose initial contents differ; sorted by `new`.
    pub(crate) kept: &'c [DataRun],
    /// Slots that point to texts which differ; sorted.
    pub(crate) text_slots: &'c [TextPair],
    /// What becomes the new image's in place.
    pub(crate) words: &'c Words,
}

impl Data<'_, '_> {
    /// Proves every run; returns the bytes compared.
    pub(crate) fn check(&self, seen: &mut Seen) -> Result<u64, Invalid> {
        let mut bytes = 0_u64;
        for table in self.tables {
            self.check_table(table)?;
        }
        for kept in self.kept {
            self.check_kept(kept)?;
        }
        for run in &self.map.index.runs {
            self.check_run(run, seen)?;
            bytes = bytes.saturating_add(run.len_bytes);
        }
        Ok(bytes)
    }

    fn check_run(&self, run: &DataRun, seen: &mut Seen) -> Result<(), Invalid> {
        let outside = Invalid::RunOutside { old: run.old, new: run.new };
        let here = VaRange::new(run.new, run.len_bytes).ok_or(outside.clone())?;
        let there = VaRange::new(run.old, run.len_bytes).ok_or(outside)?;
        for (image, range) in [(self.map.old, there), (self.map.new, here)] {
            // A slot that reaches into the run from before it would be judged by nobody.
            let reaches_in = slot_before(image, range.start()).is_some_and(|end| end > range.start());
            let reaches_out = slot_before(image, range.end()).is_some_and(|end| end > range.end());
            if reaches_in || reaches_out {
                return Err(Invalid::DataDiffers { old: run.old, new: run.new });
            }
        }
        // What a word holds that becomes another was proven with the words.
        let stays =
            |slot: &&Slot, start: Va| !self.words.hold(run.new.wrapping_offset(slot.at.wrapping_distance_from(start)));
        let old: Vec<&Slot> = self.map.old.slots_in(there).iter().filter(|slot| stays(slot, run.old)).collect();
        let new: Vec<&Slot> = self.map.new.slots_in(here).iter().filter(|slot| stays(slot, run.new)).collect();
        let mut at = here.start();
        for (a, b) in old.iter().zip(&new) {
            self.check_slots(run, a, b, seen)?;
            self.check_bytes(run, at, b.at)?;
            at = b.at.wrapping_offset(b.len_bytes.cast_signed());
        }
        if old.len() != new.len() {
            let at = new.get(old.len()).or(new.last()).map_or(run.new, |s| s.at);
            return Err(Invalid::Slot { old: run.old, new: at, why: Mismatch::Binding });
        }
        self.check_bytes(run, at, here.end())
    }

    fn check_slots(&self, run: &DataRun, old: &Slot, new: &Slot, seen: &mut Seen) -> Result<(), Invalid> {
        let invalid = |why| Invalid::Slot { old: old.at, new: new.at, why };
        if old.at.wrapping_distance_from(run.old) != new.at.wrapping_distance_from(run.new) {
            return Err(invalid(Mismatch::Binding));
        }
        if let Err(why) = self.map.check_slot(old.at, new.at)
            && !self.is_text_slot(old, new)
        {
            return Err(invalid(why));
        }
        if let (Some(old), Some(new)) = (old.binding.target(), new.binding.target()) {
            seen.old_data.push(old);
            seen.new_data.push(new);
        }
        Ok(())
    }

    /// A listed slot that points to a text on both sides.
    fn is_text_slot(&self, old: &Slot, new: &Slot) -> bool {
        let listed = self.text_slots.binary_search(&TextPair { new: new.at, old: old.at }).is_ok();
        let texts = match (old.binding, new.binding) {
            (Binding::Relative(a), Binding::Relative(b)) => is_string(self.map.old, a) && is_string(self.map.new, b),
            _ => false,
        };
        listed && texts
    }

    /// Contents that may differ at the start: of a variable that stays writable, and no slot.
    fn check_kept(&self, kept: &DataRun) -> Result<(), Invalid> {
        let outside = Invalid::KeptOutside { old: kept.old, new: kept.new };
        let placed = self.map.index.run_at(kept.new).is_some_and(|(_, old)| old == kept.old);
        if !placed || !self.map.index.covers(kept.new, kept.len_bytes) {
            return Err(outside);
        }
        for (image, at) in [(self.map.old, kept.old), (self.map.new, kept.new)] {
            let range = VaRange::new(at, kept.len_bytes).ok_or(outside.clone())?;
            let writable = image.section_at(at).is_some_and(|s| s.is_writable() && !s.is_run_by_loader());
            let read_only_later = image.relro.is_some_and(|relro| relro.overlaps(range));
            let has_slots = !image.slots_in(range).is_empty() || slot_before(image, at).is_some_and(|end| end > at);
            if !writable || read_only_later || has_slots {
                return Err(outside);
            }
        }
        Ok(())
    }

    fn is_kept(&self, new: Va) -> bool {
        let next = self.kept.partition_point(|k| k.new <= new);
        let kept = next.checked_sub(1).and_then(|i| self.kept.get(i));
        kept.is_some_and(|k| new.raw().saturating_sub(k.new.raw()) < k.len_bytes)
    }

    /// The unrelocated stretch `from..to` of a run: equal, but for listed jump tables.
    fn check_bytes(&self, run: &DataRun, from: Va, to: Va) -> Result<(), Invalid> {
        let mut at = from;
        let first = self.tables.partition_point(|t| table_end(t) <= from);
        for table in self.tables.iter().skip(first).take_while(|t| t.new < to) {
            self.check_equal(run, at, table.new.max(at))?;
            at = table_end(table).min(to).max(at);
        }
        self.check_equal(run, at, to)
    }

    fn check_equal(&self, run: &DataRun, from: Va, to: Va) -> Result<(), Invalid> {
        if from >= to {
            return Ok(());
        }
        let old_from = run.old.wrapping_offset(from.wrapping_distance_from(run.new));
        let differs = Invalid::DataDiffers { old: old_from, new: from };
        let len = to.raw().saturating_sub(from.raw());
        let section = self.map.new.section_at(from).ok_or(differs.clone())?;
        if section.is_nobits() {
            return Ok(());
        }
        let (old, new) = VaRange::new(old_from, len)
            .and_then(|r| self.map.old.bytes(r))
            .zip(VaRange::new(from, len).and_then(|r| self.map.new.bytes(r)))
            .ok_or(differs)?;
        if self.map.new.fixed && section.may_hold_pointers() {
            return self.check_words(old_from, from, old, new);
        }
        if old == new {
            return Ok(());
        }
        let differs = old.iter().zip(new).enumerate().filter(|(_, (a, b))| a != b);
        let mut differs = differs.filter_map(|(offset, _)| i64::try_from(offset).ok());
        let stays_or_changes = |at: Va| self.is_kept(at) || self.words.hold(at);
        match differs.find(|offset| !stays_or_changes(from.wrapping_offset(*offset))) {
            Some(offset) => {
                Err(Invalid::DataDiffers { old: old_from.wrapping_offset(offset), new: from.wrapping_offset(offset) })
            }
            None => Ok(()),
        }
    }

    /// In a fixed image a pointer in data has no relocation: every aligned word
    /// that may be an address has to lead to the same thing, the rest to be equal.
    fn check_words(&self, old_at: Va, new_at: Va, old: &[u8], new: &[u8]) -> Result<(), Invalid> {
        let mut offset = 0_usize;
        while offset < new.len() {
            let here = new_at.wrapping_offset(i64::try_from(offset).unwrap_or(0));
            let there = old_at.wrapping_offset(i64::try_from(offset).unwrap_or(0));
            let differs = Invalid::DataDiffers { old: there, new: here };
            let rest = (old.get(offset..).unwrap_or_default(), new.get(offset..).unwrap_or_default());
            let aligned = here.raw().is_multiple_of(8) && there.raw().is_multiple_of(8);
            let step = match (rest.0.first_chunk(), rest.1.first_chunk()) {
                (Some(a), Some(b)) if aligned => {
                    let number = a == b && self.is_no_pointer(new, offset, u64::from_le_bytes(*b));
                    let (a, b) = (i64::from_le_bytes(*a), i64::from_le_bytes(*b));
                    if !number {
                        self.map.check_number(a, b, Use::Pointer).map_err(|_| differs)?;
                    }
                    8
                }
                _ if rest.0.first() == rest.1.first() => 1,
                _ => return Err(differs),
            };
            offset = offset.saturating_add(step);
        }
        Ok(())
    }

    /// An equal word that happens to look like an address: the end of a text (what
    /// precedes it is not the high half of another word), or no instruction's place.
    fn is_no_pointer(&self, run: &[u8], offset: usize, word: u64) -> bool {
        let target = Va::new(word);
        let before = offset.checked_sub(1).and_then(|at| run.get(at));
        let in_text = before.is_some_and(|byte| *byte != 0);
        let is_code = self.map.new.section_at(target).is_some_and(Section::is_code);
        in_text || is_code && !self.map.marks.is_start(target)
    }

    fn check_table(&self, table: &JumpTable) -> Result<(), Invalid> {
        let outside = Invalid::TableOutside { new: table.new };
        let owner = self.map.index.pair_at(table.new_owner).filter(|p| p.new.start() == table.new_owner);
        let constant = self.map.new.section_at(table.new).is_some_and(Section::is_constant);
        let placed = self.map.index.run_at(table.new).is_some_and(|(_, old)| old == table.old);
        let len_bytes = u64::from(table.entries).saturating_mul(4);
        if !owner.is_some_and(Pair::stays) || !constant || !placed || !self.map.index.covers(table.new, len_bytes) {
            return Err(outside);
        }
        for entry in 0..table.entries {
            let distance = i64::from(entry).saturating_mul(4);
            let read = |image: &Image<'_>, start: Va| {
                let distance = image.array(start.wrapping_offset(distance)).map(i32::from_le_bytes)?;
                Some(start.wrapping_offset(i64::from(distance)))
            };
            let targets = read(self.map.old, table.old).zip(read(self.map.new, table.new));
            let (old_target, new_target) = targets.ok_or(outside.clone())?;
            if self.map.check(old_target, new_target, Use::Entry).is_err() {
                return Err(Invalid::TableEntry { new: table.new, entry, old_target, new_target });
            }
        }
        Ok(())
    }

    /// Tables that no claim lists are found by their use: an address that is taken,
    /// in constant data, whose first entries lead to instructions. They are read until
    /// an entry leads to none, or the next thing that is referred to begins, and every
    /// entry has to lead to the same place: equal bytes are no proof, because the
    /// entries are distances.
    pub(crate) fn check_used_tables(&self, seen: &Seen, new_data: &[Va]) -> Result<(), Invalid> {
        for TableUse { new, old } in &seen.tables {
            let next = new_data.partition_point(|t| t <= new);
            let limit = new_data.get(next).copied();
            if old.is_none() {
                self.check_distances(*new, limit)?;
            }
            // One entry that leads to an instruction may be chance.
            let second = new.wrapping_offset(4);
            if limit.is_none_or(|l| second < l) && self.entry_target(*new, second).is_none() {
                continue;
            }
            let mut at = *new;
            let mut entry = 0_u32;
            while limit.is_none_or(|l| at < l)
                && let Some(new_target) = self.entry_target(*new, at)
            {
                self.check_entry(*new, *old, entry, at, new_target)?;
                at = at.checked_add(4).ok_or(Invalid::TableOutside { new: *new })?;
                entry = entry.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Constants of the payload that count from themselves may not lead to functions that it
    /// lacks: in the process these are as far away as the old image has them. Half of the
    /// numbers, because one in a few hundred does by chance.
    fn check_distances(&self, table: Va, limit: Option<Va>) -> Result<(), Invalid> {
        const MOST_BYTES: i64 = 4096;
        let furthest = table.wrapping_offset(MOST_BYTES);
        let end = limit.map_or(furthest, |limit| limit.min(furthest));
        let places = (0..MOST_BYTES).step_by(4).map(|at| table.wrapping_offset(at)).take_while(|at| *at < end);
        let (mut numbers, mut leading) = (0_usize, Vec::new());
        for at in places {
            let Some(target) = table_entry(self.map.new, at, at).filter(|target| *target != at) else {
                let is_zero = self.map.new.array::<4>(at).is_none_or(|bytes| bytes == [0; 4]);
                numbers = numbers.saturating_add(usize::from(!is_zero));
                continue;
            };
            numbers = numbers.saturating_add(1);
            let lacking = self.map.index.pair_at(target).is_some_and(|pair| pair.stays() && pair.new.start() == target);
            leading.extend(lacking.then_some((at, target)));
        }
        match leading.first() {
            Some((at, target)) if leading.len().saturating_mul(2) >= numbers => {
                Err(Invalid::Unresolved { at: *at, new_target: *target })
            }
            _ => Ok(()),
        }
    }

    fn entry_target(&self, table: Va, at: Va) -> Option<Va> {
        table_entry(self.map.new, table, at).filter(|target| self.map.marks.is_start(*target))
    }

    fn check_entry(&self, new: Va, old: Option<Va>, entry: u32, at: Va, new_target: Va) -> Result<(), Invalid> {
        let Some(old) = old else {
            // A carried function's table: it has to lead inside the payload.
            let carried = self.map.index.carried_at(new_target).is_some();
            return if carried { Ok(()) } else { Err(Invalid::Unresolved { at, new_target }) };
        };
        let old_at = old.wrapping_offset(at.wrapping_distance_from(new));
        let distance = self.map.old.array(old_at).map(i32::from_le_bytes).ok_or(Invalid::TableOutside { new })?;
        let old_target = old.wrapping_offset(i64::from(distance));
        match self.map.check(old_target, new_target, Use::Entry) {
            Ok(_) => Ok(()),
            Err(_) => Err(Invalid::TableEntry { new, entry, old_target, new_target }),
        }
    }
}

fn table_end(table: &JumpTable) -> Va {
    table.new.wrapping_offset(i64::from(table.entries).saturating_mul(4))
}

/// The end of the last slot that starts before `at`.
fn slot_before(image: &Image<'_>, at: Va) -> Option<Va> {
    let next = image.slots.partition_point(|s| s.at < at);
    let slot = image.slots.get(next.checked_sub(1)?)?;
    slot.at.checked_add(slot.len_bytes)
}
