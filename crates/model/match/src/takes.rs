//! Where functions whose code changed take the address of another function.
//!
//! Which new function has the role of an old one whose address is held somewhere is
//! shown by who hands it out: code that stays, a slot of corresponding data, or, here,
//! two versions of a changed function that take both addresses in the same place. "The
//! same place" is more than aligned instructions: all the straight code around them,
//! from the branch or call before to the one behind, is equal, and everything in it
//! leads to the same thing. So what else is handed over together with the function
//! (where it is registered, under which name, with which object) is the same too.

use crate::align::{AlignedPair, Difference, OperandChange, compare_operands};
use crate::content::text_at;
use crate::side::{Place, Side};
use crate::verify::{Learnt, Verifier};
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind};
use salve_elf::{Binding, SectionRole, Va, VaRange};
use std::collections::HashSet;

/// Two aligned instructions that take the addresses of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taking {
    /// The two versions that take them; indices into `functions()`.
    pub taker: (usize, usize),
    pub old_at: Va,
    pub new_at: Va,
    /// The functions whose addresses are taken.
    pub taken: (usize, usize),
    /// The straight code around both is equal.
    pub surrounded: bool,
}

/// Whether the function takes the address of any other one.
pub(crate) fn takes_any(side: &Side<'_, '_>, function: usize) -> bool {
    let references = side.code.get(function).into_iter().flat_map(|code| &code.references);
    references.into_iter().any(|r| {
        let value = matches!(r.kind, salve_code::ReferenceKind::Address | salve_code::ReferenceKind::Memory);
        value && entry(side, r.target).is_some()
    })
}

/// Every place where both versions take the address of a function.
pub(crate) fn takings(verifier: &Verifier<'_, '_, '_>, taker: (usize, usize), difference: &Difference) -> Vec<Taking> {
    let functions = (verifier.old.image.functions().get(taker.0), verifier.new.image.functions().get(taker.1));
    let (Some(f), Some(g)) = functions else { return Vec::new() };
    let (old, new) = (difference.aligned.iter().map(|p| &p.old), difference.aligned.iter().map(|p| &p.new));
    let begins = (begins(f.range, old.chain(&difference.only_old)), begins(g.range, new.chain(&difference.only_new)));
    let around = Surroundings { verifier, aligned: &difference.aligned, begins, ranges: (f.range, g.range) };
    let mut found = Vec::new();
    for (index, pair) in difference.aligned.iter().enumerate() {
        let Some(taken) = taken(verifier.old, &pair.old).zip(taken(verifier.new, &pair.new)) else { continue };
        found.push(Taking {
            taker,
            old_at: Va::new(pair.old.ip()),
            new_at: Va::new(pair.new.ip()),
            taken,
            surrounded: around.are_equal(index),
        });
    }
    found
}

/// The function whose address the instruction makes or loads.
fn taken(side: &Side<'_, '_>, instruction: &Instruction) -> Option<usize> {
    let value = matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Mov)
        && instruction.op0_kind() == OpKind::Register
        && instruction.is_ip_rel_memory_operand();
    value.then(|| entry(side, Va::new(instruction.ip_rel_memory_address()))).flatten()
}

/// The function that begins at this address, or whose address the slot there holds.
fn entry(side: &Side<'_, '_>, va: Va) -> Option<usize> {
    let place = match side.place(va) {
        Place::Slot(Binding::Relative { target }) => side.place(target),
        place => place,
    };
    match place {
        Place::Code { function, offset: 0 } => Some(function),
        _ => None,
    }
}

/// Where straight code begins: the start of the function, and what follows a branch or call.
fn begins<'c>(range: VaRange, code: impl Iterator<Item = &'c Instruction>) -> HashSet<u64> {
    let ends = code.filter(|i| i.flow_control() != FlowControl::Next).map(Instruction::next_ip);
    ends.chain([range.start().raw()]).collect()
}

struct Surroundings<'s, 'v, 'i, 'a> {
    verifier: &'s Verifier<'v, 'i, 'a>,
    aligned: &'s [AlignedPair],
    /// Where straight code begins, on either side.
    begins: (HashSet<u64>, HashSet<u64>),
    ranges: (VaRange, VaRange),
}

impl Surroundings<'_, '_, '_, '_> {
    fn are_equal(&self, index: usize) -> bool {
        self.backwards(index) && self.forwards(index)
    }

    /// To the branch or call before, or the start of the functions.
    fn backwards(&self, index: usize) -> bool {
        let mut at = index;
        loop {
            let Some(pair) = self.aligned.get(at) else { return false };
            match (self.begins.0.contains(&pair.old.ip()), self.begins.1.contains(&pair.new.ip())) {
                (true, true) => return true,
                (false, false) => {}
                _ => return false,
            }
            let before = at.checked_sub(1).and_then(|before| Some((before, self.aligned.get(before)?)));
            let Some((before, _)) = before.filter(|(_, previous)| follows(previous, pair) && self.equal(previous))
            else {
                return false;
            };
            at = before;
        }
    }

    /// Through the next branch or call.
    fn forwards(&self, index: usize) -> bool {
        let mut at = index;
        loop {
            let Some(pair) = self.aligned.get(at) else { return false };
            if at != index && !self.equal(pair) {
                return false;
            }
            if pair.old.flow_control() != FlowControl::Next {
                return true;
            }
            at = at.saturating_add(1);
            if self.aligned.get(at).is_none_or(|next| !follows(pair, next)) {
                return false;
            }
        }
    }

    /// The same instruction, leading to the same thing.
    fn equal(&self, pair: &AlignedPair) -> bool {
        if pair.old.code() != pair.new.code() || pair.old.len() != pair.new.len() {
            return false;
        }
        compare_operands(pair, self.ranges.0, self.ranges.1).into_iter().all(|change| match change {
            OperandChange::Target { old, new } => self.same(old, new, read_bytes(&pair.new)),
            OperandChange::Immediate { .. } | OperandChange::Displacement { .. } => false,
        })
    }

    /// Constants count only where as much of them as is `read` is equal, or they are equal
    /// texts: how far anything else reaches is not known here.
    fn same(&self, old: Va, new: Va, read: Option<usize>) -> bool {
        let Verifier { old: a, new: b, .. } = self.verifier;
        if b.role_at(new) == Some(SectionRole::ReadOnlyData) {
            if a.role_at(old) != Some(SectionRole::ReadOnlyData) {
                return false;
            }
            let constants = match read {
                Some(len) => (constant_at(a, old, len), constant_at(b, new, len)),
                None => (text_at(a, old, 1), text_at(b, new, 1)),
            };
            return constants.0.is_some() && constants.0 == constants.1;
        }
        if let (Some(f), Some(g)) = (entry(a, old), entry(b, new)) {
            return self.verifier.pairing.old_of(g) == Some(f);
        }
        self.verifier.same_address(old, new, None, &mut Learnt::default()) == Ok(true)
    }
}

/// How many bytes the instruction reads where it refers to, if it uses them and not the address.
fn read_bytes(instruction: &Instruction) -> Option<usize> {
    let len = instruction.memory_size().size();
    (instruction.mnemonic() != Mnemonic::Lea && instruction.is_ip_rel_memory_operand() && len > 0).then_some(len)
}

fn constant_at<'a>(side: &Side<'_, 'a>, va: Va, len: usize) -> Option<&'a [u8]> {
    side.image.section_at(va)?.tail(va)?.get(..len)
}

fn follows(first: &AlignedPair, second: &AlignedPair) -> bool {
    (first.old.next_ip(), first.new.next_ip()) == (second.old.ip(), second.new.ip())
}
