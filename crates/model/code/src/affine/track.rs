//! Forward data flow over the basic blocks of a function.

use super::form::{Form, Id, Origin, Store};
use super::note::note;
use super::state::{Slots, State, written};
use super::vector::Vectors;
use super::{Constants, Forms};
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory};
use salve_elf::VaRange;
use std::collections::{BTreeMap, BTreeSet};

/// Values that are copied and compared before a function counts as too large: some
/// tenths of a second of it.
const MOST_WORK: u64 = 2_000_000;

/// In place of a block: whoever calls the function. It comes after all blocks.
const CALLER: usize = usize::MAX;

/// A basic block, and what is known where it begins.
#[derive(Default)]
struct Block {
    start: u64,
    /// Index of its first instruction.
    first: usize,
    entry: Option<State>,
    /// The states in which the blocks before it are left, by block.
    incoming: BTreeMap<usize, State>,
    /// Registers, one bit each, and slots in which ways into it disagreed.
    joined: u16,
    joined_slots: BTreeSet<i64>,
}

/// Where a block is left to.
enum Exit {
    Nowhere,
    To(u64),
    Either(u64, u64),
    /// A jump through a register or a table.
    Unreferred,
}

pub(super) struct Tracker<'c> {
    code: &'c [Instruction],
    /// For each instruction, the registers that it may write.
    written: Vec<u16>,
    range: VaRange,
    constants: Constants<'c>,
    /// By address.
    blocks: Vec<Block>,
    /// Starts of blocks that only jumps through a register may lead to.
    unreferred: Vec<u64>,
    store: Store,
    steps: BTreeSet<(Origin, i64)>,
    /// Values that were copied and compared, for [`MOST_WORK`].
    work: u64,
}

impl<'c> Tracker<'c> {
    pub(super) fn new(code: &'c [Instruction], range: VaRange, constants: Constants<'c>) -> Self {
        let (leaders, unreferred) = leaders(code, range);
        let mut factory = InstructionInfoFactory::new();
        Self {
            code,
            written: code.iter().map(|instruction| written(instruction, &mut factory)).collect(),
            range,
            constants,
            blocks: leaders.into_iter().map(|(start, first)| Block { start, first, ..Block::default() }).collect(),
            unreferred,
            store: Store::default(),
            steps: BTreeSet::new(),
            work: 0,
        }
    }

    pub(super) fn run(mut self) -> Forms {
        let start = self.range.start().raw();
        let registers = core::array::from_fn(|n| self.store.unknown(Origin::Entry(u8::try_from(n).unwrap_or(u8::MAX))));
        // The caller is a way in as well.
        self.arrive(CALLER, start, &State { registers, slots: Slots::default(), vectors: Vectors::default() });
        let mut queue = BTreeSet::from([self.block_at(start).unwrap_or_default()]);
        let mut budget = self.blocks.len().saturating_mul(24).saturating_add(64);
        // In sweeps by address: what jumps back is joined once a sweep, not once a jump.
        let mut sweep = 0_usize;
        while let Some(block) = queue.range(sweep..).next().or(queue.first()).copied() {
            queue.remove(&block);
            sweep = block.saturating_add(1);
            let Some(mut state) = self.join(block) else { continue };
            budget = budget.saturating_sub(1);
            if budget == 0 || self.work > MOST_WORK {
                return Forms { too_large: true, ..Forms::default() };
            }
            let exit = self.through(block, &mut state, None);
            self.leave(block, &exit, &state, &mut queue);
        }
        self.found()
    }

    /// What is seen with the states that were arrived at.
    fn found(mut self) -> Forms {
        let mut found = Forms::default();
        for block in 0..self.blocks.len() {
            let state = self.blocks.get_mut(block).and_then(|block| block.entry.take());
            if let Some(mut state) = state {
                self.through(block, &mut state, Some(&mut found));
            }
        }
        let based: BTreeSet<Origin> = found
            .accesses
            .iter()
            .flat_map(|a| a.address.terms.iter().filter(|(_, f)| *f == 1).map(|(o, _)| *o))
            .collect();
        found.joined = self.joined(&found);
        found.steps = self.steps.iter().filter(|(origin, _)| based.contains(origin)).map(|(_, by)| *by).collect();
        found
    }

