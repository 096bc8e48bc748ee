//! The payload: what it holds, and where each of its references leads once placed.
//!
//! It is placed at two distances from the old image, as it would be in two
//! processes, and every instruction of every carried function is read where it
//! would run. A field that leads to the same old address from both places is bound
//! to the old image; one that moves along is bound to the payload itself.

use crate::brought;
use crate::correspond::{Correspondence, Where, stub_slot};
use crate::decode::{Base, Decoder, Field, Flow, Instr, Use};
use crate::image::Role;
use crate::imports::Imports;
use crate::invalid::{Invalid, Mismatch, Side};
use crate::lockstep::{Seen, TableUse, code, decode, looks_like_table};
use crate::segments::{check_filling, check_shape, distances, every_page_has_code, held, is_mapped, mapped};
use crate::words;
use salve_elf::{LoadBias, Va, VaRange};
use salve_patch::{
    Access, Distance, Fixup, FixupKind, Livepatch, OwnAddress, PlacedSegment, ReferenceCounts, RevertPolicy, Segment,
    WordValue,
};

/// The old image is taken to be where its file says.
const OLD_BIAS: LoadBias = LoadBias::new(0);

pub(crate) struct Payload<'c, 'a> {
    map: &'c Correspondence<'a>,
    decoder: &'c Decoder,
    livepatch: &'c Livepatch,
    placed: [(Distance, Vec<PlacedSegment>); 2],
    references: ReferenceCounts,
    /// Fix-ups not met yet, in order.
    fixups: &'c [Fixup],
    imports: Imports<'c>,
}

/// One instruction of a carried function.
struct Step<'b> {
    instr: Instr,
    at: Va,
    bytes: &'b [u8],
}

impl<'c, 'a> Payload<'c, 'a> {
    pub(crate) fn new(
        map: &'c Correspondence<'a>,
        decoder: &'c Decoder,
        livepatch: &'c Livepatch,
    ) -> Result<Self, Invalid> {
        check_shape(&livepatch.segments)?;
        for two in livepatch.fixups.windows(2) {
            if let [a, b] = two
                && a.new_va >= b.new_va
            {
                return Err(Invalid::StrayFixup { at: b.new_va });
            }
        }
        let [a, b] = distances(map);
        let placed = [(a, livepatch.place(a)?), (b, livepatch.place(b)?)];
        let references = ReferenceCounts::default();
        let imports = Imports::new(map, &livepatch.imports)?;
        Ok(Self { map, decoder, livepatch, placed, references, fixups: &livepatch.fixups, imports })
    }

    /// Proves the payload; returns its references by where they lead, and its bytes.
    pub(crate) fn check(mut self, seen: &mut Seen) -> Result<(ReferenceCounts, u64), Invalid> {
        let mut bytes = 0_u64;
        brought::check_order(self.map, self.livepatch)?;
        for segment in &self.livepatch.segments {
            bytes = bytes.saturating_add(self.check_contents(segment)?);
        }
        for range in &self.map.index.carried {
            self.check_function(*range, seen)?;
        }
        if let Some(stray) = self.fixups.first() {
            return Err(Invalid::StrayFixup { at: stray.new_va });
        }
        self.check_tables(seen)?;
        self.check_words(seen)?;
        self.imports.check_all_used()?;
        Ok((self.references, bytes))
    }

