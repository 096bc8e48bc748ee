//! Who reads an object of initialised data, and what becomes of the value.
//!
//! Followed are the addresses of the object that code takes, pointers to it that
//! slots hold, and the tables those slots lie in. A reader either provably only
//! writes the text out, or hands it to a comparison, or *examines* it: which is
//! what everything that cannot be shown counts as. Who reaches the object by
//! calculating from another one is not found.

use crate::flow::{Destination, Flow, Handover, follow, follow_argument};
use crate::noise::{import_name, name_at, written_out};
use crate::side::Side;
use iced_x86::{Instruction, Mnemonic, OpKind};
use salve_code::{Reference, ReferenceKind, decode};
use salve_elf::{Binding, SectionRole, Va, VaRange};
use std::collections::BTreeSet;

/// One place of the code that gets at an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Index into `functions()`.
    pub function: usize,
    pub at: Va,
    pub purpose: Purpose,
}

/// What becomes of the object there; the text says how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    WritesOut(String),
    /// Compared as a whole with something else: it may tell friend from stranger.
    Compares(String),
    /// Anything else, or unknown.
    Examines(String),
}

/// Imports that compare two texts or two areas of memory.
pub(crate) const COMPARING: &[&str] = &[
    "strcmp",
    "strncmp",
    "strcasecmp",
    "strncasecmp",
    "strcoll",
    "strstr",
    "strverscmp",
    "memcmp",
    "bcmp",
    "CRYPTO_memcmp",
    "g_strcmp0",
    "g_str_equal",
];

/// The object of which `part` is a part: from the address that something refers
/// to up to the next one.
pub fn object_around(side: &Side<'_, '_>, part: VaRange) -> Option<VaRange> {
    let start = side.anchor_up_to(part.start()).unwrap_or(part.start());
    let last = part.end().wrapping_offset(-1);
    VaRange::try_from((start, side.next_anchor(last)?)).ok()
}

/// Every place that gets at `object`.
pub fn readers(side: &Side<'_, '_>, object: VaRange) -> Vec<Reader> {
    /// Pointers to pointers to … : what lies deeper is found only as a reader of the outermost.
    const DEEPEST: u8 = 4;
    let mut found = Vec::new();
    let mut objects = vec![(object, 0_u8)];
    let mut seen = BTreeSet::new();
    while let Some((object, depth)) = objects.pop() {
        if !seen.insert(object.start()) {
            continue;
        }
        direct(side, object, depth, &mut found);
        for reloc in side.image.relocs() {
            let points = matches!(reloc.binding, Binding::Relative { target } if object.contains(target))
                || names(side, reloc.binding, object);
            if !points {
                continue;
            }
            through_slot(side, reloc.at, depth, &mut found);
            let got = side.image.section_at(reloc.at).is_some_and(|s| s.name.starts_with(".got"));
            let slot = VaRange::new(reloc.at, 8).and_then(|slot| object_around(side, slot));
            if let Some(holder) = slot.filter(|_| !got && depth < DEEPEST) {
                objects.push((holder, depth.saturating_add(1)));
            }
        }
    }
    found.sort_by_key(|r| (r.at, r.function));
    found.dedup_by_key(|r| r.at);
    found
}

/// A slot that binds the object by the name that the image itself gives it.
fn names(side: &Side<'_, '_>, binding: Binding, object: VaRange) -> bool {
    let Binding::Symbol { symbol, .. } = binding else { return false };
    side.image.symbols().get(symbol).is_some_and(|s| s.defined && object.contains(s.value))
}

fn references<'s>(
    side: &'s Side<'_, '_>,
    within: VaRange,
) -> impl Iterator<Item = (usize, Va, VaRange, Reference)> + 's {
    side.image.functions().iter().zip(&side.code).enumerate().flat_map(move |(index, (function, code))| {
        let of_interest = code.references.iter().filter(move |r| within.contains(r.target));
        of_interest.map(move |r| (index, function.range.start().wrapping_offset(i64::from(r.at)), function.range, *r))
    })
}

/// References to the object itself: its own address, or that of a table that leads to it.
fn direct(side: &Side<'_, '_>, object: VaRange, depth: u8, found: &mut Vec<Reader>) {
    for (function, at, range, reference) in references(side, object) {
        let purpose = match reference.kind {
            ReferenceKind::Address if depth == 0 => purpose(side, range, at),
            ReferenceKind::Memory if side.image.reloc_at(reference.target).is_some() => {
                // A pointer: outermost it is what is asked about, else `through_slot` judged it.
                if depth > 0 {
                    continue;
                }
                purpose(side, range, at)
            }
            ReferenceKind::Memory if depth == 0 => read_in_place(side, range, at),
            _ => Purpose::Examines("gets at a table or pointer that leads to it".to_owned()),
        };
        found.push(Reader { function, at, purpose });
    }
}

/// References that load the pointer in `slot`.
fn through_slot(side: &Side<'_, '_>, slot: Va, depth: u8, found: &mut Vec<Reader>) {
    let Some(exactly) = VaRange::new(slot, 1) else { return };
    for (function, at, range, reference) in references(side, exactly) {
        let loads = reference.kind == ReferenceKind::Memory && depth == 0;
        let purpose =
            if loads { purpose(side, range, at) } else { Purpose::Examines("gets at a pointer to it".to_owned()) };
        found.push(Reader { function, at, purpose });
    }
}

