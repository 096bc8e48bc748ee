//! What bytes refer to of which nobody can say where instructions begin in them.
//!
//! Hand-written assembly puts tables and texts between its functions. Read from one end to
//! the other they make no sense, and where code begins again is not told. So they are read
//! from every byte at once (superset disassembly), and whatever cannot be executed to a
//! sensible end is struck out: what is no instruction, what a program may not execute, a
//! branch to where no code is, a look at what is not loaded, and what has to run on into such
//! a thing. What is left holds everything that could ever be executed there, and mostly more:
//! every reference of it has to be accounted for.

use crate::summary::reference;
use crate::{Reference, ReferenceKind};
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};
use salve_elf::{Image, Va, VaRange};

/// Longer stretches are not read in this way: it takes some dozen bytes for each of theirs.
pub const LARGEST_BYTES: u64 = 1 << 20;

/// A table may be addressed from before its start or behind its end, where its index does
/// not begin at zero; nobody's begins this far off.
const FURTHEST_BASE_BYTES: u64 = 1 << 20;

/// Where execution goes on after the instruction that begins at some byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It cannot be executed, or not to a sensible end.
    Never,
    /// A return, a branch through a register, a trap, a jump out of the range.
    Ends,
    /// At this offset; from the length of the range on, it has run out of it.
    At(usize),
    /// At one of these offsets.
    Either(usize, usize),
}

/// All references that leave `range`, of every execution that its bytes allow, by place; none
/// of one that is longer than [`LARGEST_BYTES`], of which nothing is known then.
pub(crate) fn references(image: &Image<'_>, range: VaRange) -> Option<Vec<Reference>> {
    if range.len_bytes() > LARGEST_BYTES {
        return Some(Vec::new());
    }
    let bytes = image.read(range)?;
    let mut then = Vec::with_capacity(bytes.len());
    let mut found = Vec::new();
    let mut instruction = Instruction::default();
    let mut decoder = Decoder::with_ip(64, bytes, range.start().raw(), DecoderOptions::NONE);
    for at in 0..bytes.len() {
        decoder.set_position(at).ok()?;
        decoder.set_ip(range.start().raw().wrapping_add(u64::try_from(at).ok()?));
        decoder.decode_out(&mut instruction);
        let next = at.checked_add(instruction.len())?;
        then.push(after(image, range, &instruction, next));
        if then.last() != Some(&Then::Never)
            && let Some(reference) = reference(image, range, &decoder, &instruction, at)
        {
            found.push(reference);
        }
    }
    strike_out(&mut then);
    let sensible = |at: usize| then.get(at).is_some_and(|then| *then != Then::Never);
    found.retain(|reference| usize::try_from(reference.at).is_ok_and(sensible));
    found.extend(run_out(range, &then));
    found.sort_by_key(|reference| (reference.at, reference.field));
    Some(found)
}

/// As far as the instruction alone says it.
fn after(image: &Image<'_>, range: VaRange, instruction: &Instruction, next: usize) -> Then {
    if instruction.code() == Code::Hlt {
        // Written on purpose, to end the program.
        return Then::Ends;
    }
    if instruction.code() == Code::INVALID || instruction.is_privileged() {
        return Then::Never;
    }
    if instruction.is_ip_rel_memory_operand() {
        let furthest = if instruction.mnemonic() == Mnemonic::Lea { FURTHEST_BASE_BYTES } else { 0 };
        if !is_near(image, Va::new(instruction.ip_rel_memory_address()), furthest) {
            return Then::Never;
        }
    }
    let mut leads_to = Then::Ends;
    if instruction.op0_kind() == OpKind::NearBranch64 {
        let target = Va::new(instruction.near_branch64());
        if range.contains(target) {
            let offset = target.wrapping_distance_from(range.start());
            leads_to = usize::try_from(offset).map_or(Then::Never, Then::At);
        } else if !image.section_at(target).is_some_and(|section| section.executable) {
            return Then::Never;
        }
    }
    match (instruction.flow_control(), leads_to) {
        (FlowControl::UnconditionalBranch, there) => there,
        (FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend, Then::At(there)) => Then::Either(next, there),
        // A call may not return, and what follows need not be code then.
        (FlowControl::Call, Then::At(there)) => Then::At(there),
        (FlowControl::Call | FlowControl::IndirectCall, _) => Then::Ends,
        (FlowControl::Return | FlowControl::IndirectBranch | FlowControl::Exception | FlowControl::Interrupt, _) => {
            Then::Ends
        }
        (FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend, _) => Then::At(next),
    }
}

