//! What a function calculates addresses and arguments from.
//!
//! Every register and frame slot is tracked as a *form*: a sum of multiples of
//! unknown values and a constant. `lea (rax,rax,4)`, `shl 3` and an addition come
//! to `base + 40 × index` however the compiler spelled it, so forms of two
//! versions can be compared where their instructions cannot. Method: forward data
//! flow over basic blocks; where paths bring different forms together the value
//! is a new unknown. Values through memory other than the frame are unknown, and
//! stores through pointers are taken not to reach the frame: forms are signs of a
//! change, never proofs that there is none.

use crate::operand::is_immediate;
use crate::summary::decode;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use salve_elf::{Image, Va, VaRange};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Where an unknown value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Held by this register when the function began.
    Entry(u8),
    /// Made by the instruction at this address, in this register.
    Made(u64, u8),
    /// Returned by the call at this address.
    Returned(u64),
    /// Where paths meet: at this address, in this register.
    Joined(u64, u8),
    /// Where paths meet: at this address, in this slot of the frame.
    JoinedSlot(u64, i64),
    /// The address of something in the image.
    Static(u64),
}

/// `Σ factor × origin + constant`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Sorted by origin; no factor is zero.
    pub terms: Vec<(Origin, i64)>,
    pub constant: i64,
}

impl Form {
    fn constant(constant: i64) -> Self {
        Self { terms: Vec::new(), constant }
    }

    fn unknown(origin: Origin) -> Self {
        Self { terms: vec![(origin, 1)], constant: 0 }
    }

    fn plus(&self, other: &Self, factor: i64) -> Self {
        let mut terms: BTreeMap<Origin, i64> = self.terms.iter().copied().collect();
        for (origin, f) in &other.terms {
            let sum = terms.entry(*origin).or_default();
            *sum = sum.wrapping_add(f.wrapping_mul(factor));
        }
        let constant = self.constant.wrapping_add(other.constant.wrapping_mul(factor));
        Self { terms: terms.into_iter().filter(|(_, f)| *f != 0).collect(), constant }
    }

    fn times(&self, factor: i64) -> Self {
        Self::default().plus(self, factor)
    }

    /// The number it is, if it is one.
    pub fn as_constant(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }
}

/// An operand in memory outside the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub at: Va,
    pub address: Form,
    pub len_bytes: usize,
    pub writes: bool,
    /// What a plain move stores there.
    pub stored: Option<Form>,
    /// Moved, added or compared as one integer.
    pub is_integer: bool,
    /// Calculated with as a floating-point number.
    pub is_float: bool,
}

/// A call, or a jump out of the function, and what the integer argument registers
/// hold (psABI §3.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub at: Va,
    pub arguments: [Form; 6],
}

/// Two values that are compared whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    pub at: Va,
    pub left: Form,
    pub right: Form,
}

/// A value of any width that is compared with a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    pub at: Va,
    pub value: Form,
    /// As wide as the comparison, zero-extended.
    pub with: u64,
    pub len_bytes: usize,
}

/// What became known about one function.
#[derive(Clone, Debug, Default)]
pub struct Forms {
    pub comparisons: Vec<Comparison>,
    pub tested: Vec<Tested>,
    pub accesses: Vec<Access>,
    pub calls: Vec<Call>,
    /// By how much pointers move from one turn of a loop to the next.
    pub steps: BTreeSet<i64>,
    /// Not everything was tracked: the function is too large.
    pub too_large: bool,
}

/// In place of a register: what was loaded from memory.
const LOADED: u8 = 255;
const RSP: u8 = 4;
const ARGUMENTS: [u8; 6] = [7, 6, 2, 1, 8, 9];

/// What the n-th integer argument was when the function began.
pub fn argument(n: usize) -> Origin {
    Origin::Entry(ARGUMENTS.get(n).copied().unwrap_or(LOADED))
}

fn number(register: Register) -> Option<u8> {
    let full = register.full_register();
    let index = u8::try_from((full as usize).checked_sub(Register::RAX as usize)?).ok()?;
    (index < 16).then_some(index)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    registers: [Form; 16],
    /// By distance from the stack pointer at entry.
    slots: BTreeMap<i64, Form>,
}

