//! Where each reference of a carried function leads once it is in the payload.

use core::cell::RefCell;
use salve_code::{Reference, ReferenceKind};
use salve_elf::{Binding, Reloc, SectionRole, Symbol, SymbolKind, Va, VaRange};
use salve_match::{ImageDiff, Place};
use salve_patch::OwnAddress;
use salve_verdict::is_brought;
use salve_verdict::registry::{self, ReasonCode};
use std::collections::{BTreeMap, BTreeSet};

/// What a reference of the payload leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// It stays inside the payload, at the new image's own address.
    Payload(Va),
    OldCode(Va),
    OldData(Va),
    /// A slot or stub of the old image that the loader bound.
    Import(Va),
    /// A slot of the payload that is filled in the process, as the loader would have
    /// filled the new image's at the same address; perhaps through the new image's stub.
    PrivateSlot {
        slot: Va,
        stub: Option<Va>,
        symbol: usize,
        /// Where the function is, if it is the image's own.
        own: Option<OwnAddress>,
    },
}

/// What a word of a table becomes in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Pointer(OwnAddress),
    Import(usize, Option<OwnAddress>),
}

/// Why a reference cannot be resolved.
pub(crate) struct Unresolved {
    pub(crate) code: ReasonCode,
    pub(crate) seen: String,
}

pub(crate) struct Resolver<'d, 'i, 'a> {
    diff: &'d ImageDiff<'i, 'a>,
    /// Functions of the new image that the payload holds.
    carried: BTreeSet<usize>,
    /// Carried functions with an old entry that a detour leads from, by new index.
    detoured: BTreeMap<usize, usize>,
    /// Stubs of the old image by import.
    stubs: BTreeMap<u32, Va>,
    /// Slots of the old image, with what they hold.
    slots: Vec<(Va, Binding)>,
    /// Those that were looked for, by slot of the new image.
    found: RefCell<BTreeMap<Va, Option<Va>>>,
    /// Tables of pointers of which the payload has a copy.
    copied: Option<VaRange>,
}

impl<'d, 'i, 'a> Resolver<'d, 'i, 'a> {
    pub(crate) fn new(
        diff: &'d ImageDiff<'i, 'a>,
        carried: BTreeSet<usize>,
        detoured: BTreeMap<usize, usize>,
        copied: Option<VaRange>,
    ) -> Self {
        let mut stubs = BTreeMap::new();
        for stub in diff.old.plt.stubs() {
            if let Place::Import(id) = diff.old.place(stub.entry) {
                stubs.entry(id).or_insert(stub.entry);
            }
        }
        let slots = diff
            .old
            .image
            .relocs()
            .iter()
            .filter(|r| matches!(diff.old.place(r.at), Place::Slot(_)))
            .map(|r| (r.at, r.binding))
            .collect();
        Self { diff, carried, detoured, stubs, slots, found: RefCell::default(), copied }
    }

    pub(crate) fn resolve(&self, reference: &Reference) -> Result<Target, Unresolved> {
        let x = reference.target;
        let unresolved = |code: ReasonCode, seen: String| Err(Unresolved { code, seen });
        match self.diff.new.place(x) {
            Place::Import(id) => match self.stubs.get(&id) {
                Some(stub) => Ok(Target::Import(*stub)),
                None => self.private_stub(reference, x).ok_or_else(|| Unresolved {
                    code: registry::NEW_IMPORT,
                    seen: format!("calls the import at {x}, for which the old image has no stub"),
                }),
            },
            Place::Code { function, offset } => self.code(reference, function, offset),
            Place::Slot(binding) => self.slot(reference, x, binding),
            Place::Data { section } => self.data(reference, x, section),
            // The payload has its own copy of the constants: their end is the copy's end.
            Place::SectionEnd { section } if self.is_constant(section) => {
                if reference.kind == ReferenceKind::Address {
                    Ok(Target::Payload(x))
                } else {
                    unresolved(registry::UNPROVEN_REFERENCE, format!("reads at {x}, behind the last constant"))
                }
            }
            Place::SectionEnd { section } => match self.old_section_end(section) {
                Some(end) if reference.kind == ReferenceKind::Address => Ok(Target::OldData(end)),
                _ => unresolved(registry::UNPROVEN_REFERENCE, format!("refers to {x}, the end of a section")),
            },
            Place::Other => unresolved(registry::UNPROVEN_REFERENCE, format!("refers to {x}, which is no object")),
        }
    }

