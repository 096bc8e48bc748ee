//! Typed ELF images: addresses, identity, functions, relocations.
//!
//! Bytes in, values out. Everything here is a foreign file until proven
//! otherwise, so every accessor checks bounds and every failure is a typed
//! error that says where.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod addr;
mod error;
mod functions;
mod identity;
mod image;
mod index;
mod padding;
mod reloc;
mod section;
mod symbol;
mod unwind;

pub use addr::{FileOffset, InvertedRange, LoadBias, RuntimeAddr, Va, VaRange};
pub use error::ImageError;
pub use functions::{Function, FunctionSource};
pub use identity::{BuildId, ContentHash, NotABuildId, NotAHash};
pub use image::{Image, ImageKind, ImageLimits};
pub use index::AddressIndex;
pub use padding::{leading_padding, trailing_padding};
pub use reloc::{Binding, Reloc, SymbolBinding};
pub use section::{LoadSegment, Section, SectionRole};
pub use symbol::{Symbol, SymbolKind};
pub use unwind::{Frame, FrameCommon};