    /// What each way brings for the values that are compared, and for those that these come from.
    fn joined(&self, found: &Forms) -> BTreeMap<Origin, Vec<Form>> {
        let mut joined = BTreeMap::new();
        let compared = found.comparisons.iter().flat_map(|comparison| [&comparison.left, &comparison.right]);
        let mut queue: Vec<Origin> = compared.flat_map(|form| form.terms.iter().map(|(origin, _)| *origin)).collect();
        while let Some(origin) = queue.pop() {
            let (Origin::Joined(start, _) | Origin::JoinedSlot(start, _)) = origin else { continue };
            let Some(block) = self.block_at(start).and_then(|index| self.blocks.get(index)) else { continue };
            joined.entry(origin).or_insert_with(|| {
                let brought = |way: &State| match origin {
                    Origin::JoinedSlot(_, at) => way.slots.get(at),
                    Origin::Joined(_, n) => way.registers.get(usize::from(n)).copied(),
                    Origin::Entry(_) | Origin::Made(..) | Origin::Returned(_) | Origin::Static(_) => None,
                };
                let ids: BTreeSet<Id> = block.incoming.values().filter_map(brought).collect();
                let forms: Vec<Form> = ids.into_iter().map(|id| self.store.form(id).clone()).collect();
                queue.extend(forms.iter().flat_map(|form| form.terms.iter().map(|(origin, _)| *origin)));
                forms
            });
        }
        joined
    }

    fn block_at(&self, start: u64) -> Option<usize> {
        self.blocks.binary_search_by_key(&start, |block| block.start).ok()
    }

    /// Follows one block to its end, with what is known there.
    fn through(&mut self, block: usize, state: &mut State, mut found: Option<&mut Forms>) -> Exit {
        let Some(first) = self.blocks.get(block).map(|block| block.first) else { return Exit::Nowhere };
        let next = self.blocks.get(block.saturating_add(1));
        let end = next.map_or(self.code.len(), |next| next.first);
        let code = self.code.get(first..end).unwrap_or_default();
        let next = next.map(|next| next.start);
        let mut factory = InstructionInfoFactory::new();
        for (instruction, written) in code.iter().zip(self.written.get(first..end).unwrap_or_default()) {
            if let Some(found) = found.as_deref_mut() {
                note(state, &mut self.store, instruction, self.range, &mut factory, found);
            }
            state.apply(&mut self.store, instruction, *written);
            state.apply_to_vectors(&mut self.store, instruction, self.constants, &mut factory);
            match instruction.flow_control() {
                FlowControl::ConditionalBranch => {
                    return Exit::Either(instruction.near_branch64(), instruction.next_ip());
                }
                FlowControl::UnconditionalBranch => return Exit::To(instruction.near_branch64()),
                FlowControl::IndirectBranch => return Exit::Unreferred,
                FlowControl::Return | FlowControl::Exception | FlowControl::Interrupt => return Exit::Nowhere,
                _ => {}
            }
        }
        next.map_or(Exit::Nowhere, Exit::To)
    }

    /// Brings the state to wherever the block is left to, and queues what changed.
    fn leave(&mut self, block: usize, exit: &Exit, state: &State, queue: &mut BTreeSet<usize>) {
        let mut to = |tracker: &mut Self, to| {
            if let Some(changed) = tracker.arrive(block, to, state) {
                queue.insert(changed);
            }
        };
        match exit {
            Exit::Nowhere => {}
            Exit::To(next) => to(self, *next),
            Exit::Either(one, other) => {
                to(self, *one);
                to(self, *other);
            }
            Exit::Unreferred => {
                let all = core::mem::take(&mut self.unreferred);
                for next in &all {
                    to(self, *next);
                }
                self.unreferred = all;
            }
        }
    }