impl State {
    /// How many values it holds.
    fn size(&self) -> u64 {
        u64::try_from(self.registers.len().saturating_add(self.slots.len())).unwrap_or(u64::MAX)
    }

    fn get(&self, register: Register) -> Option<&Form> {
        self.registers.get(usize::from(number(register)?))
    }

    fn set(&mut self, register: Register, form: Form) {
        if let Some(slot) = number(register).and_then(|n| self.registers.get_mut(usize::from(n))) {
            *slot = form;
        }
    }

    /// The slot of the frame at this address, if it is one.
    fn slot(address: &Form) -> Option<i64> {
        (address.terms == [(Origin::Entry(RSP), 1)]).then_some(address.constant)
    }

    fn address(&self, instruction: &Instruction) -> Form {
        if instruction.is_ip_rel_memory_operand() {
            return Form::unknown(Origin::Static(instruction.ip_rel_memory_address()));
        }
        let mut form = Form::constant(instruction.memory_displacement64().cast_signed());
        if let Some(base) = self.get(instruction.memory_base()) {
            form = form.plus(base, 1);
        }
        if let Some(index) = self.get(instruction.memory_index()) {
            form = form.plus(index, i64::from(instruction.memory_index_scale()));
        }
        form
    }

    /// The value of an operand, if something is known about it.
    fn operand(&self, instruction: &Instruction, n: u32) -> Option<Form> {
        match instruction.op_kind(n) {
            OpKind::Register if instruction.op_register(n).size() >= 4 => self.get(instruction.op_register(n)).cloned(),
            OpKind::Memory if instruction.memory_size().size() >= 4 => {
                let known = Self::slot(&self.address(instruction)).and_then(|at| self.slots.get(&at).cloned());
                Some(known.unwrap_or(Form::unknown(Origin::Made(instruction.ip(), LOADED))))
            }
            kind if is_immediate(kind) => Some(Form::constant(instruction.immediate(n).cast_signed())),
            _ => None,
        }
    }
}

/// Values that are copied and compared before a function counts as too large: some
/// tenths of a second of it.
const MOST_WORK: u64 = 2_000_000;

/// Tracks the function in `range`.
pub fn forms(image: &Image<'_>, range: VaRange) -> Forms {
    const MOST_INSTRUCTIONS: usize = 30_000;
    let code: Vec<Instruction> = decode(image, range).into_iter().flatten().collect();
    if code.len() > MOST_INSTRUCTIONS {
        return Forms { too_large: true, ..Forms::default() };
    }
    Tracker::new(&code, range).run()
}

struct Tracker<'c> {
    code: &'c [Instruction],
    range: VaRange,
    /// From address to index in `code`, for every start of a block.
    leaders: BTreeMap<u64, usize>,
    /// Starts of blocks that only jumps through a register may lead to.
    unreferred: Vec<u64>,
    entry: HashMap<u64, State>,
    /// For each block, the states in which those before it are left.
    incoming: HashMap<u64, BTreeMap<u64, State>>,
    joined: BTreeSet<(u64, u8)>,
    joined_slots: BTreeSet<(u64, i64)>,
    steps: BTreeSet<(Origin, i64)>,
    /// Values that were copied and compared, for [`MOST_WORK`].
    work: u64,
}

