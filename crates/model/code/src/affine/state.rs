//! What registers and the frame hold, and what one instruction makes of it.

use super::form::{Id, Origin, Store};
use super::vector::Vectors;
use super::{ARGUMENTS, LOADED, RSP};
use crate::operand::is_immediate;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

pub(super) fn number(register: Register) -> Option<u8> {
    let full = register.full_register();
    let index = u8::try_from((full as usize).checked_sub(Register::RAX as usize)?).ok()?;
    (index < 16).then_some(index)
}

/// The registers that an instruction may write, one bit each.
pub(super) fn written(instruction: &Instruction, factory: &mut InstructionInfoFactory) -> u16 {
    let used = factory.info(instruction).used_registers().iter();
    used.filter(|u| !matches!(u.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None))
        .filter_map(|u| number(u.register()))
        .fold(0, |bits, n| bits | 1_u16.wrapping_shl(u32::from(n)))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) registers: [Id; 16],
    pub(super) slots: Slots,
    pub(super) vectors: Vectors,
}

/// Values in the frame by their distance from the stack pointer at entry, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slots(Vec<(i64, Id)>);

impl Slots {
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, Id)> {
        self.0.iter().copied()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut (i64, Id)> {
        self.0.iter_mut()
    }

    pub(super) fn get(&self, at: i64) -> Option<Id> {
        let index = self.0.binary_search_by_key(&at, |(k, _)| *k).ok()?;
        self.0.get(index).map(|(_, form)| *form)
    }

    /// Only what `keep` says, asked in the order of the frame.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(i64, Id) -> bool) {
        self.0.retain(|(at, form)| keep(*at, *form));
    }

    fn insert(&mut self, at: i64, form: Id) {
        match self.0.binary_search_by_key(&at, |(k, _)| *k) {
            Ok(index) => {
                if let Some((_, slot)) = self.0.get_mut(index) {
                    *slot = form;
                }
            }
            Err(index) => self.0.insert(index, (at, form)),
        }
    }

    /// Removes what lies from `from` up to `to`, exclusive.
    fn remove(&mut self, from: i64, to: i64) {
        let bounds = [from, to].map(|bound| self.0.partition_point(|(at, _)| *at < bound));
        if let [first, end] = bounds
            && first < end
        {
            self.0.drain(first..end);
        }
    }
}

impl State {
    /// How many values it holds.
    pub(super) fn size(&self) -> u64 {
        {
            let values = self.registers.len().saturating_add(self.slots.0.len());
            u64::try_from(values.saturating_add(self.vectors.len())).unwrap_or(u64::MAX)
        }
    }

    pub(super) fn get(&self, register: Register) -> Option<Id> {
        self.registers.get(usize::from(number(register)?)).copied()
    }

    pub(super) fn arguments(&self) -> [Option<Id>; 6] {
        ARGUMENTS.map(|n| self.registers.get(usize::from(n)).copied())
    }

    fn set(&mut self, register: Register, form: Id) {
        if let Some(n) = number(register) {
            self.set_number(n, form);
        }
    }

    fn set_number(&mut self, n: u8, form: Id) {
        if let Some(slot) = self.registers.get_mut(usize::from(n)) {
            *slot = form;
        }
    }

    /// The slot of the frame at this address, if it is one.
    pub(super) fn slot(store: &Store, address: Id) -> Option<i64> {
        let address = store.form(address);
        (address.terms.as_slice() == [(Origin::Entry(RSP), 1)]).then_some(address.constant)
    }

    pub(super) fn address(&self, store: &mut Store, instruction: &Instruction) -> Id {
        if instruction.is_ip_rel_memory_operand() {
            return store.unknown(Origin::Static(instruction.ip_rel_memory_address()));
        }
        let displacement = instruction.memory_displacement64().cast_signed();
        let mut form = match self.get(instruction.memory_base()) {
            Some(base) => store.plus_constant(base, displacement),
            None => store.constant(displacement),
        };
        if let Some(index) = self.get(instruction.memory_index()) {
            form = store.plus(form, index, i64::from(instruction.memory_index_scale()));
        }
        form
    }

    /// The value of an operand, if something is known about it.
    pub(super) fn operand(&self, store: &mut Store, instruction: &Instruction, n: u32) -> Option<Id> {
        match instruction.op_kind(n) {
            OpKind::Register if instruction.op_register(n).size() >= 4 => self.get(instruction.op_register(n)),
            OpKind::Memory if instruction.memory_size().size() >= 4 => {
                let address = self.address(store, instruction);
                let known = Self::slot(store, address).and_then(|at| self.slots.get(at));
                Some(known.unwrap_or_else(|| store.unknown(Origin::Made(instruction.ip(), LOADED))))
            }
            kind if is_immediate(kind) => Some(store.constant(instruction.immediate(n).cast_signed())),
            _ => None,
        }
    }

