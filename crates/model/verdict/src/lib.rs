//! From what became of two images to what may be done about it.
//!
//! The [`registry`] names every reason code with its meaning and the best
//! verdict it allows; codes are API. [`judge()`] looks for the signals of state
//! that two files cannot show (DESIGN §5) and decides which functions the
//! livepatch carries. It never improves a verdict: each signal found can only
//! make it worse, and what it cannot tell counts as found.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod among_code;
mod calculated;
mod callbacks;
mod callers;
mod carry;
mod columns;
mod contracts;
mod data;
mod dependency;
mod distances;
mod encoding;
mod exceptions;
mod followed;
mod frame_pointer;
mod handed;
mod identity;
mod image;
mod judge;
mod kept;
mod labels;
mod layout;
mod loader;
mod meaning;
mod objects;
mod once;
mod order;
mod read_only;
pub mod registry;
mod resources;
mod revert;
mod shared;
mod tables;
mod takers;
mod unreached;
mod uses;
mod whence;
mod witness;
mod words;

pub use carry::{Carried, CarriedPair};
pub use judge::{Judgement, judge};
pub use tables::is_brought;
pub use words::Words;
