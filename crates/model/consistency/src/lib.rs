//! Which threads use which replaced functions: the consistency model.
//!
//! A transition may happen only while no thread is inside a function that it
//! replaces. For each stopped thread a [`ThreadCheck`] decides that from its
//! registers and its stack. It does no I/O: [`ThreadCheck::poll`] says which
//! memory it wants to see next, [`ThreadCheck::provide`] hands it over.
//!
//! # Method
//! 1. **Registers.** The instruction pointer, and every other register read as
//!    an address: code that keeps a return address in a register exists.
//! 2. **Conservative scan.** Every aligned word of the live stack that is an
//!    address inside a replaced function is suspicious. A call leaves its
//!    return address on the stack, so *no suspicious word* proves *no frame*:
//!    no unwinding information is trusted for that. A return address is never
//!    the entry of the function it returns into, and it may be the function's
//!    end, when the last call does not return.
//! 3. **Strict unwinding**, only for a thread with a suspicious word, to tell a
//!    live frame from a stale word below. It follows `.eh_frame` from the
//!    registers to a frame whose return address is declared undefined (`_start`,
//!    `clone`). If every frame on the way is known and none is in a replaced
//!    function, the words are stale. Anything unknown keeps the thread blocking.
//!
//! # What was rejected
//! Frame pointers (optimised code has none) and unwinding alone (hand-written
//! assembly states wrong rules, and a wrong rule would let a live frame pass;
//! here it can at worst keep a thread blocking or, when it skips a frame, is
//! caught by the demand that the chain end in an outermost frame).
//!
//! # What it cannot see
//! A stack that no thread is running on (`swapcontext`, coroutines). Whether
//! a process has such stacks is for the caller to find out.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a test may fail by panicking"
    )
)]

mod forbidden;
mod memory;
mod tables;
mod thread;
mod unwind;

pub use forbidden::{Forbidden, Zone};
pub use tables::{UnwindTables, UnwindTablesOf};
pub use thread::{Finding, FindingKind, Registers, Span, Step, Thread, ThreadCheck};
