//! Slots of the payload for symbols that the old image does not import.
//!
//! The new image reaches such a symbol through a slot of its own, directly or
//! through a stub. The payload keeps both where the new image has them: the slot
//! empty, to be filled in the process, and of the stub the one jump through it. What
//! is proven here is that each stated slot is one that the loader fills with exactly
//! the stated symbol in the new image, and that nothing else is reached this way.

use crate::correspond::{Correspondence, Where, stub_slot};
use crate::decode::Use;
use crate::image::{Binding, Image, Role, Symbol};
use crate::invalid::Invalid;
use salve_elf::{Va, VaRange};
use salve_patch::{ImportSlot, OwnAddress};

pub(crate) struct Imports<'c> {
    /// Sorted by place; whether something refers to it.
    slots: Vec<(&'c ImportSlot, bool)>,
}

impl<'c> Imports<'c> {
    pub(crate) fn new(map: &Correspondence<'_>, stated: &'c [ImportSlot]) -> Result<Self, Invalid> {
        let mut end = Va::new(0);
        for import in stated {
            let at = import.new_va;
            let wrong = Invalid::ImportSlot { at };
            if at < end || !is_bound_to(map, import) {
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

    /// The slot's function is the payload's own.
    pub(crate) fn leads_into_payload(&self, slot: Va) -> bool {
        let found = self.find(slot).and_then(|index| self.slots.get(index));
        found.is_some_and(|(import, _)| matches!(import.own, Some(OwnAddress::Payload(_))))
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
/// symbol, required and defined where it is said to be, and nothing is added to it.
fn is_bound_to(map: &Correspondence<'_>, import: &ImportSlot) -> bool {
    let new = map.new;
    let slot = new.slot(import.new_va).filter(|slot| slot.len_bytes == 8);
    let in_table = new
        .section_at(import.new_va)
        .is_some_and(|section| section.role == Role::Got || crate::brought::is_table(new, section));
    let symbol = match slot.map(|slot| slot.binding) {
        Some(Binding::Address { symbol, addend: 0 } | Binding::Jump { symbol, addend: 0 }) if symbol != 0 => {
            new.symbol(symbol)
        }
        _ => None,
    };
    in_table
        && symbol.is_some_and(|symbol| {
            is_defined(map, symbol, import.own)
                && !symbol.local
                && !symbol.weak
                && symbol.name == import.symbol.as_bytes()
                && symbol.version == import.version.as_deref().unwrap_or_default().as_bytes()
                && import.version.as_deref() != Some("")
        })
}

/// Elsewhere, or by the image itself: by what of the old image corresponds, and is what it
/// exports by this name if it exports any, or by a new function that the payload has.
fn is_defined(map: &Correspondence<'_>, symbol: &Symbol<'_>, own: Option<OwnAddress>) -> bool {
    let place = |symbol: &Symbol<'_>| {
        let defined = symbol.defined.filter(|d| !d.is_tls && !d.is_absolute && !d.is_indirect && !symbol.weak);
        defined.map(|definition| definition.at)
    };
    let olds = || map.old.symbols.iter().filter(|old| old.defined.is_some() && old.name == symbol.name);
    match own {
        None => symbol.defined.is_none(),
        Some(OwnAddress::Old(at)) => place(symbol).is_some_and(|new| {
            olds().all(|old| old.binds_like(symbol) && place(old) == Some(at))
                && matches!(map.check(at, new, Use::Address), Ok(Where::Code | Where::Data))
        }),
        Some(OwnAddress::Payload(at)) => {
            let carried = map.index.carried_at(at).is_some_and(|range| range.start() == at);
            let is_new = map.index.pair_at(at).is_none() && olds().next().is_none();
            carried && is_new && place(symbol) == Some(at)
        }
    }
}
