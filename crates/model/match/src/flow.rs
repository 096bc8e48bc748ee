//! Where the value that one instruction makes goes, within its function.
//!
//! The value is followed along every path from the instruction that makes it,
//! through registers and through the function's own frame, until it is
//! overwritten everywhere or handed to a call. What is asked is whether the
//! function itself ever *examines* it: reads through it, compares it,
//! calculates with it, stores it outside its frame or returns it. Anything the
//! trace does not understand counts as examined.

use crate::side::Side;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use salve_code::{decode, is_immediate};
use salve_elf::{Va, VaRange};
use std::collections::{BTreeSet, HashMap};

/// Whether and whither a value leaves its function unexamined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Only ever handed to these calls (targets as the instructions state them).
    Calls(BTreeSet<Destination>),
    /// Examined at this instruction, or the trace ended in doubt there.
    Examined { at: Va, how: &'static str },
}

/// A call that receives the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    pub call_at: Va,
    /// `None` for a call through a register or memory that is no import slot.
    pub target: Option<Va>,
    /// How it is handed over.
    pub by: Handover,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Handover {
    /// In the n-th integer argument register (psABI §3.2.3).
    Register(u8),
    /// In the frame: a stack argument, or an object whose address the callee gets.
    Frame,
    /// Still in a slot below the stack pointer's base while a later call is made,
    /// which may have the address of an object there.
    Lingering,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    registers: BTreeSet<u8>,
    /// Places of the frame that hold it: base register and displacement.
    slots: BTreeSet<(u8, i64)>,
    /// It was stored in the frame, or pushed, since the last call.
    fresh: bool,
    /// How far the stack pointer lies below where the trace began.
    depth: i64,
}

const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];
const PRESERVED: [Register; 6] =
    [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];

fn number(register: Register) -> Option<u8> {
    u8::try_from(register.full_register() as usize).ok()
}

/// Follows the value in the first operand of the instruction at `from`.
pub fn follow(side: &Side<'_, '_>, range: VaRange, from: Va) -> Flow {
    let doubt = |how| Flow::Examined { at: from, how };
    let Some(code) = instructions(side, range) else { return doubt("no code") };
    let Some(origin) = code.get(&from.raw()) else { return doubt("no instruction") };
    let Some(register) = (origin.op0_kind() == OpKind::Register).then(|| number(origin.op0_register())).flatten()
    else {
        return doubt("not a value in a register");
    };
    trace(&code, range, origin.next_ip(), register)
}

/// Follows the n-th integer argument of the function in `range`.
pub(crate) fn follow_argument(side: &Side<'_, '_>, range: VaRange, argument: u8) -> Flow {
    let doubt = |how| Flow::Examined { at: range.start(), how };
    let Some(code) = instructions(side, range) else { return doubt("no code") };
    let register = ARGUMENTS.get(usize::from(argument)).and_then(|r| number(*r));
    let Some(register) = register else { return doubt("no argument register") };
    trace(&code, range, range.start().raw(), register)
}

fn instructions(side: &Side<'_, '_>, range: VaRange) -> Option<HashMap<u64, Instruction>> {
    decode(side.image, range).map(|decoder| decoder.into_iter().map(|i| (i.ip(), i)).collect())
}

fn trace(code: &HashMap<u64, Instruction>, range: VaRange, from_ip: u64, register: u8) -> Flow {
    const MOST_STEPS: usize = 20_000;
    let doubt = |at, how| Flow::Examined { at, how };
    let start = State { registers: BTreeSet::from([register]), ..State::default() };
    let frame = Frame::of(code, range);
    let mut seen: BTreeSet<(u64, State)> = BTreeSet::new();
    let mut queue = vec![(from_ip, start)];
    let mut destinations = BTreeSet::new();
    let mut factory = InstructionInfoFactory::new();
    while let Some((ip, state)) = queue.pop() {
        if state.registers.is_empty() && state.slots.is_empty() && !state.fresh {
            continue;
        }
        if seen.len() > MOST_STEPS {
            return doubt(Va::new(ip), "too many paths");
        }
        if !seen.insert((ip, state.clone())) {
            continue;
        }
        let Some(instruction) = code.get(&ip) else {
            // A jump out of the function: into a cold part, or a tail call.
            return doubt(Va::new(ip), "leaves the function");
        };
        match step(&frame, instruction, state, &mut factory, &mut destinations) {
            Err(how) => return doubt(Va::new(ip), how),
            Ok(state) => {
                if let Err(how) = tail_call(&frame, instruction, range, &state, &mut destinations) {
                    return doubt(Va::new(ip), how);
                }
                successors(instruction, range, &state, &mut queue);
            }
        }
    }
    Flow::Calls(destinations)
}

