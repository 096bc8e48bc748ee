//! Whether a register that was left behind by a callee is read before it is written again.

use super::state::{Registers, preserved};
use crate::side::Side;
use iced_x86::{Code, FlowControl, InstructionInfoFactory, OpAccess};
use salve_code::decode_at;
use salve_elf::Va;
use std::collections::HashMap;

const MOST_STEPS: u32 = 20_000;

/// Whether code from `at` on may read what one of these registers holds there.
pub(super) fn is_read_later(side: &Side<'_, '_>, at: Va, held: Registers) -> bool {
    never_read(side, at, held).is_none()
}

/// `None` if it is read, or if that is not known.
fn never_read(side: &Side<'_, '_>, at: Va, held: Registers) -> Option<()> {
    let mut factory = InstructionInfoFactory::new();
    let mut known: HashMap<Va, Registers> = HashMap::new();
    let mut open = vec![(at, held)];
    let mut steps_left = MOST_STEPS;
    while let Some((at, held)) = open.pop() {
        let before = known.get(&at).copied().unwrap_or_default();
        let joined = before.and(held);
        if joined.is_empty() || (joined == before && known.contains_key(&at)) {
            continue;
        }
        known.insert(at, joined);
        steps_left = steps_left.checked_sub(1)?;
        let instruction = decode_at(side.image, at).filter(|instruction| instruction.code() != Code::INVALID)?;
        let mut left = joined;
        for used in factory.info(&instruction).used_registers() {
            let reads = !matches!(used.access(), OpAccess::Write | OpAccess::CondWrite | OpAccess::None);
            if reads && joined.has(used.register()) {
                return None;
            }
            if used.access() == OpAccess::Write && !used.register().is_gpr8() && !used.register().is_gpr16() {
                left.set(used.register(), false);
            }
        }
        let next = Va::new(instruction.next_ip());
        let there = Va::new(instruction.near_branch64());
        match instruction.flow_control() {
            FlowControl::Next => open.push((next, left)),
            FlowControl::ConditionalBranch => open.extend([(next, left), (there, left)]),
            FlowControl::UnconditionalBranch => {
                if side.image.function_index_at(there).is_some() {
                    open.push((there, left));
                }
            }
            FlowControl::Call => {
                let own = side.image.function_index_at(there).is_some();
                if own {
                    open.push((there, left));
                }
                open.push((next, if own { left } else { left.only(preserved()) }));
            }
            FlowControl::IndirectCall => open.push((next, left.only(preserved()))),
            // A caller of this one follows the psABI, by which these are nobody's.
            FlowControl::Return | FlowControl::Exception => {}
            FlowControl::IndirectBranch => {
                if !instruction.is_ip_rel_memory_operand() {
                    return None;
                }
            }
            FlowControl::Interrupt | FlowControl::XbeginXabortXend => return None,
        }
    }
    Some(())
}
