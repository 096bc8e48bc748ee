//! What vector registers hold, where compilers move several fields at once.
//!
//! Two pointers that are stored side by side go through one `movups`. A *lane* is a part of a
//! register that holds one known value; what is calculated with vectors is unknown.

use super::form::{Id, Origin, Store};
use super::state::State;
use super::{Constants, LOADED};
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use salve_elf::Va;
use smallvec::{SmallVec, smallvec};

/// A value in a register: at which byte, how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) at: u8,
    pub(super) len_bytes: u8,
    pub(super) value: Id,
}

pub(super) type Lanes = SmallVec<[Lane; 4]>;

const REGISTER_BYTES: u8 = 16;
const HALF: u8 = 8;
const QUARTER: u8 = 4;

/// The known lanes of all registers, sorted by register; most functions have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Vectors(Vec<(u8, Lane)>);

impl Vectors {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Only what others hold as well.
    pub(super) fn keep_common(&mut self, others: &Self) {
        if !self.0.is_empty() {
            self.0.retain(|lane| others.0.contains(lane));
        }
    }

    fn of(&self, register: u8) -> Lanes {
        self.0.iter().filter(|(n, _)| *n == register).map(|(_, lane)| *lane).collect()
    }

    fn set(&mut self, register: u8, lanes: Lanes) {
        self.0.retain(|(n, _)| *n != register);
        let from = self.0.partition_point(|(n, _)| *n < register);
        self.0.splice(from..from, lanes.into_iter().map(|lane| (register, lane)));
    }
}

/// Vector registers by number.
pub(super) fn number(register: Register) -> Option<u8> {
    if !register.is_vector_register() {
        return None;
    }
    u8::try_from(register.number()).ok()
}

impl State {
    /// What the instruction makes of vector registers.
    pub(super) fn apply_to_vectors(
        &mut self,
        store: &mut Store,
        instruction: &Instruction,
        constants: Constants<'_>,
        factory: &mut InstructionInfoFactory,
    ) {
        let made = match instruction.op0_kind() {
            OpKind::Register => number(instruction.op0_register()),
            _ => None,
        };
        let lanes = made.map(|_| self.made(store, instruction, constants)).unwrap_or_default();
        if self.vectors.len() > 0 {
            for used in factory.info(instruction).used_registers() {
                let written = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None);
                if let Some(n) = number(used.register()).filter(|_| written) {
                    self.vectors.set(n, Lanes::new());
                }
            }
        }
        if let Some(n) = made.filter(|_| !lanes.is_empty()) {
            self.vectors.set(n, lanes);
        }
    }

    /// What a move stores to memory from a vector register, lane by lane; none if nothing is
    /// known of it.
    pub(super) fn stored_lanes(&self, instruction: &Instruction) -> Lanes {
        use Mnemonic::{Movapd, Movaps, Movd, Movdqa, Movdqu, Movhpd, Movhps, Movlpd, Movlps, Movq, Movupd, Movups};
        if instruction.op0_kind() != OpKind::Memory || instruction.op1_kind() != OpKind::Register {
            return Lanes::new();
        }
        let Some(n) = number(instruction.op1_register()) else { return Lanes::new() };
        let lanes = self.vectors.of(n);
        match instruction.mnemonic() {
            Movups | Movupd | Movaps | Movapd | Movdqu | Movdqa => lanes,
            Movq | Movlps | Movlpd => within(&lanes, 0, HALF, 0),
            Movhps | Movhpd => within(&lanes, HALF, HALF, 0),
            Movd => within(&lanes, 0, QUARTER, 0),
            _ => Lanes::new(),
        }
    }

    fn made(&self, store: &mut Store, instruction: &Instruction, constants: Constants<'_>) -> Lanes {
        use Mnemonic::{
            Movapd, Movaps, Movd, Movdqa, Movdqu, Movhpd, Movhps, Movlhps, Movlpd, Movlps, Movq, Movupd, Movups,
            Pshufd, Punpckhqdq, Punpckldq, Punpcklqdq, Pxor, Unpckhpd, Unpcklpd, Unpcklps, Xorpd, Xorps,
        };
        let own = || number(instruction.op0_register()).map(|n| self.vectors.of(n)).unwrap_or_default();
        let mut other = || self.source(store, instruction, constants);
        let join = |mut one: Lanes, other: Lanes| {
            one.extend(other);
            one
        };
        match instruction.mnemonic() {
            Movaps | Movapd | Movups | Movupd | Movdqa | Movdqu => other(),
            Movq | Movd => {
                let bytes = if instruction.mnemonic() == Movd { QUARTER } else { HALF };
                let low = within(&other(), 0, bytes, 0);
                // The rest becomes zero.
                let zero = store.constant(0);
                join(low, halves(zero).into_iter().filter(|lane| lane.at >= HALF).collect())
            }
            Movlps | Movlpd => join(within(&other(), 0, HALF, 0), within(&own(), HALF, HALF, HALF)),
            Movhps | Movhpd | Movlhps | Punpcklqdq | Unpcklpd => {
                join(within(&own(), 0, HALF, 0), within(&other(), 0, HALF, HALF))
            }
            Punpckhqdq | Unpckhpd => join(within(&own(), HALF, HALF, 0), within(&other(), HALF, HALF, HALF)),
            Punpckldq | Unpcklps => {
                let (own, other) = (own(), other());
                let parts = [(&own, 0, 0), (&other, 0, 4), (&own, 4, 8), (&other, 4, 12)];
                parts.into_iter().flat_map(|(from, at, to)| within(from, at, QUARTER, to)).collect()
            }
            Pshufd => shuffled(&other(), instruction.immediate8()),
            Pxor | Xorps | Xorpd
                if instruction.op1_kind() == OpKind::Register
                    && instruction.op0_register() == instruction.op1_register() =>
            {
                halves(store.constant(0))
            }
            _ => Lanes::new(),
        }
    }

    /// The lanes of the second operand.
    fn source(&self, store: &mut Store, instruction: &Instruction, constants: Constants<'_>) -> Lanes {
        let one = |value: Id, len_bytes: usize| -> Lanes {
            let len_bytes = u8::try_from(len_bytes).unwrap_or(0);
            if matches!(len_bytes, QUARTER | HALF) { smallvec![Lane { at: 0, len_bytes, value }] } else { Lanes::new() }
        };
        match instruction.op1_kind() {
            OpKind::Register => match number(instruction.op1_register()) {
                Some(n) => self.vectors.of(n),
                None => self
                    .get(instruction.op1_register())
                    .map(|value| one(value, instruction.op1_register().size()))
                    .unwrap_or_default(),
            },
            OpKind::Memory => {
                let bytes = instruction.memory_size().size();
                if bytes == usize::from(REGISTER_BYTES) && instruction.is_ip_rel_memory_operand() {
                    return constants(Va::new(instruction.ip_rel_memory_address()))
                        .map(|constant| numbers(store, constant))
                        .unwrap_or_default();
                }
                let address = self.address(store, instruction);
                match Self::slot(store, address) {
                    Some(slot) if bytes == usize::from(REGISTER_BYTES) => {
                        let at = |at: u8| self.slots.get(slot.saturating_add(i64::from(at))).map(|value| (at, value));
                        [0, HALF]
                            .into_iter()
                            .filter_map(at)
                            .map(|(at, value)| Lane { at, len_bytes: HALF, value })
                            .collect()
                    }
                    Some(slot) => self.slots.get(slot).map(|value| one(value, bytes)).unwrap_or_default(),
                    None => one(store.unknown(Origin::Made(instruction.ip(), LOADED)), bytes),
                }
            }
            _ => Lanes::new(),
        }
    }
}

