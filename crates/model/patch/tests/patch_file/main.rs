//! The patch file: written, read back, damaged, and opened by other tools.
#![expect(clippy::disallowed_methods, reason = "a test may read and write files")]

mod common;
mod encoding;
mod round_trip;
mod tools;
