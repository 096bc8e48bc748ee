//! What is stored in objects, and in which form.
//!
//! Objects outlive the code that made them. Where a replaced function stores
//! another number than it did, moves a flag to another bit, multiplies what it
//! stores by another factor, or accesses a field with another width, objects that
//! old code made hold the old form. Bounds that changed, sums that are off by
//! one and wider masks are everyday corrections and none of these.

use crate::followed::Versions;
use crate::registry;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use salve_code::affine::{Access, Form, Forms, Origin};
use salve_elf::{Va, VaRange};
use salve_match::{AlignedPair, ImageDiff, Side};
use salve_patch::{Evidence, Reason};
use std::collections::{BTreeMap, BTreeSet};

/// What was found so far.
#[derive(Default)]
pub(crate) struct Encoding {
    evidence: Vec<Evidence>,
}

impl Encoding {
    pub(crate) fn look(&mut self, diff: &ImageDiff<'_, '_>, versions: &Versions<'_>) {
        let Versions { f, g, before, after, .. } = *versions;
        let mut seen = |old_va, new_va, seen| {
            self.evidence.push(Evidence { function: Some(g.display_name()), old_va, new_va, seen });
        };
        let mut flags = Vec::new();
        let meets_objects = meets_objects(&diff.old, f.range) || meets_objects(&diff.new, g.range);
        let (old, new) = (by_address(before), by_address(after));
        for aligned in &diff.difference(versions.old, versions.new).aligned {
            let (old_at, new_at) = (Va::new(aligned.old.ip()), Va::new(aligned.new.ip()));
            // Several, where a vector register is stored.
            let (a, b) = (old.get(&old_at).into_iter().flatten(), new.get(&new_at).into_iter().flatten());
            let mut pairs = a.flat_map(|a| b.clone().map(move |b| (a, b)));
            let stored = pairs.find_map(|(a, b)| stored_otherwise(a, b, (before, after)));
            if let Some(how) = stored {
                seen(Some(old_at), Some(new_at), how);
            } else if let Some((from, to)) = flag_moved(aligned).filter(|_| meets_objects) {
                flags.push((from, to, old_at, new_at));
            }
        }
        // What both versions use somewhere only lies elsewhere now, unless two changed places.
        let (had, has) = (masks_of(&diff.old, f.range), masks_of(&diff.new, g.range));
        let swapped: BTreeSet<(u64, u64)> = flags.iter().map(|(a, b, ..)| (*b, *a)).collect();
        for (from, to, old_at, new_at) in
            flags.into_iter().filter(|(a, b, ..)| swapped.contains(&(*a, *b)) || !has.contains(a) && !had.contains(b))
        {
            seen(Some(old_at), Some(new_at), format!("mask {to:#x}, before {from:#x}"));
        }
        for (at, from, to) in widths_changed(before, after) {
            let how = format!("the field at offset {at:#x} is {to} bytes wide, before {from}");
            seen(Some(f.range.start()), Some(g.range.start()), how);
        }
    }

    pub(crate) fn reason(self) -> Option<Reason> {
        let summary = "objects that exist hold what old code stored in its own form";
        (!self.evidence.is_empty()).then(|| registry::FIELD_ENCODING.because(summary, self.evidence))
    }
}

fn by_address(forms: &Forms) -> BTreeMap<Va, Vec<&Access>> {
    let mut accesses: BTreeMap<Va, Vec<&Access>> = BTreeMap::new();
    for access in &forms.accesses {
        accesses.entry(access.at).or_default().push(access);
    }
    accesses
}

/// What lies so many bytes behind the start of an object is a part of it.
const SMALLEST_PART: i64 = 8;

/// Both versions store something, but not the same.
fn stored_otherwise(old: &Access, new: &Access, forms: (&Forms, &Forms)) -> Option<String> {
    let (a, b) = (old.stored.as_ref()?, new.stored.as_ref()?);
    if old.address.constant != new.address.constant {
        return None; // another field
    }
    if let (Some(a), Some(b)) = (a.as_constant(), b.as_constant()) {
        // A store that both versions do somewhere only lies elsewhere now.
        let stores = |forms: &Forms, number: i64| {
            let there = forms.accesses.iter().filter(|access| access.address.constant == new.address.constant);
            there.into_iter().any(|access| access.stored.as_ref().and_then(Form::as_constant) == Some(number))
        };
        let otherwise = a != b && !stores(forms.1, a) && !stores(forms.0, b);
        return otherwise.then(|| format!("stores {b:#x}, before {a:#x}"));
    }
    let factors = |form: &Form| -> Vec<i64> {
        let mut factors: Vec<i64> = form.terms.iter().map(|(_, factor)| *factor).collect();
        factors.sort_unstable();
        factors
    };
    let (x, y) = (factors(a), factors(b));
    if let ([1], [1]) = (x.as_slice(), y.as_slice())
        && a.constant != b.constant
        && a.constant.min(b.constant) >= SMALLEST_PART
    {
        return Some(format!("stores what lies {:#x} bytes behind something, before {:#x}", b.constant, a.constant));
    }
    (x.len() == y.len() && x != y).then(|| format!("stores multiples by {y:?}, before by {x:?}"))
}

