//! The door to this crate: apply, revert, status.

use crate::apply::{self, Applying, Job};
use crate::debug::DebugFile;
use crate::gone;
use crate::group;
use crate::image::{Found, ImageCache, MappedImage};
use crate::limits::Limits;
use crate::maps::Mapping;
use crate::outcome::{NotApplied, Outcome, RevertOutcome};
use crate::payload::{self, BuildError, Payload};
use crate::process::{Process, ProcessId, ReadError};
use crate::revert::Reverting;
use crate::status::{self, ProcessStatus};
use crate::ties::{Mark, Tie, Watch};
use crate::transition;
use core::time::Duration;
use salve_elf::RuntimeAddr;
use salve_patch::{Distance, ImageReport, LivepatchId, PatchFile};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

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

/// One process of a group, with what is applied to it.
#[derive(Clone, Debug)]
pub struct ApplyMember<'a> {
    pub process: &'a Process,
    pub changes: Vec<Change<'a>>,
    /// Livepatches that may go.
    pub replaced: Vec<LivepatchId>,
}

/// What it came to for each process.
pub type Ends<E> = Result<BTreeMap<ProcessId, Result<E, ApplyError>>, ApplyError>;

/// The end of a group of one.
fn only<E>(ends: Ends<E>) -> Result<E, ApplyError> {
    ends?.into_values().next().unwrap_or(Err(ApplyError::NothingGiven))
}

fn deadline(wait: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wait).unwrap_or(now)
}

/// Of those that are still there.
fn ties_of<'p>(processes: impl Iterator<Item = &'p Process>, limits: &Limits) -> Result<BTreeSet<Tie>, ReadError> {
    let mut all = BTreeSet::new();
    for process in processes {
        match process.ties(limits) {
            Ok(own) => all.extend(own),
            Err(ReadError::Exited) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Which livepatches to revert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    /// Only these; all of them in one transition.
    These(Vec<LivepatchId>),
}

impl Selection {
    pub fn contains(&self, livepatch: LivepatchId) -> bool {
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
    /// choose by [`Patcher::images`] first. For a process that is tied to no other
    /// ([`Process::ties`]); else [`Patcher::apply_group`].
    pub fn apply(
        &self,
        process: &Process,
        changes: &[Change<'_>],
        options: &ApplyOptions,
    ) -> Result<Outcome, ApplyError> {
        let member = ApplyMember { process, changes: changes.to_vec(), replaced: Vec::new() };
        only(self.apply_watching(&[member], &Watch::nobody(), options))
    }

    /// Why [`Patcher::apply`] would leave the process as it is, as far as that can be told by
    /// looking; nothing is touched. What only shows when it is tried (threads in the way, a
    /// system call filter) is not among it, and `None` is no promise.
    pub fn foresee(&self, process: &Process, changes: &[Change<'_>]) -> Result<Option<NotApplied>, ApplyError> {
        apply::foresee(self, process, changes)
    }

    /// Applies to all of these processes in one transition, or to none of them: those
    /// that are tied together, listed after `mark` was taken. Who joins them before
    /// they are stopped is changed with them, and has an end of its own.
    ///
    /// Livepatches of the same images that are in force and named in `replaced` go in
    /// the same transition: their detours become the new ones', or the image's own code
    /// again. Which of them are older is the caller's business; where one is in force
    /// that is not named, nothing is done.
    pub fn apply_group(&self, members: &[ApplyMember<'_>], mark: Mark, options: &ApplyOptions) -> Ends<Outcome> {
        let watch = Watch::new(ties_of(members.iter().map(|member| member.process), &self.limits)?, mark);
        self.apply_watching(members, &watch, options)
    }

    fn apply_watching<'a>(&self, members: &[ApplyMember<'a>], watch: &Watch, options: &ApplyOptions) -> Ends<Outcome> {
        if members.is_empty() || members.iter().any(|member| member.changes.is_empty()) {
            return Err(ApplyError::NothingGiven);
        }
        let mut all = Job { changes: Vec::new(), replaced: Vec::new() };
        for member in members {
            for change in &member.changes {
                let id = change.image.livepatch_id();
                if !all.changes.iter().any(|known: &Change<'_>| known.image.livepatch_id() == id) {
                    all.changes.push(*change);
                }
            }
            all.replaced.extend(member.replaced.iter().copied());
        }
        let work = Applying { patcher: self, all };
        let job = |member: &ApplyMember<'a>| Job { changes: member.changes.clone(), replaced: member.replaced.clone() };
        let jobs: Vec<_> = members.iter().map(|member| (member.process, job(member))).collect();
        group::together(&work, &jobs, &self.limits, watch, deadline(options.wait))
    }

    /// Takes the selected livepatches out of force, all in one transition or none. For a
    /// process that is tied to no other; else [`Patcher::revert_group`].
    pub fn revert(
        &self,
        process: &Process,
        selection: &Selection,
        options: &RevertOptions,
    ) -> Result<RevertOutcome, ApplyError> {
        only(self.revert_watching(&[(process, selection.clone())], &Watch::nobody(), options))
    }

    /// Reverts in all of these processes in one transition, or in none of them.
    pub fn revert_group(
        &self,
        members: &[(&Process, Selection)],
        mark: Mark,
        options: &RevertOptions,
    ) -> Ends<RevertOutcome> {
        let watch = Watch::new(ties_of(members.iter().map(|(process, _)| *process), &self.limits)?, mark);
        self.revert_watching(members, &watch, options)
    }

    fn revert_watching(
        &self,
        members: &[(&Process, Selection)],
        watch: &Watch,
        options: &RevertOptions,
    ) -> Ends<RevertOutcome> {
        let mut all = Some(Vec::new());
        for (_, selection) in members {
            all = match (all, selection) {
                (Some(known), Selection::These(ids)) => Some(known.into_iter().chain(ids.iter().copied()).collect()),
                (None, _) | (_, Selection::All) => None,
            };
        }
        let all = all.map_or(Selection::All, Selection::These);
        let work = Reverting { patcher: self, options: *options, all };
        group::together(&work, members, &self.limits, watch, deadline(options.wait))
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

    /// The payloads in a process, for a debugger. Stops nothing.
    pub fn debug_files(&self, process: &Process) -> Result<Vec<DebugFile>, ReadError> {
        crate::debug::files(self, process)
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
