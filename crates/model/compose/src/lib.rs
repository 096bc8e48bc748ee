//! A judged comparison → a livepatch, or the reasons why there is none.
//!
//! Method: the *sparse new image* (DESIGN §5). The payload keeps the new image's
//! own layout, its read-only data and the carried functions, so jump tables,
//! strings and constants need no fix-up. Only references that leave the payload
//! are rewritten, each to the old image's counterpart of what it meant. A
//! reference without a counterpart is a refusal: a livepatch with an unresolved
//! reference cannot be written, because a [`Fixup`](salve_patch::Fixup) has no
//! way to say so.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod claims;
mod compose;
mod detour;
mod resolve;
mod segments;
mod unwind;
mod words;

pub use claims::claims;
pub use compose::{Composed, compose};

/// Payload pages are the processor's small pages.
pub(crate) const PAGE_BYTES: u64 = 4096;
