//! What one version of a function does with each field and variable.
//!
//! A *use* is what can be said of it however a compiler spelled it: what is stored, with
//! which number it is compared or masked, whether it is followed as an address, to whom it
//! is handed. That it is read says nothing by itself.

mod kind;

use crate::layout;
use iced_x86::{Instruction, Mnemonic, OpKind};
pub(crate) use kind::{Callee, Use};
use salve_code::affine::{Access, Call, Form, Forms, Origin};
use salve_elf::{SectionRole, Va};
use salve_match::{Place as Target, Side};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// Where a value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// At this offset of an object of unknown type.
    Field(i64),
    /// A variable, by its address in the old image.
    Variable(Va),
    /// `errno` of the thread.
    ErrorNumber,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(offset) => write!(f, "the field at offset {offset:#x}"),
            Self::Variable(at) => write!(f, "the variable at {at}"),
            Self::ErrorNumber => f.write_str("errno"),
        }
    }
}

/// Imports that return their first argument.
const GIVE_BACK: [&str; 6] = ["memcpy", "memmove", "memset", "strcat", "strcpy", "strncpy"];
/// Returns where the C library keeps `errno`.
const ERRNO: &str = "__errno_location";
/// Registers by number (psABI §3.2.1).
const RSP: u8 = 4;
const RBP: u8 = 5;

/// What one version of a function does with what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uses {
    pub(crate) of: BTreeMap<Place, BTreeSet<Use>>,
    /// Objects, by where their address comes from, and the offsets at which they are accessed.
    pub(crate) objects: BTreeMap<Origin, BTreeSet<i64>>,
    /// Objects that functions of the image are given: which function (by its index in the old
    /// image), as which argument, and what they are an argument of.
    pub(crate) given: BTreeSet<(usize, usize, Origin, i64)>,
    /// What is a variable, or a field of an argument: no loop goes through elements there.
    pub(crate) fixed: BTreeSet<Place>,
}

/// How an image's addresses and functions are told in the old one's terms.
pub(crate) struct InOld<'f> {
    pub(crate) va: &'f dyn Fn(Va) -> Option<Va>,
    pub(crate) function: &'f dyn Fn(usize) -> Option<usize>,
}

impl Uses {
    pub(crate) fn of(side: &Side<'_, '_>, forms: &Forms, in_old: &InOld<'_>) -> Self {
        Reader { side, forms, in_old, loads: HashMap::new(), found: Self::default() }.read()
    }

    /// Adds how a function that is given an object changes what is there already.
    pub(crate) fn add_callee(&mut self, callee: &Self, origin: Origin, constant: i64) {
        for (place, uses) in &callee.of {
            let Place::Field(offset) = place else { continue };
            let offset = offset.wrapping_add(constant);
            // What it counts and marks; all else may have been a part of the caller before.
            let counts = uses.iter().filter(|what| matches!(what, Use::Adds(_) | Use::Made(..))).cloned();
            let counts: Vec<Use> = counts.collect();
            if !counts.is_empty() {
                self.objects.entry(origin).or_default().insert(offset);
                self.of.entry(Place::Field(offset)).or_default().extend(counts);
            }
        }
    }

    fn add(&mut self, place: Place, what: Use) {
        self.of.entry(place).or_default().insert(what);
    }
}

/// Registers behind the arguments that a callee has hold what happens to be there; most have
/// so many.
const ARGUMENTS: usize = 2;
/// Among so many the numbers that go along with an object are looked for.
const NUMBERED: usize = 3;
/// Bytes nearer to a pointer than this are text to parse more often than fields.
const TEXT_BYTES: i64 = 8;

struct Reader<'r, 's, 'a> {
    side: &'r Side<'s, 'a>,
    forms: &'r Forms,
    in_old: &'r InOld<'r>,
    /// Values that were loaded, by the instruction.
    loads: HashMap<u64, Place>,
    found: Uses,
}