    /// Every byte of a segment that is in no carried function: constant data whole
    /// and unchanged or not there at all, literals of code likewise, else filling.
    fn check_contents(&self, segment: &Segment) -> Result<u64, Invalid> {
        let range = segment.range().ok_or(Invalid::SegmentShape { at: segment.new_va })?;
        let wrong = Invalid::SegmentAccess { at: segment.new_va, access: segment.access };
        let executable = segment.access == Access::ReadExecute;
        if executable && !every_page_has_code(self.map.new, range) {
            return Err(wrong);
        }
        let mut at = range.start();
        let first = self.map.new.sections.partition_point(|s| s.range.end() <= range.start());
        for section in self.map.new.sections.iter().skip(first).take_while(|s| s.range.start() < range.end()) {
            let from = section.range.start().max(at);
            let to = section.range.end().min(range.end());
            check_filling(segment, at, from, executable)?;
            let part = VaRange::try_from((from, to)).map_err(|_| Invalid::SegmentShape { at: from })?;
            match section.role {
                Role::Code if executable => self.check_code(segment, part)?,
                Role::Data if section.is_constant() => self.check_constant(segment, part, executable)?,
                Role::Data if !executable && brought::is_table(self.map.new, section) => {
                    let expected = brought::expected(self.map.new, part);
                    if expected.as_deref() != Some(held(segment, from, to)?) {
                        check_filling(segment, from, to, executable)?;
                    }
                }
                Role::Stubs if executable => self.check_stubs(segment, from, to)?,
                Role::Code | Role::Stubs | Role::Got | Role::Data => {
                    check_filling(segment, from, to, executable)?;
                }
            }
            at = to;
        }
        check_filling(segment, at, range.end(), executable)?;
        Ok(range.len_bytes())
    }

    fn check_constant(&self, segment: &Segment, part: VaRange, executable: bool) -> Result<(), Invalid> {
        if self.map.new.bytes(part) == Some(held(segment, part.start(), part.end())?) {
            return Ok(());
        }
        check_filling(segment, part.start(), part.end(), executable)
    }

    /// Executable bytes outside carried functions.
    fn check_code(&self, segment: &Segment, part: VaRange) -> Result<(), Invalid> {
        let mut at = part.start();
        let first = self.map.index.carried.partition_point(|r| r.end() <= part.start());
        for carried in self.map.index.carried.iter().skip(first).take_while(|r| r.start() < part.end()) {
            self.check_unused_code(segment, at, carried.start().max(at))?;
            at = carried.end().min(part.end());
        }
        self.check_unused_code(segment, at, part.end())
    }

    fn check_unused_code(&self, segment: &Segment, from: Va, to: Va) -> Result<(), Invalid> {
        let bytes = held(segment, from, to)?;
        let Some(wrong) = bytes.iter().position(|b| *b != 0xcc) else { return Ok(()) };
        let at = from.wrapping_offset(i64::try_from(wrong).unwrap_or(0));
        // Literals between functions may be carried: as much of them as is claimed, unchanged.
        let (run, _) = self.map.index.run_at(at).ok_or(Invalid::PayloadByte { at })?;
        let end = run.new.wrapping_offset(run.len_bytes.cast_signed()).min(to);
        let literal = VaRange::try_from((at, end)).map_err(|_| Invalid::PayloadByte { at })?;
        if self.map.new.bytes(literal) != Some(held(segment, at, end)?) {
            return Err(Invalid::PayloadByte { at });
        }
        self.check_unused_code(segment, end, to)
    }

    /// Stubs for imports that the payload has slots for: their one jump, unchanged.
    fn check_stubs(&self, segment: &Segment, from: Va, to: Va) -> Result<(), Invalid> {
        let bytes = held(segment, from, to)?;
        let Some(wrong) = bytes.iter().position(|b| *b != 0xcc) else { return Ok(()) };
        let at = from.wrapping_offset(i64::try_from(wrong).unwrap_or(0));
        let stub = self.imports.stub(self.map.new, at).ok_or(Invalid::PayloadByte { at })?;
        let whole = stub.end() <= to && self.map.new.bytes(stub) == Some(held(segment, at, stub.end())?);
        if whole { self.check_stubs(segment, stub.end(), to) } else { Err(Invalid::PayloadByte { at }) }
    }

