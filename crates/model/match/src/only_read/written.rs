//! Which registers a callee may write to.

use super::jumps::{Jumps, Leads};
use super::state::{Registers, preserved};
use foldhash::HashMap;
use iced_x86::{Code, FlowControl, InstructionInfoFactory, OpAccess};
use salve_code::decode_at;
use salve_elf::Va;
use std::collections::BTreeSet;

const MOST_STEPS: u32 = 20_000;

pub(super) struct Written<'s, 'i, 'a> {
    jumps: &'s Jumps<'s, 'i, 'a>,
    known: HashMap<Va, Registers>,
}

impl<'s, 'i, 'a> Written<'s, 'i, 'a> {
    pub(super) fn new(jumps: &'s Jumps<'s, 'i, 'a>) -> Self {
        Self { jumps, known: HashMap::default() }
    }

    /// Those that code from `entry` on writes to, callees of its own included; all, where that
    /// is not known.
    pub(super) fn by(&mut self, entry: Va) -> Registers {
        if let Some(known) = self.known.get(&entry) {
            return *known;
        }
        let written = written(self.jumps, entry).unwrap_or_else(Registers::all);
        self.known.insert(entry, written);
        written
    }
}

fn written(jumps: &Jumps<'_, '_, '_>, entry: Va) -> Option<Registers> {
    let side = jumps.side;
    let mut factory = InstructionInfoFactory::new();
    let mut written = Registers::NONE;
    let mut seen = BTreeSet::new();
    let mut open = vec![entry];
    while let Some(at) = open.pop() {
        if !seen.insert(at) {
            continue;
        }
        jumps.spend(1)?;
        if seen.len() > usize::try_from(MOST_STEPS).ok()? {
            return None;
        }
        let instruction = decode_at(side.image, at).filter(|instruction| instruction.code() != Code::INVALID)?;
        for used in factory.info(&instruction).used_registers() {
            if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None) {
                written.set(used.register(), true);
            }
        }
        let next = Va::new(instruction.next_ip());
        let there = Va::new(instruction.near_branch64());
        let is_own = side.image.function_index_at(there).is_some();
        match instruction.flow_control() {
            FlowControl::Next => open.push(next),
            FlowControl::ConditionalBranch => open.extend([next, there]),
            FlowControl::UnconditionalBranch if is_own => open.push(there),
            FlowControl::Call if is_own => open.extend([next, there]),
            FlowControl::Call | FlowControl::IndirectCall => {
                written = written.and(Registers::all().without(preserved()));
                open.push(next);
            }
            FlowControl::UnconditionalBranch => written = written.and(Registers::all().without(preserved())),
            FlowControl::Return | FlowControl::Exception => {}
            FlowControl::IndirectBranch => match &*jumps.leads(&instruction)? {
                Leads::ByPointer => written = written.and(Registers::all().without(preserved())),
                Leads::To(targets) => open.extend(targets.iter().copied()),
            },
            FlowControl::Interrupt | FlowControl::XbeginXabortXend => return None,
        }
    }
    Some(written)
}
