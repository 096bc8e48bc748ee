//! Packages: what is in a `.deb`, what the package database knows, what the
//! archive offers.
//!
//! [`deb`], [`changelog`], [`contents`], [`version`] turn bytes into values under hard limits
//! and open nothing: they run where foreign files are parsed. [`dpkg`] reads
//! the package database beneath a [`Root`], the machine's own or a foreign one.
//! [`rotated`] tells the names and unpacks the contents of rotated logs.
//! [`apt`] asks the machine's own apt for the candidate and lets it verify what
//! it downloads.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

pub mod apt;
pub mod changelog;
pub mod contents;
pub mod deb;
pub mod dpkg;
mod root;
pub mod rotated;
mod stanza;
pub mod version;

pub use root::{Root, RootError};
pub use version::Version;
