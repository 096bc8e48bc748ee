//! Changing running processes: apply, revert, status, and the facts of a process.
//!
//! Start with [`Process::open`] for one process and [`Patcher::new`] for the
//! caches that one run shares between processes; then [`Patcher::apply`],
//! [`Patcher::revert`] and [`Patcher::status`].
//!
//! # How a livepatch gets in
//! 1. **Plan** (`scene`, `apply`, nothing stopped): which mappings are the image, by the
//!    hash of the mapped file; what the livepatch requires; where the payload has room;
//!    which bytes will be written. What a killed Salve left is cleaned up (`tidy`).
//! 2. **Deliver** (`workshop`, `deliver`): one thread at a time is borrowed for a table
//!    of system calls (`program`), which it makes by itself (`stub`, `drive`); it maps a
//!    sealed memfd.
//! 3. **Transition** (`transition`): all threads are stopped, identity and expected bytes
//!    are checked again, `salve-consistency` decides whether a replaced function is in
//!    use (`look`), a thread of the target writes all detours (`commit`), they are read
//!    back, all threads are let go.
//!
//! # What must stay true
//! - A target survives the death of this program at any instant; so there is
//!   no `PTRACE_SINGLESTEP`, no `PTRACE_O_SUSPEND_SECCOMP`, no `int3`, no
//!   `PTRACE_O_EXITKILL` anywhere in this crate.
//! - Nothing is written that was not compared immediately before.
//! - While threads are stopped: no log, no file but `/proc/PID`, no name service.
//! - No mapping is ever writable and executable at once.
//! - The truth about a process is read from the process, by content.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a test may fail by panicking"
    )
)]

mod alarm;
mod apply;
mod breakpoint;
mod commit;
mod debug;
mod deliver;
mod descriptors;
mod drive;
mod equip;
#[doc(hidden)]
pub mod fault;
mod gone;
mod group;
mod handover;
mod headroom;
mod home;
mod image;
mod import;
mod launch;
mod leave;
mod limits;
mod loaded;
mod look;
pub mod maps;
mod memory;
mod open_file;
mod outcome;
mod patcher;
mod payload;
mod present;
mod process;
mod program;
mod protected;
mod remote;
mod requirement;
mod revert;
mod room;
mod scene;
mod seccomp;
mod seize;
mod slot;
mod spot;
mod status;
mod stop;
mod stub;
mod sys;
mod tidy;
mod ties;
mod transfer;
mod transition;
mod tries;
mod wait;
mod workshop;
mod write;

pub use debug::DebugFile;
pub use image::MappedImage;
pub use launch::{Arrival, AtEntry, Gate, HelperGate, LaunchError, Launcher, Missed, Release, Split, split};
pub use limits::Limits;
pub use maps::{Mapping, Perms};
pub use outcome::{
    Applied, AppliedImage, Blocking, BlockingReason, Committed, Errno, Lost, NotApplied, Outcome, RequirementFinding,
    RevertOutcome, Reverted, WriteFault,
};
pub use patcher::{ApplyError, ApplyMember, ApplyOptions, Change, Ends, Patcher, RevertOptions, Selection};
pub use process::{Facts, Namespaces, OpenError, Process, ProcessId, ReadError, Seccomp, list_pids};
pub use protected::{Protected, protected};
pub use status::{LivepatchState, LivepatchStatus, ModifiedText, ProcessStatus, UnreadablePayload};
pub use ties::{Mark, Tie, groups};
pub use transfer::{Asked, CutShort};
