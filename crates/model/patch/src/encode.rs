//! placeholder, being written
use crate::PatchFile;
/// Why a patch file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("not written yet")]
    Todo,
}
pub fn encode(_patch: &PatchFile) -> Result<Vec<u8>, EncodeError> {
    Err(EncodeError::Todo)
}