/// A jump out of the function hands on what its argument registers hold, as a call
/// does; into a part of the function that lies elsewhere other registers would too.
fn tail_call(
    frame: &Frame,
    instruction: &Instruction,
    range: VaRange,
    state: &State,
    destinations: &mut BTreeSet<Destination>,
) -> Result<(), &'static str> {
    let leaves = match instruction.flow_control() {
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
            !range.contains(Va::new(instruction.near_branch64()))
        }
        FlowControl::IndirectBranch => instruction.is_ip_rel_memory_operand(),
        _ => false,
    };
    if !leaves {
        return Ok(());
    }
    // Where the frame still stands, the jump leads to another part of this function.
    let stands = |(base, at): &(u8, i64)| number(Register::RSP) != Some(*base) || *at >= state.depth.saturating_neg();
    if state.slots.iter().any(stands) {
        return Err("leaves the function while it is in the frame");
    }
    if state.registers.is_empty() {
        return Ok(());
    }
    let arguments: BTreeSet<u8> = ARGUMENTS.iter().filter_map(|r| number(*r)).collect();
    if !state.registers.is_subset(&arguments) {
        return Err("leaves the function");
    }
    call(frame, instruction, &mut state.clone(), destinations);
    Ok(())
}

fn successors(instruction: &Instruction, range: VaRange, state: &State, queue: &mut Vec<(u64, State)>) {
    // Other parts and tail calls are judged as calls ([`tail_call`]).
    let mut go = |ip: u64| {
        if range.contains(Va::new(ip)) {
            queue.push((ip, state.clone()));
        }
    };
    match instruction.flow_control() {
        FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => go(instruction.next_ip()),
        FlowControl::UnconditionalBranch => go(instruction.near_branch64()),
        FlowControl::ConditionalBranch => {
            go(instruction.next_ip());
            go(instruction.near_branch64());
        }
        FlowControl::Return
        | FlowControl::Exception
        | FlowControl::Interrupt
        | FlowControl::XbeginXabortXend
        | FlowControl::IndirectBranch => {}
    }
}

/// Which registers point into the function's own frame.
struct Frame {
    uses_rbp: bool,
    /// Displacements from the frame pointer whose addresses are taken: objects
    /// that a callee may get to see.
    objects: BTreeSet<i64>,
}

impl Frame {
    fn of(code: &HashMap<u64, Instruction>, range: VaRange) -> Self {
        let taken = |base: Register| {
            code.values()
                .filter_map(move |i| match i.mnemonic() {
                    Mnemonic::Lea if i.memory_base() == base => Some(i.memory_displacement64().cast_signed()),
                    // The frame's lowest object needs no displacement.
                    Mnemonic::Mov if i.op1_register() == base && i.op0_register() != Register::RBP => Some(0),
                    _ => None,
                })
                .collect()
        };
        Self { uses_rbp: has_frame_pointer(code, range), objects: taken(Register::RBP) }
    }

    /// Whether this slot may lie in an object whose address is taken somewhere: any
    /// later callee may then get to see it, by whatever pointer was kept.
    fn in_object(&self, (base, at): (u8, i64)) -> bool {
        /// Spilled values lie among objects: what lies further from any address
        /// that is taken counts as one of them.
        const LARGEST_OBJECT_BYTES: i64 = 8;
        if number(Register::RBP) == Some(base) {
            let from = at.saturating_sub(LARGEST_OBJECT_BYTES);
            return self.objects.range(from..=at).next().is_some();
        }
        // Relative to the stack pointer, spilled values cannot be told from objects.
        false
    }

    /// Whether a callee may see this slot although it is not handed over as an
    /// argument: relative to the stack pointer it may be one, relative to the frame
    /// pointer it has to belong to an object whose address is taken.
    fn visible(&self, (base, at): (u8, i64)) -> bool {
        const LARGEST_OBJECT_BYTES: i64 = 4096;
        let from = at.saturating_sub(LARGEST_OBJECT_BYTES);
        number(Register::RBP) != Some(base) || self.objects.range(from..=at).next().is_some()
    }

