//! Where jumps lead whose instruction does not say it.

use crate::side::Side;
use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use salve_code::decode;
use salve_elf::{SectionRole, Va, VaRange};

/// How far before its jump a switch names its table.
const FURTHEST_INSTRUCTIONS: usize = 24;

pub(super) enum Leads {
    /// To another function, by its address.
    ByPointer,
    /// Into the function, by a table of distances.
    To(Vec<Va>),
}

/// `None` where that is not known.
pub(super) fn leads(side: &Side<'_, '_>, jump: &Instruction) -> Option<Leads> {
    if jump.op0_kind() == OpKind::Memory {
        return (jump.memory_index() == Register::None).then_some(Leads::ByPointer);
    }
    let function = side.image.function_index_at(Va::new(jump.ip()))?;
    let range = side.image.functions().get(function)?.range;
    let before: Vec<Instruction> =
        decode(side.image, range)?.into_iter().take_while(|instruction| instruction.ip() < jump.ip()).collect();
    let mut factory = InstructionInfoFactory::new();
    let mut writes = |instruction: &&Instruction| {
        let used = factory.info(instruction).used_registers();
        used.iter().any(|used| {
            let same = used.register().full_register() == jump.op0_register();
            same && !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None)
        })
    };
    let by = before.iter().rev().find(|instruction| writes(instruction))?;
    let from_memory = by.op1_kind() == OpKind::Memory && by.memory_index() == Register::None;
    match by.code() {
        Code::Mov_r64_rm64 if from_memory => Some(Leads::ByPointer),
        Code::Lea_r64_m if by.is_ip_rel_memory_operand() => {
            let target = Va::new(by.ip_rel_memory_address());
            let index = side.image.function_index_at(target)?;
            let entry = side.image.functions().get(index)?.range.start() == target;
            (entry && index != function).then_some(Leads::ByPointer)
        }
        Code::Add_r64_rm64 | Code::Add_rm64_r64 => {
            let mut near = before.iter().rev().take(FURTHEST_INSTRUCTIONS);
            near.find_map(|instruction| targets(side, range, instruction)).map(Leads::To)
        }
        _ => None,
    }
}

/// What the table leads to whose address this instruction takes.
fn targets(side: &Side<'_, '_>, function: VaRange, instruction: &Instruction) -> Option<Vec<Va>> {
    if instruction.mnemonic() != Mnemonic::Lea || !instruction.is_ip_rel_memory_operand() {
        return None;
    }
    let table = Va::new(instruction.ip_rel_memory_address());
    side.image.section_at(table).filter(|section| section.role == SectionRole::ReadOnlyData)?;
    let len_bytes = side.next_anchor(table)?.raw().checked_sub(table.raw())?;
    let bytes = side.image.read(VaRange::new(table, len_bytes)?)?;
    let distances = bytes.chunks_exact(4).map_while(|word| word.first_chunk()).map(|word| i32::from_le_bytes(*word));
    let led = distances.map(|distance| table.wrapping_offset(i64::from(distance)));
    let led: Vec<Va> = led.take_while(|target| function.contains(*target)).collect();
    (!led.is_empty()).then_some(led)
}
