//! How far the stack pointer moves, by which slots are counted.

use super::state::State;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use salve_code::is_immediate;

/// Counts on, or says why that is over.
pub(super) fn move_stack(instruction: &Instruction, state: &mut State) -> Result<(), &'static str> {
    match stack_change(instruction) {
        StackChange::None => {}
        StackChange::By(bytes) => state.depth = state.depth.saturating_add(bytes),
        // The frame goes: what it held goes with it.
        StackChange::Leaves => state.slots.clear(),
        StackChange::Unknown if state.slots.is_empty() => {}
        StackChange::Unknown => return Err("the stack pointer moves by an unknown distance"),
    }
    Ok(())
}

/// What an instruction that is no call does to the stack pointer.
pub enum StackChange {
    None,
    /// Moves it down by so many bytes.
    By(i64),
    Leaves,
    Unknown,
}

pub fn stack_change(instruction: &Instruction) -> StackChange {
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
