//! Which registers and which places of the frame hold the value, at one moment of a path.

use iced_x86::Register;
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct State {
    pub(super) registers: BTreeSet<u8>,
    /// Places of the frame that hold it: base register and displacement.
    pub(super) slots: BTreeSet<(u8, i64)>,
    /// It was stored in the frame, or pushed, since the last call.
    pub(super) fresh: bool,
    /// How far the stack pointer lies below where the trace began.
    pub(super) depth: i64,
}

/// Integer arguments, in order (psABI §3.2.3).
pub(crate) const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];
/// What a callee gives back as it was (psABI §3.2.1).
pub(crate) const PRESERVED: [Register; 6] =
    [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];

pub(super) fn number(register: Register) -> Option<u8> {
    u8::try_from(register.full_register() as usize).ok()
}

impl State {
    /// Whether it is in this register, or in a part of it.
    pub(super) fn holds(&self, register: Register) -> bool {
        number(register).is_some_and(|n| self.registers.contains(&n))
    }

    /// It is in this register from now on.
    pub(super) fn take(&mut self, register: Register) {
        self.registers.extend(number(register));
    }

    pub(super) fn is_gone(&self) -> bool {
        self.registers.is_empty() && self.slots.is_empty() && !self.fresh
    }
}