impl Reader<'_, '_, '_> {
    fn read(mut self) -> Uses {
        for access in &self.forms.accesses {
            let Some(place) = self.place(&access.address).filter(|place| !is_text(*place, access)) else { continue };
            self.loads.insert(access.at.raw(), place);
            if let [(origin, 1)] = access.address.terms.as_slice() {
                if matches!(origin, Origin::Entry(_) | Origin::Static(_)) {
                    self.found.fixed.insert(place);
                }
                self.found.objects.entry(*origin).or_default().insert(access.address.constant);
            }
        }
        let forms = self.forms;
        for access in &forms.accesses {
            self.access(access);
        }
        for tested in &forms.tested {
            self.loaded(&tested.value, |_, _| Use::Tested(tested.with));
        }
        for comparison in &forms.comparisons {
            for (one, other) in [(&comparison.left, &comparison.right), (&comparison.right, &comparison.left)] {
                if other.as_constant().is_none() {
                    let with = self.maker(other);
                    self.loaded(one, |_, _| Use::Compared(with.clone()));
                }
            }
        }
        for worked in &forms.worked {
            let Some(instruction) = salve_code::decode_at(self.side.image, worked.at) else { continue };
            self.loaded(&worked.value, |_, _| Use::Worked(instruction.mnemonic(), number(&instruction)));
        }
        for call in &forms.calls {
            let callee = self.callee(call.at);
            for (argument, form) in call.arguments.iter().enumerate() {
                if argument < ARGUMENTS {
                    self.loaded(form, |factor, more| Use::Handed(callee.clone(), argument, factor, more));
                }
                if let (Callee::Own(function), [(origin, 1)]) = (&callee, form.terms.as_slice()) {
                    self.found.given.insert((*function, argument, *origin, form.constant));
                }
                let field = !matches!(form.terms.as_slice(), [(Origin::Static(_), _)]);
                if let Some(place) = self.place(form).filter(|_| !field || argument < ARGUMENTS && form.constant != 0)
                    && !self.is_load(form)
                {
                    let numbers = numbers(&callee, call, argument);
                    self.found.add(place, Use::Lent(callee.clone(), argument, numbers));
                }
            }
        }
        self.found
    }

    /// The field or variable at an address.
    fn place(&self, address: &Form) -> Option<Place> {
        match address.terms.as_slice() {
            // A variable, or a field of the elements of an array.
            [(Origin::Static(at), 1)] | [(Origin::Static(at), 1), _] | [_, (Origin::Static(at), 1)] => {
                let at = Va::new(*at).wrapping_offset(address.constant);
                let role = self.side.image.section_at(at)?.role;
                let constant = matches!(role, SectionRole::Code | SectionRole::ReadOnlyData);
                (!constant).then(|| (self.in_old.va)(at)).flatten().map(Place::Variable)
            }
            // Its own frame, or that of the function of which it is a part.
            [(Origin::Entry(RSP), 1)] => None,
            [(Origin::Entry(RBP), 1)] if address.constant < 0 => None,
            [(Origin::Returned(at), 1)] if self.callee(Va::new(*at)) == Callee::Import(ERRNO.to_owned()) => {
                Some(Place::ErrorNumber)
            }
            [(_, 1)] => Some(Place::Field(address.constant)),
            _ => None,
        }
    }

    fn is_load(&self, form: &Form) -> bool {
        matches!(form.terms.as_slice(), [(Origin::Made(at, _), 1)] if self.loads.contains_key(at)) && form.constant != 0
    }

    /// Adds a use of everything loaded that the form is calculated from.
    fn loaded(&mut self, form: &Form, what: impl Fn(i64, i64) -> Use) {
        for (origin, factor) in &form.terms {
            if let Origin::Made(at, _) = origin
                && let Some(place) = self.loads.get(at).copied()
            {
                let more = if form.terms.len() == 1 { form.constant } else { 0 };
                self.found.add(place, what(*factor, more));
            }
        }
    }

    fn access(&mut self, access: &Access) {
        match access.address.terms.as_slice() {
            [(Origin::Made(..), 1)] => self.loaded(&access.address, |_, _| Use::Followed),
            terms @ ([_, _, ..] | [(_, 2..)]) => {
                // What is not multiplied while all else is, is where the elements begin.
                let begins = terms.iter().filter(|(_, factor)| *factor == 1).count() == 1;
                let what = |factor, _| if factor == 1 && begins { Use::Followed } else { Use::Counts(factor) };
                self.loaded(&access.address, what);
            }
            _ => {}
        }
        let Some(place) = self.place(&access.address) else { return };
        let Some(instruction) = salve_code::decode_at(self.side.image, access.at) else { return };
        let of_bits = works(instruction.mnemonic()) || matches!(instruction.mnemonic(), Mnemonic::Test | Mnemonic::Bt);
        if is_text(place, access) && !of_bits {
            return;
        }
        if !access.writes {
            self.found.add(place, Use::Read(access.len_bytes));
            if of_bits {
                self.found.add(place, Use::Worked(instruction.mnemonic(), number(&instruction)));
            }
            return;
        }
        if let Some((low, high)) = access.stored.as_ref().and_then(|form| two_numbers(form, access.len_bytes)) {
            let second = match place {
                Place::Field(at) => Place::Field(at.wrapping_add(4)),
                Place::Variable(at) => Place::Variable(at.wrapping_offset(4)),
                Place::ErrorNumber => place,
            };
            for (place, number) in [(place, low), (second, high)] {
                self.found.add(place, Use::Stored(4));
                self.found.add(place, Use::Number(number));
            }
            return;
        }
        self.found.add(place, Use::Stored(access.len_bytes));
        let what = match &access.stored {
            Some(form) => self.stored(place, form),
            None => changed(&instruction),
        };
        self.found.add(place, what);
        let made = access.stored.as_ref().map_or(Callee::Unknown, |form| self.maker(form));
        if made != Callee::Unknown {
            self.found.add(place, Use::From(made));
        }
    }

    /// Whose result a value is, or is calculated from.
    fn maker(&self, form: &Form) -> Callee {
        match form.terms.as_slice() {
            [(Origin::Returned(at), _)] => self.callee(Va::new(*at)),
            _ => Callee::Unknown,
        }
    }

    fn stored(&self, place: Place, form: &Form) -> Use {
        match form.terms.as_slice() {
            [] => Use::Number(form.constant),
            [(Origin::Made(at, _), 1)] => match salve_code::decode_at(self.side.image, Va::new(*at)) {
                Some(made) if works(made.mnemonic()) => Use::Made(made.mnemonic(), number(&made)),
                _ if self.loads.get(at) == Some(&place) && form.constant != 0 => Use::Adds(form.constant),
                _ => Use::Value(1, form.constant),
            },
            [(Origin::Returned(at), 1)] if form.constant == 0 => match self.callee(Va::new(*at)) {
                Callee::Import(name) if !GIVE_BACK.contains(&name.as_str()) => {
                    let given = self.given(Va::new(*at), &name);
                    Use::Result(Callee::Import(name), given)
                }
                Callee::Import(_) | Callee::Own(_) | Callee::Unknown => Use::Value(1, 0),
            },
            [(_, factor)] => Use::Value(*factor, form.constant),
            _ => Use::Written,
        }
    }

    /// Numbers among the arguments of a call that makes something: its size, its flags.
    fn given(&self, call: Va, import: &str) -> Vec<(bool, i64)> {
        let sizes: Vec<usize> =
            layout::ALLOCATORS.iter().filter(|(name, _)| *name == import).map(|(_, at)| *at).collect();
        let arguments = self.forms.calls.iter().find(|one| one.at == call).map(|one| one.arguments.iter().enumerate());
        let number = |(at, form): (usize, &Form)| {
            let whole = form.terms.is_empty();
            (sizes.contains(&at) || whole && at < ARGUMENTS).then_some((whole, form.constant))
        };
        arguments.into_iter().flatten().filter_map(number).collect()
    }

    fn callee(&self, call: Va) -> Callee {
        let Some(instruction) = salve_code::decode_at(self.side.image, call) else { return Callee::Unknown };
        if let Some(import) = layout::import_at(self.side, &instruction) {
            return Callee::Import(import.to_owned());
        }
        let target = layout::call_target(&instruction).map(|target| self.side.place(target));
        match target {
            Some(Target::Code { function, offset: 0 }) => {
                (self.in_old.function)(function).map_or(Callee::Unknown, Callee::Own)
            }
            _ => Callee::Unknown,
        }
    }
}

