//! Functions of the C library that are given functions.
//!
//! How many arguments they have is fixed, so that what the registers behind them happen to hold
//! is not one. And some call what they are given only until they return: then whoever called them
//! is on the stack for as long as anybody holds the function. In what order a table is kept is
//! more than that: a search by an order of which old code knew nothing looks in the wrong places.

use crate::callers::{Callers, led_to};
use crate::carry::Carried;
use crate::layout::symbol_at;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, Register};
use salve_code::ReferenceKind;
use salve_code::affine::{Form, Origin, argument, forms};
use salve_code::decode_at;
use salve_elf::{SectionRole, Va, VaRange};
use salve_match::{ImageDiff, Place, Side};
use std::collections::BTreeSet;

/// By how many arguments they have.
const TAKERS: &[(&str, usize)] = &[
    ("__cxa_at_quick_exit", 2),
    ("__cxa_atexit", 3),
    ("__cxa_thread_atexit_impl", 3),
    ("__register_atfork", 4),
    ("__sysv_signal", 2),
    ("atexit", 1),
    ("bsd_signal", 2),
    ("bsearch", 5),
    ("call_once", 2),
    ("dl_iterate_phdr", 2),
    ("ftw", 3),
    ("ftw64", 3),
    ("glob", 4),
    ("glob64", 4),
    ("lfind", 5),
    ("lsearch", 5),
    ("nftw", 4),
    ("nftw64", 4),
    ("on_exit", 2),
    ("pthread_atfork", 3),
    ("pthread_create", 4),
    ("pthread_key_create", 2),
    ("pthread_once", 2),
    ("qsort", 4),
    ("qsort_r", 5),
    ("scandir", 4),
    ("scandir64", 4),
    ("scandirat", 5),
    ("scandirat64", 5),
    ("sigaction", 3),
    ("signal", 2),
    ("sigset", 2),
    ("tdelete", 3),
    ("tdestroy", 2),
    ("tfind", 3),
    ("thrd_create", 3),
    ("tsearch", 3),
    ("tss_create", 2),
    ("twalk", 2),
    ("twalk_r", 3),
];

/// What a function is called for by those that forget it when they return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It is shown one thing after the other.
    Visits,
    /// It says in what order that array lies from now on.
    Sorts,
    /// It says in what order this argument, an array, lies already.
    Searches(usize),
}

/// By which argument the function is.
const BORROWERS: &[(&str, usize, Role)] = &[
    ("bsearch", 4, Role::Searches(1)),
    ("dl_iterate_phdr", 0, Role::Visits),
    ("ftw", 1, Role::Visits),
    ("ftw64", 1, Role::Visits),
    ("lfind", 4, Role::Visits),
    ("lsearch", 4, Role::Visits),
    ("nftw", 1, Role::Visits),
    ("nftw64", 1, Role::Visits),
    ("qsort", 3, Role::Sorts),
    ("qsort_r", 3, Role::Sorts),
    ("scandir", 2, Role::Visits),
    ("scandir64", 2, Role::Visits),
    ("twalk", 1, Role::Visits),
    ("twalk_r", 1, Role::Visits),
];

/// Argument registers (psABI §3.2.3).
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// How many arguments a call has, as far as the C library's own functions are called.
pub(crate) fn arity(side: &Side<'_, '_>, call: &Instruction) -> Option<usize> {
    let name = of_library(side, call)?;
    TAKERS.iter().find(|(taker, _)| *taker == name).map(|(_, arguments)| *arguments)
}

/// The C library's function that a call leads to: nobody else versions symbols like it.
fn of_library<'a>(side: &Side<'_, 'a>, call: &Instruction) -> Option<&'a str> {
    let symbol = symbol_at(side, call).filter(|symbol| !symbol.defined)?;
    symbol.version.filter(|version| version.starts_with("GLIBC_")).map(|_| symbol.name)
}

/// Functions that are new and that somebody may have for longer than a call which replaced code
/// makes. A revert is refused for the others as well: only their verdict is another one.
pub(crate) fn new_and_kept(diff: &ImageDiff<'_, '_>, carried: &Carried, new: &Callers) -> BTreeSet<usize> {
    let lent = only_lent(diff, carried, new);
    carried.added.iter().copied().filter(|n| new.taken.contains(n) && !lent.contains(n)).collect()
}

