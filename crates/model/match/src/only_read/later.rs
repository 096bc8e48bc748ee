//! Whether a register is read before it is written again: one that was left behind by a callee,
//! or one of a caller's that a callee has to preserve.

use super::jumps::{Jumps, Leads};
use super::state::{Registers, left_behind, preserved, results};
use crate::flow::PRESERVED;
use foldhash::HashMap;
use iced_x86::{Code, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use salve_code::{decode, decode_at};
use salve_elf::Va;

const MOST_STEPS: u32 = 20_000;
/// Calls within calls that are followed.
const DEEPEST: u32 = 24;

/// What counts as a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reading {
    Any,
    /// All but being saved in the frame.
    MoreThanSaving,
}

/// What was found, by where: the registers that still hold it at a return, or nothing where they
/// are read, or where that is not known.
pub(super) struct Later<'s, 'i, 'a> {
    jumps: &'s Jumps<'s, 'i, 'a>,
    known: HashMap<(Va, Registers, Reading), Option<Registers>>,
}

impl<'s, 'i, 'a> Later<'s, 'i, 'a> {
    pub(super) fn new(jumps: &'s Jumps<'s, 'i, 'a>) -> Self {
        Self { jumps, known: HashMap::default() }
    }

    /// Whether code from `at` on, or a caller, may read what one of these registers holds there.
    pub(super) fn is_read(&mut self, at: Va, held: Registers) -> bool {
        // What it leaves behind in turn may be its result.
        self.look(at, held, Reading::Any, 0).is_none_or(|left| left.meets(left_behind()))
    }

    /// Those of a caller's registers that a callee only saves, if at all.
    pub(super) fn left_alone(&mut self, callee: Va, held: Registers) -> Registers {
        let mut left_alone = Registers::NONE;
        for register in PRESERVED.into_iter().filter(|register| held.has(*register)) {
            if self.look(callee, Registers::of(&[register]), Reading::MoreThanSaving, 0).is_some() {
                left_alone.set(register, true);
            }
        }
        left_alone
    }

    fn look(&mut self, at: Va, held: Registers, reading: Reading, depth: u32) -> Option<Registers> {
        if depth > DEEPEST {
            return None;
        }
        if let Some(known) = self.known.get(&(at, held, reading)) {
            return *known;
        }
        // Whoever comes back here meanwhile knows nothing.
        self.known.insert((at, held, reading), None);
        let found = self.never_read(at, held, reading, depth);
        self.known.insert((at, held, reading), found);
        found
    }

    /// `None` if it is read, or if that is not known.
    fn never_read(&mut self, at: Va, held: Registers, reading: Reading, depth: u32) -> Option<Registers> {
        let jumps = self.jumps;
        let side = jumps.side;
        let mut at_return = Registers::NONE;
        let mut factory = InstructionInfoFactory::new();
        let mut known: HashMap<Va, Registers> = HashMap::default();
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
            jumps.spend(1)?;
            let instruction = decode_at(side.image, at).filter(|instruction| instruction.code() != Code::INVALID)?;
            let mut left = joined;
            for used in factory.info(&instruction).used_registers() {
                let reads = !matches!(used.access(), OpAccess::Write | OpAccess::CondWrite | OpAccess::None);
                if reads && joined.has(used.register()) {
                    if !is_saving(jumps, &instruction, reading) {
                        return None;
                    }
                    // Who saves it before anything else gives it back, and has no use for it.
                    left = Registers::NONE;
                    at_return = at_return.and(joined);
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
                    if own && !left.is_empty() {
                        left = self.look(there, left, reading, depth.saturating_add(1))?;
                    }
                    // The second result may be handed on where it is.
                    if !own && reading == Reading::Any && left.meets(results()) {
                        return None;
                    }
                    open.push((next, if own { left } else { left.only(preserved()) }));
                }
                FlowControl::IndirectCall => {
                    if reading == Reading::Any && left.meets(results()) {
                        return None;
                    }
                    open.push((next, left.only(preserved())));
                }
                FlowControl::Return => at_return = at_return.and(left),
                FlowControl::Exception => {}
                FlowControl::IndirectBranch => {
                    if let Leads::To(targets) = &*jumps.leads(&instruction)? {
                        open.extend(targets.iter().map(|target| (*target, left)));
                    }
                }
                FlowControl::Interrupt | FlowControl::XbeginXabortXend => return None,
            }
        }
        Some(at_return)
    }
}

/// Whether it only puts one of these registers into the frame.
fn is_saving(jumps: &Jumps<'_, '_, '_>, instruction: &Instruction, reading: Reading) -> bool {
    if reading == Reading::Any {
        return false;
    }
    let pushes = instruction.mnemonic() == Mnemonic::Push && instruction.op0_kind() == OpKind::Register;
    let moves = instruction.code() == Code::Mov_rm64_r64
        && instruction.op0_kind() == OpKind::Memory
        && instruction.memory_base() == Register::RSP
        && instruction.memory_index() == Register::None;
    let saved = if pushes { instruction.op0_register() } else { instruction.op1_register() };
    (pushes || moves) && is_restored(jumps, instruction, saved).unwrap_or(false)
}

/// Whether the function gives this register a value from memory somewhere: one that is saved
/// and comes back in another register is not only saved.
fn is_restored(jumps: &Jumps<'_, '_, '_>, saving: &Instruction, register: Register) -> Option<bool> {
    let image = jumps.side.image;
    let range = image.functions().get(image.function_index_at(Va::new(saving.ip()))?)?.range;
    jumps.spend(usize::try_from(range.len_bytes() / 4).ok()?)?;
    let restores = |instruction: Instruction| {
        let pops = instruction.mnemonic() == Mnemonic::Pop;
        let moves = instruction.code() == Code::Mov_r64_rm64 && instruction.op1_kind() == OpKind::Memory;
        (pops || moves) && instruction.op0_kind() == OpKind::Register && instruction.op0_register() == register
    };
    Some(decode(image, range)?.into_iter().any(restores))
}
