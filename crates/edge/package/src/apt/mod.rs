//! The archive's candidate, through the machine's own apt.
//!
//! apt decides which version is the candidate (its sources, pins and holds are
//! the operator's policy) and verifies what it downloads: the signature of
//! `Release`, the hashes of `Packages` in it, the hash of the `.deb` in that.
//! Nothing of this is done over again here, and nothing is asked of the network
//! directly; what is checked again is that the bytes that arrived have the hash
//! that apt's verified lists name. Nothing is installed, and no list is
//! refreshed: how fresh the lists are is the operator's business too.
//!
//! apt runs with an environment of its own making, a time limit, and limits on
//! what it prints; what it says on failure is kept in its own words.

mod candidate;
mod command;
mod download;
mod error;
mod policy;

pub use candidate::{Candidate, Upgradable};
pub use command::Apt;
pub use download::Downloaded;
pub use error::AptError;
pub use policy::{Listed, Policy};