impl<'c> Tracker<'c> {
    fn new(code: &'c [Instruction], range: VaRange) -> Self {
        let index: HashMap<u64, usize> = code.iter().enumerate().map(|(i, x)| (x.ip(), i)).collect();
        let mut leaders = BTreeMap::from([(range.start().raw(), 0)]);
        let mut referred = BTreeSet::from([range.start().raw()]);
        for instruction in code {
            let next = instruction.next_ip();
            match instruction.flow_control() {
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                    for to in [instruction.near_branch64(), next] {
                        if let Some(i) = index.get(&to) {
                            leaders.insert(to, *i);
                        }
                    }
                    referred.insert(instruction.near_branch64());
                    if instruction.flow_control() == FlowControl::ConditionalBranch {
                        referred.insert(next);
                    }
                }
                FlowControl::Return | FlowControl::IndirectBranch => {
                    if let Some(i) = index.get(&next) {
                        leaders.insert(next, *i);
                    }
                }
                _ => {}
            }
        }
        // What follows is reached from what precedes it unless that ends.
        for (ip, i) in &leaders {
            let before = i.checked_sub(1).and_then(|i| code.get(i));
            let falls = before.is_some_and(|b| {
                !matches!(
                    b.flow_control(),
                    FlowControl::UnconditionalBranch | FlowControl::Return | FlowControl::IndirectBranch
                )
            });
            if falls {
                referred.insert(*ip);
            }
        }
        let unreferred = leaders.keys().copied().filter(|ip| !referred.contains(ip)).collect();
        Self {
            code,
            range,
            leaders,
            unreferred,
            entry: HashMap::new(),
            incoming: HashMap::new(),
            joined: BTreeSet::new(),
            joined_slots: BTreeSet::new(),
            steps: BTreeSet::new(),
            work: 0,
        }
    }

    fn run(mut self) -> Forms {
        let start = self.range.start().raw();
        let registers = core::array::from_fn(|n| Form::unknown(Origin::Entry(u8::try_from(n).unwrap_or(u8::MAX))));
        // The caller is a way in as well: no block begins at this address.
        self.arrive(u64::MAX, start, State { registers, slots: BTreeMap::new() });
        let mut queue = BTreeSet::from([start]);
        let mut budget = self.leaders.len().saturating_mul(24).saturating_add(64);
        // In sweeps by address: what jumps back is joined once a sweep, not once a jump.
        let mut sweep = 0_u64;
        while let Some(block) = queue.range(sweep..).next().or(queue.first()).copied() {
            queue.remove(&block);
            sweep = block.saturating_add(1);
            let Some(state) = self.join(block) else { continue };
            budget = budget.saturating_sub(1);
            if budget == 0 || self.work > MOST_WORK {
                return Forms { too_large: true, ..Forms::default() };
            }
            for (to, state) in self.through(block, state, &mut None) {
                if self.arrive(block, to, state) {
                    queue.insert(to);
                }
            }
        }
        let mut found = Some(Forms::default());
        for (block, state) in core::mem::take(&mut self.entry).into_iter().collect::<BTreeMap<_, _>>() {
            self.through(block, state, &mut found);
        }
        let mut found = found.unwrap_or_default();
        let based: BTreeSet<Origin> = found
            .accesses
            .iter()
            .flat_map(|a| a.address.terms.iter().filter(|(_, f)| *f == 1).map(|(o, _)| *o))
            .collect();
        found.steps = self.steps.iter().filter(|(origin, _)| based.contains(origin)).map(|(_, by)| *by).collect();
        found
    }

    /// Follows one block; the states that leave it.
    fn through(&self, block: u64, mut state: State, found: &mut Option<Forms>) -> Vec<(u64, State)> {
        let mut factory = InstructionInfoFactory::new();
        let Some(first) = self.leaders.get(&block) else { return Vec::new() };
        for instruction in self.code.get(*first..).unwrap_or_default() {
            if let Some(found) = found {
                note(&state, instruction, self.range, &mut factory, found);
            }
            apply(&mut state, instruction, &mut factory);
            let next = instruction.next_ip();
            match instruction.flow_control() {
                FlowControl::ConditionalBranch => {
                    return vec![(instruction.near_branch64(), state.clone()), (next, state)];
                }
                FlowControl::UnconditionalBranch => return vec![(instruction.near_branch64(), state)],
                FlowControl::IndirectBranch => {
                    return self.unreferred.iter().map(|ip| (*ip, state.clone())).collect();
                }
                FlowControl::Return | FlowControl::Exception | FlowControl::Interrupt => return Vec::new(),
                _ if self.leaders.contains_key(&next) => return vec![(next, state)],
                _ => {}
            }
        }
        Vec::new()
    }

    /// Brings the state in which `from` is left to the start of a block; whether it is
    /// another than before.
    fn arrive(&mut self, from: u64, block: u64, state: State) -> bool {
        if !self.leaders.contains_key(&block) {
            return false;
        }
        self.work = self.work.saturating_add(state.size());
        for (n, form) in (0_u8..).zip(&state.registers) {
            self.note_step(Origin::Joined(block, n), form);
        }
        for (at, form) in &state.slots {
            self.note_step(Origin::JoinedSlot(block, *at), form);
        }
        let ways = self.incoming.entry(block).or_default();
        if ways.get(&from) == Some(&state) {
            return false;
        }
        ways.insert(from, state);
        true
    }

    /// Joins all ways into a block; what is known there, if that is new.
    fn join(&mut self, block: u64) -> Option<State> {
        let mut ways = self.incoming.get(&block)?.values();
        let mut merged = ways.next()?.clone();
        for way in ways {
            self.work = self.work.saturating_add(merged.size());
            for (n, (slot, form)) in (0_u8..).zip(merged.registers.iter().zip(&way.registers)) {
                if slot != form {
                    self.joined.insert((block, n));
                }
            }
            merged.slots.retain(|at, _| way.slots.contains_key(at));
            for (at, slot) in &merged.slots {
                if way.slots.get(at) != Some(slot) {
                    self.joined_slots.insert((block, *at));
                }
            }
        }
        // Once ways disagreed the value stays an unknown of its own, so that this ends.
        for (n, slot) in (0_u8..).zip(merged.registers.iter_mut()) {
            if self.joined.contains(&(block, n)) {
                *slot = Form::unknown(Origin::Joined(block, n));
            }
        }
        for (at, slot) in &mut merged.slots {
            if self.joined_slots.contains(&(block, *at)) {
                *slot = Form::unknown(Origin::JoinedSlot(block, *at));
            }
        }
        if self.entry.get(&block) == Some(&merged) {
            return None;
        }
        self.entry.insert(block, merged.clone());
        Some(merged)
    }

    fn note_step(&mut self, origin: Origin, form: &Form) {
        if form.terms == [(origin, 1)] && form.constant != 0 {
            self.steps.insert((origin, form.constant));
        }
    }
}