    /// A call or jump to a stub of the payload: it is there, and goes through a slot
    /// that is filled.
    fn check_inside_stub(&mut self, field: Field, at: Va, stub: Va) -> Result<(), Invalid> {
        let unresolved = Invalid::Unresolved { at, new_target: stub };
        let slot = stub_slot(self.map.new, stub).filter(|_| is_control(field)).ok_or(unresolved.clone())?;
        let range = self.imports.stub(self.map.new, stub).ok_or(unresolved.clone())?;
        let in_code = self.livepatch.segments.iter().any(|s| {
            let holds = s.range().is_some_and(|held| held.contains(range.start()) && range.end() <= held.end());
            holds && s.access == Access::ReadExecute
        });
        if in_code && self.holds(range) && self.is_empty_slot(slot) && self.imports.uses(slot) {
            Ok(())
        } else {
            Err(unresolved)
        }
    }

    /// Eight bytes of read-only payload with nothing in them.
    fn is_empty_slot(&self, slot: Va) -> bool {
        let end = slot.wrapping_offset(8);
        self.livepatch
            .segments
            .iter()
            .filter(|segment| segment.access == Access::Read)
            .any(|segment| held(segment, slot, end).is_ok_and(|bytes| bytes == [0; 8]))
    }

    fn check_function(&mut self, range: VaRange, seen: &mut Seen) -> Result<(), Invalid> {
        let new = self.map.new;
        let bytes = code(new, Side::New, range)?;
        if new.frame_at(range.start()).is_some_and(|f| f.handlers.is_some()) {
            return Err(Invalid::LandingPads { range });
        }
        let in_code = self.livepatch.segments.iter().any(|s| {
            let holds = s.range().is_some_and(|held| held.contains(range.start()) && range.end() <= held.end());
            holds && s.access == Access::ReadExecute
        });
        if !in_code {
            return Err(Invalid::NotCarried { range });
        }
        let mut offset = 0_usize;
        let mut last = Flow::Next;
        while offset < bytes.len() {
            let at = range.start().wrapping_offset(i64::try_from(offset).unwrap_or(i64::MAX));
            let instr = decode(self.decoder, bytes.get(offset..).unwrap_or_default(), at, new.fixed, Side::New)?;
            let end = offset.saturating_add(instr.len);
            let own = bytes.get(offset..end).ok_or(Invalid::Straddles { side: Side::New, at })?;
            self.map.marks.starts(at);
            if !instr.is_nop {
                last = instr.flow;
            }
            if instr.thread_relative && !self.map.tls_same {
                return Err(Invalid::TlsLayout { new_at: at });
            }
            self.check_instruction(&Step { instr, at, bytes: own }, seen)?;
            offset = end;
        }
        let continues = matches!(last, Flow::Next | Flow::Branch);
        if continues && self.map.index.carried_at(range.end()).is_none_or(|next| next.start() != range.end()) {
            return Err(Invalid::FallsThrough { old: range, new: range });
        }
        Ok(())
    }

    fn check_instruction(&mut self, step: &Step<'_>, seen: &mut Seen) -> Result<(), Invalid> {
        let len = i64::try_from(step.instr.len).unwrap_or(i64::MAX);
        let next = step.at.wrapping_offset(len);
        let mut patched: Option<Field> = None;
        for field in step.instr.fields() {
            let at = step.at.wrapping_offset(i64::try_from(field.offset).unwrap_or(i64::MAX));
            let unknown = Invalid::Undecodable { side: Side::New, at: step.at };
            let value = field.read(step.bytes).ok_or(unknown)?;
            let fixup = self.fixups.first().filter(|f| f.new_va == at).copied();
            match (field.base, fixup) {
                (Base::Next, Some(fixup)) if field.width == 4 => {
                    self.fixups = self.fixups.get(1..).unwrap_or_default();
                    self.check_bound(&fixup, field, next, next.wrapping_offset(value), seen)?;
                    patched = Some(field);
                }
                (_, Some(_)) => return Err(Invalid::StrayFixup { at }),
                (Base::Next, None) => self.check_inside(at, field, next.wrapping_offset(value), seen)?,
                (Base::Absolute, None) => self.check_absolute(at, field, value, seen)?,
            }
        }
        if let Some(stray) = self.fixups.first().filter(|f| f.new_va < next) {
            return Err(Invalid::StrayFixup { at: stray.new_va });
        }
        for (_, placed) in &self.placed {
            let mapped = mapped(placed, step.at, step.bytes.len()).ok_or(Invalid::PayloadByte { at: step.at })?;
            let differs = mapped.iter().zip(step.bytes).enumerate();
            let mut differs = differs.filter(|(offset, (a, b))| a != b && !patched.is_some_and(|f| f.covers(*offset)));
            if let Some((offset, _)) = differs.next() {
                let at = step.at.wrapping_offset(i64::try_from(offset).unwrap_or(0));
                return Err(Invalid::PayloadByte { at });
            }
        }
        Ok(())
    }

