//! Functions of the image that look at where they are called from.
//!
//! A return address in the payload lies in no image that anybody knows: a check that it lies in
//! this one fails, and what is calculated from it leads elsewhere. One that is only kept, as
//! allocators keep who asked, is for people to read.

use crate::carry::Carried;
use crate::registry;
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use salve_code::{ReferenceKind, decode};
use salve_elf::{Va, VaRange};
use salve_match::{ImageDiff, Place, Side, StackChange, is_used, stack_change};
use salve_patch::{Evidence, Reason};
use std::collections::HashMap;

pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    let side = &diff.new;
    let functions = side.image.functions();
    let mut known: HashMap<usize, Option<Va>> = HashMap::new();
    let mut evidence = Vec::new();
    for index in carried.new_functions() {
        let (Some(caller), Some(code)) = (functions.get(index), side.code.get(index)) else { continue };
        // Whoever is jumped to returns to where its caller's caller is.
        for reference in code.references.iter().filter(|r| r.kind == ReferenceKind::Call) {
            let Place::Code { function, offset: 0 } = side.place(reference.target) else { continue };
            let Some(callee) = functions.get(function) else { continue };
            let looks = known.entry(function).or_insert_with(|| reads_its_return_address(side, callee.range));
            if let Some(at) = looks {
                evidence.push(Evidence {
                    function: Some(caller.display_name()),
                    old_va: None,
                    new_va: Some(caller.range.start().wrapping_offset(i64::from(reference.at))),
                    seen: format!("calls {}, which looks at its return address at {at}", callee.display_name()),
                });
            }
        }
    }
    let summary = "replaced code calls a function that looks at where it is called from";
    (!evidence.is_empty()).then(|| registry::CALLER_MISTAKEN.because(summary, evidence))
}

/// Where the function reads the word that its caller pushed, and does something with it, by the
/// stack pointer or, where it keeps one, by the frame pointer.
fn reads_its_return_address(side: &Side<'_, '_>, range: VaRange) -> Option<Va> {
    let mut stack = Stack::default();
    for instruction in decode(side.image, range).into_iter().flatten() {
        let from = |base: Register, at: i64| {
            instruction.memory_base() == base
                && instruction.memory_index() == Register::None
                && instruction.memory_displacement64().cast_signed() == at
        };
        if reads_memory(&instruction) && (from(Register::RSP, stack.depth) || stack.framed && from(Register::RBP, 8)) {
            let at = Va::new(instruction.ip());
            if is_used(side, range, at) {
                return Some(at);
            }
        }
        stack.step(&instruction);
    }
    None
}

/// How far the stack pointer lies below the return address, one instruction behind the other, as
/// compilers lay code out: what makes room comes first, and what follows a jump has as much.
#[derive(Default)]
struct Stack {
    depth: i64,
    /// What the first instructions made, once they are over.
    body: Option<i64>,
    framed: bool,
}

impl Stack {
    fn step(&mut self, instruction: &Instruction) {
        let frames = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_register() == Register::RBP
            && instruction.op1_register() == Register::RSP;
        self.framed |= frames && self.depth == 8;
        if let StackChange::By(bytes) = stack_change(instruction) {
            self.depth = self.depth.saturating_add(bytes);
        }
        if instruction.flow_control() == FlowControl::Next {
            return;
        }
        if self.body.is_none() && self.depth != 0 {
            self.body = Some(self.depth);
        }
        let goes_on = matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall | FlowControl::ConditionalBranch
        );
        if !goes_on {
            self.depth = self.body.unwrap_or_default();
        }
    }
}

fn reads_memory(instruction: &Instruction) -> bool {
    let loads = matches!(instruction.op1_kind(), OpKind::Memory) && instruction.mnemonic() != Mnemonic::Lea;
    let pushes = instruction.mnemonic() == Mnemonic::Push && instruction.op0_kind() == OpKind::Memory;
    let compares =
        matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test) && instruction.op0_kind() == OpKind::Memory;
    loads || pushes || compares
}
