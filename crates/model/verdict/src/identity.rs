//! Constants whose address is an identity.
//!
//! The payload has its own copy of the new image's constants, so a constant that
//! replaced code refers to has another address than the one that old state may
//! hold. That matters where somebody compares the address: `if (p != empty)
//! free(p)`. Found by what follows the instruction that takes the address, in
//! replaced code and in code that stays; an address that reaches a comparison by
//! a longer way is not found.

use crate::carry::Carried;
use crate::registry;
use iced_x86::{FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use salve_code::ReferenceKind;
use salve_elf::{SectionRole, Va, VaRange};
use salve_match::{ImageDiff, Side};
use salve_patch::{Evidence, Reason};
use std::collections::BTreeSet;

pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    let replaced = carried.new_functions();
    let constants: BTreeSet<Va> =
        replaced.iter().flat_map(|n| taken(&diff.new, *n)).map(|(_, constant)| constant).collect();
    let mut evidence = Vec::new();
    for (index, function) in diff.new.image.functions().iter().enumerate() {
        for (at, constant) in taken(&diff.new, index) {
            if constants.contains(&constant) && is_compared(&diff.new, function.range, at) {
                evidence.push(Evidence {
                    function: Some(function.display_name()),
                    old_va: None,
                    new_va: Some(at),
                    seen: format!("compares with the address of the constant at {constant}"),
                });
            }
        }
    }
    (!evidence.is_empty())
        .then(|| registry::CONSTANT_ADDRESS.because("the address of a constant serves as an identity", evidence))
}

/// Instructions of a function that take the address of a constant, and which.
fn taken(side: &Side<'_, '_>, function: usize) -> Vec<(Va, Va)> {
    let (Some(code), Some(f)) = (side.code.get(function), side.image.functions().get(function)) else {
        return Vec::new();
    };
    code.references
        .iter()
        .filter(|r| r.kind == ReferenceKind::Address)
        .filter(|r| side.image.section_at(r.target).is_some_and(|s| s.role == SectionRole::ReadOnlyData))
        .map(|r| (f.range.start().wrapping_offset(i64::from(r.at)), r.target))
        .collect()
}

/// Whether the register that gets the address at `at` is compared before it is overwritten.
fn is_compared(side: &Side<'_, '_>, range: VaRange, at: Va) -> bool {
    const FURTHEST: usize = 64;
    let Ok(rest) = VaRange::try_from((at, range.end())) else { return false };
    let Some(decoder) = salve_code::decode(side.image, rest) else { return false };
    let mut instructions = decoder.into_iter();
    let Some(register) = instructions.next().map(|i| i.op0_register().full_register()) else { return false };
    if register == Register::None {
        return false;
    }
    let mut factory = InstructionInfoFactory::new();
    for instruction in instructions.take(FURTHEST) {
        let operand =
            |n| instruction.op_kind(n) == OpKind::Register && instruction.op_register(n).full_register() == register;
        if instruction.mnemonic() == Mnemonic::Cmp && (operand(0) || operand(1)) {
            return true;
        }
        if matches!(instruction.flow_control(), FlowControl::Return | FlowControl::UnconditionalBranch) {
            return false;
        }
        let overwritten = factory
            .info(&instruction)
            .used_registers()
            .iter()
            .any(|u| u.register().full_register() == register && matches!(u.access(), OpAccess::Write));
        if overwritten {
            return false;
        }
    }
    false
}