    /// A field with a fix-up: it leads out of the payload, from both places to the same old address.
    fn check_bound(
        &mut self,
        fixup: &Fixup,
        field: Field,
        next: Va,
        new_target: Va,
        seen: &mut Seen,
    ) -> Result<(), Invalid> {
        let at = fixup.new_va;
        let FixupKind::PcRel32 { new_next, old_target: stated } = fixup.kind;
        // The payload refers to its own constants only, to their end as well.
        let ends = self.map.new.section_ending(new_target).is_some_and(|(section, _)| section.is_constant());
        if ends {
            let why = Mismatch::Unclaimed;
            return Err(Invalid::PayloadReference { at, old_target: stated, new_target, why });
        }
        if new_next != next {
            return Err(Invalid::FixupNext { at });
        }
        let mut led_to = Where::Number;
        for (distance, placed) in &self.placed {
            let bytes = mapped(placed, at, 4).and_then(|b| b.first_chunk()).ok_or(Invalid::StrayFixup { at })?;
            let jump = i64::from(i32::from_le_bytes(*bytes));
            let leads_to = next.in_process(distance.payload_bias(OLD_BIAS)).wrapping_offset(jump);
            let old_target = leads_to.in_file(OLD_BIAS);
            let why = if old_target == stated {
                self.map.check(old_target, new_target, field.role)
            } else {
                Err(Mismatch::Elsewhere { expected: stated })
            };
            match why {
                Ok(Where::Number) | Err(_) => {
                    let why = why.err().unwrap_or(Mismatch::Number);
                    return Err(Invalid::PayloadReference { at, old_target, new_target, why });
                }
                Ok(found) => led_to = found,
            }
        }
        self.count(led_to);
        if self.map.new.section_at(new_target).is_some_and(|s| !s.is_code()) {
            seen.new_data.push(new_target);
            seen.old_data.push(stated);
        }
        Ok(())
    }

    fn count(&mut self, found: Where) {
        let counter = match found {
            Where::Code => &mut self.references.old_code,
            Where::Data => &mut self.references.old_data,
            Where::Import => &mut self.references.imports,
            Where::Number => return,
        };
        *counter = counter.saturating_add(1);
    }

