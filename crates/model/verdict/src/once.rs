//! Code that a process runs once: when it starts, or whenever it first gets there.
//!
//! What start-up code did is not done again, and neither is what a function does
//! behind a guard: the initialiser of a C++ variable with static storage within a
//! function (Itanium C++ ABI, "One-time Construction API"), and what is handed to
//! `pthread_once` and its like.

use crate::callers::Callers;
use crate::carry::Carried;
use crate::layout::import_at;
use crate::registry;
use iced_x86::{Instruction, Mnemonic};
use salve_elf::{Va, VaRange};
use salve_match::{ImageDiff, Place, Side};
use salve_patch::{Evidence, Reason};
use std::collections::BTreeSet;

const GUARD: &str = "__cxa_guard_acquire";
const RELEASE: &str = "__cxa_guard_release";
const ONCE: &[&str] = &["pthread_once", "call_once", "__pthread_once", "CRYPTO_THREAD_run_once", "g_once_impl"];

/// What runs when the image is loaded or the program starts.
pub(crate) fn at_startup(diff: &ImageDiff<'_, '_>, carried: &Carried, callers: &Callers) -> Option<Reason> {
    let evidence: Vec<Evidence> = carried
        .new_functions()
        .into_iter()
        .filter_map(|n| Some((n, diff.new.image.functions().get(n)?)))
        .filter(|(n, _)| callers.startup.contains(n) || callers.once.contains(n))
        .map(|(_, f)| Evidence {
            function: Some(f.display_name()),
            old_va: None,
            new_va: Some(f.range.start()),
            seen: "runs once, when the image is loaded or the program starts".to_owned(),
        })
        .collect();
    (!evidence.is_empty()).then(|| registry::STARTUP_CODE.because("code that runs at start-up changed", evidence))
}

/// What runs behind a guard.
pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    let once = run_once(&diff.new);
    let mut evidence = Vec::new();
    for pair in &carried.pairs {
        let functions = (diff.old.image.functions().get(pair.old), diff.new.image.functions().get(pair.new));
        let (Some(f), Some(g)) = functions else { continue };
        let codes = (diff.old.code.get(pair.old), diff.new.code.get(pair.new));
        if matches!(codes, (Some(a), Some(b)) if a.hash == b.hash) {
            continue;
        }
        let (before, after) = (guarded(&diff.old, f.range), guarded(&diff.new, g.range));
        let seen = if once.contains(&pair.new) {
            "is run once, by whoever comes first"
        } else if before != after {
            "what it does once, behind a guard, changed"
        } else {
            continue;
        };
        evidence.push(Evidence {
            function: Some(g.display_name()),
            old_va: Some(f.range.start()),
            new_va: Some(g.range.start()),
            seen: seen.to_owned(),
        });
    }
    (!evidence.is_empty()).then(|| registry::STARTUP_CODE.because("code that runs once changed", evidence))
}

/// Functions that are handed to something that runs them once.
fn run_once(side: &Side<'_, '_>) -> BTreeSet<usize> {
    const FURTHEST: usize = 12;
    let mut found = BTreeSet::new();
    let imports_one = side.image.symbols().iter().any(|s| !s.defined && ONCE.contains(&s.name));
    if !imports_one {
        return found;
    }
    for function in side.image.functions() {
        let code: Vec<Instruction> = salve_code::decode(side.image, function.range).into_iter().flatten().collect();
        for (index, instruction) in code.iter().enumerate() {
            if !import_at(side, instruction).is_some_and(|name| ONCE.contains(&name)) {
                continue;
            }
            for before in code.get(index.saturating_sub(FURTHEST)..index).unwrap_or_default() {
                let address = before.mnemonic() == Mnemonic::Lea && before.is_ip_rel_memory_operand();
                if let (true, Place::Code { function, offset: 0 }) =
                    (address, side.place(Va::new(before.ip_rel_memory_address())))
                {
                    found.insert(function);
                }
            }
        }
    }
    found
}

/// The numbers and operations between where a guard is taken and where it is let go, in
/// order; registers and addresses left out.
fn guarded(side: &Side<'_, '_>, range: VaRange) -> Vec<(u16, u64)> {
    let code: Vec<Instruction> = salve_code::decode(side.image, range).into_iter().flatten().collect();
    let mut all = Vec::new();
    let mut inside = false;
    for instruction in &code {
        match import_at(side, instruction) {
            Some(GUARD) => inside = true,
            Some(RELEASE) => inside = false,
            _ if inside => {
                let number = (0..instruction.op_count())
                    .find(|n| salve_code::is_immediate(instruction.op_kind(*n)))
                    .map_or(0, |n| instruction.immediate(n));
                all.push((u16::try_from(instruction.mnemonic() as usize).unwrap_or(u16::MAX), number));
            }
            _ => {}
        }
    }
    all
}
