//! Carried functions, instruction by instruction, where they would run.

use super::Payload;
use crate::decode::{Base, Field, Flow, Instr};
use crate::invalid::{Invalid, Side};
use crate::lockstep::{Seen, code, decode};
use crate::segments::mapped;
use salve_elf::{Va, VaRange};

/// One instruction of a carried function.
struct Step<'b> {
    instr: Instr,
    at: Va,
    bytes: &'b [u8],
}

impl Payload<'_, '_> {
    pub(super) fn check_function(&mut self, range: VaRange, seen: &mut Seen) -> Result<(), Invalid> {
        let new = self.map.new;
        let bytes = code(new, Side::New, range)?;
        if new.frame_at(range.start()).is_some_and(|f| f.handlers.is_some()) {
            return Err(Invalid::LandingPads { range });
        }
        if !self.has_in_code(range) {
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
        self.check_unchanged(step, patched)
    }

    /// What is placed is the new image's but for the field that is `patched`.
    fn check_unchanged(&self, step: &Step<'_>, patched: Option<Field>) -> Result<(), Invalid> {
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
}
