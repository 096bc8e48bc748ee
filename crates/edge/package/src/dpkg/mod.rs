//! The package database of dpkg (`dpkg(1)`, "FILES"), read without dpkg, so
//! that it works beneath any root and cannot run anything.

mod contents;
mod database;
mod diversions;
mod error;
mod history;
mod owners;
mod state;

pub(crate) use database::parse_md5;
pub use database::{Conffile, Database, Installed};
pub use error::DpkgError;
pub use history::{Change, ChangeKind, History, LogTime};
pub use owners::{Owned, Owner};
pub use state::{State, Status};

/// Computes the checksum that dpkg keeps for a file; it names content, it
/// proves nothing about who wrote it.
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    use md5::Digest as _;
    md5::Md5::digest(bytes).into()
}
