//! The images that are mapped in a process, by the content of their files.

use crate::maps::Mapping;
use salve_elf::ContentHash;
use std::ffi::OsString;

/// One file of which a process has executable code mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedImage {
    /// As the process sees it, less ` (deleted)`. Display only, never an identity.
    pub path: OsString,
    pub deleted: bool,
    pub sha256: ContentHash,
    pub len_bytes: u64,
    pub soname: Option<String>,
    /// Every mapping of the file, sorted by address.
    pub mappings: Vec<Mapping>,
}
