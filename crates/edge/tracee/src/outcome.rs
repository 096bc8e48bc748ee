//! What came of an attempt to change a process.
//!
//! [`Outcome`] and [`RevertOutcome`] are the whole truth that can be told: an
//! `Indeterminate` is never folded into "failed". The reasons are enums with
//! fields; [`NotApplied::code`] gives each a stable word for machines.

use crate::process::ReadError;
use crate::transfer::Asked;
use core::time::Duration;
use salve_elf::{ContentHash, RuntimeAddr, Va};
use salve_patch::LivepatchId;

/// What came of [`crate::Patcher::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every function of every image changed, in one transition.
    Applied(Applied),
    /// The process already runs exactly these livepatches; nothing was touched.
    AlreadyApplied { livepatches: Vec<LivepatchId> },
    /// A replaced function was in use until the limit; nothing was changed.
    Deferred { blocking: Vec<Blocking>, tries: u32 },
    /// Nothing was changed, and trying again as things are would not help.
    NotApplied { why: NotApplied },
    /// Something was written, did not come out as intended, and was undone and verified.
    RolledBack { why: WriteFault },
    /// It cannot be said what state the process is in (most often: it went away).
    Indeterminate { why: Lost },
}

/// What came of [`crate::Patcher::revert`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevertOutcome {
    /// The text is byte-identical to the image's file again.
    Reverted(Reverted),
    /// No such livepatch is in the process.
    NothingToRevert,
    Deferred {
        blocking: Vec<Blocking>,
        tries: u32,
    },
    NotReverted {
        why: NotApplied,
    },
    RolledBack {
        why: WriteFault,
    },
    Indeterminate {
        why: Lost,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub images: Vec<AppliedImage>,
    /// The stop of the transition that succeeded: from the first thread's
    /// interruption to the last one's release, as the tracer saw it.
    pub stopped: Duration,
    /// The longest stop of all tries, the successful one included.
    pub longest_stop: Duration,
    /// The longest time that a single thread was borrowed for remote calls.
    pub longest_borrow: Duration,
    /// Transitions tried, the successful one included.
    pub tries: u32,
    /// Private memory that the process has more than before: copied text pages and page tables.
    pub memory_added_bytes: u64,
    pub threads: usize,
    pub committed: Committed,
}

