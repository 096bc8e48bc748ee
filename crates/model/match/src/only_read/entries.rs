//! How control comes to each function.

use super::runs_on_into;
use crate::side::Side;
use foldhash::HashMap;
use salve_code::{ReferenceKind, decode};
use salve_elf::{Binding, Va};
use std::collections::BTreeSet;

/// A direct call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// The instruction behind it.
    pub(super) after: Va,
    pub(super) target: Va,
}

/// What leads into one function.
#[derive(Debug, Default)]
pub(super) struct LeadsIn {
    pub(super) calls: Vec<Call>,
    /// The functions that jump there.
    jumps: BTreeSet<usize>,
    /// Its address is taken, or has a name, or what refers to it is not understood.
    pub(super) unseen: bool,
}

#[derive(Debug, Default)]
pub(super) struct Entries(HashMap<usize, LeadsIn>);

impl Entries {
    pub(super) fn new(side: &Side<'_, '_>) -> Self {
        let mut entries = Self::default();
        let image = side.image;
        let named = image.relocs().iter().filter_map(|reloc| match reloc.binding {
            Binding::Relative { target } | Binding::Indirect { resolver: target } => Some(target),
            Binding::Symbol { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. } => None,
        });
        let symbols = image.symbols().iter().filter(|symbol| symbol.defined).map(|symbol| symbol.value);
        for function in named.chain(symbols).chain([image.entry()]).filter_map(|va| image.function_index_at(va)) {
            entries.entry(function).unseen = true;
        }
        for (index, (function, code)) in image.functions().iter().zip(&side.code).enumerate() {
            for reference in &code.references {
                let Some(target) = image.function_index_at(reference.target) else { continue };
                let leads = entries.entry(target);
                match reference.kind {
                    _ if !code.decoded => leads.unseen = true,
                    ReferenceKind::Jump => {
                        leads.jumps.insert(index);
                    }
                    ReferenceKind::Call => {
                        let after = i64::from(reference.at).saturating_add(i64::from(reference.instruction_len_bytes));
                        let after = function.range.start().wrapping_offset(after);
                        leads.calls.push(Call { after, target: reference.target });
                    }
                    ReferenceKind::Address
                    | ReferenceKind::Memory
                    | ReferenceKind::Indirect
                    | ReferenceKind::Absolute => leads.unseen = true,
                }
            }
        }
        entries
    }

    fn entry(&mut self, function: usize) -> &mut LeadsIn {
        self.0.entry(function).or_default()
    }

    pub(super) fn of(&self, function: usize) -> Option<&LeadsIn> {
        self.0.get(&function)
    }

    /// The function, and those that jump into it, which then return by its returns.
    pub(super) fn jumping_into(&self, side: &Side<'_, '_>, function: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open = vec![function];
        while let Some(function) = open.pop() {
            if found.insert(function) {
                open.extend(self.of(function).into_iter().flat_map(|into| into.jumps.iter().copied()));
                open.extend(function.checked_sub(1).filter(|_| runs_on_into(side, function)));
            }
        }
        found
    }
}

/// Calls of a function from within itself, which are no references of it.
pub(super) fn calls_within(side: &Side<'_, '_>, function: usize) -> Vec<Call> {
    let Some(range) = side.image.functions().get(function).map(|f| f.range) else { return Vec::new() };
    let calls = decode(side.image, range).into_iter().flatten().filter(|instruction| {
        instruction.flow_control() == iced_x86::FlowControl::Call
            && range.contains(Va::new(instruction.near_branch64()))
    });
    calls.map(|call| Call { after: Va::new(call.next_ip()), target: Va::new(call.near_branch64()) }).collect()
}
