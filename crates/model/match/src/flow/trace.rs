//! Every path from where the value is made.

use super::Flow;
use super::call::tail_call;
use super::frame::Frame;
use super::state::State;
use super::step::step;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory};
use salve_elf::{Va, VaRange};
use std::collections::{BTreeSet, HashMap};

pub(super) fn trace(code: &HashMap<u64, Instruction>, range: VaRange, from_ip: u64, register: u8) -> Flow {
    const MOST_STEPS: usize = 20_000;
    let doubt = |at, how| Flow::Examined { at, how };
    let start = State { registers: BTreeSet::from([register]), ..State::default() };
    let frame = Frame::of(code, range);
    let mut seen: BTreeSet<(u64, State)> = BTreeSet::new();
    let mut queue = vec![(from_ip, start)];
    let mut destinations = BTreeSet::new();
    let mut factory = InstructionInfoFactory::new();
    while let Some((ip, state)) = queue.pop() {
        if state.is_gone() {
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

fn successors(instruction: &Instruction, range: VaRange, state: &State, queue: &mut Vec<(u64, State)>) {
    queue.extend(successors_of(instruction, range).into_iter().map(|ip| (ip, state.clone())));
}

/// What may be executed next within the function. Other parts and tail calls are judged as
/// calls ([`tail_call`]).
pub(super) fn successors_of(instruction: &Instruction, range: VaRange) -> Vec<u64> {
    let mut next = match instruction.flow_control() {
        FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => vec![instruction.next_ip()],
        FlowControl::UnconditionalBranch => vec![instruction.near_branch64()],
        FlowControl::ConditionalBranch => vec![instruction.next_ip(), instruction.near_branch64()],
        FlowControl::Return
        | FlowControl::Exception
        | FlowControl::Interrupt
        | FlowControl::XbeginXabortXend
        | FlowControl::IndirectBranch => Vec::new(),
    };
    next.retain(|ip| range.contains(Va::new(*ip)));
    next
}
