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
mod vector;

use crate::summary::decode;
pub use form::{Form, Origin, Terms};
use iced_x86::Instruction;
use salve_elf::{Image, SectionRole, Va, VaRange};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Where a value that is compared comes from, for those that are joined: what each way brings.
    pub joined: BTreeMap<Origin, Vec<Form>>,
    /// Not everything was tracked: the function is too large.
    pub too_large: bool,
}

impl Forms {
    /// Addresses in the image from which a value that is compared was reached by steps or by
    /// indices, if it comes from nowhere else on any way.
    pub fn reached_from(&self, value: &Form) -> Option<BTreeSet<Va>> {
        let (mut from, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut queue = vec![value];
        while let Some(form) = queue.pop() {
            // What is multiplied is no address.
            let mut whole = form.terms.iter().filter(|(_, factor)| !(2..).contains(factor));
            let (Some((origin, 1)), None) = (whole.next(), whole.next()) else { return None };
            match origin {
                Origin::Static(va) => drop(from.insert(Va::new(*va))),
                Origin::Joined(..) | Origin::JoinedSlot(..) if seen.insert(*origin) => {
                    queue.extend(self.joined.get(origin)?);
                }
                Origin::Joined(..) | Origin::JoinedSlot(..) => {}
                Origin::Entry(_) | Origin::Made(..) | Origin::Returned(_) => return None,
            }
        }
        Some(from)
    }
}

/// Sixteen bytes of a constant of the image, by their address.
type Constants<'c> = &'c dyn Fn(Va) -> Option<[u8; 16]>;

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
    let constants = |at: Va| {
        let section = image.section_at(at).filter(|section| section.role == SectionRole::ReadOnlyData)?;
        section.tail(at)?.first_chunk().copied()
    };
    Tracker::new(&code, range, &constants).run()
}

#[cfg(test)]
mod tests {
    use super::{Forms, Origin, Tracker, argument};
    use iced_x86::{Decoder, DecoderOptions};
    use salve_elf::{Va, VaRange};

    fn forms(bytes: &[u8]) -> Forms {
        let code: Vec<_> = Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).into_iter().collect();
        let len = u64::try_from(bytes.len()).unwrap_or(0);
        VaRange::new(Va::new(0x1000), len).map(|range| Tracker::new(&code, range, &|_| None).run()).unwrap_or_default()
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
    fn two_values_that_are_stored_at_once_are_told_apart() {
        // movq %rsi,%xmm0; movq %rdx,%xmm1; punpcklqdq %xmm1,%xmm0; movups %xmm0,8(%rdi); ret
        let pair = forms(&[
            0x66, 0x48, 0x0f, 0x6e, 0xc6, 0x66, 0x48, 0x0f, 0x6e, 0xca, 0x66, 0x0f, 0x6c, 0xc1, 0x0f, 0x11, 0x47, 0x08,
            0xc3,
        ]);
        // mov %rsi,8(%rdi); mov %rdx,16(%rdi); ret
        let apart = forms(&[0x48, 0x89, 0x77, 0x08, 0x48, 0x89, 0x57, 0x10, 0xc3]);
        let stores = |forms: &Forms| -> Vec<_> {
            forms.accesses.iter().map(|a| (a.address.clone(), a.len_bytes, a.stored.clone())).collect()
        };
        assert_eq!(stores(&pair).len(), 2);
        assert_eq!(stores(&pair), stores(&apart));
        // movq %rsi,%xmm0; call *%rdx; movups %xmm0,8(%rdi); ret
        let lost = forms(&[0x66, 0x48, 0x0f, 0x6e, 0xc6, 0xff, 0xd2, 0x0f, 0x11, 0x47, 0x08, 0xc3]);
        let lost: Vec<_> = stores(&lost).into_iter().map(|(_, len_bytes, stored)| (len_bytes, stored)).collect();
        assert_eq!(lost, [(16, None)]);
    }

    #[test]
    fn what_a_value_is_reached_from_is_known_where_every_way_says_so() {
        // mov $0x2000 as an address: lea 0xff9(%rip),%rax; lea 0x1012(%rip),%rcx; add $8,%rax; cmp %rcx,%rax; jne; ret
        let walk = [
            0x48, 0x8d, 0x05, 0xf9, 0x0f, 0x00, 0x00, 0x48, 0x8d, 0x0d, 0x12, 0x10, 0x00, 0x00, 0x48, 0x83, 0xc0, 0x08,
            0x48, 0x39, 0xc8, 0x75, 0xf7, 0xc3,
        ];
        let from = |bytes: &[u8]| {
            let forms = forms(bytes);
            let comparison = forms.comparisons.first().cloned();
            comparison.and_then(|c| forms.reached_from(&c.left)).map(|from| from.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(from(&walk), Some(vec![Va::new(0x2000)]));
        // The same where it begins with what an argument is: mov %rdi,%rax in place of the first lea.
        let mut kept = vec![0x48, 0x89, 0xf8, 0x90, 0x90, 0x90, 0x90];
        kept.extend_from_slice(walk.get(7..).unwrap_or_default());
        assert_eq!(from(&kept), None);
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
