//! Writing a patch file.

use crate::check::{self, Invalid};
use crate::{PatchFile, layout};
use salve_elf::Va;

/// Why a patch file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// What would be written could not be read back: a bug in whoever made it.
    #[error("contents of the patch are invalid")]
    Invalid(#[from] Invalid),
    #[error("manifest cannot be written as JSON")]
    Manifest(#[source] serde_json::Error),
    #[error("payload of livepatch {livepatch} at {new_va} is too high for a place in the file")]
    AddressTooHigh { livepatch: usize, new_va: Va },
    #[error("function at {at} lies outside the payload of livepatch {livepatch}")]
    FunctionOutsidePayload { livepatch: usize, at: Va },
    #[error("patch file is too large for its ELF header")]
    TooLarge,
}

/// The bytes of the patch file: the same for equal contents, always and
/// everywhere. Refuses whatever [`crate::decode()`] would refuse, limits apart.
pub fn encode(patch: &PatchFile) -> Result<Vec<u8>, EncodeError> {
    check::patch_file(patch)?;
    let manifest = serde_json::to_vec(patch).map_err(EncodeError::Manifest)?;
    layout::write(patch, &manifest)
}
