//! Addresses of code to which something is added.
//!
//! Where that leads depends on how far apart functions lie. It holds within one function, and
//! where nothing moved against anything else; in the payload only within what it carries. A call
//! to a place of its own, by which code learns where it is, gives such an address as well.

use crate::carry::Carried;
use crate::registry;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};
use salve_code::{ReferenceKind, decode};
use salve_elf::{Va, VaRange};
use salve_match::{Addend, ImageDiff, Place, Side, calculated};
use salve_patch::{Evidence, Reason};
use std::collections::BTreeSet;

pub(crate) fn reasons(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Vec<Reason> {
    let side = &diff.new;
    let payload = carried.new_functions();
    let moved = is_any_moved(diff);
    let (mut replaced, mut stays) = (Vec::new(), Vec::new());
    for (index, function) in side.image.functions().iter().enumerate() {
        let carried = payload.contains(&index);
        if !(carried || moved && function.is_described()) {
            continue;
        }
        let taken = taken(side, index, function.range);
        let mut at = calculated(side, function.range, &taken, Addend::Any).into_iter().next();
        if carried && at.is_none() {
            let within = calculated(side, function.range, &own(side, function.range), Addend::Unstated);
            // A jump to a place of its own is another rule's business.
            at = within.into_iter().find(|at| !is_jumped_to(side, function.range, *at));
        }
        let asks = if carried { call_into_itself(side, function.range) } else { None };
        let seen = at.map(|at| format!("adds something to the address of code at {at}"));
        if let Some(seen) = seen.or(asks.map(|at| format!("calls a place of its own at {at}, which tells where it is")))
        {
            let evidence = Evidence {
                function: Some(function.display_name()),
                old_va: None,
                new_va: Some(function.range.start()),
                seen,
            };
            if carried { replaced.push(evidence) } else { stays.push(evidence) }
        }
    }
    let summary = "replaced code calculates an address from that of code";
    let replaced = (!replaced.is_empty()).then(|| registry::UNPROVEN_REFERENCE.because(summary, replaced));
    let summary = "code that stays calculates an address from that of other code, and what lies between moved";
    // Nothing is called unchanged for that reason alone.
    let code = if carried.is_empty() { registry::UNPROVEN_REFERENCE } else { registry::CALCULATED_ADDRESS };
    let stays = (!stays.is_empty()).then(|| code.because(summary, stays));
    replaced.into_iter().chain(stays).collect()
}

/// Where it takes the address of other code.
fn taken(side: &Side<'_, '_>, index: usize, range: VaRange) -> Vec<Va> {
    let references = side.code.get(index).into_iter().flat_map(|code| &code.references);
    let addresses = references.filter(|r| r.kind == ReferenceKind::Address);
    // What cannot be read as instructions is a table among the code.
    let of_code = addresses.filter(|r| match side.place(r.target) {
        Place::Code { function, .. } => side.code.get(function).is_some_and(|code| code.decoded),
        _ => false,
    });
    of_code.map(|r| range.start().wrapping_offset(i64::from(r.at))).collect()
}

/// Where it takes the address of one of its own instructions.
fn own(side: &Side<'_, '_>, range: VaRange) -> Vec<Va> {
    let takes = |i: &Instruction| {
        i.mnemonic() == Mnemonic::Lea
            && i.is_ip_rel_memory_operand()
            && range.contains(Va::new(i.ip_rel_memory_address()))
    };
    decode(side.image, range).into_iter().flatten().filter(takes).map(|i| Va::new(i.ip())).collect()
}

/// A call that leads behind the function's start, where something may take the return address.
fn call_into_itself(side: &Side<'_, '_>, range: VaRange) -> Option<Va> {
    let into = |i: &Instruction| {
        let target = Va::new(i.near_branch64());
        i.flow_control() == FlowControl::Call
            && i.op0_kind() == OpKind::NearBranch64
            && range.contains(target)
            && target != range.start()
    };
    decode(side.image, range).into_iter().flatten().find(into).map(|i| Va::new(i.ip()))
}

/// Whether all that is done with the sum is to jump there.
fn is_jumped_to(side: &Side<'_, '_>, range: VaRange, at: Va) -> bool {
    let behind = VaRange::try_from((at, range.end())).ok().and_then(|rest| decode(side.image, rest));
    let mut code = behind.into_iter().flatten();
    let Some(sum) = code.next().map(|i| i.op0_register()) else { return false };
    let last = code.find(|i| i.flow_control() != FlowControl::Next || uses(i, sum));
    last.is_some_and(|i| {
        i.flow_control() == FlowControl::IndirectBranch && i.op0_kind() == OpKind::Register && i.op0_register() == sum
    })
}

fn uses(instruction: &Instruction, register: Register) -> bool {
    InstructionInfoFactory::new()
        .info(instruction)
        .used_registers()
        .iter()
        .any(|used| used.register().full_register() == register.full_register())
}

/// Whether any function lies otherwise to another one than before.
fn is_any_moved(diff: &ImageDiff<'_, '_>) -> bool {
    let starts = |(o, n): (usize, usize)| {
        let (f, g) = (diff.old.image.functions().get(o)?, diff.new.image.functions().get(n)?);
        Some(g.range.start().wrapping_distance_from(f.range.start()))
    };
    let pairs = diff.identical.iter().copied().chain(diff.changed.iter().map(|pair| (pair.old, pair.new)));
    let distances: BTreeSet<Option<i64>> = pairs.map(starts).collect();
    distances.len() > 1
}
