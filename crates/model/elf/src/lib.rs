//! Typed ELF images: addresses, identity, functions, relocations.
//!
//! Bytes in, values out. Everything here is a foreign file until proven
//! otherwise, so every accessor checks bounds and every failure is a typed
//! error that says where.
#![forbid(unsafe_code)]

mod addr;
mod identity;

pub use addr::{FileOffset, InvertedRange, LoadBias, RuntimeAddr, Va, VaRange};
pub use identity::{BuildId, ContentHash, NotABuildId, NotAHash};
