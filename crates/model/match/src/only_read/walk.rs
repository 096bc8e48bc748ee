//! Following everything that takes an address in a stretch, wherever control goes with it.

use super::Stretch;
use super::entries::{Call, Entries, calls_within};
use super::jumps::{Jumps, Leads};
use super::later::Later;
use super::state::{Registers, State, arguments, preserved, results, vectors};
use super::transfer::transfer;
use super::written::Written;
use crate::side::Side;
use foldhash::{HashMap, HashMapExt as _};
use iced_x86::{Code, FlowControl, Instruction, InstructionInfo, InstructionInfoFactory, OpKind, Register};
use salve_code::decode_at;
use salve_elf::Va;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Most instructions that are looked at for one stretch, each time it is.
const MOST_STEPS: u32 = 200_000;

/// Whether nothing comes of the stretch's addresses but reading.
pub(super) fn is_only_read(jumps: &Jumps<'_, '_, '_>, entries: &Entries, stretch: &Stretch) -> bool {
    let mut walk = Walk {
        side: jumps.side,
        jumps,
        entries,
        stretch,
        states: HashMap::new(),
        open: BTreeSet::new(),
        returned: BTreeMap::new(),
        written: Written::new(jumps),
        later: Later::new(jumps),
        steps_left: MOST_STEPS,
    };
    for at in &stretch.taken_at {
        walk.come_to(*at, &State::default());
    }
    walk.all().is_some()
}

struct Walk<'s, 'i, 'a> {
    side: &'s Side<'i, 'a>,
    jumps: &'s Jumps<'s, 'i, 'a>,
    entries: &'s Entries,
    stretch: &'s Stretch,
    /// What is held before each instruction that was come to.
    states: HashMap<Va, State>,
    /// Those that are to be looked at, or looked at again: from the lowest on, so that most of
    /// what leads to one was looked at before.
    open: BTreeSet<Va>,
    /// Which registers held addresses at the returns of each function.
    returned: BTreeMap<usize, Registers>,
    written: Written<'s, 'i, 'a>,
    later: Later<'s, 'i, 'a>,
    steps_left: u32,
}

