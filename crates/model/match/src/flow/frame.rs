//! The function's own frame: which slots are in it, and which of them a callee may see.

use super::state::{State, number};
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register};
use salve_elf::VaRange;
use std::collections::{BTreeSet, HashMap};

/// Which registers point into the function's own frame.
pub(super) struct Frame {
    uses_rbp: bool,
    /// Displacements from the frame pointer whose addresses are taken: objects
    /// that a callee may get to see.
    objects: BTreeSet<i64>,
}

impl Frame {
    pub(super) fn of(code: &HashMap<u64, Instruction>, range: VaRange) -> Self {
        let taken = |i: &Instruction| match i.mnemonic() {
            Mnemonic::Lea if i.memory_base() == Register::RBP => Some(i.memory_displacement64().cast_signed()),
            // The frame's lowest object needs no displacement.
            Mnemonic::Mov if i.op1_register() == Register::RBP && i.op0_register() != Register::RBP => Some(0),
            _ => None,
        };
        Self { uses_rbp: has_frame_pointer(code, range), objects: code.values().filter_map(taken).collect() }
    }

    /// Whether this slot may lie in an object whose address is taken somewhere: any
    /// later callee may then get to see it, by whatever pointer was kept.
    pub(super) fn in_object(&self, (base, at): (u8, i64)) -> bool {
        /// Spilled values lie among objects: what lies further from any address
        /// that is taken counts as one of them.
        const LARGEST_OBJECT_BYTES: i64 = 8;
        // Relative to the stack pointer, spilled values cannot be told from objects.
        number(Register::RBP) == Some(base) && self.follows_object(at, LARGEST_OBJECT_BYTES)
    }

    /// Whether a callee may see this slot although it is not handed over as an
    /// argument: relative to the stack pointer it may be one, relative to the frame
    /// pointer it has to belong to an object whose address is taken.
    pub(super) fn visible(&self, (base, at): (u8, i64)) -> bool {
        const LARGEST_OBJECT_BYTES: i64 = 4096;
        number(Register::RBP) != Some(base) || self.follows_object(at, LARGEST_OBJECT_BYTES)
    }

    /// Whether an address up to this far before it is taken.
    fn follows_object(&self, at: i64, furthest_bytes: i64) -> bool {
        self.objects.range(at.saturating_sub(furthest_bytes)..=at).next().is_some()
    }

    /// The slot that the instruction's memory operand is, if it is one. Slots are
    /// counted from where the stack pointer stood when the trace began.
    pub(super) fn slot(&self, instruction: &Instruction, depth: i64) -> Option<(u8, i64)> {
        let base = instruction.memory_base();
        let ours = base == Register::RSP || (self.uses_rbp && base == Register::RBP);
        let plain = instruction.memory_index() == Register::None;
        let at = instruction.memory_displacement64().cast_signed();
        let at = if base == Register::RSP { at.saturating_sub(depth) } else { at };
        (ours && plain).then(|| Some((number(base)?, at))).flatten()
    }

    pub(super) fn holds(&self, state: &State, instruction: &Instruction) -> bool {
        let len = i64::try_from(instruction.memory_size().size()).unwrap_or(i64::MAX).max(8);
        self.slot(instruction, state.depth).is_some_and(|(base, at)| {
            state.slots.iter().any(|(b, d)| *b == base && *d >= at && *d < at.saturating_add(len))
        })
    }
}

/// The function sets up `rbp` as its frame pointer and never uses it for anything else.
fn has_frame_pointer(code: &HashMap<u64, Instruction>, range: VaRange) -> bool {
    let sets = |i: &Instruction| {
        i.mnemonic() == Mnemonic::Mov && i.op0_register() == Register::RBP && i.op1_register() == Register::RSP
    };
    let mut at = range.start().raw();
    let mut early = false;
    for _ in 0..4 {
        let Some(instruction) = code.get(&at) else { break };
        early |= sets(instruction);
        at = instruction.next_ip();
    }
    let mut factory = InstructionInfoFactory::new();
    early
        && code.values().all(|i| {
            let writes = factory.info(i).used_registers().iter().any(|u| {
                u.register().full_register() == Register::RBP
                    && !matches!(u.access(), OpAccess::Read | OpAccess::CondRead)
            });
            !writes || sets(i) || matches!(i.mnemonic(), Mnemonic::Pop | Mnemonic::Leave)
        })
}
