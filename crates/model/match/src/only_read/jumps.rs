//! Where jumps lead whose instruction does not say it.

use crate::side::Side;
use foldhash::HashMap;
use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use salve_code::decode;
use salve_elf::{Binding, SectionRole, Va, VaRange};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

/// How far before its jump a switch names its table.
const FURTHEST_INSTRUCTIONS: usize = 24;
/// Most instructions that are looked at for all stretches of one image.
const MOST_STEPS: u32 = 3_000_000;

pub(super) enum Leads {
    /// To another function, by its address.
    ByPointer,
    /// Into the function, by a table of distances.
    To(Vec<Va>),
}

/// The jumps of one image, each looked at once, and how much may be looked at in all.
pub(super) struct Jumps<'s, 'i, 'a> {
    pub(super) side: &'s Side<'i, 'a>,
    known: RefCell<HashMap<Va, Option<Rc<Leads>>>>,
    /// Functions of which a relocation has a place inside.
    labelled: BTreeSet<usize>,
    steps_left: Cell<u32>,
}

impl<'s, 'i, 'a> Jumps<'s, 'i, 'a> {
    pub(super) fn new(side: &'s Side<'i, 'a>) -> Self {
        let targets = side.image.relocs().iter().filter_map(|reloc| match reloc.binding {
            Binding::Relative { target } => Some(target),
            _named => None,
        });
        let labelled = targets.filter_map(|target| {
            let index = side.image.function_index_at(target)?;
            (side.image.functions().get(index)?.range.start() != target).then_some(index)
        });
        let labelled = labelled.collect();
        Self { side, known: RefCell::default(), labelled, steps_left: Cell::new(MOST_STEPS) }
    }

    /// `None` when all that may be looked at has been.
    pub(super) fn spend(&self, steps: usize) -> Option<()> {
        let left = self.steps_left.get().checked_sub(u32::try_from(steps).ok()?)?;
        self.steps_left.set(left);
        Some(())
    }

    /// `None` where that is not known.
    pub(super) fn leads(&self, jump: &Instruction) -> Option<Rc<Leads>> {
        let at = Va::new(jump.ip());
        if let Some(known) = self.known.borrow().get(&at) {
            return known.clone();
        }
        let leads = self.look(jump).map(Rc::new);
        self.known.borrow_mut().insert(at, leads.clone());
        leads
    }

    fn look(&self, jump: &Instruction) -> Option<Leads> {
        let side = self.side;
        if jump.is_ip_rel_memory_operand() {
            return Some(Leads::ByPointer);
        }
        let function = side.image.function_index_at(Va::new(jump.ip()))?;
        // A pointer in memory may lead to a place inside.
        let by_pointer = || (!self.labelled.contains(&function)).then_some(Leads::ByPointer);
        if jump.op0_kind() == OpKind::Memory {
            return by_pointer().filter(|_| jump.memory_index() == Register::None);
        }
        let range = side.image.functions().get(function)?.range;
        let before: Vec<Instruction> =
            decode(side.image, range)?.into_iter().take_while(|instruction| instruction.ip() < jump.ip()).collect();
        self.spend(before.len())?;
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
            Code::Mov_r64_rm64 if from_memory => by_pointer(),
            // The frame is gone.
            Code::Mov_r64_rm64 if before.last().is_some_and(is_of_an_epilogue) => by_pointer(),
            Code::Lea_r64_m if by.is_ip_rel_memory_operand() => {
                let target = Va::new(by.ip_rel_memory_address());
                let index = side.image.function_index_at(target)?;
                let entry = side.image.functions().get(index)?.range.start() == target;
                (entry && index != function).then_some(Leads::ByPointer)
            }
            Code::Add_r64_rm64 | Code::Add_rm64_r64 => {
                let near = before.iter().rev().take(FURTHEST_INSTRUCTIONS);
                let mut tables = near.filter_map(|instruction| targets(side, instruction));
                // Of two, nobody knows which one it goes by.
                let table = tables.next()?;
                tables.next().is_none().then_some(Leads::To(table))
            }
            _ => None,
        }
    }
}

/// Gives back a register of the caller's, or the frame.
fn is_of_an_epilogue(instruction: &Instruction) -> bool {
    let frees = instruction.mnemonic() == Mnemonic::Add && instruction.op0_register() == Register::RSP;
    frees || matches!(instruction.mnemonic(), Mnemonic::Pop | Mnemonic::Leave)
}

/// What the table leads to whose address this instruction takes.
fn targets(side: &Side<'_, '_>, instruction: &Instruction) -> Option<Vec<Va>> {
    if instruction.mnemonic() != Mnemonic::Lea || !instruction.is_ip_rel_memory_operand() {
        return None;
    }
    let table = Va::new(instruction.ip_rel_memory_address());
    side.image.section_at(table).filter(|section| section.role == SectionRole::ReadOnlyData)?;
    let len_bytes = side.next_anchor(table)?.raw().checked_sub(table.raw())?;
    let bytes = side.image.read(VaRange::new(table, len_bytes)?)?;
    let distances = bytes.chunks_exact(4).map_while(|word| word.first_chunk()).map(|word| i32::from_le_bytes(*word));
    let led = distances.map(|distance| table.wrapping_offset(i64::from(distance)));
    let led: Vec<Va> = led.take_while(|target| side.image.function_index_at(*target).is_some()).collect();
    (!led.is_empty()).then_some(led)
}
