//! placeholder, being written
use crate::PatchFile;
/// Bounds on what a patch file may ask a reader to hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_file_bytes: u64,
    pub max_images: usize,
}
/// Why bytes are no patch file.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not a patch file")]
    NotAPatch,
}
pub fn decode(_bytes: &[u8], _limits: &Limits) -> Result<PatchFile, DecodeError> {
    Err(DecodeError::NotAPatch)
}
