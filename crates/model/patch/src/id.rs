//! The name of a livepatch: a hash over what it does and to what.

use crate::{ImageId, ImageReport, Livepatch, LivepatchId};
use salve_elf::ContentHash;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Told apart from every other use of SHA-256 over JSON.
const DOMAIN: &[u8] = b"salve livepatch id 1\0";

/// What the id covers, in this order, as the manifest writes it.
#[derive(Serialize)]
struct Named<'a> {
    old: &'a ImageId,
    new: &'a ImageId,
    livepatch: &'a Livepatch,
}

impl ImageReport {
    /// The id of this image's livepatch; `None` where there is none.
    ///
    /// SHA-256 over the domain, the JSON of old image, new image and livepatch,
    /// and the bytes of every segment, each of these with its length in eight
    /// bytes, little endian, before it. Path, verdict, evidence and origin are
    /// not covered: the same change found twice has the same name.
    pub fn livepatch_id(&self) -> Option<LivepatchId> {
        let (Some(old), Some(new), Some(livepatch)) = (&self.old, &self.new, &self.livepatch) else {
            return None;
        };
        // Structures of strings and numbers: there is nothing JSON cannot say.
        let json = serde_json::to_vec(&Named { old, new, livepatch }).ok()?;
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        for part in core::iter::once(&json).chain(livepatch.segments.iter().map(|segment| &segment.bytes)) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Some(LivepatchId(ContentHash::from_bytes(hash.finalize().into())))
    }
}