/// Who wrote the detours, and so what comes of a death of Salve between two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// There was no more than one: it is there or it is not.
    InOneWrite,
    /// A thread of the target, which makes all of them whatever becomes of Salve.
    ByTarget,
    /// Salve, because the kernel or a filter forbids the target to; a death between two
    /// of them leaves some, which the next apply or revert finishes or undoes.
    BySalve,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedImage {
    pub path: String,
    pub livepatch: LivepatchId,
    /// Detours written by this transition; fewer than the livepatch has when a half-applied one was finished.
    pub detours: usize,
    /// Where the payload's first segment lies.
    pub payload_at: RuntimeAddr,
    pub payload_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reverted {
    pub livepatches: Vec<LivepatchId>,
    pub detours: usize,
    /// Whether the payloads were unmapped; `false` where the policy keeps one.
    pub unmapped: bool,
    pub stopped: Duration,
    pub longest_stop: Duration,
    pub tries: u32,
    pub committed: Committed,
}

/// One thread that uses a replaced function, or of which that cannot be excluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// The process that the thread belongs to: of a group it may be another one.
    pub pid: i32,
    pub tid: i32,
    /// The thread's name (`/proc/PID/task/TID/comm`).
    pub comm: String,
    /// The replaced function, as the livepatch names it; empty when `why` concerns the whole thread.
    pub function: String,
    pub why: BlockingReason,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockingReason {
    /// The instruction pointer is inside.
    #[error("it is running it at {at}")]
    Executing { at: RuntimeAddr },
    /// A complete unwinding of the stack shows a frame of it.
    #[error("its stack has a frame of it (return address {at})")]
    Frame { at: RuntimeAddr },
    /// The stack holds an address inside, and no unwinding could prove that it is stale.
    #[error("its stack holds an address inside it ({at}), and unwinding could not prove that it is stale")]
    MaybeFrame { at: RuntimeAddr },
    #[error("its stack of {bytes} bytes is too deep to be checked")]
    StackTooDeep { bytes: u64 },
    #[error("its stack at {stack_pointer} could not be read")]
    StackUnknown { stack_pointer: RuntimeAddr },
    /// Uninterruptible sleep, or the parent of a vfork.
    #[error("it did not stop in time")]
    DidNotStop,
    /// Its trap flag is set; it can be sent nowhere until it clears that.
    #[error("it steps through its own code, instruction by instruction")]
    Stepping,
    /// Nothing can be borrowed for a remote call as things are.
    #[error("it is inside a restartable sequence")]
    RestartableSequence,
    /// Made by `clone(2)` with `CLONE_VM` and without `CLONE_THREAD`, or by `vfork(2)`.
    #[error("it shares its memory with process {with}, of which it is no thread")]
    SharesMemory { with: i32 },
    /// It was borrowed, had too little of a processor, and is on its way home.
    #[error("it was borrowed and was not seen to come back")]
    Astray,
    /// A stop would end the call before it has done what it was asked for.
    #[error("it sleeps in a {0}, which a stop may cut short")]
    Transfer(Asked),
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotApplied {
    #[error("image {path} is not mapped in the process")]
    ImageNotMapped { path: String, image: ContentHash },
    #[error("image {path} is mapped more than once")]
    MappedTwice { path: String },
    #[error("the code of {path} at {va} is not mapped from its file (anonymous or huge-page text)")]
    TextNotFromFile { path: String, va: Va },
    #[error("the table of {path} at {va} is not mapped from its file, or not read-only (yet)")]
    TableNotFromFile { path: String, va: Va },
    #[error("the bytes at {va} of {path} are not the ones that the livepatch was made for")]
    UnexpectedBytes { path: String, function: String, va: Va, found: Vec<u8> },
    #[error("another livepatch is applied to {path}: {livepatch}")]
    OtherLivepatch { path: String, livepatch: LivepatchId },
    #[error("{path} carries a payload that is not byte for byte what its livepatch says")]
    ForgedPayload { path: String },
    #[error("{path} requires of {soname}: {why}; {found}")]
    RequirementNotMet { path: String, soname: String, why: String, found: RequirementFinding },
    #[error("{path} needs {symbol}, which it does not import yet: {why}")]
    ImportUnresolved { path: String, symbol: String, why: &'static str },
    #[error("{path} switches stacks ({symbol}), so its stacks cannot all be found")]
    StackSwitching { path: String, symbol: String },
    #[error("no room within reach of {path} that leaves the heap and the stacks free to grow")]
    NoRoom { path: String },
    #[error("process {tracer} is already tracing it")]
    AlreadyTraced { tracer: i32 },
    #[error("another salve is at work on it")]
    AnotherSalve,
    #[error("its system call filter forbids {call}")]
    SeccompForbids { call: &'static str },
    #[error("its system call filter cannot be judged: {why}")]
    SeccompUnknown { why: String },
    #[error("no thread can be borrowed: {why}")]
    NoThread { why: String },
    #[error("system call {call} failed in the process: {errno}")]
    RemoteCall { call: &'static str, errno: Errno },
    #[error("no executable mapping has room for the stub")]
    NoStubRoom,
    #[error("its memory group has {headroom_bytes} bytes left and {need_bytes} are needed")]
    MemoryGroup { headroom_bytes: u64, need_bytes: u64 },
    #[error("its address space limit leaves {headroom_bytes} bytes and {need_bytes} are needed")]
    AddressSpaceLimit { headroom_bytes: u64, need_bytes: u64 },
    #[error("it keeps its memory locked, and its limit on locked memory leaves no room")]
    LockedMemoryLimit,
    #[error("its limit on open files leaves {free} and {need} are needed, with some for itself")]
    DescriptorLimit { free: usize, need: usize },
    #[error("the kernel forbids writing to its text")]
    TextWriteForbidden,
    #[error("it is a statically linked program")]
    StaticProgram,
    #[error("it is a 32-bit program")]
    NotX86_64,
    #[error("it has {threads} threads, more than the limit")]
    TooManyThreads { threads: usize },
    #[error("it executed another program meanwhile")]
    Executed,
    #[error("it exited before anything was changed")]
    Exited,
    #[error("it changed each time while it was looked at")]
    Restless,
    /// It is there, and Salve lacks something to look at it with: descriptors, memory.
    #[error("cannot read {what}: {errno}")]
    Unreadable { what: &'static str, errno: Errno },
    #[error("the livepatch of {path} forbids a revert: its code may have escaped into old state")]
    RevertRefused { path: String },
    #[error("the livepatch of {path} cannot be used: {why}")]
    BadLivepatch { path: String, why: String },
    /// All processes of a transition group change or none does.
    #[error("process {pid}, which has to change together with it, cannot: {why}")]
    Group { pid: i32, why: String },
}

impl NotApplied {
    /// Of code, or else of constants.
    pub(crate) fn not_from_file(path: &str, va: Va, code: bool) -> Self {
        let path = path.to_owned();
        if code { Self::TextNotFromFile { path, va } } else { Self::TableNotFromFile { path, va } }
    }

    /// Of a process that a stop or a transition needs to look at: only one that has
    /// exited counts as gone.
    pub(crate) fn of_unread(error: &ReadError) -> Self {
        match error {
            ReadError::Exited => Self::Exited,
            ReadError::Restless => Self::Restless,
            ReadError::FirstThreadEnded => {
                Self::Unreadable { what: "a first thread that ended", errno: Errno(libc::ESRCH) }
            }
            ReadError::NoPermission { what } => Self::Unreadable { what, errno: Errno(libc::EPERM) },
            ReadError::Failed { what, errno } => Self::Unreadable { what, errno: *errno },
            ReadError::TooLarge { what, .. } => Self::Unreadable { what, errno: Errno(libc::E2BIG) },
            ReadError::Malformed { what } => Self::Unreadable { what, errno: Errno(libc::EPROTO) },
            ReadError::Maps(_) => Self::Unreadable { what: "maps", errno: Errno(libc::EPROTO) },
        }
    }

    /// A stable word for machines; part of the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ImageNotMapped { .. } => "image-not-mapped",
            Self::MappedTwice { .. } => "mapped-twice",
            Self::TextNotFromFile { .. } => "text-not-from-file",
            Self::TableNotFromFile { .. } => "table-not-from-file",
            Self::UnexpectedBytes { .. } => "unexpected-bytes",
            Self::OtherLivepatch { .. } => "other-livepatch",
            Self::ForgedPayload { .. } => "forged-payload",
            Self::RequirementNotMet { .. } => "requirement-not-met",
            Self::ImportUnresolved { .. } => "import-unresolved",
            Self::StackSwitching { .. } => "stack-switching",
            Self::NoRoom { .. } => "no-room",
            Self::AlreadyTraced { .. } => "already-traced",
            Self::AnotherSalve => "another-salve",
            Self::SeccompForbids { .. } => "seccomp-forbids",
            Self::SeccompUnknown { .. } => "seccomp-unknown",
            Self::NoThread { .. } => "no-thread",
            Self::RemoteCall { .. } => "remote-call",
            Self::NoStubRoom => "no-stub-room",
            Self::MemoryGroup { .. } => "memory-group",
            Self::AddressSpaceLimit { .. } => "address-space-limit",
            Self::LockedMemoryLimit => "locked-memory-limit",
            Self::DescriptorLimit { .. } => "descriptor-limit",
            Self::TextWriteForbidden => "text-write-forbidden",
            Self::StaticProgram => "static-program",
            Self::NotX86_64 => "not-x86-64",
            Self::TooManyThreads { .. } => "too-many-threads",
            Self::Executed => "executed",
            Self::Exited => "exited",
            Self::Restless => "restless",
            Self::Unreadable { .. } => "unreadable",
            Self::RevertRefused { .. } => "revert-refused",
            Self::BadLivepatch { .. } => "bad-livepatch",
            Self::Group { .. } => "group",
        }
    }
}

/// What was found where a livepatch requires a constant of a dependency.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequirementFinding {
    #[error("no image of that name is mapped")]
    NotMapped,
    #[error("more than one image of that name is mapped")]
    Ambiguous,
    #[error("it exports no function {symbol}")]
    NoSymbol { symbol: String },
    #[error("{symbol} is not a function that returns a constant")]
    NotConstant { symbol: String },
    #[error("{symbol} returns {value:#x}")]
    Differs { symbol: String, value: u64 },
    #[error("its file could not be read")]
    Unreadable,
}

/// A write that did not come out as intended and was undone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteFault {
    #[error("writing at {at} failed: {errno}")]
    Write { at: RuntimeAddr, errno: Errno },
    #[error("what was written at {at} did not read back")]
    ReadBack { at: RuntimeAddr },
}

/// Why it cannot be said what state the process is in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("it exited during the transition")]
    Exited,
    #[error("it executed another program during the transition")]
    Executed,
    #[error("a failed write at {at} could not be undone: {errno}")]
    UndoFailed { at: RuntimeAddr, errno: Errno },
    #[error("a thread could not be released: {errno}")]
    NotReleased { tid: i32, errno: Errno },
    #[error("a borrowed thread did not come back: {why}")]
    BorrowedThread { tid: i32, why: String },
}

/// An error number of the kernel, printed as the C library names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl core::fmt::Debug for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Errno({} {self})", self.0)
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl Errno {
    pub(crate) const EIO: Self = Self(libc::EIO);

    /// The kernel's number in `error`; `EIO` for an error that did not come from the kernel.
    pub fn of(error: &std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}
