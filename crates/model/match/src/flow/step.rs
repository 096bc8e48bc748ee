//! What one instruction does with the value: passes it on, overwrites it, or examines it.

use super::call::call;
use super::frame::Frame;
use super::stack::move_stack;
use super::state::{State, number};
use super::{Destination, Handover};
use iced_x86::{
    FlowControl, Instruction, InstructionInfo, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use salve_elf::Va;
use std::collections::BTreeSet;

/// Where it is afterwards, or how it is examined.
pub(super) fn step(
    frame: &Frame,
    instruction: &Instruction,
    mut state: State,
    factory: &mut InstructionInfoFactory,
    destinations: &mut BTreeSet<Destination>,
) -> Result<State, &'static str> {
    match instruction.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall => {
            call(frame, instruction, &mut state, destinations);
            return Ok(state);
        }
        FlowControl::Return => {
            return if state.holds(Register::RAX) { Err("returned") } else { Ok(State::default()) };
        }
        FlowControl::IndirectBranch if !instruction.is_ip_rel_memory_operand() && !state.is_gone() => {
            if !state.registers.is_empty() {
                return Err("jumps to where the code does not say");
            }
            // What is left in the frame there is no more than what a call leaves.
            let call_at = Va::new(instruction.ip());
            destinations.insert(Destination { call_at, target: None, by: Handover::Lingering });
        }
        _ => {}
    }
    move_stack(instruction, &mut state)?;
    if moves(instruction, &state) {
        return handed_on(frame, instruction, state);
    }
    if accesses_slot(frame, instruction, &state) {
        return slot_accessed(frame, instruction, state);
    }
    let info = factory.info(instruction);
    if reads(info, &state) {
        return register_read(frame, instruction, state);
    }
    overwrite(info, &mut state);
    Ok(state)
}

/// Whether it copies the value from a register, and does nothing else with it.
fn moves(instruction: &Instruction, state: &State) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Push => instruction.op0_kind() == OpKind::Register && state.holds(instruction.op0_register()),
        Mnemonic::Mov | Mnemonic::Movq => {
            instruction.op_count() == 2
                && instruction.op1_kind() == OpKind::Register
                && state.holds(instruction.op1_register())
        }
        _ => false,
    }
}

fn handed_on(frame: &Frame, instruction: &Instruction, mut state: State) -> Result<State, &'static str> {
    if instruction.mnemonic() == Mnemonic::Push {
        state.fresh = true;
        return Ok(state);
    }
    match instruction.op0_kind() {
        OpKind::Register => {
            state.take(instruction.op0_register());
            Ok(state)
        }
        OpKind::Memory => {
            let slot = frame.slot(instruction, state.depth).ok_or("stored outside the frame")?;
            state.fresh |= frame.visible(slot);
            state.slots.insert(slot);
            Ok(state)
        }
        _ => Err("moved somewhere unknown"),
    }
}

fn accesses_slot(frame: &Frame, instruction: &Instruction, state: &State) -> bool {
    instruction.mnemonic() != Mnemonic::Lea
        && (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory)
        && frame.holds(state, instruction)
}

fn slot_accessed(frame: &Frame, instruction: &Instruction, mut state: State) -> Result<State, &'static str> {
    match (instruction.mnemonic(), instruction.op0_kind()) {
        (Mnemonic::Push, _) => state.fresh = true,
        // Loaded again, alone or together with its neighbour.
        (
            Mnemonic::Mov | Mnemonic::Movq | Mnemonic::Movdqa | Mnemonic::Movdqu | Mnemonic::Movaps | Mnemonic::Movups,
            OpKind::Register,
        ) => state.take(instruction.op0_register()),
        // Overwritten.
        (Mnemonic::Mov, OpKind::Memory) => {
            if let Some(slot) = frame.slot(instruction, state.depth) {
                state.slots.remove(&slot);
            }
        }
        _ => return Err("compared or calculated with in the frame"),
    }
    Ok(state)
}

/// Whether a register that holds it is read.
fn reads(info: &InstructionInfo, state: &State) -> bool {
    info.used_registers().iter().any(|used| {
        matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
            && state.holds(used.register())
    })
}

fn register_read(frame: &Frame, instruction: &Instruction, mut state: State) -> Result<State, &'static str> {
    if state.holds(instruction.memory_base()) || state.holds(instruction.memory_index()) {
        return Err("read or written through");
    }
    if gathers(instruction) && instruction.op0_kind() == OpKind::Memory {
        return handed_on(frame, instruction, state);
    }
    if gathers(instruction) {
        state.take(instruction.op0_register());
        return Ok(state);
    }
    if instruction.mnemonic() == Mnemonic::Test && instruction.op0_register() == instruction.op1_register() {
        // Compared with the null pointer: equally true of both.
        return Ok(state);
    }
    Err("compared or calculated with")
}

/// Vector registers gather two pointers before they are stored together.
fn gathers(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        Mnemonic::Movhps
            | Mnemonic::Punpcklqdq
            | Mnemonic::Pinsrq
            | Mnemonic::Movaps
            | Mnemonic::Movups
            | Mnemonic::Movdqa
            | Mnemonic::Movdqu
    )
}

/// Registers that hold something else now.
fn overwrite(info: &InstructionInfo, state: &mut State) {
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
}
