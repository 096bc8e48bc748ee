//! What is kept in an order, and what is looked up by a hash.
//!
//! A table that lives was sorted, or filed, by old code. Where the comparison or
//! the hash changes, new code looks in other places than those in which old code
//! put things, and a sort that is going on while nobody is inside the comparison
//! ends in another order than it began in. A comparison is known by being handed
//! to a function of the C library that sorts or searches; a hash by a loop that
//! goes through bytes and mixes them into a number, and does so by other factors and
//! shifts where it had some: one more of them is no other hash.

use crate::callers::led_to;
use crate::carry::Carried;
use crate::followed::{Followed, Handed};
use crate::layout::call_target;
use crate::registry;
use iced_x86::{Instruction, Mnemonic, OpKind};
use salve_code::ReferenceKind;
use salve_code::affine::argument;
use salve_elf::{Binding, Va, VaRange};
use salve_match::{ImageDiff, Place, Side};
use salve_patch::{Evidence, Reason};
use std::collections::{BTreeMap, BTreeSet};

/// Imports that keep or find things in the order of a function they are handed.
const ORDERING: &[&str] = &[
    "qsort",
    "qsort_r",
    "bsearch",
    "lfind",
    "lsearch",
    "tsearch",
    "tfind",
    "tdelete",
    "g_tree_new",
    "g_tree_new_full",
    "g_hash_table_new",
    "g_hash_table_new_full",
    "g_list_insert_sorted",
    "g_queue_insert_sorted",
    "OPENSSL_sk_new",
    "OPENSSL_sk_set_cmp_func",
    "OPENSSL_LH_new",
];

pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried, followed: &Followed<'_, '_, '_>) -> Option<Reason> {
    let orders = orders(&diff.new, followed);
    let mut evidence = Vec::new();
    for pair in &carried.pairs {
        let functions = (diff.old.image.functions().get(pair.old), diff.new.image.functions().get(pair.new));
        let (Some(f), Some(g)) = functions else { continue };
        let codes = (diff.old.code.get(pair.old), diff.new.code.get(pair.new));
        if matches!(codes, (Some(a), Some(b)) if a.hash == b.hash) {
            continue;
        }
        let mut seen = |seen: String| {
            evidence.push(Evidence {
                function: Some(g.display_name()),
                old_va: Some(f.range.start()),
                new_va: Some(g.range.start()),
                seen,
            });
        };
        if let Some(import) = orders.get(&pair.new) {
            seen(format!("is handed to {import}, which keeps things in the order it says"));
        }
        let (before, after) = (mixing(&diff.old, f.range), mixing(&diff.new, g.range));
        let replaced = before.difference(&after).next().is_some() && after.difference(&before).next().is_some();
        if replaced {
            seen(format!("mixes bytes into a number by {}, before by {}", listed(&after), listed(&before)));
        }
    }
    let summary = "a comparison or a hash changed by which old code kept things";
    (!evidence.is_empty()).then(|| registry::ORDER_CHANGED.because(summary, evidence))
}