    /// The slot that the instruction's memory operand is, if it is one. Slots are
    /// counted from where the stack pointer stood when the trace began.
    fn slot(&self, instruction: &Instruction, depth: i64) -> Option<(u8, i64)> {
        let base = instruction.memory_base();
        let ours = base == Register::RSP || (self.uses_rbp && base == Register::RBP);
        let plain = instruction.memory_index() == Register::None;
        let at = instruction.memory_displacement64().cast_signed();
        let at = if base == Register::RSP { at.saturating_sub(depth) } else { at };
        (ours && plain).then(|| Some((number(base)?, at))).flatten()
    }

    fn holds(&self, state: &State, instruction: &Instruction) -> bool {
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

fn step(
    frame: &Frame,
    instruction: &Instruction,
    mut state: State,
    factory: &mut InstructionInfoFactory,
    destinations: &mut BTreeSet<Destination>,
) -> Result<State, &'static str> {
    let holds = |state: &State, r: Register| number(r).is_some_and(|n| state.registers.contains(&n));
    match instruction.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall => {
            call(frame, instruction, &mut state, destinations);
            return Ok(state);
        }
        FlowControl::Return => {
            return if holds(&state, Register::RAX) { Err("returned") } else { Ok(State::default()) };
        }
        FlowControl::IndirectBranch if !state.registers.is_empty() && !instruction.is_ip_rel_memory_operand() => {
            return Err("jumps to where the code does not say");
        }
        _ => {}
    }
    match stack_change(instruction) {
        StackChange::None => {}
        StackChange::By(bytes) => state.depth = state.depth.saturating_add(bytes),
        // The frame goes: what it held goes with it.
        StackChange::Leaves => state.slots.clear(),
        StackChange::Unknown if state.slots.is_empty() => {}
        StackChange::Unknown => return Err("the stack pointer moves by an unknown distance"),
    }
    let move_like = matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Movq | Mnemonic::Push);
    let source_tainted = match instruction.mnemonic() {
        Mnemonic::Push => instruction.op0_kind() == OpKind::Register && holds(&state, instruction.op0_register()),
        _ => {
            instruction.op_count() == 2
                && instruction.op1_kind() == OpKind::Register
                && holds(&state, instruction.op1_register())
        }
    };
    if move_like && source_tainted {
        return handed_on(frame, instruction, state);
    }
    let reads_slot = instruction.mnemonic() != Mnemonic::Lea
        && (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory)
        && frame.holds(&state, instruction);
    if reads_slot {
        match (instruction.mnemonic(), instruction.op0_kind()) {
            (Mnemonic::Push, _) => {
                state.fresh = true;
                return Ok(state);
            }
            // Loaded again, alone or together with its neighbour.
            (
                Mnemonic::Mov
                | Mnemonic::Movq
                | Mnemonic::Movdqa
                | Mnemonic::Movdqu
                | Mnemonic::Movaps
                | Mnemonic::Movups,
                OpKind::Register,
            ) => {
                if let Some(n) = number(instruction.op0_register()) {
                    state.registers.insert(n);
                }
                return Ok(state);
            }
            // Overwritten.
            (Mnemonic::Mov, OpKind::Memory) => {
                if let Some(slot) = frame.slot(instruction, state.depth) {
                    state.slots.remove(&slot);
                }
                return Ok(state);
            }
            _ => return Err("compared or calculated with in the frame"),
        }
    }
    // Vector registers gather two pointers before they are stored together.
    let gathers = matches!(
        instruction.mnemonic(),
        Mnemonic::Movhps
            | Mnemonic::Punpcklqdq
            | Mnemonic::Pinsrq
            | Mnemonic::Movaps
            | Mnemonic::Movups
            | Mnemonic::Movdqa
            | Mnemonic::Movdqu
    );
    let info = factory.info(instruction);
    let reads = info.used_registers().iter().any(|u| {
        matches!(u.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
            && holds(&state, u.register())
    });
    if reads {
        let through_memory = holds(&state, instruction.memory_base()) || holds(&state, instruction.memory_index());
        if through_memory {
            return Err("read or written through");
        }
        if gathers && instruction.op0_kind() == OpKind::Memory {
            return handed_on(frame, instruction, state);
        }
        if gathers {
            if let Some(n) = number(instruction.op0_register()) {
                state.registers.insert(n);
            }
            return Ok(state);
        }
        if instruction.mnemonic() == Mnemonic::Test && instruction.op0_register() == instruction.op1_register() {
            // Compared with the null pointer: equally true of both.
            return Ok(state);
        }
        return Err("compared or calculated with");
    }
    for used in info.used_registers() {
        let writes = matches!(used.access(), OpAccess::Write | OpAccess::ReadWrite);
        let whole = used.register().size() >= 4;
        if writes
            && whole
            && let Some(n) = number(used.register())
        {
            state.registers.remove(&n);
        }
    }
    Ok(state)
}

