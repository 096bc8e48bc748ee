//! What is kept in the frame of one function.

use iced_x86::{Instruction, Mnemonic, OpKind, Register, UsedMemory};
use std::collections::BTreeSet;

/// Where in the frame an instruction stores or loads.
pub(super) enum Place {
    /// These words of eight bytes, counted from the stack pointer.
    Words(core::ops::RangeInclusive<i64>),
    /// Anywhere in it.
    Somewhere,
}

impl Place {
    /// `None` for memory that is not in the frame, as far as its base says.
    pub(super) fn of(memory: &UsedMemory, is_table: impl Fn(Register) -> bool) -> Option<Self> {
        let (base, index) = (memory.base().full_register(), memory.index().full_register());
        let is_stack = |register: Register| register == Register::RSP;
        let is_frame = |register: Register| register == Register::RBP && !is_table(register);
        if ![base, index].into_iter().any(|register| is_stack(register) || is_frame(register)) {
            return None;
        }
        let moves = index != Register::None || !is_stack(base);
        let len_bytes = i64::try_from(memory.memory_size().size()).ok().filter(|len| !moves && *len > 0);
        let from = memory.displacement().cast_signed();
        let last = len_bytes.and_then(|len| from.checked_add(len)?.checked_sub(1));
        Some(match last {
            Some(last) => Self::Words(from.div_euclid(8)..=last.div_euclid(8)),
            None => Self::Somewhere,
        })
    }
}

/// Of more than so many words none is told from the others.
const MOST_WORDS: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    words: BTreeSet<i64>,
    /// In words that are not known.
    somewhere: bool,
}

impl Frame {
    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty() && !self.somewhere
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        let mut both = Self { words: &self.words | &other.words, somewhere: self.somewhere || other.somewhere };
        if both.words.len() > MOST_WORDS || both.somewhere {
            both.forget();
        }
        both
    }

    pub(super) fn loads(&self, place: &Place) -> bool {
        self.somewhere
            || match place {
                Place::Words(words) => self.words.range(words.clone()).next().is_some(),
                Place::Somewhere => !self.words.is_empty(),
            }
    }

    /// Where a return takes its address from.
    pub(super) fn is_on_top(&self) -> bool {
        self.words.contains(&0)
    }

    /// Only what holds it is added: part of a word may stay as it was.
    pub(super) fn store(&mut self, place: &Place) {
        match place {
            Place::Words(words) => self.words.extend(words.clone()),
            Place::Somewhere => self.somewhere = true,
        }
    }

    /// The instruction has written to the stack pointer.
    pub(super) fn moved(&mut self, instruction: &Instruction) {
        let words = moved_by(instruction).filter(|bytes| bytes.rem_euclid(8) == 0).map(|bytes| bytes.div_euclid(8));
        let words = words.and_then(|by| self.words.iter().map(|word| word.checked_sub(by)).collect());
        match words {
            Some(words) => self.words = words,
            // Nobody knows their numbers any more.
            None => self.forget(),
        }
    }

    fn forget(&mut self) {
        self.somewhere |= !self.words.is_empty();
        self.words.clear();
    }
}

/// How many bytes the stack pointer is higher behind it.
fn moved_by(instruction: &Instruction) -> Option<i64> {
    let by_immediate = || {
        let is_immediate = matches!(instruction.op1_kind(), OpKind::Immediate8to64 | OpKind::Immediate32to64);
        is_immediate.then(|| instruction.immediate(1).cast_signed())
    };
    match instruction.mnemonic() {
        Mnemonic::Push | Mnemonic::Pop | Mnemonic::Pushfq | Mnemonic::Popfq => {
            Some(i64::from(instruction.stack_pointer_increment()))
        }
        Mnemonic::Add => by_immediate(),
        Mnemonic::Sub => by_immediate()?.checked_neg(),
        Mnemonic::Lea => {
            let plain = instruction.memory_base() == Register::RSP && instruction.memory_index() == Register::None;
            plain.then(|| instruction.memory_displacement64().cast_signed())
        }
        _ => None,
    }
}
