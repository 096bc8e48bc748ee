//! A correct livepatch, and everything that can be wrong with it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::disallowed_methods,
    reason = "tests build what they corrupt, from real files"
)]

mod livepatch;
mod loaded;
mod mutations;
mod victim;
