//! Calls that moved from one function to another.
//!
//! A function that takes something and one that gives it back share a contract, and
//! so do one that prepares an object and those that use it. Where the call that
//! did so moved, an object that old code left behind meets new code that expects
//! the new contract: a lock is released that nobody took, a reference dropped
//! twice. Named pairs are for [`crate::resources`]; here the callees are private:
//! what counts is that they change what others see, by an atomic operation, by
//! a lock, or by writing memory outside their frames.

use crate::carry::Carried;
use crate::followed::Followed;
use crate::layout::{call_target, import_at};
use crate::registry;
use crate::resources::{PAIRS, calls};
use iced_x86::{Instruction, Mnemonic, OpKind};
use salve_code::ReferenceKind;
use salve_code::affine::{Form, Origin, argument, forms};
use salve_elf::Binding;
use salve_match::{ImageDiff, Place, Side};
use salve_patch::{Evidence, Reason};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A carried function that calls others more or less often than it did.
struct Change {
    pair: (usize, usize),
    /// Callees of the new image that have an old counterpart, by how often more.
    calls: BTreeMap<usize, i64>,
}

pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried, followed: &Followed<'_, '_, '_>) -> Option<Reason> {
    let changes: Vec<Change> = carried.pairs.iter().filter_map(|p| change(diff, (p.old, p.new))).collect();
    let mut moved = BTreeSet::new();
    for (index, change) in changes.iter().enumerate() {
        for (callee, by) in &change.calls {
            let elsewhere = changes.iter().enumerate().any(|(other, c)| {
                other != index && c.calls.get(callee).is_some_and(|n| n.signum() == by.wrapping_neg().signum())
            });
            if elsewhere {
                moved.insert(*callee);
            }
        }
    }
    let carried_code = carried.new_functions();
    let mut effects = Effects { followed, own: HashMap::new(), any: HashMap::new() };
    moved.retain(|callee| !carried_code.contains(callee) && effects.any(*callee, 0));
    moved.extend(halves(diff, &changes));
    let mut evidence = given_back_elsewhere(diff, carried);
    let name = |side: &Side<'_, '_>, i: usize| side.image.functions().get(i).map(salve_elf::Function::display_name);
    let start = |side: &Side<'_, '_>, i: usize| side.image.functions().get(i).map(|f| f.range.start());
    for change in &changes {
        for (callee, by) in change.calls.iter().filter(|(callee, _)| moved.contains(callee)) {
            evidence.push(Evidence {
                function: name(&diff.new, change.pair.1),
                old_va: start(&diff.old, change.pair.0),
                new_va: start(&diff.new, change.pair.1),
                seen: format!("calls {} {by:+} times", name(&diff.new, *callee).unwrap_or_default()),
            });
        }
    }
    (!evidence.is_empty())
        .then(|| registry::CALL_MOVED.because("calls that change shared state moved between functions", evidence))
}

/// Callees that synchronise and of which one function gained or lost one, another
/// function a different one: the two halves of a contract may have come or gone.
/// A function that gained or lost both is balanced in itself.
fn halves(diff: &ImageDiff<'_, '_>, changes: &[Change]) -> BTreeSet<usize> {
    let mut lone = BTreeSet::new();
    for change in changes {
        let mut of_note = change.calls.keys().filter(|callee| synchronises(&diff.new, **callee));
        if let (Some(callee), None) = (of_note.next(), of_note.next()) {
            lone.insert(*callee);
        }
    }
    if lone.len() >= 2 { lone } else { BTreeSet::new() }
}