/// Functions of the image whose address is near a call of one of [`ORDERING`].
fn orders(side: &Side<'_, '_>, followed: &Followed<'_, '_, '_>) -> BTreeMap<usize, &'static str> {
    /// Arguments are made ready within so many instructions.
    const FURTHEST: usize = 16;
    let mut orders = BTreeMap::new();
    // Functions that hand an argument on to one of them are as good.
    let mut wrappers: BTreeMap<usize, &'static str> = BTreeMap::new();
    loop {
        let known = wrappers.len();
        for (index, (function, code)) in side.image.functions().iter().zip(&side.code).enumerate() {
            let mut calls = code
                .references
                .iter()
                .filter(|r| matches!(r.kind, ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::Indirect));
            let named = calls.find_map(|r| ordering(side, r.target, &wrappers));
            let Some(named) = named else { continue };
            let code: Vec<Instruction> = salve_code::decode(side.image, function.range).into_iter().flatten().collect();
            for (index, instruction) in code.iter().enumerate() {
                let import = call_target(instruction).and_then(|target| ordering(side, target, &wrappers));
                let Some(import) = import else { continue };
                for before in code.get(index.saturating_sub(FURTHEST)..index).unwrap_or_default() {
                    if let Some(callback) = address_taken(side, before) {
                        orders.entry(callback).or_insert(import);
                    }
                }
            }
            let hands_on = |handed: &Handed| {
                let call = salve_code::decode_at(side.image, handed.call).and_then(|call| call_target(&call));
                let is_argument = (0..6).any(|n| handed.from == argument(n));
                handed.whole && is_argument && call.is_some_and(|call| ordering(side, call, &wrappers).is_some())
            };
            if !wrappers.contains_key(&index) && followed.digest(index).handed.iter().any(hands_on) {
                wrappers.insert(index, named);
            }
        }
        if wrappers.len() == known {
            return orders;
        }
    }
}

/// Which of [`ORDERING`] a call leads to, through a function that hands on to it as well.
fn ordering(side: &Side<'_, '_>, target: Va, wrappers: &BTreeMap<usize, &'static str>) -> Option<&'static str> {
    let slot = side.plt.slot_of(target).unwrap_or(target);
    let bound = side.image.reloc_at(slot).map(|reloc| reloc.binding);
    if let Some(Binding::Symbol { symbol, .. }) = bound
        && let Some(named) = side.image.symbols().get(symbol)
        && let Some(import) = ORDERING.iter().find(|name| **name == named.name)
    {
        return Some(import);
    }
    if wrappers.is_empty() {
        return None;
    }
    match led_to(side, slot) {
        Place::Code { function, offset: 0 } => wrappers.get(&function).copied(),
        _ => None,
    }
}

/// The function whose address the instruction makes or loads.
fn address_taken(side: &Side<'_, '_>, instruction: &Instruction) -> Option<usize> {
    if !instruction.is_ip_rel_memory_operand() {
        return None;
    }
    let target = Va::new(instruction.ip_rel_memory_address());
    let place = match instruction.mnemonic() {
        Mnemonic::Lea => side.place(target),
        Mnemonic::Mov => match side.image.reloc_at(target)?.binding {
            Binding::Relative { target } => side.place(target),
            Binding::Symbol { symbol, .. } => side.place(side.image.symbols().get(symbol).filter(|s| s.defined)?.value),
            Binding::Indirect { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. } => return None,
        },
        _ => return None,
    };
    match place {
        Place::Code { function, offset: 0 } => Some(function),
        _ => None,
    }
}

/// How a function mixes bytes into a number: multiplications, shifts and rotations by
/// a number, within loops that load single bytes.
fn mixing(side: &Side<'_, '_>, range: VaRange) -> BTreeSet<(u16, u64)> {
    let code: Vec<Instruction> = salve_code::decode(side.image, range).into_iter().flatten().collect();
    let mut mixing = BTreeSet::new();
    for (end, last) in code.iter().enumerate() {
        let to = last.near_branch64();
        let loops = last.op0_kind() == OpKind::NearBranch64 && to <= last.ip() && range.contains(Va::new(to));
        if !loops {
            continue;
        }
        let start = code.partition_point(|i| i.ip() < to);
        let body = code.get(start..=end).unwrap_or_default();
        if body.len() <= 64 && body.iter().any(loads_byte) {
            mixing.extend(body.iter().filter_map(step));
        }
    }
    mixing
}

fn loads_byte(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Xor | Mnemonic::Add)
        && instruction.memory_size().size() == 1
        && instruction.op0_kind() == OpKind::Register
}

/// The operation, with its number, where it is one that mixes.
fn step(instruction: &Instruction) -> Option<(u16, u64)> {
    let operation = u16::try_from(instruction.mnemonic() as usize).ok()?;
    let number = match instruction.mnemonic() {
        // To the right is how numbers are taken apart.
        Mnemonic::Shl | Mnemonic::Rol | Mnemonic::Ror => {
            (instruction.op1_kind() == OpKind::Immediate8).then(|| instruction.immediate(1))?
        }
        Mnemonic::Imul if instruction.op_count() == 3 => instruction.immediate(2),
        _ => return None,
    };
    Some((operation, number))
}

fn listed(mixing: &BTreeSet<(u16, u64)>) -> String {
    let name = |operation: u16| {
        Mnemonic::values().find(|m| u16::try_from(*m as usize).ok() == Some(operation)).map(|m| format!("{m:?}"))
    };
    let each = mixing
        .iter()
        .map(|(operation, number)| format!("{} {number:#x}", name(*operation).unwrap_or_default().to_lowercase()));
    each.collect::<Vec<_>>().join(", ")
}