/// In what is loaded of the image, or no further from it.
fn is_near(image: &Image<'_>, at: Va, bytes: u64) -> bool {
    let Some(span) = image.span() else { return false };
    let from = span.start().raw().saturating_sub(bytes);
    (from..span.end().raw().saturating_add(bytes)).contains(&at.raw())
}

/// Strikes out what has to run on into what is struck out; of a conditional branch, both ways.
fn strike_out(then: &mut [Then]) {
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); then.len()];
    for (at, then) in then.iter().enumerate() {
        for next in then.goes_on_at().into_iter().flatten() {
            // What runs out of the range is no business of this.
            if let Some(before) = before.get_mut(next) {
                before.push(at);
            }
        }
    }
    let mut struck: Vec<usize> = (0..then.len()).filter(|at| then.get(*at) == Some(&Then::Never)).collect();
    while let Some(out) = struck.pop() {
        for &at in before.get(out).into_iter().flatten() {
            let Some(then) = then.get_mut(at) else { continue };
            *then = match *then {
                Then::Either(a, b) if a == out => Then::At(b),
                Then::Either(a, b) if b == out => Then::At(a),
                Then::At(_) => Then::Never,
                Then::Never | Then::Ends | Then::Either(..) => continue,
            };
            if *then == Then::Never {
                struck.push(at);
            }
        }
    }
}

/// Where execution may leave the range without a branch.
fn run_out(range: VaRange, then: &[Then]) -> impl Iterator<Item = Reference> {
    then.iter().enumerate().filter_map(move |(at, leads_to)| {
        let out = leads_to.goes_on_at().into_iter().flatten().find(|next| *next >= then.len())?;
        let target = range.start().checked_add(u64::try_from(out).ok()?)?;
        let (at, instruction_len_bytes) = (u32::try_from(at).ok()?, u8::try_from(out.checked_sub(at)?).ok()?);
        Some(Reference { at, field: 0, field_len_bytes: 0, instruction_len_bytes, kind: ReferenceKind::Jump, target })
    })
}

impl Then {
    fn goes_on_at(self) -> [Option<usize>; 2] {
        match self {
            Self::Never | Self::Ends => [None, None],
            Self::At(next) => [Some(next), None],
            Self::Either(next, there) => [Some(next), Some(there)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Then, run_out, strike_out};
    use salve_elf::{Va, VaRange};

    fn struck(then: &[Then]) -> Vec<Then> {
        let mut then = then.to_vec();
        strike_out(&mut then);
        then
    }

    #[test]
    fn what_has_to_run_on_into_nonsense_is_nonsense() {
        let all = [Then::At(1), Then::At(2), Then::Never, Then::Ends];
        assert_eq!(struck(&all), [Then::Never, Then::Never, Then::Never, Then::Ends]);
    }

    #[test]
    fn a_conditional_branch_needs_one_way_that_makes_sense() {
        let one = [Then::Either(1, 2), Then::Never, Then::Ends];
        assert_eq!(struck(&one), [Then::At(2), Then::Never, Then::Ends]);
        assert_eq!(struck(&[Then::Either(1, 2), Then::Never, Then::Never]), [Then::Never; 3]);
        assert_eq!(struck(&[Then::Either(1, 1), Then::Never]), [Then::Never; 2]);
    }

    #[test]
    fn loops_go_on_for_ever_and_the_end_of_the_range_is_a_way_out() {
        let all = [Then::At(1), Then::At(0), Then::At(3), Then::At(5)];
        assert_eq!(struck(&all), all);
        let range = VaRange::new(Va::new(0x1000), 4).into_iter();
        let outs: Vec<_> = range.flat_map(|range| run_out(range, &all)).map(|out| (out.at, out.target)).collect();
        assert_eq!(outs, [(3, Va::new(0x1005))]);
    }
}
