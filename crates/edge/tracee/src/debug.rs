//! What a debugger needs to see through the livepatches of a process.
//!
//! A payload is an ELF file with the new functions' names and call frame information
//! (`salve_patch::Unwind`); a debugger that is told where it lies needs nothing more. It
//! is not told by itself: a memory file has no path that it could open.

use crate::patcher::Patcher;
use crate::present::Present;
use crate::process::{Process, ReadError};
use salve_elf::LoadBias;
use salve_patch::LivepatchId;
use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;

/// One payload in a process, in force or not: frames may still lead into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugFile {
    pub livepatch: LivepatchId,
    /// Path of the mapped image that it changes, as the process sees it.
    pub mapped_path: OsString,
    /// The file, for as long as the process has it mapped.
    pub live: PathBuf,
    /// What to add to an address in the file for the one in the process.
    pub bias: LoadBias,
    /// The whole file.
    pub bytes: Vec<u8>,
}

pub(crate) fn files(patcher: &Patcher, process: &Process) -> Result<Vec<DebugFile>, ReadError> {
    let limits = patcher.limits();
    let mappings = process.mappings(limits)?;
    let images = patcher.found(process, &mappings)?;
    let (present, _unreadable) = Present::find(process, &mappings, &images, limits)?;
    let mut files = Vec::new();
    for one in present {
        let Some(mapping) = one.mappings.first() else { continue };
        let mut bytes = Vec::new();
        let what = "payload";
        process
            .open_mapped(mapping)?
            .take(limits.max_payload_bytes)
            .read_to_end(&mut bytes)
            .map_err(|error| ReadError::Failed { what, errno: crate::Errno::of(&error) })?;
        files.push(DebugFile {
            livepatch: one.payload.id,
            mapped_path: images.get(one.image).map(|image| image.image.path.clone()).unwrap_or_default(),
            live: PathBuf::from(format!("/proc/{}", process.pid())).join(mapping.map_files_name()),
            bias: one.payload.bias(one.old),
            bytes,
        });
    }
    Ok(files)
}