/// What an instruction that is no call does to the stack pointer.
enum StackChange {
    None,
    /// Moves it down by so many bytes.
    By(i64),
    Leaves,
    Unknown,
}

fn stack_change(instruction: &Instruction) -> StackChange {
    let to_stack_pointer =
        instruction.op0_kind() == OpKind::Register && instruction.op0_register().full_register() == Register::RSP;
    match instruction.mnemonic() {
        Mnemonic::Push | Mnemonic::Pop => {
            StackChange::By(i64::from(instruction.stack_pointer_increment()).wrapping_neg())
        }
        Mnemonic::Leave => StackChange::Leaves,
        Mnemonic::Cmp | Mnemonic::Test => StackChange::None,
        Mnemonic::Sub | Mnemonic::Add if to_stack_pointer && is_immediate(instruction.op1_kind()) => {
            let bytes = instruction.immediate(1).cast_signed();
            StackChange::By(if instruction.mnemonic() == Mnemonic::Sub { bytes } else { bytes.saturating_neg() })
        }
        Mnemonic::Lea if to_stack_pointer && instruction.memory_index() != Register::None => StackChange::Unknown,
        Mnemonic::Lea if to_stack_pointer && instruction.memory_base() == Register::RSP => {
            StackChange::By(instruction.memory_displacement64().cast_signed().saturating_neg())
        }
        // Back to the frame pointer, before the function returns.
        Mnemonic::Lea | Mnemonic::Mov if to_stack_pointer => StackChange::Leaves,
        _ if to_stack_pointer => StackChange::Unknown,
        _ => StackChange::None,
    }
}

fn handed_on(frame: &Frame, instruction: &Instruction, mut state: State) -> Result<State, &'static str> {
    if instruction.mnemonic() == Mnemonic::Push {
        state.fresh = true;
        return Ok(state);
    }
    match instruction.op0_kind() {
        OpKind::Register => {
            if let Some(n) = number(instruction.op0_register()) {
                state.registers.insert(n);
            }
            Ok(state)
        }
        OpKind::Memory if frame.slot(instruction, state.depth).is_some() => {
            let slot = frame.slot(instruction, state.depth);
            state.fresh |= slot.is_some_and(|slot| frame.visible(slot));
            state.slots.extend(slot);
            Ok(state)
        }
        OpKind::Memory => Err("stored outside the frame"),
        _ => Err("moved somewhere unknown"),
    }
}

fn call(frame: &Frame, instruction: &Instruction, state: &mut State, destinations: &mut BTreeSet<Destination>) {
    let target = match instruction.flow_control() {
        FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
            Some(Va::new(instruction.near_branch64()))
        }
        _ if instruction.is_ip_rel_memory_operand() => Some(Va::new(instruction.ip_rel_memory_address())),
        _ => None,
    };
    let call_at = Va::new(instruction.ip());
    for (index, register) in ARGUMENTS.iter().enumerate() {
        if number(*register).is_some_and(|n| state.registers.contains(&n)) {
            let by = Handover::Register(u8::try_from(index).unwrap_or(u8::MAX));
            destinations.insert(Destination { call_at, target, by });
        }
    }
    if state.fresh || state.slots.iter().any(|slot| frame.in_object(*slot)) {
        // A stack argument, or an object in the frame whose address this callee gets.
        destinations.insert(Destination { call_at, target, by: Handover::Frame });
        state.fresh = false;
    } else if state.slots.iter().any(|(base, _)| number(Register::RSP) == Some(*base)) {
        destinations.insert(Destination { call_at, target, by: Handover::Lingering });
    }
    let preserved: BTreeSet<u8> = PRESERVED.iter().filter_map(|r| number(*r)).collect();
    state.registers.retain(|n| preserved.contains(n));
}
