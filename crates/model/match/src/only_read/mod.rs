//! Stretches among code that are only ever read: the tables of hand-written assembly.
//!
//! What nothing describes may be data or code, and where it holds words that would lead
//! elsewhere as code or as distances, equal bytes alone do not make it the same. They do where
//! nothing can come to execute it: no code branches there or runs on into it, no relocation or
//! symbol has its address, and wherever an instruction takes its address, or reads from it,
//! that value is followed through registers and calls, and comes to be used for
//! nothing but reading ([`walk`]). What cannot be followed proves nothing.
//!
//! An address that is calculated from that of something else is not seen here. So what rests
//! on this is for a person to judge.

mod entries;
mod frame;
mod jumps;
mod later;
mod state;
mod transfer;
mod walk;
mod written;

use crate::side::Side;
use iced_x86::FlowControl;
use salve_code::{LARGEST_UNCLEAR_BYTES, ReferenceKind, decode};
use salve_elf::{Binding, Function, ImageKind, Va, VaRange};
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// Which functions of both images are parts of such stretches, found when first asked for.
#[derive(Debug, Default)]
pub(crate) struct OnlyRead(OnceLock<(BTreeSet<usize>, BTreeSet<usize>)>);

impl OnlyRead {
    /// Whether both are. Not to be asked by work that runs beside other work of the same
    /// images: who looks for the stretches waits for threads that might ask for them.
    pub(crate) fn has(&self, old: (&Side<'_, '_>, usize), new: (&Side<'_, '_>, usize)) -> bool {
        let (olds, news) = self.0.get_or_init(|| rayon::join(|| only_read(old.0), || only_read(new.0)));
        olds.contains(&old.1) && news.contains(&new.1)
    }
}

/// Neighbouring functions that may be data, and the padding around them.
#[derive(Debug)]
struct Stretch {
    parts: core::ops::Range<usize>,
    range: VaRange,
    /// Instructions that take an address in it, or read from it.
    taken_at: Vec<Va>,
    /// Other stretches that would refer to it if they were code.
    named_by: BTreeSet<usize>,
}

fn only_read(side: &Side<'_, '_>) -> BTreeSet<usize> {
    if side.image.kind() != ImageKind::PositionIndependent {
        return BTreeSet::new();
    }
    let Some(stretches) = stretches(side) else { return BTreeSet::new() };
    let (entries, jumps) = (entries::Entries::new(side), jumps::Jumps::new(side));
    let mut proven: BTreeSet<usize> = (0..stretches.len())
        .filter(|index| stretches.get(*index).is_some_and(|stretch| walk::is_only_read(&jumps, &entries, stretch)))
        .collect();
    // One that may be code after all may lead to the others.
    loop {
        let before = proven.len();
        let named = |index: &usize| stretches.get(*index).is_some_and(|stretch| stretch.named_by.is_subset(&proven));
        let kept: BTreeSet<usize> = proven.iter().copied().filter(named).collect();
        proven = kept;
        if proven.len() == before {
            break;
        }
    }
    proven.into_iter().filter_map(|index| stretches.get(index)).flat_map(|stretch| stretch.parts.clone()).collect()
}