/// What becomes of the address that the instruction at `at` makes or loads.
fn purpose(side: &Side<'_, '_>, range: VaRange, at: Va) -> Purpose {
    let loads = instruction(side, range, at)
        .is_some_and(|i| matches!(i.mnemonic(), Mnemonic::Lea | Mnemonic::Mov) && i.op0_kind() == OpKind::Register);
    if !loads {
        return Purpose::Examines("neither loads nor takes its address plainly".to_owned());
    }
    of_flow(side, range, &follow(side, range, at), 0)
}

fn of_flow(side: &Side<'_, '_>, range: VaRange, flow: &Flow, depth: u8) -> Purpose {
    const DEEPEST: u8 = 6;
    let destinations = match flow {
        Flow::Examined { at, how } => {
            let compares = instruction(side, range, *at).is_some_and(|i| compares_areas(&i))
                || calls_comparison(side, range)
                || compares_bytes(side, range);
            let said = format!("{how} at {at}");
            return if compares { Purpose::Compares(said) } else { Purpose::Examines(said) };
        }
        Flow::Calls(destinations) => destinations,
    };
    let mut said = BTreeSet::new();
    let mut unknown = None;
    for destination in destinations {
        if let Some(how) = compared(side, *destination, depth, DEEPEST) {
            return Purpose::Compares(how);
        }
        match written_out(side, *destination, 0) {
            Some(how) => {
                said.insert(how);
            }
            None => unknown = Some(format!("goes on from the call at {}", destination.call_at)),
        }
    }
    match unknown {
        Some(how) => Purpose::Examines(how),
        None if said.is_empty() => Purpose::WritesOut("is never used".to_owned()),
        None => Purpose::WritesOut(said.into_iter().collect::<Vec<_>>().join("; ")),
    }
}

/// Whether what arrives at this call is compared there or further in.
fn compared(side: &Side<'_, '_>, destination: Destination, depth: u8, deepest: u8) -> Option<String> {
    if let Some(import) = import_name(side, destination.target) {
        return COMPARING.contains(&import).then(|| format!("goes to {import}"));
    }
    let target = destination.target?;
    let Handover::Register(argument) = destination.by else { return None };
    let function = side.image.functions().get(side.image.function_index_at(target)?)?;
    if function.range.start() != target || depth >= deepest {
        return None;
    }
    let flow = follow_argument(side, function.range, argument);
    match of_flow(side, function.range, &flow, depth.saturating_add(1)) {
        Purpose::Compares(how) => Some(format!("goes to {} at {target}: {how}", name_at(side, target))),
        Purpose::WritesOut(_) | Purpose::Examines(_) => None,
    }
}

/// An instruction that reads the object where it lies.
fn read_in_place(side: &Side<'_, '_>, range: VaRange, at: Va) -> Purpose {
    let said = format!("read at {at}");
    match instruction(side, range, at) {
        Some(i)
            if compares_areas(&i)
                || compares_bytes(side, range)
                || (i.mnemonic() == Mnemonic::Cmp && i.memory_size().size() > 1) =>
        {
            Purpose::Compares(said)
        }
        _ => Purpose::Examines(said),
    }
}

fn compares_areas(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        Mnemonic::Cmpsb
            | Mnemonic::Cmpsw
            | Mnemonic::Cmpsd
            | Mnemonic::Cmpsq
            | Mnemonic::Pcmpeqb
            | Mnemonic::Pcmpeqd
            | Mnemonic::Vpcmpeqb
    )
}

/// Whether the function compares single bytes with one another: a comparison written out.
fn compares_bytes(side: &Side<'_, '_>, range: VaRange) -> bool {
    let bytes = |i: &Instruction| {
        let one = |n: u32| match i.op_kind(n) {
            OpKind::Register => i.op_register(n).size() == 1,
            OpKind::Memory => i.memory_size().size() == 1,
            _ => false,
        };
        i.mnemonic() == Mnemonic::Cmp && one(0) && one(1)
    };
    decode(side.image, range).into_iter().flatten().any(|i| bytes(&i))
}

fn calls_comparison(side: &Side<'_, '_>, range: VaRange) -> bool {
    let Some(function) = side.image.function_index_at(range.start()) else { return true };
    let Some(code) = side.code.get(function) else { return true };
    let calls = code
        .references
        .iter()
        .filter(|r| matches!(r.kind, ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::Indirect));
    calls.into_iter().any(|r| import_name(side, Some(r.target)).is_some_and(|import| COMPARING.contains(&import)))
}

fn instruction(side: &Side<'_, '_>, range: VaRange, at: Va) -> Option<Instruction> {
    let rest = VaRange::try_from((at, range.end())).ok()?;
    decode(side.image, rest)?.into_iter().next()
}

/// Names under which other images may get at the object.
pub fn exported_names(side: &Side<'_, '_>, object: VaRange) -> Vec<String> {
    let data = |va: Va| {
        side.image
            .section_at(va)
            .is_some_and(|s| !matches!(s.role, SectionRole::Code | SectionRole::Plt | SectionRole::Linking))
    };
    let named = side.image.symbols().iter().filter(|s| s.defined && object.contains(s.value) && data(s.value));
    named.map(salve_elf::Symbol::display_name).collect()
}
