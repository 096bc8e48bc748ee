//! What else is handed over together with a function.
//!
//! `attach(1, f)` that became `attach(2, f)` leaves the role of `f` as clear as it was, and
//! yet what old code attached is not what new code would have: the process goes on calling
//! `f` for the first kind. So the two versions of a replaced function are compared by what
//! they hand out: to whom, as which argument, with which numbers, texts and variables, and in
//! which variable or field it is kept.
//!
//! What decides which of several functions is handed out is not looked at, as little as what
//! decides which number is stored.

use crate::callers::own;
use crate::followed::Versions;
use crate::objects::callee;
use crate::registry;
use crate::takers::arity;
use iced_x86::{Instruction, Mnemonic};
use salve_code::affine::{Form, Forms, Origin};
use salve_code::decode_at;
use salve_elf::{SectionRole, Va};
use salve_match::{ImageDiff, Place, Side, text_at, without_lines};
use salve_patch::{Evidence, Reason};
use std::collections::BTreeSet;

/// What was found so far.
#[derive(Default)]
pub(crate) struct HandedOut {
    evidence: Vec<Evidence>,
}

/// One function that is handed out, in terms of the old image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Handout {
    function: usize,
    taker: Taker,
    /// The arguments of the call; of a store, where it goes.
    with: Vec<With>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taker {
    Function { index: usize, argument: usize },
    Import { id: u32, argument: usize },
    Unknown { argument: usize },
    Memory,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum With {
    Number(i64),
    Variable(Va),
    /// Without the number of a source line that it may name.
    Text(String),
    /// An argument of the function itself, and so many bytes more.
    Argument(Origin, i64),
    /// What was loaded so many bytes behind such an argument.
    Loaded(Origin, i64),
    Unknown,
}

impl HandedOut {
    pub(crate) fn look(&mut self, diff: &ImageDiff<'_, '_>, versions: &Versions<'_>) {
        let Versions { f, g, before, after, .. } = *versions;
        let old = Version { side: &diff.old, function: &Some, variable: &Some };
        let to_old = |va| Some(diff.data.old_of(va, &diff.new)?.old());
        let new = Version { side: &diff.new, function: &|index| diff.old_of(index), variable: &to_old };
        let (had, has) = (old.handouts(before), new.handouts(after));
        let name = |index: usize| {
            let function = diff.old.image.functions().get(index);
            function.map_or_else(|| "another".to_owned(), salve_elf::Function::display_name)
        };
        let mut said = Vec::new();
        for function in functions(&had).intersection(&functions(&has)) {
            let lacks = |one: &[Handout], other: &[Handout]| {
                let mut of = one.iter().filter(|handout| handout.function == *function);
                of.find(|handout| !other.iter().any(|like| like.function == *function && like.is_alike(handout)))
                    .cloned()
            };
            let Some(before) = lacks(&had, &has) else { continue };
            let (function, before) = (name(*function), before.shown());
            said.push(match lacks(&has, &had) {
                Some(after) => format!("hands out {function} {}, before {before}", after.shown()),
                None => format!("does not hand out {function} {before} any more"),
            });
        }
        self.evidence.extend(said.into_iter().map(|seen| Evidence {
            function: Some(g.display_name()),
            old_va: Some(f.range.start()),
            new_va: Some(g.range.start()),
            seen,
        }));
    }

    pub(crate) fn reason(self) -> Option<Reason> {
        let summary = "what old code handed out together with a function stays as it was";
        (!self.evidence.is_empty()).then(|| registry::CALLBACK_HANDED_OTHERWISE.because(summary, self.evidence))
    }
}

fn functions(handouts: &[Handout]) -> BTreeSet<usize> {
    handouts.iter().map(|handout| handout.function).collect()
}

impl Handout {
    /// The same taker gets it, and what is known of what goes along with `other` goes along
    /// here. A register behind the function, of which nothing is known, may be no argument.
    fn is_alike(&self, other: &Self) -> bool {
        let certain = match self.taker {
            Taker::Function { argument, .. } | Taker::Import { argument, .. } | Taker::Unknown { argument } => argument,
            Taker::Memory => self.with.len(),
        };
        let pairs = self.with.iter().zip(&other.with).enumerate();
        let alike = |(at, (a, b)): (usize, (&With, &With))| a == b || at > certain && *b == With::Unknown;
        self.taker == other.taker && pairs.into_iter().all(alike)
    }

    fn shown(&self) -> String {
        let to_memory = self.taker == Taker::Memory;
        let known = self.with.iter().enumerate().filter_map(|(at, with)| {
            let what = match with {
                With::Number(number) => format!("{number:#x}"),
                With::Variable(va) => format!("{va} in the old image"),
                With::Text(text) => format!("{text:?}"),
                With::Argument(_, 0) => "what it was given".to_owned(),
                With::Argument(_, more) => format!("{more:#x} bytes behind what it was given"),
                With::Loaded(_, at) => format!("what is {at:#x} bytes behind what it was given"),
                With::Unknown => return None,
            };
            Some(if to_memory { what } else { format!("argument {} {what}", at.saturating_add(1)) })
        });
        let known: Vec<String> = known.collect();
        format!("{} {}", if to_memory { "to memory at" } else { "with" }, known.join(", "))
    }
}

/// What a value is in terms of what the function was given.
fn given(forms: &Forms, form: &Form) -> With {
    match form.terms.as_slice() {
        [(origin @ Origin::Entry(_), 1)] => With::Argument(*origin, form.constant),
        [(Origin::Made(at, _), 1)] if form.constant == 0 => {
            let load = forms.accesses.iter().find(|access| access.at.raw() == *at && !access.writes);
            match load.map(|load| (load.address.terms.as_slice(), load.address.constant)) {
                Some(([(origin @ Origin::Entry(_), 1)], constant)) => With::Loaded(*origin, constant),
                _ => With::Unknown,
            }
        }
        _ => With::Unknown,
    }
}

/// One version of a function, and how its image's addresses are told in the old one.
struct Version<'v, 'i, 'a> {
    side: &'v Side<'i, 'a>,
    function: &'v dyn Fn(usize) -> Option<usize>,
    variable: &'v dyn Fn(Va) -> Option<Va>,
}

