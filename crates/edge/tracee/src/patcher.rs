//! The door to this crate: apply, revert, status.

use crate::apply;
use crate::gone;
use crate::image::{Found, ImageCache, MappedImage};
use crate::limits::Limits;
use crate::maps::Mapping;
use crate::outcome::{Outcome, RevertOutcome};
use crate::payload::{self, BuildError, Payload};
use crate::process::{Process, ReadError};
use crate::revert;
use crate::status::{self, ProcessStatus};
use crate::transition;
use core::time::Duration;
use salve_elf::RuntimeAddr;
use salve_patch::{Distance, ImageReport, LivepatchId, PatchFile};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

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

impl Selection {
    pub(crate) fn contains(&self, livepatch: LivepatchId) -> bool {
        match self {
            Self::All => true,
            Self::These(ids) => ids.contains(&livepatch),
        }
    }
}

/// Why an attempt could not even be made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("cannot read the process")]
    Read(#[from] ReadError),
    #[error("nothing to apply")]
    NothingGiven,
    #[error("cannot make the payload file")]
    Payload(#[source] std::io::Error),
    #[error("cannot encode the payload")]
    Encode(#[source] salve_patch::EncodeError),
    #[error("cannot start the tracing thread")]
    Thread(#[source] std::io::Error),
}

/// Applies and reverts livepatches. Keeps what one run shares between
/// processes: hashes of images, and payload files (whose pages processes share).
#[derive(Debug)]
pub struct Patcher {
    limits: Limits,
    images: Mutex<ImageCache>,
    payloads: Mutex<BTreeMap<Bound, Arc<Prepared>>>,
}

/// What a payload's bytes depend on: livepatch, distance, addresses of its imports.
type Bound = (LivepatchId, i64, Vec<RuntimeAddr>);

/// A payload and the sealed file that holds it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) payload: Payload,
    pub(crate) file: File,
}

impl Patcher {
    pub fn new(limits: Limits) -> Self {
        Self { limits, images: Mutex::default(), payloads: Mutex::default() }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Every file of which the process has executable code mapped, with its content's hash.
    pub fn images(&self, process: &Process) -> Result<Vec<MappedImage>, ReadError> {
        gone::verified(process, || {
            let mappings = process.mappings(&self.limits)?;
            Ok(self.found(process, &mappings)?.into_iter().map(|found| found.image).collect())
        })
    }

    /// Applies every change given, all in one transition or none. A change whose
    /// image is not mapped in the process is [`crate::NotApplied::ImageNotMapped`]:
    /// choose by [`Patcher::images`] first.
    pub fn apply(
        &self,
        process: &Process,
        changes: &[Change<'_>],
        options: &ApplyOptions,
    ) -> Result<Outcome, ApplyError> {
        if changes.is_empty() {
            return Err(ApplyError::NothingGiven);
        }
        gone::verified(process, || apply::apply(self, process, changes, &[], options))
    }

    /// Like [`Patcher::apply`], where livepatches of the same images are in force that may
    /// be replaced: in the same transition their detours become the new ones', or the
    /// image's own code again. Which of them are older is the caller's business; one
    /// that is not named is left, and nothing is done.
    pub fn replace(
        &self,
        process: &Process,
        changes: &[Change<'_>],
        replaced: &[LivepatchId],
        options: &ApplyOptions,
    ) -> Result<Outcome, ApplyError> {
        if changes.is_empty() {
            return Err(ApplyError::NothingGiven);
        }
        gone::verified(process, || apply::apply(self, process, changes, replaced, options))
    }

    /// Takes the selected livepatches out of force, all in one transition or none.
    pub fn revert(
        &self,
        process: &Process,
        selection: &Selection,
        options: &RevertOptions,
    ) -> Result<RevertOutcome, ApplyError> {
        gone::verified(process, || revert::revert(self, process, selection, options))
    }

    /// What is applied, read from the process by content. Stops nothing.
    pub fn status(&self, process: &Process) -> Result<ProcessStatus, ReadError> {
        gone::verified(process, || status::read(self, process))
    }

    /// Stops all threads of a process, reads their registers and lets them go, nothing
    /// else: the time that any transition needs at least. For measuring beside one.
    pub fn stop_floor(&self, process: &Process) -> Result<Duration, ApplyError> {
        let tracer = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("salve-floor".to_owned())
                .spawn_scoped(scope, || transition::floor(process, &self.limits))
                .map(|tracer| tracer.join().unwrap_or(None))
        });
        tracer.map_err(ApplyError::Thread)?.ok_or(ApplyError::Read(ReadError::Exited))
    }

    pub(crate) fn found(&self, process: &Process, mappings: &[Mapping]) -> Result<Vec<Found>, ReadError> {
        let mut cache = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        cache.images(process, mappings, &self.limits)
    }

    /// The facts of the program's own file.
    pub(crate) fn program(&self, process: &Process) -> Result<Arc<crate::image::ImageFile>, ReadError> {
        let file = process.open_entry("exe", "exe", rustix::fs::OFlags::RDONLY)?;
        self.images.lock().unwrap_or_else(PoisonError::into_inner).file(&file, &self.limits)
    }

    /// A livepatch bound to a distance and to its imports, made once for all processes
    /// that agree on both.
    pub(crate) fn prepare(
        &self,
        change: &Change<'_>,
        distance: Distance,
        imports: &[RuntimeAddr],
    ) -> Result<Arc<Prepared>, PrepareError> {
        let id = change.image.livepatch_id().ok_or(BuildError::NoLivepatch)?;
        let mut payloads = self.payloads.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (id, distance.bytes(), imports.to_vec());
        if let Some(known) = payloads.get(&key) {
            return Ok(Arc::clone(known));
        }
        let (payload, bytes) = Payload::build(change.patch, change.image, distance, imports)?;
        let file = payload::sealed_file(id, &bytes)?;
        let prepared = Arc::new(Prepared { payload, file });
        payloads.insert(key, Arc::clone(&prepared));
        Ok(prepared)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    File(#[from] std::io::Error),
}
