//! Where in the frame of one function values are kept that were read from the stretch.

use crate::flow::{StackChange, stack_change};
use iced_x86::{Instruction, Register, UsedMemory};
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

    /// Whether joining the other would change nothing.
    pub(super) fn has_all_of(&self, other: &Self) -> bool {
        // What is somewhere has no numbers, see `forget`.
        let words = self.somewhere || other.words.is_subset(&self.words);
        words && (self.somewhere || !other.somewhere)
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
        let down = match stack_change(instruction) {
            StackChange::By(bytes) if bytes.rem_euclid(8) == 0 => Some(bytes.div_euclid(8)),
            StackChange::By(_) | StackChange::None | StackChange::Leaves | StackChange::Unknown => None,
        };
        match down.and_then(|down| self.words.iter().map(|word| word.checked_add(down)).collect()) {
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
