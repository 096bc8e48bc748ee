//! Whether a register is read before it is written again: one that was left behind by a callee,
//! or one of a caller's that a callee has to preserve.

use super::jumps::{Leads, leads};
use super::state::{PRESERVED, Registers, preserved};
use crate::side::Side;
use iced_x86::{Code, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use salve_code::decode_at;
use salve_elf::Va;
use std::collections::HashMap;

const MOST_STEPS: u32 = 20_000;

/// What counts as a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reading {
    Any,
    /// All but being saved in the frame.
    MoreThanSaving,
}

/// What was found, by where.
pub(super) struct Later<'s, 'i, 'a> {
    side: &'s Side<'i, 'a>,
    known: HashMap<(Va, Registers, Reading), bool>,
}

impl<'s, 'i, 'a> Later<'s, 'i, 'a> {
    pub(super) fn new(side: &'s Side<'i, 'a>) -> Self {
        Self { side, known: HashMap::new() }
    }

    /// Whether code from `at` on may read what one of these registers holds there.
    pub(super) fn is_read(&mut self, at: Va, held: Registers) -> bool {
        self.look(at, held, Reading::Any)
    }

    /// Those of a caller's registers that a callee only saves, if at all.
    pub(super) fn left_alone(&mut self, callee: Va, held: Registers) -> Registers {
        let mut left_alone = Registers::NONE;
        for register in PRESERVED.into_iter().filter(|register| held.has(*register)) {
            if !self.look(callee, Registers::of(&[register]), Reading::MoreThanSaving) {
                left_alone.set(register, true);
            }
        }
        left_alone
    }

    fn look(&mut self, at: Va, held: Registers, reading: Reading) -> bool {
        let side = self.side;
        *self.known.entry((at, held, reading)).or_insert_with(|| never_read(side, at, held, reading).is_none())
    }
}

/// Whether it only puts one of these registers into the frame.
fn is_saving(instruction: &Instruction, reading: Reading) -> bool {
    let pushes = instruction.mnemonic() == Mnemonic::Push && instruction.op0_kind() == OpKind::Register;
    let moves = instruction.code() == Code::Mov_rm64_r64
        && instruction.op0_kind() == OpKind::Memory
        && instruction.memory_base() == Register::RSP
        && instruction.memory_index() == Register::None;
    reading == Reading::MoreThanSaving && (pushes || moves)
}

/// `None` if it is read, or if that is not known.
fn never_read(side: &Side<'_, '_>, at: Va, held: Registers, reading: Reading) -> Option<()> {
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
            if reads && joined.has(used.register()) && !is_saving(&instruction, reading) {
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
                if let Leads::To(targets) = leads(side, &instruction)? {
                    open.extend(targets.into_iter().map(|target| (target, left)));
                }
            }
            FlowControl::Interrupt | FlowControl::XbeginXabortXend => return None,
        }
    }
    Some(())
}
