//! Two images → an [`ImageDiff`]: what became of every function and every
//! byte of data, with the evidence.
//!
//! Method (DESIGN §5): pair functions by name, by unique hashes, by order and by
//! votes of callers; derive from the pairs which data address became which; then
//! *verify*: a pair counts as identical only if every reference of every
//! instruction leads to the same thing, because equal masked bytes can hide a
//! change of target. Verification is a greatest fixpoint: a pair that fails
//! takes its votes with it, and whatever leaned on them is checked again.
//!
//! Invariants: classes partition the functions of both images; a doubt always
//! demotes (identical → changed), never promotes; nothing here decides whether a
//! change is safe.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod align;
mod content;
mod data;
mod diff;
mod evidence;
mod flow;
mod noise;
mod only_read;
mod pair;
mod readers;
mod side;
mod stamp;
mod takes;
mod verify;
mod votes;
mod words;

pub use align::{AlignedPair, Difference, OperandChange, align, compare_operands};

pub use content::{ContentDifference, text_at};
pub use data::{Correspondence, DataChange, DataChangeKind, DataMap};
pub use diff::{ChangedPair, ImageDiff, SiteDifference, diff};
pub use evidence::PairEvidence;
pub use flow::{Addend, Destination, Flow, Handover, StackChange, calculated, follow, is_used, stack_change};
pub use noise::{DataStamp, NoiseContext, data_stamp, new_names, noise, only_stamps};
pub use readers::{Purpose, Reader, exported_names, object_around, readers};
pub use side::{Place, Side};
pub use stamp::without_lines;
pub use takes::Taking;
pub use words::{TABLES, WordRun};
