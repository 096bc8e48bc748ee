//! References that leave the payload: they lead to the same old thing from wherever it is placed.

use super::{OLD_BIAS, Payload};
use crate::correspond::Where;
use crate::decode::Field;
use crate::invalid::{Invalid, Mismatch};
use crate::lockstep::Seen;
use crate::segments::mapped;
use salve_elf::Va;
use salve_patch::{Fixup, FixupKind};

impl Payload<'_, '_> {
    /// A field with a fix-up: it leads out of the payload, from both places to the same old address.
    pub(super) fn check_bound(
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

    /// In a fixed image: the number stays what it is, so what it leads to in the new
    /// image has to lie at the same address in the old one.
    pub(super) fn check_absolute(&mut self, at: Va, field: Field, value: i64, seen: &mut Seen) -> Result<(), Invalid> {
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
}
