//! Functions of the C library that are given functions.
//!
//! How many arguments they have is fixed, so that what the registers behind them happen to hold
//! is not one.

use crate::layout::symbol_at;
use iced_x86::Instruction;
use salve_match::Side;

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
