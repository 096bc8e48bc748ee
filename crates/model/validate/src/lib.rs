//! Proves a finished livepatch against both images. (The rules follow in the next commits.)
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod invalid;

pub use invalid::{ImageFault, Invalid, Mismatch, Side};

use salve_patch::{Claims, Livepatch, ReferenceCounts};

/// What was proven, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Functions (and code without unwind information) proven to be the same.
    pub same: u64,
    /// Functions proven to be the same but for the claimed sites.
    pub noise: u64,
    /// Functions carried by the payload.
    pub carried: u64,
    /// References of functions left alone.
    pub references_left_alone: u64,
    /// References of carried functions, by where they lead.
    pub references: ReferenceCounts,
    /// Bytes of executable sections accounted for.
    pub old_code_bytes: u64,
    pub new_code_bytes: u64,
    /// Bytes of data proven to be the same.
    pub data_bytes: u64,
    /// Bytes of the payload compared with the new image.
    pub payload_bytes: u64,
}

/// Proves that `livepatch` turns `old` into something that means what `new`
/// means, given `claims`.
pub fn validate(old: &[u8], new: &[u8], livepatch: &Livepatch, claims: &Claims) -> Result<Proof, Invalid> {
    let _ = (new, livepatch, claims);
    Err(Invalid::Image { side: if old.is_empty() { Side::Old } else { Side::New }, fault: ImageFault::Unsupported })
}