    /// A field without fix-up: it has to lead to something that the payload holds.
    fn check_inside(&mut self, at: Va, field: Field, new_target: Va, seen: &mut Seen) -> Result<(), Invalid> {
        if field.role == Use::Address && self.ends_held_constants(new_target) {
            if self.livepatch.revert == RevertPolicy::Unmap {
                return Err(Invalid::Revert { at, new_target });
            }
            self.references.payload = self.references.payload.saturating_add(1);
            return Ok(());
        }
        for (distance, placed) in &self.placed {
            let bias = distance.payload_bias(OLD_BIAS);
            if !is_mapped(placed, new_target.in_process(bias), bias) {
                return Err(Invalid::Unresolved { at, new_target });
            }
        }
        let unresolved = Invalid::Unresolved { at, new_target };
        let section = self.map.new.section_at(new_target).ok_or(unresolved.clone())?;
        match section.role {
            Role::Code if self.map.index.carried_at(new_target).is_some() => {
                self.check_inside_code(at, field, new_target)?;
            }
            // What cannot be reached jumps past its function's end: into a trap.
            Role::Code if field.role == Use::Jump && self.is_trap_after(new_target) => {}
            Role::Code => {
                let literal = self.map.index.run_at(new_target).map(|(run, _)| (run.new, run.len_bytes));
                let (start, len) = literal.filter(|_| !is_control(field)).ok_or(unresolved.clone())?;
                if !VaRange::new(start, len).is_some_and(|run| self.holds(run)) {
                    return Err(unresolved);
                }
                seen.new_data.push(new_target);
            }
            Role::Data if section.is_constant() && !is_control(field) => {
                // How far the object reaches is not known, so all of its section has to be there.
                if !self.holds(section.range) {
                    return Err(unresolved);
                }
                seen.new_data.push(new_target);
                if field.role == Use::Address && looks_like_table(self.map.new, new_target) {
                    seen.tables.push(TableUse { new: new_target, old: None });
                } else if field.role == Use::Address && self.livepatch.revert == RevertPolicy::Unmap {
                    return Err(Invalid::Revert { at, new_target });
                }
            }
            Role::Data if brought::is_table(self.map.new, section) && !is_control(field) => {
                let whole = brought::expected(self.map.new, section.range);
                if !whole.is_some_and(|whole| self.holds_bytes(section.range, &whole)) {
                    return Err(unresolved);
                }
                if self.livepatch.revert == RevertPolicy::Unmap {
                    return Err(Invalid::Revert { at, new_target });
                }
                seen.brought = true;
                seen.new_data.push(new_target);
            }
            Role::Stubs => self.check_inside_stub(field, at, new_target)?,
            Role::Got => {
                let read = matches!(field.role, Use::Access(Some(8)) | Use::Through);
                if !read || !self.is_empty_slot(new_target) || !self.imports.uses(new_target) {
                    return Err(unresolved);
                }
                // What is read may be kept, and be called once the patch is gone.
                let escapes = field.role != Use::Through && self.imports.leads_into_payload(new_target);
                if escapes && self.livepatch.revert != RevertPolicy::Refuse {
                    return Err(Invalid::Revert { at, new_target });
                }
            }
            Role::Data => return Err(unresolved),
        }
        if matches!(section.role, Role::Stubs | Role::Got) {
            self.references.imports = self.references.imports.saturating_add(1);
            return Ok(());
        }
        self.references.payload = self.references.payload.saturating_add(1);
        Ok(())
    }

    /// Every word that changes in the old image's tables.
    fn check_words(&mut self, seen: &mut Seen) -> Result<(), Invalid> {
        let (map, livepatch) = (self.map, self.livepatch);
        words::check_values(map, livepatch, |word, at, target| match word.new {
            WordValue::Payload(_) => self.check_inside(at, brought::WORD, target, seen),
            WordValue::Old(old_target) => {
                let found = map.check(old_target, target, Use::Pointer);
                let found =
                    found.map_err(|why| Invalid::PayloadReference { at, old_target, new_target: target, why })?;
                self.count(found);
                Ok(())
            }
            WordValue::Number(_) => Ok(()),
        })
    }

    /// Every word of the tables that the payload brings, if it refers to any.
    fn check_tables(&mut self, seen: &mut Seen) -> Result<(), Invalid> {
        let tables = self.map.new.sections.iter().find(|section| brought::is_table(self.map.new, section));
        let Some(table) = tables.map(|section| section.range).filter(|_| seen.brought) else {
            let stray = self.livepatch.pointers.first();
            return stray.map_or(Ok(()), |stray| Err(Invalid::Pointer { at: stray.new_va }));
        };
        let (map, livepatch) = (self.map, self.livepatch);
        brought::check_words(map, livepatch, table, |pointer, target| {
            let at = pointer.new_va;
            match pointer.to {
                OwnAddress::Payload(_) => self.check_inside(at, brought::WORD, target, seen),
                OwnAddress::Old(old_target) => {
                    let found = map.check(old_target, target, Use::Pointer);
                    let found =
                        found.map_err(|why| Invalid::PayloadReference { at, old_target, new_target: target, why })?;
                    self.count(found);
                    Ok(())
                }
            }
        })?;
        for import in livepatch.imports.iter().filter(|import| table.contains(import.new_va)) {
            let at = import.new_va;
            // What the table holds may be kept, and be called once the patch is gone.
            if self.imports.leads_into_payload(at) && livepatch.revert != RevertPolicy::Refuse {
                return Err(Invalid::Revert { at, new_target: at });
            }
            self.imports.uses(at);
        }
        Ok(())
    }