/// All stretches that nothing is known to execute; `None` where there is code of which nothing is known.
fn stretches(side: &Side<'_, '_>) -> Option<Vec<Stretch>> {
    let executed = executed(side);
    let functions = side.image.functions();
    let mut all: Vec<Stretch> = Vec::new();
    for (index, function) in functions.iter().enumerate().filter(|(index, _)| !executed.contains(index)) {
        match all.last_mut().filter(|last| last.parts.end == index) {
            Some(last) => last.parts.end = last.parts.end.saturating_add(1),
            None => all.push(Stretch {
                parts: index..index.saturating_add(1),
                range: function.range,
                taken_at: Vec::new(),
                named_by: BTreeSet::new(),
            }),
        }
    }
    all.retain_mut(|stretch| {
        let range = with_padding(side, &stretch.parts);
        stretch.range = range.unwrap_or(stretch.range);
        let unclear = stretch.parts.clone().any(|part| side.code.get(part).is_some_and(|code| !code.decoded));
        unclear && range.is_some() && !is_named(side, stretch.range) && !runs_on_into(side, stretch.parts.start)
    });
    let at = |va: Va| {
        let next = all.partition_point(|stretch| stretch.range.start() <= va);
        next.checked_sub(1).filter(|index| all.get(*index).is_some_and(|stretch| stretch.range.contains(va)))
    };
    let mut taken: Vec<(usize, Option<Va>, Option<usize>)> = Vec::new();
    for (function, code) in functions.iter().zip(&side.code) {
        let within = at(function.range.start());
        if !code.decoded && within.is_none() && function.range.len_bytes() > LARGEST_UNCLEAR_BYTES {
            return None;
        }
        for reference in &code.references {
            let Some(to) = at(reference.target).filter(|to| Some(*to) != within) else { continue };
            let reads = matches!(reference.kind, ReferenceKind::Memory | ReferenceKind::Address);
            match within {
                Some(from) => taken.push((to, None, Some(from))),
                None if reads && code.decoded => {
                    let place = function.range.start().wrapping_offset(i64::from(reference.at));
                    taken.push((to, Some(place), None));
                }
                // A branch, or something that may be one.
                None => taken.push((to, None, Some(usize::MAX))),
            }
        }
    }
    for (to, place, from) in taken {
        let Some(stretch) = all.get_mut(to) else { continue };
        stretch.taken_at.extend(place);
        stretch.named_by.extend(from);
    }
    Some(all)
}

/// What is known to be code: what is described, and what such code branches into.
fn executed(side: &Side<'_, '_>) -> BTreeSet<usize> {
    let functions = side.image.functions();
    let ordinary = |f: &Function| side.image.section_at(f.range.start()).is_some_and(|s| s.name == ".text");
    let known = |f: &Function| f.is_described() || !ordinary(f) || f.range.contains(side.image.entry());
    let mut found: BTreeSet<usize> =
        functions.iter().enumerate().filter(|(_, f)| known(f)).map(|(index, _)| index).collect();
    let mut open: Vec<usize> = found.iter().copied().collect();
    while let Some(index) = open.pop() {
        let Some(code) = side.code.get(index) else { continue };
        let branches = code.references.iter().filter(|r| matches!(r.kind, ReferenceKind::Call | ReferenceKind::Jump));
        for target in branches.filter_map(|r| side.image.function_index_at(r.target)) {
            if found.insert(target) {
                open.push(target);
            }
        }
    }
    found
}

/// From the end of the function before to the start of the one behind.
fn with_padding(side: &Side<'_, '_>, parts: &core::ops::Range<usize>) -> Option<VaRange> {
    let functions = side.image.functions();
    let section = side.image.section_at(functions.get(parts.start)?.range.start())?.range;
    let before = parts.start.checked_sub(1).and_then(|before| functions.get(before));
    let from = before.map_or(section.start(), |f| f.range.end().max(section.start()));
    let until = functions.get(parts.end).map_or(section.end(), |f| f.range.start().min(section.end()));
    VaRange::try_from((from, until)).ok()
}

/// Whether a relocation or a symbol has an address in it, or its bytes are not the file's.
fn is_named(side: &Side<'_, '_>, range: VaRange) -> bool {
    let related = side.image.relocs().iter().any(|reloc| {
        let leads = match reloc.binding {
            Binding::Relative { target } | Binding::Indirect { resolver: target } => range.contains(target),
            Binding::Symbol { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. } => false,
        };
        leads || range.contains(reloc.at)
    });
    related || side.image.symbols().iter().any(|symbol| symbol.defined && range.contains(symbol.value))
}

/// Whether the function before does not end.
fn runs_on_into(side: &Side<'_, '_>, first: usize) -> bool {
    let Some(before) = first.checked_sub(1).and_then(|before| side.image.functions().get(before)) else {
        return false;
    };
    let last = decode(side.image, before.range).into_iter().flatten().filter(|i| !is_filler(i)).last();
    last.is_none_or(|last| match last.flow_control() {
        // Compiled code ends so with what does not return.
        FlowControl::Call => side.image.function_index_at(Va::new(last.near_branch64())).is_some(),
        FlowControl::Next
        | FlowControl::IndirectCall
        | FlowControl::ConditionalBranch
        | FlowControl::XbeginXabortXend => true,
        _ends => false,
    })
}

fn is_filler(instruction: &iced_x86::Instruction) -> bool {
    instruction.mnemonic() == iced_x86::Mnemonic::Nop
}