/// Lanes that lie in `len_bytes` from `from`, moved to `to`.
fn within(lanes: &Lanes, from: u8, len_bytes: u8, to: u8) -> Lanes {
    let inside =
        |lane: &&Lane| lane.at >= from && lane.at.saturating_add(lane.len_bytes) <= from.saturating_add(len_bytes);
    let moved = |lane: &Lane| Lane { at: lane.at.saturating_sub(from).saturating_add(to), ..*lane };
    lanes.iter().filter(inside).map(moved).collect()
}

fn halves(value: Id) -> Lanes {
    smallvec![Lane { at: 0, len_bytes: HALF, value }, Lane { at: HALF, len_bytes: HALF, value }]
}

/// A constant in numbers of four bytes: how wide its fields are nobody says.
fn numbers(store: &mut Store, constant: [u8; 16]) -> Lanes {
    let (quarters, _) = constant.as_chunks::<4>();
    let lanes = (0_u8..).step_by(usize::from(QUARTER)).zip(quarters);
    lanes
        .map(|(at, bytes)| {
            let value = store.constant(i64::from(u32::from_le_bytes(*bytes)));
            Lane { at, len_bytes: QUARTER, value }
        })
        .collect()
}

/// `pshufd`: two bits say for each quarter which one it becomes.
fn shuffled(lanes: &Lanes, order: u8) -> Lanes {
    let source = |quarter: u8| order.wrapping_shr(u32::from(quarter).wrapping_mul(2)) & 3;
    let half = |to: u8| {
        let first = to.wrapping_mul(2);
        let (low, high) = (source(first), source(first.saturating_add(1)));
        let whole = low % 2 == 0 && high == low.saturating_add(1);
        whole.then(|| (low.wrapping_mul(QUARTER), to.wrapping_mul(HALF)))
    };
    let quarters =
        (0_u8..4).flat_map(|to| within(lanes, source(to).wrapping_mul(QUARTER), QUARTER, to.wrapping_mul(QUARTER)));
    let halves = [0_u8, 1]
        .into_iter()
        .filter_map(half)
        .flat_map(|(from, to)| within(lanes, from, HALF, to).into_iter().filter(|lane| lane.len_bytes == HALF));
    quarters.chain(halves).collect()
}