impl Walk<'_, '_, '_> {
    /// `None` as soon as something is not only read, or not followed.
    fn all(&mut self) -> Option<()> {
        let mut factory = InstructionInfoFactory::new();
        loop {
            let known = self.returned.clone();
            while let Some(at) = self.open.pop_first() {
                self.steps_left = self.steps_left.checked_sub(1)?;
                self.jumps.spend(1)?;
                let instruction = self.instruction(at)?;
                let info = factory.info(&instruction).clone();
                self.step(at, &instruction, &info)?;
            }
            if self.returned == known {
                return Some(());
            }
            self.go_on_in_callers()?;
        }
    }

    fn instruction(&mut self, at: Va) -> Option<Instruction> {
        if self.stretch.range.contains(at) {
            return None;
        }
        decode_at(self.side.image, at).filter(|instruction| instruction.code() != Code::INVALID)
    }

    fn come_to(&mut self, at: Va, state: &State) {
        match self.states.entry(at) {
            Entry::Vacant(entry) => {
                entry.insert(state.clone());
            }
            Entry::Occupied(entry) if entry.get().has_all_of(state) => return,
            Entry::Occupied(mut entry) => {
                let joined = entry.get().and(state);
                entry.insert(joined);
            }
        }
        self.open.insert(at);
    }

    fn step(&mut self, at: Va, instruction: &Instruction, info: &InstructionInfo) -> Option<()> {
        let state = self.states.get(&at).cloned().unwrap_or_default();
        let next = Va::new(instruction.next_ip());
        let there = || Va::new(instruction.near_branch64());
        match instruction.flow_control() {
            // Nothing is held any more.
            flow if state.is_empty() && flow != FlowControl::Next => {}
            FlowControl::Next => {
                let out = transfer(instruction, info, self.stretch.range, &state)?;
                if !out.is_empty() {
                    self.come_to(next, &out);
                }
            }
            FlowControl::ConditionalBranch => {
                self.come_to(next, &state);
                self.leave_to(there(), &state)?;
            }
            FlowControl::UnconditionalBranch => self.leave_to(there(), &state)?,
            FlowControl::Return => {
                if state.kept_values.is_on_top() {
                    return None;
                }
                let function = self.side.image.function_index_at(at)?;
                let returned = self.returned.entry(function).or_default();
                *returned = returned.and(state.addresses);
            }
            // By conventions of its own.
            FlowControl::Call if instruction.code() == Code::Syscall => {
                if !state.addresses.is_empty() {
                    return None;
                }
                self.come_to(next, &state);
            }
            FlowControl::Call => {
                let target = there();
                let after = if self.side.image.function_index_at(target).is_some() {
                    let left_alone = self.later.left_alone(target, state.addresses);
                    self.come_to(target, &state.in_callee(left_alone));
                    state.after_call(self.written.by(target).without(left_alone))
                } else {
                    self.other_code(instruction, &state)?;
                    state.after_other_code()
                };
                self.come_to(next, &after);
            }
            FlowControl::IndirectCall => {
                self.other_code(instruction, &state)?;
                self.come_to(next, &state.after_other_code());
            }
            FlowControl::IndirectBranch => {
                self.other_code(instruction, &state)?;
                if let Leads::To(targets) = &*self.jumps.leads(instruction)? {
                    for target in targets {
                        self.come_to(*target, &state);
                    }
                }
            }
            FlowControl::Exception => {}
            FlowControl::Interrupt | FlowControl::XbeginXabortXend => return None,
        }
        Some(())
    }

    /// A jump, perhaps to another function.
    fn leave_to(&mut self, target: Va, state: &State) -> Option<()> {
        if self.side.image.function_index_at(target).is_some() {
            self.come_to(target, state);
            return Some(());
        }
        (!state.handed().meets(arguments())).then_some(())
    }

    /// Code that is not followed gets none of the addresses, and is not found by one.
    fn other_code(&self, instruction: &Instruction, state: &State) -> Option<()> {
        let mut held = state.addresses.and(state.values);
        if instruction.is_ip_rel_memory_operand() {
            // Through a slot, which relocations fill.
            let slot = Va::new(instruction.ip_rel_memory_address());
            if self.stretch.range.contains(slot) {
                return None;
            }
            held = Registers::NONE;
        }
        let by_register = instruction.op0_kind() == OpKind::Register && held.has(instruction.op0_register());
        let by_memory = instruction.op0_kind() == OpKind::Memory
            && (held.has(instruction.memory_base()) || held.has(instruction.memory_index()));
        let from_frame = instruction.op0_kind() == OpKind::Memory
            && !state.kept_values.is_empty()
            && matches!(instruction.memory_base().full_register(), Register::RSP | Register::RBP);
        // By a pointer, there may be other conventions.
        let by_name = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::UnconditionalBranch)
            || instruction.is_ip_rel_memory_operand();
        let handed = if by_name { arguments() } else { Registers::all().without(preserved()) };
        let handed = state.handed().meets(handed);
        (!by_register && !by_memory && !from_frame && !handed).then_some(())
    }

    /// What is held at a return goes on where a caller reads it. `None` where it may be the
    /// result, and not all callers are known.
    fn go_on_in_callers(&mut self) -> Option<()> {
        let returned = self.returned.clone();
        for (function, held) in returned.into_iter().filter(|(_, held)| !held.is_empty()) {
            let returning = self.entries.jumping_into(self.side, function);
            let unknown = returning.iter().any(|function| self.entries.of(*function).is_none_or(|of| of.unseen));
            if unknown && held.meets(results().and(preserved()).and(vectors())) {
                return None;
            }
            let entries = returning.iter().filter_map(|function| self.entries.of(*function));
            let mut calls: Vec<Call> = entries.flat_map(|of| of.calls.iter().copied()).collect();
            calls.extend(returning.iter().flat_map(|function| calls_within(self.side, *function)));
            for call in calls {
                let left = held.only(self.written.by(call.target));
                if left.meets(preserved()) || self.later.is_read(call.after, left) {
                    let fresh = left.only(results());
                    self.come_to(call.after, &State { addresses: left, fresh, ..State::default() });
                }
            }
        }
        Some(())
    }
}
