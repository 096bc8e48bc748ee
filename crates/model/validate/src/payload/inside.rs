//! References within the payload: what they lead to is there, and may be kept for as long as the payload stays.

use super::{OLD_BIAS, Payload, is_control};
use crate::brought;
use crate::correspond::stub_slot;
use crate::decode::{Field, Use};
use crate::image::{Role, Section};
use crate::invalid::Invalid;
use crate::lockstep::{Seen, TableUse, looks_like_table};
use crate::segments::is_mapped;
use salve_elf::{Va, VaRange};
use salve_patch::RevertPolicy;

impl Payload<'_, '_> {
    /// A field without fix-up: it has to lead to something that the payload holds.
    pub(super) fn check_inside(
        &mut self,
        at: Va,
        field: Field,
        new_target: Va,
        seen: &mut Seen,
    ) -> Result<(), Invalid> {
        if field.role == Use::Address && self.ends_held_constants(new_target) {
            self.check_stays_mapped(at, new_target)?;
            self.references.payload = self.references.payload.saturating_add(1);
            return Ok(());
        }
        let unresolved = Invalid::Unresolved { at, new_target };
        for (distance, placed) in &self.placed {
            let bias = distance.payload_bias(OLD_BIAS);
            if !is_mapped(placed, new_target.in_process(bias), bias) {
                return Err(unresolved);
            }
        }
        let section = self.map.new.section_at(new_target).ok_or(unresolved.clone())?;
        match section.role {
            Role::Code if self.map.index.carried_at(new_target).is_some() => {
                self.check_to_code(at, field, new_target)?;
            }
            // What cannot be reached jumps past its function's end: into a trap.
            Role::Code if field.role == Use::Jump && self.is_trap_after(new_target) => {}
            Role::Code => self.check_to_literal(at, field, new_target, seen)?,
            Role::Data if section.is_constant() && !is_control(field) => {
                self.check_to_constant(at, field, new_target, section, seen)?;
            }
            Role::Data if brought::is_table(self.map.new, section) && !is_control(field) => {
                self.check_to_table(at, new_target, section, seen)?;
            }
            Role::Stubs => self.check_to_stub(at, field, new_target)?,
            Role::Got => self.check_to_slot(at, field, new_target)?,
            Role::Data => return Err(unresolved),
        }
        let counter = match section.role {
            Role::Stubs | Role::Got => &mut self.references.imports,
            Role::Code | Role::Data => &mut self.references.payload,
        };
        *counter = counter.saturating_add(1);
        Ok(())
    }

    fn check_to_code(&self, at: Va, field: Field, new_target: Va) -> Result<(), Invalid> {
        self.map.marks.wanted(new_target);
        let is_taken = match field.role {
            Use::Jump | Use::Call | Use::Entry => false,
            Use::Address | Use::Pointer => true,
            Use::Access(_) | Use::Through => return Err(Invalid::Unresolved { at, new_target }),
        };
        // The address of a function is the old one's: old code and data hold that already.
        let is_pair = self.map.index.pair_at(new_target).is_some_and(|p| p.new.start() == new_target);
        let is_entry = self.map.index.carried_at(new_target).is_some_and(|r| r.start() == new_target);
        match (is_taken && is_entry, is_pair) {
            (false, _) => Ok(()),
            (true, true) => Err(Invalid::PointerIdentity { at, new_target }),
            (true, false) => self.check_never_reverted(at, new_target),
        }
    }

    fn check_to_literal(&self, at: Va, field: Field, new_target: Va, seen: &mut Seen) -> Result<(), Invalid> {
        let run = self.map.index.run_at(new_target).filter(|_| !is_control(field));
        let literal = run.and_then(|(run, _)| VaRange::new(run.new, run.len_bytes));
        if !literal.is_some_and(|literal| self.holds(literal)) {
            return Err(Invalid::Unresolved { at, new_target });
        }
        seen.new_data.push(new_target);
        Ok(())
    }

    /// How far the object reaches is not known, so all of its section has to be there.
    fn check_to_constant(
        &self,
        at: Va,
        field: Field,
        new_target: Va,
        section: &Section<'_>,
        seen: &mut Seen,
    ) -> Result<(), Invalid> {
        if !self.holds(section.range) {
            return Err(Invalid::Unresolved { at, new_target });
        }
        seen.new_data.push(new_target);
        if field.role != Use::Address {
            return Ok(());
        }
        if looks_like_table(self.map.new, new_target) {
            seen.tables.push(TableUse { new: new_target, old: None });
            return Ok(());
        }
        self.check_stays_mapped(at, new_target)
    }

    fn check_to_table(&self, at: Va, new_target: Va, section: &Section<'_>, seen: &mut Seen) -> Result<(), Invalid> {
        let whole = brought::expected(self.map.new, section.range);
        if !whole.is_some_and(|whole| self.holds_bytes(section.range, &whole)) {
            return Err(Invalid::Unresolved { at, new_target });
        }
        self.check_stays_mapped(at, new_target)?;
        seen.brought = true;
        seen.new_data.push(new_target);
        Ok(())
    }

    /// A call or jump to a stub of the payload: it is there, and goes through a slot
    /// that is filled.
    fn check_to_stub(&mut self, at: Va, field: Field, stub: Va) -> Result<(), Invalid> {
        let unresolved = Invalid::Unresolved { at, new_target: stub };
        let slot = stub_slot(self.map.new, stub).filter(|_| is_control(field)).ok_or(unresolved.clone())?;
        let range = self.imports.stub(self.map.new, stub).ok_or(unresolved.clone())?;
        let is_there = self.has_in_code(range) && self.holds(range);
        if is_there && self.is_empty_slot(slot) && self.imports.uses(slot) { Ok(()) } else { Err(unresolved) }
    }

    fn check_to_slot(&mut self, at: Va, field: Field, slot: Va) -> Result<(), Invalid> {
        let read = matches!(field.role, Use::Access(Some(8)) | Use::Through);
        if !read || !self.is_empty_slot(slot) || !self.imports.uses(slot) {
            return Err(Invalid::Unresolved { at, new_target: slot });
        }
        if field.role == Use::Through { Ok(()) } else { self.check_kept_import(at, slot) }
    }

    /// What is read from a slot may be kept, and be called once the patch is gone.
    pub(super) fn check_kept_import(&self, at: Va, slot: Va) -> Result<(), Invalid> {
        if self.imports.leads_into_payload(slot) { self.check_never_reverted(at, slot) } else { Ok(()) }
    }

    /// Old state may hold an address of the payload's data, and read there once the patch is gone.
    fn check_stays_mapped(&self, at: Va, new_target: Va) -> Result<(), Invalid> {
        match self.livepatch.revert {
            RevertPolicy::KeepMapped | RevertPolicy::Refuse => Ok(()),
            RevertPolicy::Unmap => Err(Invalid::Revert { at, new_target }),
        }
    }

    /// Old state may hold an address of the payload's code, and call it once the patch is gone.
    fn check_never_reverted(&self, at: Va, new_target: Va) -> Result<(), Invalid> {
        match self.livepatch.revert {
            RevertPolicy::Refuse => Ok(()),
            RevertPolicy::Unmap | RevertPolicy::KeepMapped => Err(Invalid::Revert { at, new_target }),
        }
    }
}
