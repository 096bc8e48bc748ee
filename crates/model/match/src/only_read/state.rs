//! Which registers hold an address in the stretch, or what was read there.

use super::frame::Frame;
use crate::flow::{ARGUMENTS, PRESERVED};
use iced_x86::Register;

/// A set of registers, each with all its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Registers(u128);

impl Registers {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn all() -> Self {
        Self(u128::MAX)
    }

    pub(super) fn of(registers: &[Register]) -> Self {
        Self(registers.iter().fold(0, |all, register| all | bit(*register)))
    }

    pub(super) fn has(self, register: Register) -> bool {
        self.0 & bit(register) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has_all_of(self, other: Self) -> bool {
        other.without(self).is_empty()
    }

    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Holds it from now on, or no more.
    pub(super) fn set(&mut self, register: Register, holds: bool) {
        self.0 = if holds { self.0 | bit(register) } else { self.0 & !bit(register) };
    }
}

/// None for flags, segments and what else holds no value of ours.
fn bit(register: Register) -> u128 {
    let full = register.full_register();
    let number = if full.is_gpr64() {
        full.number()
    } else if full.is_zmm() {
        full.number().saturating_add(16)
    } else if full.is_k() {
        full.number().saturating_add(48)
    } else if full.is_mm() {
        full.number().saturating_add(56)
    } else if full.is_st() {
        full.number().saturating_add(64)
    } else {
        return 0;
    };
    u32::try_from(number).ok().and_then(|number| 1_u128.checked_shl(number)).unwrap_or(0)
}

/// What is held where at one instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Hold an address in the stretch, or one calculated from such.
    pub(super) addresses: Registers,
    /// Hold what was read there: it may be a distance.
    pub(super) values: Registers,
    /// Those of them that were written since the last call: by the psABI, only they can be
    /// arguments of the next.
    pub(super) fresh: Registers,
    /// Where in the frame values are kept; no address is.
    pub(super) kept_values: Frame,
}

impl State {
    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.values.is_empty() && self.kept_values.is_empty()
    }

    /// Whether joining the other would change nothing.
    pub(super) fn has_all_of(&self, other: &Self) -> bool {
        self.addresses.has_all_of(other.addresses)
            && self.values.has_all_of(other.values)
            && self.fresh.has_all_of(other.fresh)
            && self.kept_values.has_all_of(&other.kept_values)
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        Self {
            addresses: self.addresses.and(other.addresses),
            values: self.values.and(other.values),
            fresh: self.fresh.and(other.fresh),
            kept_values: self.kept_values.and(&other.kept_values),
        }
    }

    /// As a callee leaves it that keeps to the psABI (§3.2.1) and is not followed.
    pub(super) fn after_other_code(self) -> Self {
        let preserved = preserved();
        Self {
            addresses: self.addresses.only(preserved),
            values: self.values.only(preserved),
            fresh: Registers::NONE,
            ..self
        }
    }

    /// As a callee leaves it that writes to these registers.
    pub(super) fn after_call(self, written: Registers) -> Self {
        Self {
            addresses: self.addresses.without(written),
            values: self.values.without(written),
            fresh: self.fresh.without(written),
            ..self
        }
    }

    /// As a callee finds it, whose frame is another, and to which these registers are nothing.
    pub(super) fn in_callee(&self, left_alone: Registers) -> Self {
        let addresses = self.addresses.without(left_alone);
        Self { addresses, values: self.values, fresh: addresses, ..Self::default() }
    }

    /// Addresses that may be arguments of a call made now.
    pub(super) fn handed(&self) -> Registers {
        self.addresses.only(self.fresh)
    }
}

/// Registers that hand over arguments.
pub(super) fn arguments() -> Registers {
    Registers::of(&ARGUMENTS)
}

/// Registers that a callee leaves as they were.
pub(super) fn preserved() -> Registers {
    Registers::of(&PRESERVED)
}

/// Registers that hand back results.
pub(super) fn results() -> Registers {
    Registers::of(&[Register::RAX, Register::RDX])
}

/// Registers in which a value goes back to a caller: results, and those of nobody's, which
/// hand-written code uses.
pub(super) fn left_behind() -> Registers {
    results().and(Registers::of(&[Register::R10, Register::R11]))
}

/// Registers in which numbers with fractions go back to a caller.
pub(super) fn vectors() -> Registers {
    Registers::of(&[Register::XMM0, Register::XMM1])
}
