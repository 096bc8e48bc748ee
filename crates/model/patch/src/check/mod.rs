//! What has to be true of a patch file's contents before anybody acts on them.
//!
//! One set of rules for the writer and the reader, so that what cannot be read
//! cannot be written. They are about shape and agreement only: that the
//! livepatch *means* what the new image means is the validator's to prove, and
//! that a process is the one it was made for is checked in the process.

mod detours;
mod file;
mod functions;
mod invalid;
mod livepatch;
mod name;
mod payload;
mod version;

pub(crate) use detours::JUMP_BYTES;
pub(crate) use file::patch_file;
pub use invalid::{Fault, Invalid};
pub(crate) use name::is_name;
pub(crate) use payload::contains;