    /// What the instruction makes of it; `written` are the registers that it may write.
    pub(super) fn apply(&mut self, store: &mut Store, instruction: &Instruction, written: u16) {
        let ip = instruction.ip();
        match instruction.mnemonic() {
            Mnemonic::Push => {
                let value = self.operand(store, instruction, 0);
                let top = self.move_stack(store, -8);
                if let Some(at) = Self::slot(store, top) {
                    match value {
                        Some(value) => self.slots.insert(at, value),
                        None => self.slots.remove(at, at.saturating_add(1)),
                    }
                }
                return;
            }
            Mnemonic::Pop => {
                let top = self.get(Register::RSP).and_then(|top| Self::slot(store, top));
                let value = top.and_then(|at| self.slots.get(at));
                self.move_stack(store, 8);
                let n = number(instruction.op0_register()).unwrap_or(u8::MAX);
                self.set(instruction.op0_register(), value.unwrap_or_else(|| store.unknown(Origin::Made(ip, n))));
                return;
            }
            Mnemonic::Leave => {
                let frame = self.get(Register::RBP).unwrap_or_else(|| store.constant(0));
                let saved = Self::slot(store, frame).and_then(|at| self.slots.get(at));
                self.set(Register::RSP, store.plus_constant(frame, 8));
                self.set(Register::RBP, saved.unwrap_or_else(|| store.unknown(Origin::Made(ip, 5))));
                return;
            }
            _ => {}
        }
        if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
            for n in [1_u8, 2, 6, 7, 8, 9, 10, 11] {
                self.set_number(n, store.unknown(Origin::Made(ip, n)));
            }
            self.set(Register::RAX, store.unknown(Origin::Returned(ip)));
            self.vectors.clear();
            return;
        }
        let value = self.calculated(store, instruction);
        let to_memory = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Memory;
        if to_memory && !matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test) {
            self.store_to_frame(store, instruction, value);
            return;
        }
        let mut left = written;
        while left != 0 {
            let n = u8::try_from(left.trailing_zeros()).unwrap_or(u8::MAX);
            left &= left.wrapping_sub(1);
            self.set_number(n, store.unknown(Origin::Made(ip, n)));
        }
        if let Some(value) = value
            && instruction.op0_kind() == OpKind::Register
            && instruction.op0_register().size() >= 4
        {
            self.set(instruction.op0_register(), value);
        }
    }

    fn store_to_frame(&mut self, store: &mut Store, instruction: &Instruction, value: Option<Id>) {
        let address = self.address(store, instruction);
        let Some(at) = Self::slot(store, address) else { return };
        let len = i64::try_from(instruction.memory_size().size()).unwrap_or(8).max(1);
        self.slots.remove(at.saturating_sub(7), at.saturating_add(len));
        if let Some(value) = value.filter(|_| len >= 4) {
            self.slots.insert(at, value);
        }
        for lane in self.stored_lanes(instruction) {
            self.slots.insert(at.saturating_add(i64::from(lane.at)), lane.value);
        }
    }

    fn move_stack(&mut self, store: &mut Store, by: i64) -> Id {
        let top = self.get(Register::RSP).unwrap_or_else(|| store.constant(0));
        let top = store.plus_constant(top, by);
        self.set(Register::RSP, top);
        top
    }

    /// What the first operand becomes, where it is a sum or a multiple of known things.
    fn calculated(&self, store: &mut Store, instruction: &Instruction) -> Option<Id> {
        let operand = |store: &mut Store, n| self.operand(store, instruction, n);
        match instruction.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movsxd => operand(store, 1),
            Mnemonic::Cdqe => self.get(Register::RAX),
            Mnemonic::Lea => Some(self.address(store, instruction)),
            Mnemonic::Add | Mnemonic::Sub => {
                let (a, b) = (operand(store, 0)?, operand(store, 1)?);
                Some(store.plus(a, b, if instruction.mnemonic() == Mnemonic::Add { 1 } else { -1 }))
            }
            Mnemonic::Inc => operand(store, 0).map(|a| store.plus_constant(a, 1)),
            Mnemonic::Dec => operand(store, 0).map(|a| store.plus_constant(a, -1)),
            Mnemonic::Neg => operand(store, 0).map(|a| store.times(a, -1)),
            Mnemonic::Xor if instruction.op0_register() == instruction.op1_register() => Some(store.constant(0)),
            Mnemonic::Shl | Mnemonic::Sal => {
                let by = operand(store, 1).and_then(|by| store.form(by).as_constant())?;
                let by = u32::try_from(by).ok().filter(|by| *by < 32)?;
                operand(store, 0).map(|a| store.times(a, 1_i64.wrapping_shl(by)))
            }
            Mnemonic::Imul if instruction.op_count() == 3 => {
                let (a, factor) = (operand(store, 1)?, operand(store, 2)?);
                store.form(factor).as_constant().map(|factor| store.times(a, factor))
            }
            Mnemonic::Imul if instruction.op_count() == 2 => {
                let (a, b) = (operand(store, 0)?, operand(store, 1)?);
                match (store.form(a).as_constant(), store.form(b).as_constant()) {
                    (_, Some(factor)) => Some(store.times(a, factor)),
                    (Some(factor), None) => Some(store.times(b, factor)),
                    (None, None) => None,
                }
            }
            _ => None,
        }
    }
}
