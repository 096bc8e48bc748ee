//! Whether another address is calculated from one.

use super::instructions;
use super::state::{PRESERVED, number};
use super::trace::successors_of;
use crate::side::Side;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use salve_elf::{Va, VaRange};
use std::collections::{BTreeSet, HashMap, HashSet};

/// How many instructions are between an address and what is added to it, at most: code is
/// near both, and further away another value may be meant by the same register.
const FURTHEST: u8 = 32;

/// What is added to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addend {
    /// What the code does not state.
    Unstated,
    /// That, or a number that the code states.
    Any,
}

/// The instructions that add something to one of the addresses that the instructions at `from`
/// make: the first that is found for each, in registers.
pub fn calculated(side: &Side<'_, '_>, range: VaRange, from: &[Va], addend: Addend) -> Vec<Va> {
    if from.is_empty() {
        return Vec::new();
    }
    let Some(code) = instructions(side, range) else { return Vec::new() };
    let stated = |from| if addend == Addend::Any { first(&code, range, from, true, adds_a_number) } else { None };
    from.iter().filter_map(|from| first(&code, range, *from, false, adds).or_else(|| stated(*from))).collect()
}

/// Whether the address that the instruction at `from` makes, or loads, comes to more than being
/// kept or handed on: it is compared, calculated with, read from, or returned.
pub fn is_used(side: &Side<'_, '_>, range: VaRange, from: Va) -> bool {
    let is_used = |instruction: &Instruction, held: &BTreeSet<u8>| {
        let is_held = |register| holds(held, register);
        let operands = [instruction.op0_register(), instruction.op1_register()];
        let compared = matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Sub | Mnemonic::Xor | Mnemonic::And);
        let returned = instruction.flow_control() == FlowControl::Return && is_held(Register::RAX);
        let reads = instruction.mnemonic() != Mnemonic::Nop && is_held(instruction.memory_base());
        compared && operands.into_iter().any(is_held) || returned || reads || adds(instruction, held)
    };
    instructions(side, range).is_none_or(|code| {
        // What is compared in memory was loaded by nobody.
        let loads =
            code.get(&from.raw()).is_some_and(|i| i.op0_kind() == OpKind::Register && i.mnemonic() == Mnemonic::Mov);
        !loads || first(&code, range, from, true, is_used).is_some()
    })
}

fn first(
    code: &HashMap<u64, Instruction>,
    range: VaRange,
    from: Va,
    calls_clobber: bool,
    is_found: impl Fn(&Instruction, &BTreeSet<u8>) -> bool,
) -> Option<Va> {
    let origin = code.get(&from.raw()).filter(|origin| origin.op0_kind() == OpKind::Register)?;
    let mut factory = InstructionInfoFactory::new();
    let mut seen: HashSet<(u64, BTreeSet<u8>)> = HashSet::new();
    let mut queue = vec![(origin.next_ip(), BTreeSet::from([number(origin.op0_register())?]), 0)];
    while let Some((ip, mut held, steps)) = queue.pop() {
        if held.is_empty() || steps > FURTHEST || !seen.insert((ip, held.clone())) {
            continue;
        }
        let Some(instruction) = code.get(&ip) else { continue };
        if is_found(instruction, &held) {
            return Some(Va::new(ip));
        }
        step(instruction, &mut held, &mut factory);
        if calls_clobber && matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
            held.retain(|n| PRESERVED.iter().any(|register| number(*register) == Some(*n)));
        }
        queue.extend(
            successors_of(instruction, range).into_iter().map(|next| (next, held.clone(), steps.saturating_add(1))),
        );
    }
    None
}

fn holds(held: &BTreeSet<u8>, register: Register) -> bool {
    register.is_gpr64() && number(register).is_some_and(|n| held.contains(&n))
}

fn adds(instruction: &Instruction, held: &BTreeSet<u8>) -> bool {
    let is_held = |register| holds(held, register);
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

/// What lies so far from code that moved is something else.
fn adds_a_number(instruction: &Instruction, held: &BTreeSet<u8>) -> bool {
    let is_held = |register| holds(held, register);
    let is_stated = match instruction.mnemonic() {
        Mnemonic::Add | Mnemonic::Sub => !matches!(instruction.op1_kind(), OpKind::Register | OpKind::Memory),
        Mnemonic::Inc | Mnemonic::Dec => true,
        _ => false,
    };
    let to_register = is_stated && is_held(instruction.op0_register());
    let in_memory = instruction.mnemonic() != Mnemonic::Nop
        && is_held(instruction.memory_base())
        && (instruction.memory_displacement64() != 0 || instruction.memory_index() != Register::None);
    to_register || in_memory
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
