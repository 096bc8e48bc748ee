//! Slots of the payload for symbols that the old image does not import.
//!
//! The new image reaches such a symbol through a slot of its own, directly or
//! through a stub. The payload keeps both where the new image has them: the slot
//! empty, to be filled in the process, and of the stub the one jump through it. What
//! is proven here is that each stated slot is one that the loader fills with exactly
//! the stated symbol in the new image, and that nothing else is reached this way.

use crate::correspond::stub_slot;
use crate::image::{Binding, Image, Role};
use crate::invalid::Invalid;
use salve_elf::{Va, VaRange};
use salve_patch::ImportSlot;

pub(crate) struct Imports<'c> {
    /// Sorted by place; whether something refers to it.
    slots: Vec<(&'c ImportSlot, bool)>,
}

impl<'c> Imports<'c> {
    pub(crate) fn new(new: &Image<'_>, stated: &'c [ImportSlot]) -> Result<Self, Invalid> {
        let mut end = Va::new(0);
        for import in stated {
            let at = import.new_va;
            let wrong = Invalid::ImportSlot { at };
            if at < end || !is_bound_to(new, import) {
                return Err(wrong);
            }
            end = at.checked_add(8).ok_or(wrong)?;
        }
        Ok(Self { slots: stated.iter().map(|import| (import, false)).collect() })
    }

    fn find(&self, slot: Va) -> Option<usize> {
        self.slots.binary_search_by_key(&slot, |(import, _)| import.new_va).ok()
    }

    /// Something in the payload goes through this slot, if it is stated.
    pub(crate) fn uses(&mut self, slot: Va) -> bool {
        let found = self.find(slot).and_then(|index| self.slots.get_mut(index));
        found.map(|(_, used)| *used = true).is_some()
    }

    /// The jump of the stub at `at`, if it goes through a stated slot: all of the stub
    /// that the payload may have.
    pub(crate) fn stub(&self, new: &Image<'_>, at: Va) -> Option<VaRange> {
        let slot = stub_slot(new, at)?;
        self.find(slot)?;
        let code = new.section_at(at)?.from(at)?;
        // `[endbr64] [bnd] ff 25 disp32`, which `stub_slot` has just read.
        let before: u64 = if code.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) { 4 } else { 0 };
        let bnd = u64::from(code.get(usize::try_from(before).ok()?) == Some(&0xf2));
        VaRange::new(at, before.checked_add(bnd)?.checked_add(6)?)
    }

    pub(crate) fn check_all_used(&self) -> Result<(), Invalid> {
        match self.slots.iter().find(|(_, used)| !used) {
            Some((stray, _)) => Err(Invalid::StrayImport { at: stray.new_va }),
            None => Ok(()),
        }
    }
}

/// Whether the loader fills this slot of the new image with the address of exactly this
/// symbol, defined elsewhere and required, and nothing is added to it.
fn is_bound_to(new: &Image<'_>, import: &ImportSlot) -> bool {
    let slot = new.slot(import.new_va).filter(|slot| slot.len_bytes == 8);
    let in_table = new.section_at(import.new_va).is_some_and(|section| section.role == Role::Got);
    let symbol = match slot.map(|slot| slot.binding) {
        Some(Binding::Address { symbol, addend: 0 } | Binding::Jump { symbol, addend: 0 }) if symbol != 0 => {
            new.symbol(symbol)
        }
        _ => None,
    };
    in_table
        && symbol.is_some_and(|symbol| {
            symbol.defined.is_none()
                && !symbol.local
                && !symbol.weak
                && symbol.name == import.symbol.as_bytes()
                && symbol.version == import.version.as_deref().unwrap_or_default().as_bytes()
                && import.version.as_deref() != Some("")
        })
}