    fn is_constant(&self, section: usize) -> bool {
        self.diff.new.image.sections().get(section).is_some_and(|s| s.role == SectionRole::ReadOnlyData)
    }

    /// An address that is the end of a section of constants, whatever begins there.
    fn ends_constants(&self, x: Va) -> bool {
        let sections = self.diff.new.image.sections().iter();
        sections.filter(|s| s.role == SectionRole::ReadOnlyData).any(|s| s.range.end() == x)
    }

    fn code(&self, reference: &Reference, function: usize, offset: u64) -> Result<Target, Unresolved> {
        let x = reference.target;
        let branch = matches!(reference.kind, ReferenceKind::Call | ReferenceKind::Jump);
        if self.carried.contains(&function) {
            // Pointer identity: an address that is a value is the old entry, where there is one.
            let old_entry = self
                .detoured
                .get(&function)
                .filter(|_| !branch && offset == 0)
                .and_then(|o| self.diff.old.image.functions().get(*o));
            return Ok(old_entry.map_or(Target::Payload(x), |f| Target::OldCode(f.range.start())));
        }
        self.diff
            .old_of(function)
            .and_then(|o| self.diff.old.image.functions().get(o))
            .and_then(|f| f.range.start().checked_add(offset))
            .map(Target::OldCode)
            .ok_or_else(|| Unresolved {
                code: registry::UNPROVEN_REFERENCE,
                seen: format!("leads to {x}, in a function without a counterpart"),
            })
    }

    /// The old image's slot that is bound to the same thing.
    fn slot(&self, reference: &Reference, x: Va, binding: Binding) -> Result<Target, Unresolved> {
        let known = self.found.borrow().get(&x).copied();
        let old = known.unwrap_or_else(|| {
            let same = |(_, old): &&(Va, Binding)| self.same_binding(*old, binding);
            let found = self.slots.iter().find(same).map(|(at, _)| *at);
            self.found.borrow_mut().insert(x, found);
            found
        });
        if let Some(at) = old {
            return Ok(Target::Import(at));
        }
        let indirect = matches!(reference.kind, ReferenceKind::Memory | ReferenceKind::Indirect);
        if let Some((symbol, own)) = self.importable(binding).filter(|_| indirect) {
            return Ok(Target::PrivateSlot { slot: x, stub: None, symbol, own });
        }
        let code = match binding {
            Binding::Symbol { .. } => registry::NEW_IMPORT,
            Binding::ThreadLocal { .. } => registry::THREAD_LOCAL,
            Binding::Relative { .. } | Binding::Indirect { .. } | Binding::Copy { .. } => registry::UNPROVEN_REFERENCE,
        };
        Err(Unresolved {
            code,
            seen: format!("reads the slot at {x}; the old image has none that is bound to the same"),
        })
    }

    /// The new image's own stub, with a slot that the process fills.
    fn private_stub(&self, reference: &Reference, stub: Va) -> Option<Target> {
        let branch = matches!(reference.kind, ReferenceKind::Call | ReferenceKind::Jump);
        let slot = self.diff.new.plt.slot_of(stub).filter(|_| branch)?;
        let (symbol, own) = self.importable(self.diff.new.image.reloc_at(slot)?.binding)?;
        Some(Target::PrivateSlot { slot, stub: Some(stub), symbol, own })
    }

