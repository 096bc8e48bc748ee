//! What the instructions of a function refer to.
//!
//! One linear decode of each function gives a [`CodeSummary`]: a hash of its
//! bytes with every reference that leaves the function masked out, and those
//! references as typed slots. That is all the matcher keeps of a function that
//! did not change; single instructions are decoded again, on demand, for the
//! few that did.
//!
//! Linear decoding is sound here because compilers for x86-64 put no data into
//! code; where hand-written assembly does, decoding either fails (and the bytes
//! are read from every place at once, `superset`) or yields instructions that are
//! compared byte for byte all the same.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

pub mod affine;
mod gaps;
mod operand;
mod plt;
mod summary;
mod superset;

pub use gaps::parse;
pub use operand::is_immediate;
pub use plt::{Plt, PltStub};
pub use summary::{CodeSummary, Reference, ReferenceKind, decode, decode_at, summarize};
pub use superset::LARGEST_BYTES as LARGEST_UNCLEAR_BYTES;
