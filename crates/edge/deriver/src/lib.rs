//! Starts `salve-derive` and speaks with it.
//!
//! Whoever wants to know something of a foreign package or program asks here;
//! the bytes are parsed in another process, which has nothing to lose: no
//! privilege, no files, no network, an empty environment and the descriptors it
//! was handed. What comes back is foreign input again: lines and the patch file
//! have limits, are decoded strictly and are compared with what was asked.
//!
//! Invariants: a deriver never outlives its caller's interest (it is killed and
//! reaped on every path, by the kernel if the caller dies); however it ends,
//! the caller gets a typed error; an image that a patch names is one of those
//! that were handed over, wherever they were handed over as files.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod child;
mod conversation;
mod error;
mod input;
mod locate;
mod result;
mod send;

pub use error::{DeriverError, InputFault, NotWhatWasAsked};
pub use input::{FileInput, InspectInput, SideInput};
pub use locate::LocateError;
pub use result::Derived;
pub use salve_protocol as protocol;

use conversation::Conversation;
use input::Handover;
use rustix::fs::{MemfdFlags, SealFlags};
use salve_protocol::{
    AssemblyView, Attempt, AttemptReport, ProbeReport, Progress, Request, ResourceLimits, Response, SandboxReport, Task,
};
use std::ffi::OsString;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time within which a request has to be answered, unless said otherwise. Most
/// take a second; the largest programs on a busy machine a minute.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(600);

/// A `salve-derive` that was found, and how it is to be run.
#[derive(Clone, Debug)]
pub struct Deriver {
    program: PathBuf,
    arguments: Vec<OsString>,
    limits: ResourceLimits,
    time_limit: Duration,
    priority: Priority,
}

/// Which share of the processor it gets beside others that want it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// That of its caller: somebody waits for the answer.
    #[default]
    Callers,
    /// Behind its caller's: services that are to be healed work on the same machine.
    Background,
}

/// An answer, and what the process that gave it had given up.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    pub value: T,
    pub sandbox: SandboxReport,
}

impl Deriver {
    /// Finds the program: `$SALVE_DERIVE`, then beside the running program, then `/usr/lib/salve`.
    pub fn locate() -> Result<Self, LocateError> {
        locate::locate().map(Self::at)
    }

    /// The program at a path that the caller knows.
    pub fn at(program: PathBuf) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            limits: ResourceLimits::default(),
            time_limit: DEFAULT_TIME_LIMIT,
            priority: Priority::default(),
        }
    }

    #[must_use]
    pub fn with_limits(mut self, limits: ResourceLimits) -> Self {
        self.limits = limits;
        self
    }

    #[must_use]
    pub fn with_time_limit(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Runs it without any sandbox: for a debugger, on files that are trusted.
    #[must_use]
    pub fn unsafe_without_sandbox(mut self) -> Self {
        self.arguments.push("--unsafe-no-sandbox".into());
        self
    }

    pub fn program(&self) -> &std::path::Path {
        &self.program
    }

    /// Derives livepatches for every image of the pair. `created_by` is named in
    /// the patch file, e.g. `salve 0.1.0`.
    pub fn derive(
        &self,
        old: &SideInput<'_>,
        new: &SideInput<'_>,
        created_by: &str,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Derived, DeriverError> {
        let mut handover = Handover::new();
        let (old_side, new_side) = (handover.side(old)?, handover.side(new)?);
        // The deriver can write to it; afterwards nobody can (it is dead by then).
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
        let output = rustix::fs::memfd_create("salve-patch", flags)
            // Before Linux 6.3 the flag is unknown.
            .or_else(|_| rustix::fs::memfd_create("salve-patch", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING))
            .map_err(|source| DeriverError::CreateOutput { source })?;
        let task = Task::Derive {
            old: old_side,
            new: new_side,
            output: handover.output(output.as_fd()),
            created_by: created_by.to_owned(),
        };
        let asked = task.clone();
        let answer = self.ask(task, &handover, progress)?;
        let Response::Derived(summary) = answer.value else { return Err(DeriverError::UnexpectedAnswer) };
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&output, seals).map_err(|source| DeriverError::SealOutput { source })?;
        result::accept(&asked, &handover, &output, summary, answer.sandbox, &self.limits)
    }

    /// What the files of one side are.
    pub fn probe(
        &self,
        side: &SideInput<'_>,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Answer<ProbeReport>, DeriverError> {
        let mut handover = Handover::new();
        let side = handover.side(side)?;
        let answer = self.ask(Task::Probe { side }, &handover, progress)?;
        match answer.value {
            Response::Probed(value) => Ok(Answer { value, sandbox: answer.sandbox }),
            _ => Err(DeriverError::UnexpectedAnswer),
        }
    }

    /// Old and new disassembly of one function, side by side. `image` is the
    /// path of the image in the patch file, where several have such a function.
    pub fn inspect_assembly(
        &self,
        function: &str,
        image: Option<&str>,
        input: &InspectInput<'_>,
    ) -> Result<Answer<AssemblyView>, DeriverError> {
        let mut handover = Handover::new();
        let sides = handover.inspect(input)?;
        let task = Task::InspectAssembly { function: function.to_owned(), image: image.map(str::to_owned), sides };
        let answer = self.ask(task, &handover, &mut |_| ())?;
        match answer.value {
            Response::Assembly(value) => Ok(Answer { value, sandbox: answer.sandbox }),
            _ => Err(DeriverError::UnexpectedAnswer),
        }
    }

    /// Tries a forbidden thing from inside the sandbox.
    pub fn try_sandbox(
        &self,
        attempt: Attempt,
        input: Option<BorrowedFd<'_>>,
    ) -> Result<Answer<AttemptReport>, DeriverError> {
        let mut handover = Handover::new();
        let input = match input {
            Some(file) => Some(handover.file("input", file)?),
            None => None,
        };
        let answer = self.ask(Task::TrySandbox { attempt, input }, &handover, &mut |_| ())?;
        match answer.value {
            Response::Attempted(value) => Ok(Answer { value, sandbox: answer.sandbox }),
            _ => Err(DeriverError::UnexpectedAnswer),
        }
    }

    fn ask(
        &self,
        task: Task,
        handover: &Handover<'_>,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Answer<Response>, DeriverError> {
        let request = Request::new(task, handover.count()?, self.limits);
        let deadline = Instant::now().checked_add(self.time_limit);
        let mut conversation =
            Conversation::start(&self.program, &self.arguments, self.priority, deadline, self.time_limit)?;
        conversation.run(&request, &handover.descriptors(), &self.limits, progress)
    }
}
