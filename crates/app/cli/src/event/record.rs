//! The events themselves. A field is added, never renamed and never given
//! another meaning, within one schema version.

use crate::view::NotHealedBrief;
use salve_elf::ContentHash;
use salve_patch::{Cves, FunctionCounts, Reason, Verdict};
use serde::Serialize;

/// The version of every event's shape.
pub(crate) const SCHEMA: u32 = 1;

/// One process, named once and for all by pid, start time and the log line's boot id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct ProcessRef {
    pub(crate) pid: u32,
    /// Field 22 of `/proc/PID/stat` (`proc(5)`): clock ticks since boot.
    pub(crate) start_ticks: u64,
    /// The program's path as the process has it, for readers.
    pub(crate) program: String,
}

/// The two ends of an update, as the package database or the files name them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct UpdateRef {
    /// Source package, or the file's path where no package is known.
    pub(crate) source: String,
    pub(crate) old_version: Option<String>,
    pub(crate) new_version: Option<String>,
}

/// One image of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ImageRef {
    pub(crate) path: String,
    pub(crate) old_sha256: Option<ContentHash>,
    pub(crate) new_sha256: Option<ContentHash>,
}

/// One livepatch and the image it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LivepatchRef {
    pub(crate) id: String,
    pub(crate) path: String,
    pub(crate) old_sha256: ContentHash,
}

/// A thread that stands where nothing may be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Blocker {
    /// The thread's process: of a transition group it may be another one.
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    /// `None` where the thread itself is the obstacle, e.g. one that would not stop.
    pub(crate) function: Option<String>,
    pub(crate) detail: String,
}

impl Blocker {
    /// The thread, and its process where that is not `pid`.
    pub(crate) fn place(&self, pid: u32) -> String {
        if self.pid == pid { format!("thread {}", self.tid) } else { format!("pid {} thread {}", self.pid, self.tid) }
    }
}

/// What was left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LeftSubject {
    Process(ProcessRef),
    Image { process: ProcessRef, path: String },
    Update(UpdateRef),
}

/// What happened. The tag is the event's name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A patch file was derived.
    Derived {
        update: UpdateRef,
        images: Vec<ImageRef>,
        verdict: Verdict,
        patch_sha256: ContentHash,
        took_ms: u64,
        /// What the update changes besides code.
        not_healed: NotHealedBrief,
        /// As the changelogs name them.
        cves: Cves,
    },
    /// A verdict on one image, and what was decided on it.
    Judged {
        update: UpdateRef,
        image: ImageRef,
        verdict: Verdict,
        reasons: Vec<Reason>,
        /// Codes that the caller accepts.
        accepted: Vec<String>,
        /// Whether a livepatch may be applied.
        taken: bool,
        functions: FunctionCounts,
    },
    /// All livepatches of one update are in one process now.
    Applied {
        process: ProcessRef,
        /// All processes of its transition group; none where it changed alone.
        group: Vec<u32>,
        update: UpdateRef,
        livepatches: Vec<LivepatchRef>,
        stopped_ns: u64,
        memory_bytes: u64,
        attempts: u32,
    },
    /// They were in it before.
    AlreadyApplied { process: ProcessRef, update: UpdateRef, livepatches: Vec<LivepatchRef> },
    /// The limit passed while threads stood in functions that are replaced; nothing was changed.
    Deferred {
        process: ProcessRef,
        group: Vec<u32>,
        update: UpdateRef,
        livepatches: Vec<LivepatchRef>,
        blocking: Vec<Blocker>,
    },
    /// Looked at immediately before the write, and not done; nothing was changed.
    NotApplied {
        process: ProcessRef,
        group: Vec<u32>,
        update: UpdateRef,
        livepatches: Vec<LivepatchRef>,
        code: String,
        why: String,
    },
    /// Begun, and undone.
    RolledBack { process: ProcessRef, group: Vec<u32>, update: UpdateRef, livepatches: Vec<LivepatchRef>, why: String },
    /// What is in the process could not be made out.
    Indeterminate {
        process: ProcessRef,
        group: Vec<u32>,
        update: UpdateRef,
        livepatches: Vec<LivepatchRef>,
        why: String,
    },
    /// Livepatches were taken out.
    Reverted {
        process: ProcessRef,
        group: Vec<u32>,
        livepatches: Vec<String>,
        stopped_ns: u64,
        /// The payload stays mapped, because an address of it may have escaped.
        payload_kept: bool,
    },
    /// A revert that did not happen.
    NotReverted { process: ProcessRef, group: Vec<u32>, livepatches: Vec<String>, code: String, why: String },
    /// Left alone, and why.
    Left { subject: LeftSubject, code: String, why: String },
    /// The process runs newer code than the disk has: a restart brings the old code back.
    RestartFallsBack { process: ProcessRef, update: UpdateRef, installed_version: Option<String> },
    /// The stop switch was thrown.
    SwitchedOff { why: Option<String> },
    /// It was taken back; `said` is what the switch's file said.
    SwitchedOn { said: String },
    /// The run was interrupted; what it had not begun is left.
    Interrupted { remaining: Vec<ProcessRef> },
    /// The command ended.
    Ended { exit_code: u8, exit_name: String },
}