    /// One past the last of the constants that the payload has, in no other section of
    /// constants: where a walk over them stops.
    fn ends_held_constants(&self, at: Va) -> bool {
        let next = self.map.new.section_at(at);
        let other = next.is_none_or(|section| matches!(section.name, b".eh_frame_hdr" | b".eh_frame"));
        other && self.map.new.sections.iter().any(|s| s.is_constant() && s.range.end() == at && self.holds(s.range))
    }

    fn is_trap_after(&self, at: Va) -> bool {
        let ends = at.checked_sub(1).and_then(|last| self.map.index.carried_at(last)).is_some_and(|r| r.end() == at);
        let trap = self.placed.iter().all(|(_, placed)| mapped(placed, at, 1) == Some(&[0xcc]));
        ends && trap
    }

    fn check_inside_code(&self, at: Va, field: Field, new_target: Va) -> Result<(), Invalid> {
        self.map.marks.wanted(new_target);
        let is_taken = match field.role {
            Use::Jump | Use::Call | Use::Entry => false,
            Use::Address | Use::Pointer => true,
            Use::Access(_) | Use::Through => return Err(Invalid::Unresolved { at, new_target }),
        };
        // The address of a function is the old one's: old code and data hold that already.
        let is_pair = self.map.index.pair_at(new_target).is_some_and(|p| p.new.start() == new_target);
        let is_entry = self.map.index.carried_at(new_target).is_some_and(|r| r.start() == new_target);
        match (is_taken && is_entry, is_pair, self.livepatch.revert) {
            (false, _, _) | (true, false, RevertPolicy::Refuse) => Ok(()),
            (true, true, _) => Err(Invalid::PointerIdentity { at, new_target }),
            // Old state may hold the address and call it once the patch is gone.
            (true, false, RevertPolicy::Unmap | RevertPolicy::KeepMapped) => Err(Invalid::Revert { at, new_target }),
        }
    }

    /// In a fixed image: the number stays what it is, so what it leads to in the new
    /// image has to lie at the same address in the old one.
    fn check_absolute(&mut self, at: Va, field: Field, value: i64, seen: &mut Seen) -> Result<(), Invalid> {
        let target = Va::new(value.cast_unsigned());
        let found = self.map.check_number(value, value, field.role);
        let found =
            found.map_err(|why| Invalid::PayloadReference { at, old_target: target, new_target: target, why })?;
        if found != Where::Number && self.map.new.section_at(target).is_some_and(|s| !s.is_code()) {
            seen.new_data.push(target);
            seen.old_data.push(target);
        }
        self.count(found);
        Ok(())
    }

    /// Whether the payload has these bytes of the new image, every one of them.
    fn holds(&self, range: VaRange) -> bool {
        self.map.new.bytes(range).is_some_and(|bytes| self.holds_bytes(range, bytes))
    }

    fn holds_bytes(&self, range: VaRange, bytes: &[u8]) -> bool {
        let mut at = range.start();
        while at < range.end() {
            let Some(segment) = self.livepatch.segments.iter().find(|s| s.range().is_some_and(|r| r.contains(at)))
            else {
                return false;
            };
            let end = segment.range().map_or(at, VaRange::end).min(range.end());
            let offset = |to: Va| usize::try_from(to.raw().wrapping_sub(range.start().raw())).ok();
            let wanted = offset(at).zip(offset(end)).and_then(|(from, to)| bytes.get(from..to));
            if wanted.is_none() || held(segment, at, end).ok() != wanted {
                return false;
            }
            at = end;
        }
        true
    }
}

fn is_control(field: Field) -> bool {
    matches!(field.role, Use::Jump | Use::Call)
}
