//! What a function calculates addresses and arguments from.
//!
//! Every register and frame slot is tracked as a *form*: a sum of multiples of
//! unknown values and a constant. `lea (rax,rax,4)`, `shl 3` and an addition come
//! to `base + 40 × index` however the compiler spelled it, so forms of two
//! versions can be compared where their instructions cannot. Method: forward data
//! flow over basic blocks; where paths bring different forms together the value
//! is a new unknown. Values through memory other than the frame are unknown, and
//! stores through pointers are taken not to reach the frame: forms are signs of a
//! change, never proofs that there is none.

mod form;
mod note;
mod state;
mod track;

use crate::summary::decode;
pub use form::{Form, Origin, Terms};
use iced_x86::Instruction;
use salve_elf::{Image, Va, VaRange};
use std::collections::BTreeSet;
use track::Tracker;

/// An operand in memory outside the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub at: Va,
    pub address: Form,
    pub len_bytes: usize,
    pub writes: bool,
    /// What a plain move stores there.
    pub stored: Option<Form>,
    /// Moved, added or compared as one integer.
    pub is_integer: bool,
    /// Calculated with as a floating-point number.
    pub is_float: bool,
}

/// A call, or a jump out of the function, and what the integer argument registers
/// hold (psABI §3.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub at: Va,
    pub arguments: [Form; 6],
}

/// Two values that are compared whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    pub at: Va,
    pub left: Form,
    pub right: Form,
}

/// A value of any width that is compared with a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    pub at: Va,
    pub value: Form,
    /// As wide as the comparison, zero-extended.
    pub with: u64,
    pub len_bytes: usize,
}

/// A value of a register that is shifted, masked or turned round by an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worked {
    pub at: Va,
    pub value: Form,
}

/// What became known about one function.
#[derive(Clone, Debug, Default)]
pub struct Forms {
    pub comparisons: Vec<Comparison>,
    pub tested: Vec<Tested>,
    pub worked: Vec<Worked>,
    pub accesses: Vec<Access>,
    pub calls: Vec<Call>,
    /// By how much pointers move from one turn of a loop to the next.
    pub steps: BTreeSet<i64>,
    /// Not everything was tracked: the function is too large.
    pub too_large: bool,
}

/// In place of a register: what was loaded from memory.
const LOADED: u8 = 255;
const RSP: u8 = 4;
const ARGUMENTS: [u8; 6] = [7, 6, 2, 1, 8, 9];

/// What the n-th integer argument was when the function began.
pub fn argument(n: usize) -> Origin {
    Origin::Entry(ARGUMENTS.get(n).copied().unwrap_or(LOADED))
}

/// Tracks the function in `range`.
pub fn forms(image: &Image<'_>, range: VaRange) -> Forms {
    const MOST_INSTRUCTIONS: usize = 30_000;
    let code: Vec<Instruction> = decode(image, range).into_iter().flatten().collect();
    if code.len() > MOST_INSTRUCTIONS {
        return Forms { too_large: true, ..Forms::default() };
    }
    Tracker::new(&code, range).run()
}

#[cfg(test)]
mod tests {
    use super::{Forms, Origin, Tracker, argument};
    use iced_x86::{Decoder, DecoderOptions};
    use salve_elf::{Va, VaRange};

    fn forms(bytes: &[u8]) -> Forms {
        let code: Vec<_> = Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).into_iter().collect();
        let len = u64::try_from(bytes.len()).unwrap_or(0);
        VaRange::new(Va::new(0x1000), len).map(|range| Tracker::new(&code, range).run()).unwrap_or_default()
    }

    #[test]
    fn a_multiplication_is_the_same_however_it_is_spelled() {
        // lea (%rsi,%rsi,4),%rax; shl $3,%rax; mov 8(%rdi,%rax),%rax; ret
        let shifted = forms(&[0x48, 0x8d, 0x04, 0xb6, 0x48, 0xc1, 0xe0, 0x03, 0x48, 0x8b, 0x44, 0x07, 0x08, 0xc3]);
        // imul $40,%rsi,%rax; mov 8(%rdi,%rax),%rax; ret
        let multiplied = forms(&[0x48, 0x6b, 0xc6, 0x28, 0x48, 0x8b, 0x44, 0x07, 0x08, 0xc3]);
        let address = |forms: &Forms| forms.accesses.first().map(|a| a.address.clone());
        assert_eq!(address(&shifted), address(&multiplied));
        let address = address(&shifted).unwrap_or_default();
        assert!(address.terms.contains(&(argument(1), 40)), "{address:?}");
        assert_eq!(address.constant, 8);
    }

    #[test]
    fn a_value_goes_through_the_frame_and_a_pointer_steps_through_a_loop() {
        // push %rbp; mov %rsp,%rbp; mov %rdi,-8(%rbp); mov -8(%rbp),%rax; mov (%rax),%eax; pop %rbp; ret
        let framed =
            forms(&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0x7d, 0xf8, 0x48, 0x8b, 0x45, 0xf8, 0x8b, 0x00, 0x5d, 0xc3]);
        assert_eq!(framed.accesses.len(), 1, "{framed:?}");
        assert!(framed.accesses.iter().all(|a| a.address.terms.as_slice() == [(argument(0), 1)]), "{framed:?}");
        // 1: cmpl $0,(%rdi); je 2f; add $40,%rdi; jmp 1b; 2: ret
        let looping = forms(&[0x83, 0x3f, 0x00, 0x74, 0x06, 0x48, 0x83, 0xc7, 0x28, 0xeb, 0xf5, 0xc3]);
        assert_eq!(looping.steps.iter().copied().collect::<Vec<_>>(), [40], "{looping:?}");
        let joined = |a: &super::Access| matches!(a.address.terms.as_slice(), [(Origin::Joined(..), 1)]);
        assert!(looping.accesses.iter().any(joined), "{looping:?}");
    }
}