    /// The symbol of a binding that can be made in a running process: required, with nothing
    /// added to its address, and defined by another image or a function of this one.
    fn importable(&self, binding: Binding) -> Option<(usize, Option<OwnAddress>)> {
        let Binding::Symbol { symbol, addend: 0, .. } = binding else { return None };
        let found = self.diff.new.image.symbols().get(symbol)?;
        let plain = match found.kind {
            SymbolKind::Function | SymbolKind::Data | SymbolKind::Other => true,
            SymbolKind::IndirectFunction | SymbolKind::ThreadLocal => false,
        };
        if !plain || found.weak || found.name.is_empty() {
            return None;
        }
        let own = if found.defined { Some(self.own_definition(found)?) } else { None };
        Some((symbol, own))
    }

    /// What a word of a copied table has to become, if the loader makes it an address.
    pub(crate) fn word(&self, reloc: &Reloc) -> Result<Word, Unresolved> {
        let no_address = || Unresolved {
            code: registry::NEW_DATA,
            seen: format!("{} in a table of pointers is no plain address", reloc.at),
        };
        if !reloc.at.raw().is_multiple_of(8) {
            return Err(no_address());
        }
        match reloc.binding {
            Binding::Relative { target } => {
                let (at, field, field_len_bytes, instruction_len_bytes) = (0, 0, 0, 0);
                let kind = ReferenceKind::Address;
                let taken = Reference { at, field, field_len_bytes, instruction_len_bytes, kind, target };
                match self.resolve(&taken)? {
                    Target::Payload(to) if self.is_without_role(to) => Err(Unresolved {
                        code: registry::ROLE_UNPROVEN,
                        seen: format!("{} in a table leads to {to}, whose role is not proven", reloc.at),
                    }),
                    Target::Payload(to) => Ok(Word::Pointer(OwnAddress::Payload(to))),
                    Target::OldCode(to) | Target::OldData(to) => Ok(Word::Pointer(OwnAddress::Old(to))),
                    Target::Import(_) | Target::PrivateSlot { .. } => Err(no_address()),
                }
            }
            Binding::Symbol { .. } => {
                self.importable(reloc.binding).map(|(symbol, own)| Word::Import(symbol, own)).ok_or_else(no_address)
            }
            Binding::Indirect { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. } => Err(no_address()),
        }
    }

    /// A function that the old image has, too, and that nothing leads to from there.
    fn is_without_role(&self, va: Va) -> bool {
        match self.diff.new.place(va) {
            Place::Code { function, .. } => {
                self.diff.old_of(function).is_some() && !self.detoured.contains_key(&function)
            }
            _ => false,
        }
    }

    /// What the image itself defines a symbol by: the old image's variable or function, with a
    /// detour if it changed, or the payload's function.
    fn own_definition(&self, symbol: &Symbol<'_>) -> Option<OwnAddress> {
        let mut olds = self.diff.old.image.symbols().iter().filter(|old| old.defined && old.name == symbol.name);
        if symbol.kind == SymbolKind::Data {
            let found = self.diff.data.old_of(symbol.value, &self.diff.new)?.old();
            return olds
                .any(|old| old.value == found && old.version == symbol.version)
                .then_some(OwnAddress::Old(found));
        }
        let Place::Code { function, offset: 0 } = self.diff.new.place(symbol.value) else { return None };
        let carried = self.carried.contains(&function);
        match self.diff.old_of(function).and_then(|o| self.diff.old.image.functions().get(o)) {
            Some(old) if !carried || self.detoured.contains_key(&function) => {
                let at = old.range.start();
                // Under another version it is something else.
                olds.all(|old| old.value == at && old.version == symbol.version).then_some(OwnAddress::Old(at))
            }
            Some(_) => None,
            None => (carried && olds.next().is_none()).then_some(OwnAddress::Payload(symbol.value)),
        }
        .filter(|_| symbol.kind == SymbolKind::Function)
    }

