//! Constants whose address is an identity.
//!
//! The payload has its own copy of the new image's constants, so a constant that
//! replaced code refers to has another address than the one that old state may
//! hold. That matters where somebody compares the address: `if (p != empty)
//! free(p)`. Found by what follows the instruction that takes the address, in
//! replaced code and in code that stays, through registers, frame and calls, and
//! for pointers that hold it; an address that reaches a comparison through other
//! memory is not found.

use crate::carry::Carried;
use crate::followed::{Followed, Versions};
use crate::layout::symbol_at;
use crate::objects::callee;
use crate::registry;
use crate::tables::is_brought;
use iced_x86::{ConditionCode, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use salve_code::affine::{Origin, argument};
use salve_code::{Reference, ReferenceKind};
use salve_elf::{Binding, SectionRole, Va, VaRange};
use salve_match::{ImageDiff, Place, Side, text_at};
use salve_patch::{Evidence, Reason};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// How far an address is followed into callees.
const DEEPEST: u8 = 2;
/// Functions tracked for one image; beyond that every question is answered with a
/// doubt, which asks for review.
const MOST_TRACKED: usize = 1500;
/// Less may be a number whose first byte is printable.
const SHORTEST_TEXT: usize = 4;

pub(crate) fn reason(
    diff: &ImageDiff<'_, '_>,
    carried: &Carried,
    copied: Option<VaRange>,
    followed: &Followed<'_, '_, '_>,
) -> Option<Reason> {
    let replaced = carried.new_functions();
    let constants: BTreeSet<Va> =
        replaced.iter().flat_map(|n| taken(diff, *n, copied)).map(|(_, constant)| constant).collect();
    let mut comparisons = Comparisons { followed, tracked: HashSet::new(), answers: HashMap::new() };
    let mut evidence = Vec::new();
    for (index, function) in diff.new.image.functions().iter().enumerate() {
        for (at, constant) in taken(diff, index, copied) {
            if !constants.contains(&constant) && !may_be_part(&diff.new, &constants, constant) {
                continue;
            }
            let near = is_compared(followed, index, at);
            if near || (may_be_token(&diff.new, constant) && comparisons.has(index, Origin::Static(constant.raw()))) {
                evidence.push(Evidence {
                    function: Some(function.display_name()),
                    old_va: None,
                    new_va: Some(at),
                    seen: format!(
                        "compares the address of the constant at {constant}, or hands it on further than is followed"
                    ),
                });
            }
        }
    }
    evidence.extend(through_slots(followed, &constants));
    evidence.extend(beside(diff, carried));
    (!evidence.is_empty())
        .then(|| registry::CONSTANT_ADDRESS.because("the address of a constant serves as an identity", evidence))
}

/// Constants whose address replaced code keeps in an object, while code that stays knows them
/// by their old address.
#[derive(Default)]
pub(crate) struct Stored {
    evidence: Vec<Evidence>,
}

impl Stored {
    pub(crate) fn look(&mut self, diff: &ImageDiff<'_, '_>, versions: &Versions<'_>) {
        let side = &diff.new;
        for access in versions.after.accesses.iter().filter(|access| access.writes) {
            let Some([(Origin::Static(at), 1)]) = access.stored.as_ref().map(|form| form.terms.as_slice()) else {
                continue;
            };
            let constant = Va::new(*at);
            let was_stored = || {
                let old = diff.data.old_of(constant, side).map(salve_match::Correspondence::old);
                let stored = versions.before.accesses.iter().filter_map(|access| access.stored.as_ref());
                stored.into_iter().any(|form| match form.terms.as_slice() {
                    [(Origin::Static(before), 1)] => old == Some(Va::new(*before)),
                    _ => false,
                })
            };
            if is_constant(side, constant) && !is_text(side, constant) && was_stored() {
                self.evidence.push(Evidence {
                    function: Some(versions.g.display_name()),
                    old_va: Some(versions.f.range.start()),
                    new_va: Some(access.at),
                    seen: format!(
                        "stores the address of the constant at {constant}, as the old version did of its own"
                    ),
                });
            }
        }
    }

    pub(crate) fn reason(self) -> Option<Reason> {
        let summary = "objects hold the address of a constant of which replaced code has a copy";
        (!self.evidence.is_empty()).then(|| registry::CONSTANT_ADDRESS.because(summary, self.evidence))
    }
}

/// Functions that did not change, and whose constants are others from now on: who kept the
/// address of one of them does not meet it again.
fn beside(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Vec<Evidence> {
    let side = &diff.new;
    let mut evidence = Vec::new();
    for index in &carried.beside {
        let (Some(function), Some(code)) = (side.image.functions().get(*index), side.code.get(*index)) else {
            continue;
        };
        let addresses =
            code.references.iter().filter(|r| matches!(r.kind, ReferenceKind::Address | ReferenceKind::Absolute));
        let known = |r: &&Reference| is_constant(side, r.target) && !is_text(side, r.target);
        evidence.extend(addresses.filter(known).map(|r| Evidence {
            function: Some(function.display_name()),
            old_va: None,
            new_va: Some(function.range.start().wrapping_offset(i64::from(r.at))),
            seen: format!("did not change, comes along, and takes the address of the constant at {}", r.target),
        }));
    }
    evidence
}

/// Texts are merged, so nobody knows one by its address.
fn is_text(side: &Side<'_, '_>, constant: Va) -> bool {
    text_at(side, constant, 1).is_some() || is_end_of_text(side, constant)
}

/// Whether an empty text is the end of one that begins before it: linkers merge such.
fn is_end_of_text(side: &Side<'_, '_>, constant: Va) -> bool {
    let start = side.anchor_up_to(constant.wrapping_offset(-1));
    start.is_some_and(|start| {
        let text = text_at(side, start, SHORTEST_TEXT).and_then(|text| i64::try_from(text.len()).ok());
        text == Some(constant.wrapping_distance_from(start))
    })
}

/// Comparisons with the address that a slot of data holds.
fn through_slots(followed: &Followed<'_, '_, '_>, constants: &BTreeSet<Va>) -> Vec<Evidence> {
    let side = followed.side;
    let slots: BTreeMap<Va, Va> = side
        .image
        .relocs()
        .iter()
        .filter_map(|reloc| match reloc.binding {
            Binding::Relative { target } if constants.contains(&target) => Some((reloc.at, target)),
            _ => None,
        })
        .collect();
    let mut evidence = Vec::new();
    for (index, (function, code)) in side.image.functions().iter().zip(&side.code).enumerate() {
        for reference in code.references.iter().filter(|r| r.kind == ReferenceKind::Memory) {
            let Some(constant) = slots.get(&reference.target) else { continue };
            let at = function.range.start().wrapping_offset(i64::from(reference.at));
            let here = salve_code::decode_at(side.image, at).is_some_and(|i| i.mnemonic() == Mnemonic::Cmp);
            if here || is_compared(followed, index, at) {
                evidence.push(Evidence {
                    function: Some(function.display_name()),
                    old_va: None,
                    new_va: Some(at),
                    seen: format!("compares with a pointer that holds the address of the constant at {constant}"),
                });
            }
        }
    }
    evidence
}

/// Whether the constant at `va` may be an element of a table that begins at one of `constants`.
fn may_be_part(side: &Side<'_, '_>, constants: &BTreeSet<Va>, va: Va) -> bool {
    const LONGEST: u64 = 4096;
    let from = Va::new(va.raw().saturating_sub(LONGEST));
    let is_text = |at: Va| text_at(side, at, SHORTEST_TEXT).is_some();
    if is_text(va) {
        return false;
    }
    // Texts end what lies before them.
    constants.range(from..va).next_back().is_some_and(|start| {
        let mut at = *start;
        while at < va && !is_text(at) {
            match side.next_anchor(at) {
                Some(next) if next > at => at = next,
                _ => return false,
            }
        }
        at >= va
    })
}

/// Texts have no address of their own: compilers and linkers merge equal ones, so
/// nobody compares it knowingly. They are not followed into callees.
fn may_be_token(side: &Side<'_, '_>, constant: Va) -> bool {
    let longer = side.next_anchor(constant).is_some_and(|next| next.wrapping_distance_from(constant) > 1);
    longer && text_at(side, constant, 1).is_none()
}

/// Comparisons of one image, each question asked once.
struct Comparisons<'f, 's, 'i, 'a> {
    followed: &'f Followed<'s, 'i, 'a>,
    tracked: HashSet<usize>,
    answers: HashMap<(usize, Origin), bool>,
}

impl Comparisons<'_, '_, '_, '_> {
    /// Whether the value that `origin` is in this function is compared for equality
    /// with one that is not calculated from it, here or in what it is handed to.
    fn has(&mut self, function: usize, origin: Origin) -> bool {
        let mut queue = vec![(function, origin, 0_u8)];
        let mut seen = BTreeSet::new();
        while let Some((function, origin, depth)) = queue.pop() {
            if !seen.insert((function, origin)) {
                continue;
            }
            if self.tracked.len() >= MOST_TRACKED && !self.tracked.contains(&function) {
                return true;
            }
            self.tracked.insert(function);
            let here = match self.answers.get(&(function, origin)) {
                Some(known) => *known,
                None => self.here(function, origin),
            };
            self.answers.insert((function, origin), here);
            if here {
                return true;
            }
            if depth < DEEPEST {
                queue.extend(self.onward(function, origin).into_iter().map(|(f, o)| (f, o, depth.saturating_add(1))));
            }
        }
        false
    }

    fn here(&self, function: usize, origin: Origin) -> bool {
        let digest = self.followed.digest(function);
        digest.compared.iter().any(|(compared, at)| *compared == origin && for_equality(self.followed.side, *at))
    }

    /// Functions of the image that get the value, and as which argument.
    fn onward(&self, function: usize, origin: Origin) -> Vec<(usize, Origin)> {
        let side = self.followed.side;
        let mut onward = Vec::new();
        for handed in self.followed.digest(function).handed.iter().filter(|h| h.whole && h.from == origin) {
            let callee = salve_code::decode_at(side.image, handed.call).and_then(|i| callee(side, &i));
            if let Some(Place::Code { function, offset: 0 }) = callee {
                onward.push((function, argument(handed.argument)));
            }
        }
        onward
    }
}

/// Whether what follows a comparison asks for equality.
fn for_equality(side: &Side<'_, '_>, at: Va) -> bool {
    let next = salve_code::decode_at(side.image, at).map(|i| Va::new(i.next_ip()));
    next.and_then(|next| salve_code::decode_at(side.image, next))
        .is_some_and(|i| matches!(i.condition_code(), ConditionCode::e | ConditionCode::ne))
}

/// Instructions of a function that take the address of a constant, or of a table of which the
/// payload has a copy, and which.
fn taken(diff: &ImageDiff<'_, '_>, function: usize, copied: Option<VaRange>) -> Vec<(Va, Va)> {
    let side = &diff.new;
    let (Some(code), Some(f)) = (side.code.get(function), side.image.functions().get(function)) else {
        return Vec::new();
    };
    code.references
        .iter()
        .filter(|r| r.kind == ReferenceKind::Address)
        .filter(|r| is_constant(side, r.target) || copied.is_some_and(|copied| is_brought(diff, copied, r.target)))
        .map(|r| (f.range.start().wrapping_offset(i64::from(r.at)), r.target))
        .collect()
}

/// Registers that a call need not preserve (psABI §3.2.1). A compiler that knows the callee may
/// rely on what that one leaves alone.
const CALLEES: [Register; 9] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// Whether the call is one of a function that this image does not have.
fn calls_elsewhere(side: &Side<'_, '_>, call: &Instruction) -> bool {
    symbol_at(side, call).is_some_and(|symbol| !symbol.defined)
}

/// An address of a constant, or the end of one: the last constant of its section ends where the
/// next section begins.
fn is_constant(side: &Side<'_, '_>, va: Va) -> bool {
    let role = |va| side.image.section_at(va).map(|section| section.role);
    role(va) == Some(SectionRole::ReadOnlyData) || role(va.wrapping_offset(-1)) == Some(SectionRole::ReadOnlyData)
}

/// Whether the register that gets the address at `at` is compared, or subtracted from what may
/// be the address of the old one, before it is overwritten. A loop over a table compares where
/// it is with the end of that table, and neither is an address that somebody kept.
fn is_compared(followed: &Followed<'_, '_, '_>, function: usize, at: Va) -> bool {
    const FURTHEST: usize = 64;
    let side = followed.side;
    let Some(f) = side.image.functions().get(function) else { return false };
    let Ok(rest) = VaRange::try_from((at, f.range.end())) else { return false };
    let Some(decoder) = salve_code::decode(side.image, rest) else { return false };
    let mut instructions = decoder.into_iter();
    let Some(register) = instructions.next().map(|i| i.op0_register().full_register()) else { return false };
    if register == Register::None {
        return false;
    }
    let mut factory = InstructionInfoFactory::new();
    for instruction in instructions.take(FURTHEST) {
        let operand =
            |n| instruction.op_kind(n) == OpKind::Register && instruction.op_register(n).full_register() == register;
        if matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Sub)
            && (operand(0) || operand(1))
            && !followed.digest(function).walks.contains(&Va::new(instruction.ip()))
        {
            return true;
        }
        match instruction.flow_control() {
            FlowControl::Return | FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => return false,
            // What another image does with a register that belongs to the callee nobody here knows.
            FlowControl::Call if CALLEES.contains(&register) && calls_elsewhere(side, &instruction) => return false,
            _ => {}
        }
        let overwritten = factory
            .info(&instruction)
            .used_registers()
            .iter()
            .any(|u| u.register().full_register() == register && matches!(u.access(), OpAccess::Write));
        if overwritten {
            return false;
        }
    }
    false
}