/// Whether a function can come by a stored form or leave one: it touches memory that is
/// not its own frame, or calls somebody who may. One that does neither calculates.
fn meets_objects(side: &Side<'_, '_>, range: VaRange) -> bool {
    let touches = |instruction: &Instruction| {
        let reads_or_writes = !matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Nop);
        let memory = instruction.op_kinds().any(|kind| kind == OpKind::Memory);
        // Another base than the stack pointer may be any object's address, `rbp` too.
        let own = instruction.memory_base() == Register::RSP && instruction.memory_index() == Register::None;
        memory && reads_or_writes && !own
    };
    let leaves = |instruction: &Instruction| {
        use iced_x86::FlowControl as Flow;
        match instruction.flow_control() {
            Flow::Next | Flow::Return => false,
            Flow::ConditionalBranch | Flow::UnconditionalBranch => {
                !range.contains(Va::new(instruction.near_branch64()))
            }
            _ => true,
        }
    };
    match salve_code::decode(side.image, range) {
        Some(decoder) => decoder.into_iter().any(|instruction| {
            // String instructions name their memory by no operand of this kind.
            touches(&instruction) || leaves(&instruction) || instruction.is_string_instruction()
        }),
        None => true,
    }
}

/// A single bit or mask gave way to another one, neither within the other.
fn flag_moved(pair: &AlignedPair) -> Option<(u64, u64)> {
    let (a, b) = (mask(&pair.old)?, mask(&pair.new)?);
    (a & !b != 0 && b & !a != 0).then_some((a, b))
}

/// The number that an instruction masks with.
fn mask(instruction: &Instruction) -> Option<u64> {
    let logical = matches!(instruction.mnemonic(), Mnemonic::Or | Mnemonic::And | Mnemonic::Xor | Mnemonic::Test);
    let immediate = logical && !matches!(instruction.op1_kind(), OpKind::Register | OpKind::Memory);
    let stack =
        instruction.op0_kind() == OpKind::Register && instruction.op0_register().full_register() == Register::RSP;
    (immediate && !stack).then(|| instruction.immediate(1))
}

fn masks_of(side: &Side<'_, '_>, range: VaRange) -> BTreeSet<u64> {
    salve_code::decode(side.image, range).into_iter().flatten().filter_map(|i| mask(&i)).collect()
}

/// Fields that are accessed with one width where they had another.
fn widths_changed(before: &Forms, after: &Forms) -> Vec<(i64, usize, usize)> {
    let (a, b) = (widths(before), widths(after));
    let mut changed = Vec::new();
    for (at, from) in &a {
        let Some(to) = b.get(at).filter(|to| to.is_disjoint(from)) else { continue };
        let (Some(from), Some(to)) = (from.first().copied(), to.first().copied()) else { continue };
        // Two neighbours accessed at once, or one field in two halves.
        let (narrow, all) = if from < to { (from, &a) } else { (to, &b) };
        let neighbour = i64::try_from(narrow).ok().and_then(|n| at.checked_add(n));
        if neighbour.is_none_or(|at| !all.contains_key(&at)) {
            changed.push((*at, from, to));
        }
    }
    changed
}

/// For each offset from an object's start, the widths of plain accesses.
fn widths(forms: &Forms) -> BTreeMap<i64, BTreeSet<usize>> {
    let mut widths: BTreeMap<i64, BTreeSet<usize>> = BTreeMap::new();
    for access in &forms.accesses {
        let object = matches!(access.address.terms.as_slice(), [(origin, 1)] if !matches!(origin, Origin::Static(_)));
        if object && access.is_integer && matches!(access.len_bytes, 2 | 4 | 8) {
            widths.entry(access.address.constant).or_default().insert(access.len_bytes);
        }
    }
    widths
}
