//! Whether another address is calculated from one.

use super::instructions;
use super::state::number;
use super::trace::successors_of;
use crate::side::Side;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use salve_elf::{Va, VaRange};
use std::collections::{BTreeSet, HashMap, HashSet};

/// How many instructions are between an address and what is added to it, at most: code is
/// near both, and further away another value may be meant by the same register.
const FURTHEST: u8 = 32;

/// The instructions that add what the code does not state to one of the addresses that the
/// instructions at `from` make: the first that is found for each, in registers.
pub fn calculated(side: &Side<'_, '_>, range: VaRange, from: &[Va]) -> Vec<Va> {
    if from.is_empty() {
        return Vec::new();
    }
    let Some(code) = instructions(side, range) else { return Vec::new() };
    from.iter().filter_map(|from| first(&code, range, *from)).collect()
}

fn first(code: &HashMap<u64, Instruction>, range: VaRange, from: Va) -> Option<Va> {
    let origin = code.get(&from.raw()).filter(|origin| origin.op0_kind() == OpKind::Register)?;
    let mut factory = InstructionInfoFactory::new();
    let mut seen: HashSet<(u64, BTreeSet<u8>)> = HashSet::new();
    let mut queue = vec![(origin.next_ip(), BTreeSet::from([number(origin.op0_register())?]), 0)];
    while let Some((ip, mut held, steps)) = queue.pop() {
        if held.is_empty() || steps > FURTHEST || !seen.insert((ip, held.clone())) {
            continue;
        }
        let Some(instruction) = code.get(&ip) else { continue };
        if adds(instruction, &held) {
            return Some(Va::new(ip));
        }
        step(instruction, &mut held, &mut factory);
        queue.extend(
            successors_of(instruction, range).into_iter().map(|next| (next, held.clone(), steps.saturating_add(1))),
        );
    }
    None
}

fn adds(instruction: &Instruction, held: &BTreeSet<u8>) -> bool {
    let is_held = |register: Register| register.is_gpr64() && number(register).is_some_and(|n| held.contains(&n));
    match instruction.mnemonic() {
        // An immediate is the distance to something that does not move against it.
        Mnemonic::Add | Mnemonic::Xadd => {
            let stated = !matches!(instruction.op1_kind(), OpKind::Register | OpKind::Memory);
            !stated && [0, 1].into_iter().any(|operand| is_held(instruction.op_register(operand)))
        }
        Mnemonic::Lea => {
            let (base, index) = (instruction.memory_base(), instruction.memory_index());
            is_held(index) || is_held(base) && index != Register::None
        }
        _ => false,
    }
}

fn step(instruction: &Instruction, held: &mut BTreeSet<u8>, factory: &mut InstructionInfoFactory) {
    if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
        // Compilers know of some callees which registers they leave alone; what they return
        // is another value.
        held.retain(|n| number(Register::RAX) != Some(*n));
    }
    let copied = instruction.mnemonic() == Mnemonic::Mov
        && [instruction.op0_kind(), instruction.op1_kind()] == [OpKind::Register; 2]
        && number(instruction.op1_register()).is_some_and(|n| held.contains(&n));
    for used in factory.info(instruction).used_registers() {
        let writes = matches!(used.access(), OpAccess::Write | OpAccess::ReadWrite);
        if let Some(n) = number(used.register()).filter(|_| writes) {
            held.remove(&n);
        }
    }
    if copied {
        held.extend(number(instruction.op0_register()));
    }
}