/// Records what the instruction accesses and calls.
fn note(
    state: &State,
    instruction: &Instruction,
    range: VaRange,
    factory: &mut InstructionInfoFactory,
    found: &mut Forms,
) {
    let calls = match instruction.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall => true,
        FlowControl::UnconditionalBranch => !range.contains(Va::new(instruction.near_branch64())),
        FlowControl::IndirectBranch => instruction.is_ip_rel_memory_operand(),
        _ => false,
    };
    if calls {
        let arguments = ARGUMENTS.map(|n| state.registers.get(usize::from(n)).cloned().unwrap_or_default());
        found.calls.push(Call { at: Va::new(instruction.ip()), arguments });
    }
    if instruction.mnemonic() == Mnemonic::Cmp
        && let (Some(left), Some(right)) = (state.operand(instruction, 0), state.operand(instruction, 1))
    {
        found.comparisons.push(Comparison { at: Va::new(instruction.ip()), left, right });
    }
    found.tested.extend(tested(state, instruction));
    if matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Nop) {
        return;
    }
    let info = factory.info(instruction);
    let Some(used) = info.used_memory().first() else { return };
    let has_operand = (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory);
    let address = state.address(instruction);
    if has_operand && State::slot(&address).is_none() {
        let writes = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
        let len_bytes = instruction.memory_size().size();
        let at = Va::new(instruction.ip());
        let moves = instruction.mnemonic() == Mnemonic::Mov;
        let stored = if moves && writes { state.operand(instruction, 1) } else { None };
        let is_integer = moves
            || matches!(
                instruction.mnemonic(),
                Mnemonic::Add | Mnemonic::Sub | Mnemonic::Cmp | Mnemonic::Cvtsi2ss | Mnemonic::Cvtsi2sd
            );
        let is_float = is_float(instruction);
        found.accesses.push(Access { at, address, len_bytes, writes, stored, is_integer, is_float });
    }
}

/// A comparison with a number; `test` of a register with itself is one with zero.
fn tested(state: &State, instruction: &Instruction) -> Option<Tested> {
    let mnemonic = instruction.mnemonic();
    let itself = mnemonic == Mnemonic::Test
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register();
    let number = match instruction.op1_kind() {
        OpKind::Register | OpKind::Memory => None,
        _ if mnemonic == Mnemonic::Cmp => Some(instruction.immediate(1)),
        _ => None,
    };
    let with = if itself { 0 } else { number? };
    let (value, len_bytes) = match instruction.op0_kind() {
        OpKind::Register => (state.get(instruction.op0_register())?.clone(), instruction.op0_register().size()),
        OpKind::Memory => (Form::unknown(Origin::Made(instruction.ip(), LOADED)), instruction.memory_size().size()),
        _ => return None,
    };
    let bits = u32::try_from(len_bytes.saturating_mul(8)).ok().filter(|bits| (1..=64).contains(bits))?;
    let mask = u64::MAX.checked_shr(64_u32.saturating_sub(bits))?;
    Some(Tested { at: Va::new(instruction.ip()), value, with: with & mask, len_bytes })
}