    fn same_binding(&self, old: Binding, new: Binding) -> bool {
        fn name<'s>(side: &'s salve_match::Side<'_, '_>, symbol: usize) -> Option<(&'s str, Option<&'s str>)> {
            side.image.symbols().get(symbol).map(|symbol| (symbol.name, symbol.version))
        }
        let (before, after) = (&self.diff.old, &self.diff.new);
        match (old, new) {
            (Binding::Symbol { symbol: a, addend: p, .. }, Binding::Symbol { symbol: b, addend: q, .. }) => {
                p == q && name(before, a).is_some() && name(before, a) == name(after, b)
            }
            (
                Binding::ThreadLocal { symbol: a, addend: p, r_type: s },
                Binding::ThreadLocal { symbol: b, addend: q, r_type: t },
            ) => {
                let same_symbol = match (a, b) {
                    (None, None) => true,
                    (Some(a), Some(b)) => name(before, a).is_some() && name(before, a) == name(after, b),
                    _ => false,
                };
                p == q && s == t && same_symbol
            }
            (Binding::Relative { target: a }, Binding::Relative { target: b })
            | (Binding::Indirect { resolver: a }, Binding::Indirect { resolver: b }) => self.old_address(b) == Some(a),
            _different_kinds => false,
        }
    }

    /// The old counterpart of an address that a slot holds.
    fn old_address(&self, new: Va) -> Option<Va> {
        match self.diff.new.place(new) {
            Place::Code { function, offset } => {
                let old = self.diff.old_of(function).and_then(|o| self.diff.old.image.functions().get(o))?;
                let inside_ok = offset == 0 || !self.carried.contains(&function);
                let role_ok = !self.carried.contains(&function) || self.detoured.contains_key(&function);
                (inside_ok && role_ok).then(|| old.range.start().checked_add(offset)).flatten()
            }
            Place::Data { .. } => {
                let writable = self.diff.new.image.section_at(new).is_some_and(|s| s.writable);
                writable
                    .then(|| self.diff.data.old_of(new, &self.diff.new))
                    .flatten()
                    .map(salve_match::Correspondence::old)
            }
            Place::Import(_) | Place::Slot(_) | Place::SectionEnd { .. } | Place::Other => None,
        }
    }

    /// The end of the old image's section of the same name, if nothing else is there.
    fn old_section_end(&self, section: usize) -> Option<Va> {
        let name = self.diff.new.image.sections().get(section)?.name;
        let end = self.diff.old.image.section_named(name)?.range.end();
        matches!(self.diff.old.place(end), Place::SectionEnd { .. }).then_some(end)
    }

    fn data(&self, reference: &Reference, x: Va, section: usize) -> Result<Target, Unresolved> {
        let Some(section) = self.diff.new.image.sections().get(section) else {
            return Err(Unresolved { code: registry::UNPROVEN_REFERENCE, seen: format!("refers to {x}") });
        };
        if self.copied.is_some_and(|copied| copied.end() == x) {
            let seen = format!("refers to {x}, the end of tables of which the payload has a copy");
            return Err(Unresolved { code: registry::NEW_DATA, seen });
        }
        match section.role {
            SectionRole::ReadOnlyData => Ok(Target::Payload(x)),
            _ if self.copied.is_some_and(|copied| is_brought(self.diff, copied, x)) => Ok(Target::Payload(x)),
            SectionRole::RelroData | SectionRole::WritableData => {
                self.diff.data.old_of(x, &self.diff.new).map(|c| Target::OldData(c.old())).ok_or_else(|| Unresolved {
                    code: registry::NEW_DATA,
                    seen: format!("refers to {x} in {}, which no unchanged code maps to the old image", section.name),
                })
            }
            SectionRole::ThreadLocal => {
                Err(Unresolved { code: registry::THREAD_LOCAL, seen: format!("refers to {x} in {}", section.name) })
            }
            // Nothing but the loader's own means leads to the unwinding tables: who takes
            // this address walks the constants to their end.
            SectionRole::Unwind if reference.kind == ReferenceKind::Address && self.ends_constants(x) => {
                Ok(Target::Payload(x))
            }
            SectionRole::Unwind | SectionRole::Linking | SectionRole::Code | SectionRole::Plt => Err(Unresolved {
                code: registry::UNPROVEN_REFERENCE,
                seen: format!("refers to {x} in {}", section.name),
            }),
        }
    }
}
