//! What a call, or a jump that is one, gets of the value.

use super::frame::Frame;
use super::state::{ARGUMENTS, PRESERVED, State, number};
use super::{Destination, Handover};
use iced_x86::{FlowControl, Instruction, Register};
use salve_elf::{Va, VaRange};
use std::collections::BTreeSet;

pub(super) fn call(
    frame: &Frame,
    instruction: &Instruction,
    state: &mut State,
    destinations: &mut BTreeSet<Destination>,
) {
    let target = match instruction.flow_control() {
        FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
            Some(Va::new(instruction.near_branch64()))
        }
        _ if instruction.is_ip_rel_memory_operand() => Some(Va::new(instruction.ip_rel_memory_address())),
        _ => None,
    };
    let call_at = Va::new(instruction.ip());
    for (index, register) in ARGUMENTS.iter().enumerate() {
        if state.holds(*register) {
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

/// A jump out of the function hands on what its argument registers hold, as a call
/// does; into a part of the function that lies elsewhere other registers would too.
pub(super) fn tail_call(
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