/// Scalar arithmetic of SSE on a single or double: the operand in memory is one.
fn is_float(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        Mnemonic::Movss
            | Mnemonic::Addss
            | Mnemonic::Addsd
            | Mnemonic::Subss
            | Mnemonic::Subsd
            | Mnemonic::Mulss
            | Mnemonic::Mulsd
            | Mnemonic::Divss
            | Mnemonic::Divsd
            | Mnemonic::Comiss
            | Mnemonic::Comisd
            | Mnemonic::Ucomiss
            | Mnemonic::Ucomisd
            | Mnemonic::Cvtss2sd
            | Mnemonic::Cvtsd2ss
            | Mnemonic::Cvttss2si
            | Mnemonic::Cvttsd2si
    )
}

fn apply(state: &mut State, instruction: &Instruction, factory: &mut InstructionInfoFactory) {
    let ip = instruction.ip();
    match instruction.mnemonic() {
        Mnemonic::Push => {
            let value = state.operand(instruction, 0);
            let top = move_stack(state, -8);
            if let Some(at) = State::slot(&top) {
                match value {
                    Some(value) => state.slots.insert(at, value),
                    None => state.slots.remove(&at),
                };
            }
            return;
        }
        Mnemonic::Pop => {
            let value = state.get(Register::RSP).and_then(State::slot).and_then(|at| state.slots.get(&at).cloned());
            move_stack(state, 8);
            let made = Form::unknown(Origin::Made(ip, number(instruction.op0_register()).unwrap_or(u8::MAX)));
            state.set(instruction.op0_register(), value.unwrap_or(made));
            return;
        }
        Mnemonic::Leave => {
            let frame = state.get(Register::RBP).cloned().unwrap_or_default();
            let saved = State::slot(&frame).and_then(|at| state.slots.get(&at).cloned());
            state.set(Register::RSP, frame.plus(&Form::constant(8), 1));
            state.set(Register::RBP, saved.unwrap_or(Form::unknown(Origin::Made(ip, 5))));
            return;
        }
        _ => {}
    }
    if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
        for n in [1_u8, 2, 6, 7, 8, 9, 10, 11] {
            if let Some(slot) = state.registers.get_mut(usize::from(n)) {
                *slot = Form::unknown(Origin::Made(ip, n));
            }
        }
        state.set(Register::RAX, Form::unknown(Origin::Returned(ip)));
        return;
    }
    let value = calculated(state, instruction);
    let to_memory = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Memory;
    if to_memory && !matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test) {
        if let Some(at) = State::slot(&state.address(instruction)) {
            let len = i64::try_from(instruction.memory_size().size()).unwrap_or(8).max(1);
            let hit: Vec<i64> =
                state.slots.range(at.saturating_sub(7)..at.saturating_add(len)).map(|(k, _)| *k).collect();
            for key in hit {
                state.slots.remove(&key);
            }
            if let Some(value) = value.filter(|_| len >= 4) {
                state.slots.insert(at, value);
            }
        }
        return;
    }
    let written: Vec<Register> = factory
        .info(instruction)
        .used_registers()
        .iter()
        .filter(|u| !matches!(u.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None))
        .map(iced_x86::UsedRegister::register)
        .collect();
    for register in written {
        if let Some(n) = number(register) {
            state.set(register, Form::unknown(Origin::Made(ip, n)));
        }
    }
    if let Some(value) = value
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().size() >= 4
    {
        state.set(instruction.op0_register(), value);
    }
}

fn move_stack(state: &mut State, by: i64) -> Form {
    let top = state.get(Register::RSP).cloned().unwrap_or_default().plus(&Form::constant(by), 1);
    state.set(Register::RSP, top.clone());
    top
}