/// Imports that end an object's life or give up a hold on it, of which one replaced
/// function calls more and another fewer than it did: what old code gave back without
/// forgetting it would be given back twice, and the other way round never.
fn given_back_elsewhere(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Vec<Evidence> {
    /// By how many calls more, in which pair of functions.
    type Places = Vec<(i64, (usize, usize))>;
    let mut changes: BTreeMap<&str, Places> = BTreeMap::new();
    for pair in &carried.pairs {
        let functions = (diff.old.image.functions().get(pair.old), diff.new.image.functions().get(pair.new));
        let (Some(f), Some(g)) = functions else { continue };
        let (before, after) = (calls(&diff.old, f.range), calls(&diff.new, g.range));
        let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().filter(|n| gives_back(n)).collect();
        for name in names {
            let count = |calls: &BTreeMap<&str, i64>| calls.get(name).copied().unwrap_or(0);
            let by = count(&after).saturating_sub(count(&before));
            // One more path on which it happens is a leak mended; none left, or the first, is a contract.
            if by != 0 && (count(&before) == 0 || count(&after) == 0) {
                changes.entry(name).or_default().push((by, (pair.old, pair.new)));
            }
        }
    }
    let mut evidence = Vec::new();
    for (name, places) in changes {
        let moved = places.iter().any(|(by, _)| *by > 0) && places.iter().any(|(by, _)| *by < 0);
        for (by, (old, new)) in places.into_iter().filter(|_| moved) {
            let functions = (diff.old.image.functions().get(old), diff.new.image.functions().get(new));
            let (Some(f), Some(g)) = functions else { continue };
            evidence.push(Evidence {
                function: Some(g.display_name()),
                old_va: Some(f.range.start()),
                new_va: Some(g.range.start()),
                seen: format!("calls {name} {by:+} times"),
            });
        }
    }
    evidence
}

/// By the last word of its name: who gives things back is named alike in all libraries.
fn gives_back(import: &str) -> bool {
    const WORDS: &[&str] = &["free", "close", "release", "unref", "decref", "destroy", "delete", "munmap", "dispose"];
    // `operator delete` and `delete[]`, of all signatures.
    if import.starts_with("_Zdl") || import.starts_with("_Zda") {
        return true;
    }
    let plain = last_identifier(import).trim_start_matches('_').to_ascii_lowercase();
    WORDS.iter().any(|word| plain.ends_with(word)) || plain.contains("_free") || plain.contains("xmlfree")
}

/// Of a C++ function, its own name (Itanium C++ ABI §5.1.3); any other name as it is.
fn last_identifier(name: &str) -> &str {
    let Some(mut rest) = name.strip_prefix("_ZN").or_else(|| name.strip_prefix("_Z")) else { return name };
    let mut last = name;
    loop {
        rest = rest.trim_start_matches(['K', 'V', 'r']);
        let digits = rest.len().saturating_sub(rest.trim_start_matches(|c: char| c.is_ascii_digit()).len());
        let split = rest.split_at_checked(digits).and_then(|(len, text)| text.split_at_checked(len.parse().ok()?));
        let Some((identifier, behind)) = split else { return last };
        (last, rest) = (identifier, behind);
    }
}

fn change(diff: &ImageDiff<'_, '_>, pair: (usize, usize)) -> Option<Change> {
    let (old, new) = (callees(&diff.old, pair.0), callees(&diff.new, pair.1));
    let mut calls: BTreeMap<usize, i64> = BTreeMap::new();
    for (callee, count) in &new {
        if diff.old_of(*callee).is_some() {
            calls.insert(*callee, *count);
        }
    }
    for (callee, count) in &old {
        if let Some(callee) = diff.new_of(*callee) {
            let by = calls.entry(callee).or_default();
            *by = by.saturating_sub(*count);
        }
    }
    calls.retain(|_, by| *by != 0);
    let gained: Vec<(usize, i64)> = calls.iter().filter(|(_, by)| **by > 0).map(|(g, by)| (*g, *by)).collect();
    for (callee, times) in gained {
        for (called, count) in was_inlined(diff, pair, callee, &calls).into_iter().flatten() {
            if let Some(by) = calls.get_mut(&called) {
                *by = by.saturating_add(times.saturating_mul(count)).min(0);
            }
        }
    }
    calls.retain(|_, by| *by != 0);
    (!calls.is_empty()).then_some(Change { pair, calls })
}

/// What a function calls that the compiler had made a part of another one, which calls it now: all
/// that it calls is called less often there. Several callees tell it from another function, and
/// that they get the same.
fn was_inlined(
    diff: &ImageDiff<'_, '_>,
    (old, new): (usize, usize),
    callee: usize,
    by: &BTreeMap<usize, i64>,
) -> Option<BTreeMap<usize, i64>> {
    let mut inside: BTreeMap<usize, i64> = BTreeMap::new();
    let now = callees(&diff.new, callee);
    for (called, count) in callees(&diff.old, diff.old_of(callee)?) {
        let called = diff.new_of(called)?;
        let count = count.min(now.get(&called).copied().unwrap_or(0));
        inside.insert(called, count);
    }
    let range = |side: &Side<'_, '_>, function: usize| side.image.functions().get(function).map(|f| f.range);
    let imports = calls(&diff.old, range(&diff.old, diff.old_of(callee)?)?);
    let (before, after) = (calls(&diff.old, range(&diff.old, old)?), calls(&diff.new, range(&diff.new, new)?));
    let own = |name: &str| diff.old.image.symbols().iter().any(|symbol| symbol.defined && symbol.name == name);
    // Each function has its own guard of the stack.
    let imports: Vec<&str> = imports.into_keys().filter(|name| *name != "__stack_chk_fail" && !own(name)).collect();
    let fewer = |name: &&str| after.get(name).unwrap_or(&0) < before.get(name).unwrap_or(&0);
    let all_fewer = inside.keys().all(|called| by.get(called).is_some_and(|by| *by < 0)) && imports.iter().all(fewer);
    if !all_fewer || inside.len().saturating_add(imports.len()) < 2 {
        return None;
    }
    inside.retain(|called, _| gets_the_same(diff, (old, new), callee, *called));
    Some(inside)
}

/// Whether what `called` gets first from `callee` is what it got first from the function that now
/// calls `callee`: one of that one's own arguments.
fn gets_the_same(diff: &ImageDiff<'_, '_>, (old, new): (usize, usize), callee: usize, called: usize) -> bool {
    let (Some(callee_before), Some(called_before)) = (diff.old_of(callee), diff.old_of(called)) else { return false };
    let given = arguments(&diff.old, callee_before, called_before);
    let had: Vec<Form> = arguments(&diff.old, old, called_before).into_iter().map(|[first, ..]| first).collect();
    let mut gives = arguments(&diff.new, new, callee).into_iter();
    gives.all(|arguments| {
        given.iter().all(|[first, ..]| {
            let from = (0..arguments.len()).find(|n| first.terms.as_slice() == [(argument(*n), 1)]);
            let Some(mut gets) = from.and_then(|n| arguments.get(n)).cloned() else { return false };
            gets.constant = gets.constant.wrapping_add(first.constant);
            matches!(gets.terms.as_slice(), [(Origin::Entry(_), 1)]) && had.contains(&gets)
        })
    })
}

/// What a function hands to another one, call by call.
fn arguments(side: &Side<'_, '_>, function: usize, callee: usize) -> Vec<[Form; 6]> {
    let Some(f) = side.image.functions().get(function) else { return Vec::new() };
    let leads_to = |at| {
        let call = salve_code::decode_at(side.image, at);
        call.and_then(|call| call_target(&call)).and_then(|target| own_function(side, target)) == Some(callee)
    };
    let calls = forms(side.image, f.range).calls;
    calls.into_iter().filter(|call| leads_to(call.at)).map(|call| call.arguments).collect()
}

/// How often a function calls each other one directly.
fn callees(side: &Side<'_, '_>, function: usize) -> BTreeMap<usize, i64> {
    let mut counts = BTreeMap::new();
    for reference in side.code.get(function).into_iter().flat_map(|code| &code.references) {
        if !matches!(reference.kind, ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::Indirect) {
            continue;
        }
        if let Some(callee) = own_function(side, reference.target) {
            let count: &mut i64 = counts.entry(callee).or_default();
            *count = count.saturating_add(1);
        }
    }
    counts
}

/// The function of this image that a call leads to, through its slot if need be.
fn own_function(side: &Side<'_, '_>, target: salve_elf::Va) -> Option<usize> {
    let slot = side.plt.slot_of(target).unwrap_or(target);
    let own = side.image.reloc_at(slot).and_then(|reloc| match reloc.binding {
        Binding::Relative { target } => Some(target),
        Binding::Symbol { symbol, .. } => side.image.symbols().get(symbol).filter(|s| s.defined).map(|s| s.value),
        Binding::Indirect { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. } => None,
    });
    match side.place(own.unwrap_or(target)) {
        Place::Code { function, offset: 0 } => Some(function),
        _ => None,
    }
}

/// What calls do that others see; each question is answered once.
struct Effects<'f, 's, 'i, 'a> {
    followed: &'f Followed<'s, 'i, 'a>,
    own: HashMap<usize, bool>,
    /// By function and how deep it was called.
    any: HashMap<(usize, u8), bool>,
}

impl Effects<'_, '_, '_, '_> {
    /// Whether others see that the function was called.
    fn any(&mut self, function: usize, depth: u8) -> bool {
        const DEEPEST: u8 = 2;
        if let Some(known) = self.any.get(&(function, depth)) {
            return *known;
        }
        let any = self.own(function)
            || (depth < DEEPEST
                && callees(self.followed.side, function).keys().any(|g| self.any(*g, depth.saturating_add(1))));
        self.any.insert((function, depth), any);
        any
    }

    /// Whether others see what the function itself does.
    fn own(&mut self, function: usize) -> bool {
        let followed = self.followed;
        *self.own.entry(function).or_insert_with(|| {
            let unknown = followed.side.image.functions().get(function).is_none();
            unknown || synchronises(followed.side, function) || followed.digest(function).writes
        })
    }
}

/// Whether the function itself works with atomic operations or locks.
fn synchronises(side: &Side<'_, '_>, function: usize) -> bool {
    let Some(range) = side.image.functions().get(function).map(|f| f.range) else { return true };
    let atomic = |i: &Instruction| {
        let memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
        i.has_lock_prefix() || (i.mnemonic() == Mnemonic::Xchg && memory)
    };
    let locks = |i: &Instruction| {
        import_at(side, i)
            .is_some_and(|name| PAIRS.iter().any(|(acquire, release)| [*acquire, *release].contains(&name)))
    };
    salve_code::decode(side.image, range).into_iter().flatten().any(|i| atomic(&i) || locks(&i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_back_is_known_by_its_own_name_in_both_languages() {
        for name in
            ["free", "BIO_free", "_ZdlPvm", "_ZdaPv", "_ZN6Buffer7releaseEv", "_ZNK3one3two5closeEi", "_Z5closei"]
        {
            assert!(gives_back(name), "{name}");
        }
        for name in ["malloc", "_ZN7release6BufferC1Ev", "_ZNSt6vectorIiE4sizeEv", "_Z4sizei", "_Z99x", "_ZN"] {
            assert!(!gives_back(name), "{name}");
        }
    }
}
