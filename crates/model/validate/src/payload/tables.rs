//! Words that the payload brings, or that change in the old image: where each address in them leads.

use super::Payload;
use crate::decode::Use;
use crate::invalid::Invalid;
use crate::lockstep::Seen;
use crate::{brought, words};
use salve_elf::Va;
use salve_patch::{OwnAddress, WordValue};

impl Payload<'_, '_> {
    /// Every word that changes in the old image's tables.
    pub(super) fn check_words(&mut self, seen: &mut Seen) -> Result<(), Invalid> {
        let (map, livepatch) = (self.map, self.livepatch);
        words::check_values(map, livepatch, |word, at, target| match word.new {
            WordValue::Payload(_) => self.check_inside(at, brought::WORD, target, seen),
            WordValue::Old(old_target) => self.check_old_address(at, old_target, target),
            WordValue::Number(_) => Ok(()),
        })
    }

    /// Every word of the tables that the payload brings, if it refers to any.
    pub(super) fn check_tables(&mut self, seen: &mut Seen) -> Result<(), Invalid> {
        let tables = self.map.new.sections.iter().find(|section| brought::is_table(self.map.new, section));
        let Some(table) = tables.map(|section| section.range).filter(|_| seen.brought) else {
            let stray = self.livepatch.pointers.first();
            return stray.map_or(Ok(()), |stray| Err(Invalid::Pointer { at: stray.new_va }));
        };
        let (map, livepatch) = (self.map, self.livepatch);
        brought::check_words(map, livepatch, table, |pointer, target| match pointer.to {
            OwnAddress::Payload(_) => self.check_inside(pointer.new_va, brought::WORD, target, seen),
            OwnAddress::Old(old_target) => self.check_old_address(pointer.new_va, old_target, target),
        })?;
        for import in livepatch.imports.iter().filter(|import| table.contains(import.new_va)) {
            self.check_kept_import(import.new_va, import.new_va)?;
            self.imports.uses(import.new_va);
        }
        Ok(())
    }

    fn check_old_address(&mut self, at: Va, old_target: Va, new_target: Va) -> Result<(), Invalid> {
        let found = self.map.check(old_target, new_target, Use::Pointer);
        self.count(found.map_err(|why| Invalid::PayloadReference { at, old_target, new_target, why })?);
        Ok(())
    }
}
