//! The door to this crate: apply, revert, status.

use crate::image::MappedImage;
use crate::limits::Limits;
use crate::outcome::{Outcome, RevertOutcome};
use crate::process::{Process, ReadError};
use crate::status::ProcessStatus;
use core::time::Duration;
use salve_patch::{ImageReport, LivepatchId, PatchFile};

/// One image's livepatch, with the file that it came in (whose origin travels with the payload).
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub patch: &'a PatchFile,
    /// One of `patch.images`, with a livepatch in it.
    pub image: &'a ImageReport,
}

impl<'a> Change<'a> {
    /// All livepatches of a file. Judging verdicts is the caller's business.
    pub fn all_of(patch: &'a PatchFile) -> Vec<Self> {
        patch.livepatches().map(|(image, _)| Self { patch, image }).collect()
    }
}

#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// How long to try while a replaced function is in use.
    pub wait: Duration,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self { wait: Duration::from_secs(30) }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct RevertOptions {
    /// How long to try while new code is in use.
    pub wait: Duration,
    /// Revert even where the livepatch's policy is `refuse`; the payload stays mapped then.
    pub force: bool,
}

impl Default for RevertOptions {
    fn default() -> Self {
        Self { wait: Duration::from_secs(30), force: false }
    }
}

/// Which livepatches to revert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    /// Only these; all of them in one transition.
    These(Vec<LivepatchId>),
}

/// Why an attempt could not even be made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("cannot read the process")]
    Read(#[from] ReadError),
    #[error("no permission to trace the process")]
    NoPermission,
    #[error("nothing to apply")]
    NothingGiven,
    #[error("cannot make the payload file")]
    Payload(#[source] std::io::Error),
    #[error("cannot encode the payload")]
    Encode(#[from] salve_patch::EncodeError),
    #[error("cannot start the tracing thread")]
    Thread(#[source] std::io::Error),
}

/// Applies and reverts livepatches. Keeps what one run shares between
/// processes: hashes of images, and payload files (whose pages processes share).
#[derive(Debug)]
pub struct Patcher {
    limits: Limits,
}

impl Patcher {
    pub fn new(limits: Limits) -> Self {
        Self { limits }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Every file of which the process has executable code mapped, with its content's hash.
    pub fn images(&self, process: &Process) -> Result<Vec<MappedImage>, ReadError> {
        let _ = process.mappings(&self.limits)?;
        Err(ReadError::Malformed { what: "images (not written yet)" })
    }

    /// Applies every change whose image is mapped in the process, all in one
    /// transition or none. A change whose image is not mapped is an error of
    /// the caller: `NotApplied::ImageNotMapped`.
    pub fn apply(
        &self,
        process: &Process,
        changes: &[Change<'_>],
        options: &ApplyOptions,
    ) -> Result<Outcome, ApplyError> {
        let _ = (process, changes, options);
        Err(ApplyError::NothingGiven)
    }

    pub fn revert(
        &self,
        process: &Process,
        selection: &Selection,
        options: &RevertOptions,
    ) -> Result<RevertOutcome, ApplyError> {
        let _ = (process, selection, options);
        Err(ApplyError::NothingGiven)
    }

    /// What is applied, read from the process by content. Stops nothing.
    pub fn status(&self, process: &Process) -> Result<ProcessStatus, ReadError> {
        let _ = process;
        Err(ReadError::Malformed { what: "status (not written yet)" })
    }
}