/// Numbers among the other arguments of a call of another image: flags, kinds, lengths.
fn numbers(callee: &Callee, call: &Call, argument: usize) -> Vec<(usize, i64)> {
    let Callee::Import(_) = callee else { return Vec::new() };
    let arguments = call.arguments.iter().enumerate().take(NUMBERED).filter(|(at, _)| *at != argument);
    arguments.filter_map(|(at, form)| Some((at, form.as_constant()?))).collect()
}

/// Two fields of four bytes that are stored as one constant, as in the lanes of a vector: the
/// upper half of a number by itself is all zeros or all ones.
fn two_numbers(form: &Form, len_bytes: usize) -> Option<(i64, i64)> {
    let number = form.as_constant().filter(|_| len_bytes == 8)?;
    let (low, high) = (number & 0xffff_ffff, number.wrapping_shr(32) & 0xffff_ffff);
    (high != 0 && high != 0xffff_ffff).then_some((low, high))
}

fn is_text(place: Place, access: &Access) -> bool {
    access.len_bytes == 1 && matches!(place, Place::Field(offset) if offset.abs() < TEXT_BYTES)
}

/// What an instruction that reads, calculates and writes does to its operand in memory.
fn changed(instruction: &Instruction) -> Use {
    let signed = |number: u64, bytes: usize| match bytes {
        1 => i64::from(number.to_le_bytes().first().copied().unwrap_or(0).cast_signed()),
        4 => i64::from(u32::try_from(number & 0xffff_ffff).unwrap_or(0).cast_signed()),
        _ => number.cast_signed(),
    };
    let bytes = instruction.memory_size().size();
    match (instruction.mnemonic(), number(instruction)) {
        (Mnemonic::Inc, _) => Use::Adds(1),
        (Mnemonic::Dec, _) => Use::Adds(-1),
        (Mnemonic::Add, Some(by)) => Use::Adds(signed(by, bytes)),
        (Mnemonic::Sub, Some(by)) => Use::Adds(signed(by, bytes).wrapping_neg()),
        (mnemonic, by) if works(mnemonic) => Use::Made(mnemonic, by),
        _ => Use::Written,
    }
}

/// Instructions that bring a value into another form.
fn works(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{And, Bswap, Btc, Btr, Bts, Neg, Not, Or, Rol, Ror, Sar, Shl, Shr, Xor};
    matches!(mnemonic, And | Bswap | Btc | Btr | Bts | Neg | Not | Or | Rol | Ror | Sar | Shl | Shr | Xor)
}

fn number(instruction: &Instruction) -> Option<u64> {
    let last = instruction.op_count().checked_sub(1)?;
    let immediate = !matches!(instruction.op_kind(last), OpKind::Register | OpKind::Memory);
    (immediate && salve_code::is_immediate(instruction.op_kind(last))).then(|| instruction.immediate(last))
}