fn only_lent(diff: &ImageDiff<'_, '_>, carried: &Carried, new: &Callers) -> BTreeSet<usize> {
    let mut lent: BTreeSet<usize> =
        carried.added.iter().copied().filter(|n| new.taken.contains(n) && !new.in_data.contains(n)).collect();
    if lent.is_empty() {
        return lent;
    }
    let payload = carried.new_functions();
    for (caller, code) in diff.new.code.iter().enumerate() {
        for reference in &code.references {
            let Place::Code { function, offset } = led_to(&diff.new, reference.target) else { continue };
            if !lent.contains(&function) || !is_value(reference.kind) {
                continue;
            }
            let is_lent = offset == 0
                && payload.contains(&caller)
                && reference.kind == ReferenceKind::Address
                && is_lent(diff, carried, caller, i64::from(reference.at));
            if !is_lent {
                lent.remove(&function);
            }
        }
    }
    lent
}

fn is_value(kind: ReferenceKind) -> bool {
    match kind {
        ReferenceKind::Address | ReferenceKind::Memory | ReferenceKind::Absolute => true,
        ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::Indirect => false,
    }
}

/// Whether the address that is taken there goes into the argument of a borrower and nowhere else.
fn is_lent(diff: &ImageDiff<'_, '_>, carried: &Carried, caller: usize, at: i64) -> bool {
    let side = &diff.new;
    let Some(f) = side.image.functions().get(caller) else { return false };
    let Some((call, register)) = call_after(side, f.range, f.range.start().wrapping_offset(at)) else { return false };
    let name = of_library(side, &call);
    let borrows = |(taker, argument, _): &&(&str, usize, Role)| {
        Some(*taker) == name && ARGUMENTS.get(*argument) == Some(&register)
    };
    let Some((.., role)) = BORROWERS.iter().find(borrows) else { return false };
    let given = |n: usize| {
        let forms = forms(side.image, f.range);
        let call = forms.calls.iter().find(|one| one.at.raw() == call.ip())?;
        call.arguments.get(n).cloned()
    };
    match *role {
        Role::Visits => true,
        // Whoever searches there afterwards is another function that was replaced, or as it was.
        Role::Sorts => carried.pairs.len() == 1 && given(0).is_some_and(|array| !is_kept(&array)),
        Role::Searches(n) => given(n).is_some_and(|array| is_constant(side, &array)),
    }
}

/// The call that the address taken at `at` is made ready for, and in which register: nothing else
/// has it on the way, and no callee leaves argument registers as they are.
fn call_after(side: &Side<'_, '_>, range: VaRange, at: Va) -> Option<(Instruction, Register)> {
    const FURTHEST: usize = 16;
    let lea = decode_at(side.image, at).filter(|i| i.mnemonic() == Mnemonic::Lea && i.is_ip_rel_memory_operand())?;
    let register = lea.op0_register();
    let mut factory = InstructionInfoFactory::new();
    let mut next = lea.next_ip();
    for _ in 0..FURTHEST {
        let instruction = decode_at(side.image, Va::new(next)).filter(|_| range.contains(Va::new(next)))?;
        match instruction.flow_control() {
            FlowControl::Next => {}
            FlowControl::Call | FlowControl::IndirectCall => return Some((instruction, register)),
            _ => return None,
        }
        let mut used = factory.info(&instruction).used_registers().iter();
        if used.any(|used| used.register().full_register() == register) {
            return None;
        }
        next = instruction.next_ip();
    }
    None
}

/// Whether the array may be one that the process goes on to have: all but what the function was
/// given, or has in its frame.
fn is_kept(array: &Form) -> bool {
    let passing = |origin: &Origin| {
        let is_argument = (0..ARGUMENTS.len()).any(|n| *origin == argument(n));
        is_argument || *origin == Origin::Entry(RSP)
    };
    !matches!(array.terms.as_slice(), [(origin, 1)] if passing(origin))
}

/// By number (psABI §3.2.1).
const RSP: u8 = 4;

/// Whether the payload has its own.
fn is_constant(side: &Side<'_, '_>, array: &Form) -> bool {
    let [(Origin::Static(va), 1)] = array.terms.as_slice() else { return false };
    let at = Va::new(*va).wrapping_offset(array.constant);
    side.image.section_at(at).is_some_and(|section| section.role == SectionRole::ReadOnlyData)
}