/// What the first operand becomes, where it is a sum or a multiple of known things.
fn calculated(state: &State, instruction: &Instruction) -> Option<Form> {
    let operand = |n| state.operand(instruction, n);
    let small = |form: Form| form.as_constant();
    match instruction.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movsxd => operand(1),
        Mnemonic::Cdqe => state.get(Register::RAX).cloned(),
        Mnemonic::Lea => Some(state.address(instruction)),
        Mnemonic::Add => Some(operand(0)?.plus(&operand(1)?, 1)),
        Mnemonic::Sub => Some(operand(0)?.plus(&operand(1)?, -1)),
        Mnemonic::Inc => Some(operand(0)?.plus(&Form::constant(1), 1)),
        Mnemonic::Dec => Some(operand(0)?.plus(&Form::constant(-1), 1)),
        Mnemonic::Neg => Some(operand(0)?.times(-1)),
        Mnemonic::Xor if instruction.op0_register() == instruction.op1_register() => Some(Form::constant(0)),
        Mnemonic::Shl | Mnemonic::Sal => {
            let by = u32::try_from(operand(1).and_then(small)?).ok().filter(|by| *by < 32)?;
            Some(operand(0)?.times(1_i64.wrapping_shl(by)))
        }
        Mnemonic::Imul if instruction.op_count() == 3 => Some(operand(1)?.times(operand(2).and_then(small)?)),
        Mnemonic::Imul if instruction.op_count() == 2 => {
            let (a, b) = (operand(0)?, operand(1)?);
            match (a.as_constant(), b.as_constant()) {
                (_, Some(factor)) => Some(a.times(factor)),
                (Some(factor), None) => Some(b.times(factor)),
                (None, None) => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Forms, Origin, Tracker, argument};
    use iced_x86::{Decoder, DecoderOptions};
    use salve_elf::{Va, VaRange};

    fn forms(bytes: &[u8]) -> Forms {
        let code: Vec<_> = Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).into_iter().collect();
        let len = u64::try_from(bytes.len()).unwrap_or(0);
        VaRange::new(Va::new(0x1000), len).map(|range| Tracker::new(&code, range).run()).unwrap_or_default()
    }

    #[test]
    fn a_multiplication_is_the_same_however_it_is_spelled() {
        // lea (%rsi,%rsi,4),%rax; shl $3,%rax; mov 8(%rdi,%rax),%rax; ret
        let shifted = forms(&[0x48, 0x8d, 0x04, 0xb6, 0x48, 0xc1, 0xe0, 0x03, 0x48, 0x8b, 0x44, 0x07, 0x08, 0xc3]);
        // imul $40,%rsi,%rax; mov 8(%rdi,%rax),%rax; ret
        let multiplied = forms(&[0x48, 0x6b, 0xc6, 0x28, 0x48, 0x8b, 0x44, 0x07, 0x08, 0xc3]);
        let address = |forms: &Forms| forms.accesses.first().map(|a| a.address.clone());
        assert_eq!(address(&shifted), address(&multiplied));
        let address = address(&shifted).unwrap_or_default();
        assert!(address.terms.contains(&(argument(1), 40)), "{address:?}");
        assert_eq!(address.constant, 8);
    }

    #[test]
    fn a_value_goes_through_the_frame_and_a_pointer_steps_through_a_loop() {
        // push %rbp; mov %rsp,%rbp; mov %rdi,-8(%rbp); mov -8(%rbp),%rax; mov (%rax),%eax; pop %rbp; ret
        let framed =
            forms(&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0x7d, 0xf8, 0x48, 0x8b, 0x45, 0xf8, 0x8b, 0x00, 0x5d, 0xc3]);
        assert_eq!(framed.accesses.len(), 1, "{framed:?}");
        assert!(framed.accesses.iter().all(|a| a.address.terms == [(argument(0), 1)]), "{framed:?}");
        // 1: cmpl $0,(%rdi); je 2f; add $40,%rdi; jmp 1b; 2: ret
        let looping = forms(&[0x83, 0x3f, 0x00, 0x74, 0x06, 0x48, 0x83, 0xc7, 0x28, 0xeb, 0xf5, 0xc3]);
        assert_eq!(looping.steps.iter().copied().collect::<Vec<_>>(), [40], "{looping:?}");
        let joined = |a: &super::Access| matches!(a.address.terms.as_slice(), [(Origin::Joined(..), 1)]);
        assert!(looping.accesses.iter().any(joined), "{looping:?}");
    }
}
