//! Who calls whom, whose address is taken, and what runs at start-up only.

use iced_x86::{FlowControl, OpKind};
use salve_code::ReferenceKind;
use salve_elf::{Binding, SectionRole, SymbolKind, Va, VaRange};
use salve_match::{Place, Side};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) struct Callers {
    /// For each function, those that refer to it by a direct branch.
    direct: BTreeMap<usize, BTreeSet<usize>>,
    /// Functions whose address is a value somewhere in the image.
    pub(crate) taken: BTreeSet<usize>,
    /// Functions that other images may find by their names.
    exported: BTreeSet<usize>,
    /// Functions that the loader or the C library runs once.
    pub(crate) startup: BTreeSet<usize>,
    /// `main`, and functions that it alone calls, outside every loop, and that have no
    /// loop in which they call anybody, and those that only they call in this way: they
    /// have run when a livepatch arrives.
    pub(crate) once: BTreeSet<usize>,
}

impl Callers {
    pub(crate) fn of(side: &Side<'_, '_>) -> Self {
        let mut direct: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for (caller, code) in side.code.iter().enumerate() {
            for reference in &code.references {
                let Place::Code { function, .. } = led_to(side, reference.target) else { continue };
                match reference.kind {
                    ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::Indirect => {
                        direct.entry(function).or_default().insert(caller);
                    }
                    ReferenceKind::Address | ReferenceKind::Memory | ReferenceKind::Absolute => {
                        taken.insert(function);
                    }
                }
            }
        }
        let mut startup = BTreeSet::new();
        let mut shutdown = BTreeSet::new();
        for reloc in side.image.relocs() {
            if let Binding::Symbol { .. } = reloc.binding
                && !matches!(side.place(reloc.at), Place::Slot(_))
                && let Some(Place::Code { function, .. }) = own(side, reloc.binding)
            {
                taken.insert(function);
            }
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
        let mut exported = BTreeSet::new();
        for symbol in side.image.symbols().iter().filter(|s| s.defined) {
            if side.image.section_at(symbol.value).is_some_and(|s| s.role == SectionRole::Code)
                && let Place::Code { function, .. } = side.place(symbol.value)
            {
                exported.insert(function);
                if symbol.kind == SymbolKind::IndirectFunction {
                    startup.insert(function);
                }
            }
        }
        if let Place::Code { function, .. } = side.place(side.image.entry()) {
            startup.insert(function);
        }
        let mut callers = Self { direct, taken, exported, startup, once: BTreeSet::new() }.closed();
        callers.once = callers.run_once(side);
        callers
    }

    /// Whether anybody may hold its address.
    pub(crate) fn is_held(&self, function: usize) -> bool {
        self.taken.contains(&function) || self.exported.contains(&function)
    }

    fn run_once(&self, side: &Side<'_, '_>) -> BTreeSet<usize> {
        let Some(main) = main_of(side) else { return BTreeSet::new() };
        // What each of them calls, outside its loops.
        let mut once = BTreeMap::from([(main, called_once(side, main))]);
        loop {
            let candidates: BTreeSet<usize> = once.values().flatten().copied().collect();
            let only_these = |callee: usize| {
                let callers = self.direct.get(&callee);
                callers
                    .is_some_and(|callers| callers.iter().all(|one| once.get(one).is_some_and(|c| c.contains(&callee))))
            };
            let more: Vec<usize> = candidates
                .into_iter()
                .filter(|callee| !once.contains_key(callee) && !self.is_held(*callee))
                .filter(|callee| only_these(*callee) && ends(side, *callee))
                .collect();
            if more.is_empty() {
                return once.into_keys().collect();
            }
            once.extend(more.into_iter().map(|callee| (callee, called_once(side, callee))));
        }
    }

    /// Functions that only start-up functions call run at start-up only.
    fn closed(mut self) -> Self {
        loop {
            let more: Vec<usize> = self
                .direct
                .iter()
                .filter(|(function, callers)| {
                    !self.startup.contains(function)
                        && !self.is_held(**function)
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

/// Where a reference leads, through a slot as well.
pub(crate) fn led_to(side: &Side<'_, '_>, target: Va) -> Place {
    match side.place(target) {
        Place::Slot(binding) => own(side, binding).unwrap_or(Place::Other),
        place => place,
    }
}

/// What of the image itself a relocation is bound to, as far as nobody else's comes first:
/// whoever takes the place of an export has the same contract.
pub(crate) fn own(side: &Side<'_, '_>, binding: Binding) -> Option<Place> {
    let address = match binding {
        Binding::Relative { target } => target,
        Binding::Symbol { symbol, .. } => side.image.symbols().get(symbol).filter(|symbol| symbol.defined)?.value,
        Binding::Indirect { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. } => return None,
    };
    Some(side.place(address))
}

/// `main`: by its name, or as what the entry code hands to the C library.
fn main_of(side: &Side<'_, '_>) -> Option<usize> {
    let functions = side.image.functions();
    if let Some(named) = functions.iter().position(|f| f.name.as_deref() == Some("main")) {
        return Some(named);
    }
    let Place::Code { function: entry, .. } = side.place(side.image.entry()) else { return None };
    side.code.get(entry)?.references.iter().filter(|r| r.kind == ReferenceKind::Address).find_map(|r| {
        match side.place(r.target) {
            Place::Code { function, offset: 0 } => Some(function),
            _ => None,
        }
    })
}

/// Functions that this one calls outside every loop, and not within one.
fn called_once(side: &Side<'_, '_>, caller: usize) -> BTreeSet<usize> {
    let (Some(f), Some(code)) = (side.image.functions().get(caller), side.code.get(caller)) else {
        return BTreeSet::new();
    };
    let loops = loops_in(side, f.range);
    let (mut called, mut again) = (BTreeSet::new(), BTreeSet::new());
    for reference in &code.references {
        let Place::Code { function, .. } = side.place(reference.target) else { continue };
        let at = f.range.start().wrapping_offset(i64::from(reference.at));
        let list = if reference.kind == ReferenceKind::Call && !loops.iter().any(|l| l.contains(at)) {
            &mut called
        } else {
            &mut again
        };
        list.insert(function);
    }
    called.difference(&again).copied().collect()
}

/// Whether it has no loop in which it calls anybody: others may go on for as long as the program.
fn ends(side: &Side<'_, '_>, function: usize) -> bool {
    let Some(f) = side.image.functions().get(function) else { return false };
    loops_in(side, f.range).into_iter().all(|range| {
        let calls =
            |i: iced_x86::Instruction| matches!(i.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
        !salve_code::decode(side.image, range).into_iter().flatten().any(calls)
    })
}

/// From the target of every backward branch to the branch.
fn loops_in(side: &Side<'_, '_>, range: VaRange) -> Vec<VaRange> {
    salve_code::decode(side.image, range)
        .into_iter()
        .flatten()
        .filter(|i| i.op0_kind() == OpKind::NearBranch64 && i.flow_control() != FlowControl::Call)
        .filter_map(|i| {
            let (to, end) = (Va::new(i.near_branch64()), Va::new(i.next_ip()));
            range.contains(to).then(|| VaRange::try_from((to, end)).ok()).flatten()
        })
        .collect()
}