    /// Brings the state in which `from` is left to the start of a block; which one, if
    /// the state is another than before.
    fn arrive(&mut self, from: usize, start: u64, state: &State) -> Option<usize> {
        let index = self.block_at(start)?;
        let block = self.blocks.get_mut(index)?;
        self.work = self.work.saturating_add(state.size());
        if block.incoming.get(&from) == Some(state) {
            return None;
        }
        for (n, id) in (0_u8..).zip(state.registers) {
            note_step(&mut self.steps, Origin::Joined(start, n), self.store.form(id));
        }
        for (at, id) in state.slots.iter() {
            note_step(&mut self.steps, Origin::JoinedSlot(start, at), self.store.form(id));
        }
        block.incoming.insert(from, state.clone());
        Some(index)
    }

    /// Joins all ways into a block; what is known there, if that is new.
    fn join(&mut self, block: usize) -> Option<State> {
        let block = self.blocks.get_mut(block)?;
        let mut ways = block.incoming.values();
        let mut merged = ways.next()?.clone();
        for way in ways {
            self.work = self.work.saturating_add(merged.size());
            for (n, (ours, theirs)) in (0_u32..).zip(merged.registers.iter().zip(&way.registers)) {
                if ours != theirs {
                    block.joined |= 1_u16.wrapping_shl(n);
                }
            }
            let mut theirs = way.slots.iter().peekable();
            let (slots, joined) = (&mut merged.slots, &mut block.joined_slots);
            slots.retain(|at, form| {
                while theirs.next_if(|(other, _)| *other < at).is_some() {}
                let other = theirs.next_if(|(other, _)| *other == at);
                if other.is_some_and(|(_, other)| other != form) {
                    joined.insert(at);
                }
                other.is_some()
            });
            merged.vectors.keep_common(&way.vectors);
        }
        // Once ways disagreed the value stays an unknown of its own, so that this ends.
        for (n, slot) in (0_u8..).zip(merged.registers.iter_mut()) {
            if block.joined & 1_u16.wrapping_shl(u32::from(n)) != 0 {
                *slot = self.store.unknown(Origin::Joined(block.start, n));
            }
        }
        for (at, slot) in merged.slots.iter_mut() {
            if block.joined_slots.contains(at) {
                *slot = self.store.unknown(Origin::JoinedSlot(block.start, *at));
            }
        }
        if block.entry.as_ref() == Some(&merged) {
            return None;
        }
        block.entry = Some(merged.clone());
        Some(merged)
    }
}

fn note_step(steps: &mut BTreeSet<(Origin, i64)>, origin: Origin, form: &Form) {
    if form.constant != 0 && form.terms.as_slice() == [(origin, 1)] {
        steps.insert((origin, form.constant));
    }
}

/// Where blocks begin, with the index of the instruction there, and which of them
/// only jumps through a register may lead to.
fn leaders(code: &[Instruction], range: VaRange) -> (BTreeMap<u64, usize>, Vec<u64>) {
    let index = |at: u64| code.binary_search_by_key(&at, Instruction::ip).ok();
    let mut leaders = BTreeMap::from([(range.start().raw(), 0)]);
    let mut referred = BTreeSet::from([range.start().raw()]);
    for instruction in code {
        let next = instruction.next_ip();
        match instruction.flow_control() {
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                for to in [instruction.near_branch64(), next] {
                    if let Some(i) = index(to) {
                        leaders.insert(to, i);
                    }
                }
                referred.insert(instruction.near_branch64());
                if instruction.flow_control() == FlowControl::ConditionalBranch {
                    referred.insert(next);
                }
            }
            FlowControl::Return | FlowControl::IndirectBranch => {
                if let Some(i) = index(next) {
                    leaders.insert(next, i);
                }
            }
            _ => {}
        }
    }
    // What follows is reached from what precedes it unless that ends.
    for (ip, i) in &leaders {
        let before = i.checked_sub(1).and_then(|i| code.get(i));
        let falls = before.is_some_and(|b| {
            !matches!(
                b.flow_control(),
                FlowControl::UnconditionalBranch | FlowControl::Return | FlowControl::IndirectBranch
            )
        });
        if falls {
            referred.insert(*ip);
        }
    }
    let unreferred = leaders.keys().copied().filter(|ip| !referred.contains(ip)).collect();
    (leaders, unreferred)
}
