//! Who calls whom, whose address is taken, and what runs at start-up only.

use salve_code::ReferenceKind;
use salve_elf::{Binding, SectionRole, SymbolKind};
use salve_match::{Place, Side};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) struct Callers {
    /// For each function, those that refer to it by a direct branch.
    direct: BTreeMap<usize, BTreeSet<usize>>,
    /// Functions whose address is a value somewhere, or that are exported.
    pub(crate) taken: BTreeSet<usize>,
    /// Functions that the loader or the C library runs once.
    pub(crate) startup: BTreeSet<usize>,
}

impl Callers {
    pub(crate) fn of(side: &Side<'_, '_>) -> Self {
        let mut direct: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for (caller, code) in side.code.iter().enumerate() {
            for reference in &code.references {
                let place = match side.place(reference.target) {
                    Place::Slot(Binding::Relative { target }) => side.place(target),
                    place => place,
                };
                let Place::Code { function, .. } = place else { continue };
                match reference.kind {
                    ReferenceKind::Call | ReferenceKind::Jump => {
                        direct.entry(function).or_default().insert(caller);
                    }
                    ReferenceKind::Address
                    | ReferenceKind::Memory
                    | ReferenceKind::Indirect
                    | ReferenceKind::Absolute => {
                        taken.insert(function);
                    }
                }
            }
        }
        let mut startup = BTreeSet::new();
        let mut shutdown = BTreeSet::new();
        for reloc in side.image.relocs() {
            let (Binding::Relative { target } | Binding::Indirect { resolver: target }) = reloc.binding else {
                continue;
            };
            let Place::Code { function, .. } = side.place(target) else { continue };
            if matches!(reloc.binding, Binding::Indirect { .. }) {
                // A resolver decides once, before the program begins.
                startup.insert(function);
                continue;
            }
            match side.image.section_at(reloc.at).map(|s| s.name) {
                Some(".init_array" | ".preinit_array" | ".ctors") => {
                    startup.insert(function);
                }
                Some(".fini_array" | ".dtors") => {
                    shutdown.insert(function);
                }
                _ => {
                    taken.insert(function);
                }
            }
        }
        for symbol in side.image.symbols().iter().filter(|s| s.defined) {
            if side.image.section_at(symbol.value).is_some_and(|s| s.role == SectionRole::Code)
                && let Place::Code { function, .. } = side.place(symbol.value)
            {
                taken.insert(function);
                if symbol.kind == SymbolKind::IndirectFunction {
                    startup.insert(function);
                }
            }
        }
        if let Place::Code { function, .. } = side.place(side.image.entry()) {
            startup.insert(function);
        }
        Self { direct, taken, startup }.closed()
    }

    /// Functions that only start-up functions call run at start-up only.
    fn closed(mut self) -> Self {
        loop {
            let more: Vec<usize> = self
                .direct
                .iter()
                .filter(|(function, callers)| {
                    !self.startup.contains(function)
                        && !self.taken.contains(function)
                        && callers.iter().all(|c| self.startup.contains(c))
                })
                .map(|(function, _)| *function)
                .collect();
            if more.is_empty() {
                return self;
            }
            self.startup.extend(more);
        }
    }
}
