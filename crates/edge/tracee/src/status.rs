//! What is applied to a process, read from the process itself, by content.

use crate::process::ProcessId;
use salve_elf::{RuntimeAddr, Va};
use salve_patch::{LivepatchId, PatchFile};
use std::ffi::OsString;

/// All that the content of a process says about livepatches in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessStatus {
    pub id: ProcessId,
    pub livepatches: Vec<LivepatchStatus>,
    /// Payload-like mappings that are not what Salve would have delivered.
    pub unreadable: Vec<UnreadablePayload>,
    /// Text that differs from its file and that no livepatch here explains.
    pub modified_text: Vec<ModifiedText>,
    /// Stubs left behind by a Salve that was killed while it had borrowed a thread; harmless.
    pub leftover_stubs: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivepatchStatus {
    pub livepatch: LivepatchId,
    pub state: LivepatchState,
    /// Path of the mapped image, as the process sees it.
    pub mapped_path: OsString,
    /// Where the payload's first segment lies.
    pub payload_at: RuntimeAddr,
    pub payload_bytes: u64,
    /// The patch file that the payload carries: origin, and one image with its report and livepatch.
    pub patch: PatchFile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivepatchState {
    /// Every detour is there.
    Applied,
    /// Some are: whoever wrote them was killed in between. Apply finishes, revert undoes.
    Partial { present: usize, total: usize },
    /// None is; the payload is still mapped.
    Reverted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadablePayload {
    pub at: RuntimeAddr,
    pub name: OsString,
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModifiedText {
    pub path: OsString,
    /// First differing byte, as the file states it.
    pub va: Va,
    /// How many differ from there to the last difference in the same page.
    pub len_bytes: u64,
}
