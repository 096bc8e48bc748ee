//! What is mapped into a process, and how it is found again.

use salve_elf::ContentHash;
use salve_patch::{Livepatch, LivepatchId};

/// How the path of a payload's mapping begins.
pub(crate) const MAPPED_NAME: &str = "/memfd:salve:";

/// The name of a livepatch: the hash of its manifest and of its segments' bytes.
pub fn livepatch_id(livepatch: &Livepatch) -> LivepatchId {
    // A livepatch is plain values, which always can be written as JSON.
    let mut bytes = serde_json::to_vec(livepatch).unwrap_or_default();
    for segment in &livepatch.segments {
        bytes.extend_from_slice(&segment.new_va.raw().to_le_bytes());
        bytes.extend_from_slice(&segment.bytes.len().to_le_bytes());
        bytes.extend_from_slice(&segment.bytes);
    }
    LivepatchId(ContentHash::of(&bytes))
}
