//! Every byte of the payload that is in no carried function.

use super::Payload;
use crate::brought;
use crate::image::Role;
use crate::invalid::Invalid;
use crate::segments::{TRAP, check_filling, every_page_has_code, held};
use salve_elf::{Va, VaRange};
use salve_patch::{Access, Segment};

impl Payload<'_, '_> {
    /// Every byte of a segment that is in no carried function: constant data whole
    /// and unchanged or not there at all, literals of code likewise, else filling.
    pub(super) fn check_contents(&self, segment: &Segment) -> Result<u64, Invalid> {
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
        let Some(at) = first_not_trap(segment, from, to)? else { return Ok(()) };
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
        let Some(at) = first_not_trap(segment, from, to)? else { return Ok(()) };
        let stub = self.imports.stub(self.map.new, at).ok_or(Invalid::PayloadByte { at })?;
        let whole = stub.end() <= to && self.map.new.bytes(stub) == Some(held(segment, at, stub.end())?);
        if whole { self.check_stubs(segment, stub.end(), to) } else { Err(Invalid::PayloadByte { at }) }
    }
}

fn first_not_trap(segment: &Segment, from: Va, to: Va) -> Result<Option<Va>, Invalid> {
    let other = held(segment, from, to)?.iter().position(|byte| *byte != TRAP);
    Ok(other.map(|offset| from.wrapping_offset(i64::try_from(offset).unwrap_or(0))))
}