impl Version<'_, '_, '_> {
    fn handouts(&self, forms: &Forms) -> Vec<Handout> {
        let mut found = Vec::new();
        for call in &forms.calls {
            let instruction = decode_at(self.side.image, call.at);
            // Registers behind the last argument hold what was left there.
            let arity = instruction.and_then(|call| arity(self.side, &call)).unwrap_or(call.arguments.len());
            for (argument, form) in call.arguments.iter().take(arity).enumerate() {
                let Some(function) = self.taken(form) else { continue };
                let taker = match instruction.and_then(|call| callee(self.side, &call)) {
                    Some(Place::Code { function, offset: 0 }) => (self.function)(function)
                        .map_or(Taker::Unknown { argument }, |index| Taker::Function { index, argument }),
                    Some(Place::Import(id)) => Taker::Import { id, argument },
                    _ => Taker::Unknown { argument },
                };
                let others = call.arguments.iter().take(arity).enumerate();
                // The function itself is no part of what goes along.
                let with = others.map(|(at, form)| match self.with(form) {
                    _ if at == argument => With::Unknown,
                    // What goes along stands beside it; registers further on may be no argument.
                    With::Unknown if at <= argument.saturating_add(1) => given(forms, form),
                    with => with,
                });
                found.push(Handout { function, taker, with: with.collect() });
            }
        }
        for access in forms.accesses.iter().filter(|access| access.writes) {
            let Some(function) = access.stored.as_ref().and_then(|stored| self.taken(stored)) else { continue };
            let with = match self.with(&access.address) {
                With::Unknown => With::Number(access.address.constant),
                variable => variable,
            };
            found.push(Handout { function, taker: Taker::Memory, with: vec![with] });
        }
        found
    }

    /// The function that a value is the address of.
    fn taken(&self, form: &Form) -> Option<usize> {
        let place = match form.terms.as_slice() {
            [(Origin::Static(va), 1)] if form.constant == 0 => self.side.place(Va::new(*va)),
            // What the loader put into a slot is as good.
            [(Origin::Made(at, _), 1)] if form.constant == 0 => self.loaded(Va::new(*at))?,
            [] => self.side.place(Va::new(u64::try_from(form.constant).ok()?)),
            _ => return None,
        };
        match place {
            Place::Code { function, offset: 0 } => (self.function)(function),
            _ => None,
        }
    }

    /// What a slot is bound to that the instruction at `at` loads.
    fn loaded(&self, at: Va) -> Option<Place> {
        let moves = |load: &Instruction| matches!(load.mnemonic(), Mnemonic::Mov | Mnemonic::Movq | Mnemonic::Movhps);
        let load = decode_at(self.side.image, at).filter(moves)?;
        let slot = load.is_ip_rel_memory_operand().then(|| Va::new(load.ip_rel_memory_address()))?;
        match self.side.place(slot) {
            Place::Slot(binding) => own(self.side, binding),
            _ => None,
        }
    }

    fn with(&self, form: &Form) -> With {
        match form.terms.as_slice() {
            [] => With::Number(form.constant),
            [(Origin::Static(va), 1)] => {
                let va = Va::new(*va).wrapping_offset(form.constant);
                match self.side.image.section_at(va).map(|section| section.role) {
                    Some(SectionRole::ReadOnlyData) => text_at(self.side, va, 1)
                        .map_or(With::Unknown, |text| With::Text(without_lines(&String::from_utf8_lossy(text)))),
                    _ => (self.variable)(va).map_or(With::Unknown, With::Variable),
                }
            }
            _ => With::Unknown,
        }
    }
}
