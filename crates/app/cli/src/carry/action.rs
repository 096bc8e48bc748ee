//! What came of one attempt on one process, as it is reported.

use crate::event::{Blocker, Event, LivepatchRef, ProcessRef, UpdateRef};
use crate::exit::Exit;
use crate::problem::{chain, one_line};
use crate::view::{bytes_for_people, duration_for_people};
use core::time::Duration;
use salve_tracee::{Applied, ApplyError, Blocking, Lost, NotApplied, Outcome, ReadError};
use serde::Serialize;
use std::io::{self, Write};

/// How it ended; the words are API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ending {
    /// It would be done; this was a dry run.
    Planned,
    Applied,
    AlreadyApplied,
    /// The update changes no code in what the process maps.
    Unchanged,
    /// The process exited before anything was done.
    Gone,
    /// A `review` that nobody accepted.
    NeedsAccept,
    Refused,
    NotApplied,
    Deferred,
    /// Not begun, because the run was interrupted.
    Interrupted,
    RolledBack,
    Indeterminate,
    /// The attempt could not be made.
    Failed,
}

impl Ending {
    pub(crate) const fn exit(self) -> Exit {
        match self {
            Self::Planned | Self::Applied | Self::AlreadyApplied | Self::Unchanged | Self::Gone => Exit::Done,
            Self::NeedsAccept | Self::Refused | Self::NotApplied => Exit::Refused,
            Self::Deferred | Self::Interrupted => Exit::Incomplete,
            Self::RolledBack | Self::Indeterminate | Self::Failed => Exit::Failed,
        }
    }

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Planned => "would be patched",
            Self::Applied => "patched",
            Self::AlreadyApplied => "patched already",
            Self::Unchanged => "nothing to change",
            Self::Gone => "exited meanwhile",
            Self::NeedsAccept => "left: a person has to judge",
            Self::Refused => "left: refused",
            Self::NotApplied => "left: not applied",
            Self::Deferred => "deferred",
            Self::Interrupted => "left: interrupted",
            Self::RolledBack => "undone again",
            Self::Indeterminate => "state unknown",
            Self::Failed => "failed",
        }
    }
}

/// One process and one update.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Action {
    pub(crate) process: ProcessRef,
    pub(crate) update: UpdateRef,
    pub(crate) livepatches: Vec<LivepatchRef>,
    pub(crate) outcome: Ending,
    /// A stable word for the reason, where there is one.
    pub(crate) code: Option<String>,
    pub(crate) why: Option<String>,
    pub(crate) blocking: Vec<Blocker>,
    pub(crate) measured: Option<Measured>,
    /// A restart brings the old code back, because the disk does not have the new one.
    pub(crate) restart_falls_back: bool,
}

/// What the transition cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) stopped_ns: u64,
    pub(crate) longest_stop_ns: u64,
    pub(crate) longest_borrow_ns: u64,
    pub(crate) memory_added_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) tries: u32,
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Measured {
    fn of(applied: &Applied, tries: u32) -> Self {
        Self {
            stopped_ns: nanoseconds(applied.stopped),
            longest_stop_ns: nanoseconds(applied.longest_stop),
            longest_borrow_ns: nanoseconds(applied.longest_borrow),
            memory_added_bytes: applied.memory_added_bytes,
            threads: u64::try_from(applied.threads).unwrap_or(u64::MAX),
            tries,
        }
    }
}

impl Action {
    pub(crate) fn new(process: ProcessRef, update: UpdateRef, livepatches: Vec<LivepatchRef>, outcome: Ending) -> Self {
        Self {
            process,
            update,
            livepatches,
            outcome,
            code: None,
            why: None,
            blocking: Vec::new(),
            measured: None,
            restart_falls_back: false,
        }
    }

    #[must_use]
    pub(crate) fn because(self, code: impl Into<String>, why: impl Into<String>) -> Self {
        Self { code: Some(code.into()), why: Some(why.into()), ..self }
    }

    /// What `result` says, after `tries` transitions in all.
    #[must_use]
    pub(crate) fn ended(self, result: Result<Outcome, ApplyError>, tries: u32) -> Self {
        match result {
            Ok(Outcome::Applied(applied)) => {
                let measured = Some(Measured::of(&applied, tries));
                Self { outcome: Ending::Applied, measured, ..self }
            }
            Ok(Outcome::AlreadyApplied { livepatches: _ }) => Self { outcome: Ending::AlreadyApplied, ..self },
            Ok(Outcome::Deferred { blocking, tries: _ }) => {
                let blocking: Vec<Blocker> = blocking.iter().map(blocker).collect();
                Self { outcome: Ending::Deferred, blocking, ..self }
                    .because("in-use", "threads are inside functions that are replaced")
            }
            // A process that is no more needs nothing.
            Ok(Outcome::NotApplied { why: NotApplied::Exited } | Outcome::Indeterminate { why: Lost::Exited })
            | Err(ApplyError::Read(ReadError::Exited)) => Self { outcome: Ending::Gone, ..self },
            Ok(Outcome::NotApplied { why }) => {
                let code = why.code();
                Self { outcome: Ending::NotApplied, ..self }.because(code, chain(&why))
            }
            Ok(Outcome::RolledBack { why }) => {
                Self { outcome: Ending::RolledBack, ..self }.because("write-fault", chain(&why))
            }
            Ok(Outcome::Indeterminate { why }) => {
                Self { outcome: Ending::Indeterminate, ..self }.because("indeterminate", chain(&why))
            }
            Err(error @ ApplyError::Read(ReadError::NoPermission { .. })) => {
                Self { outcome: Ending::Failed, ..self }.because("no-permission", chain(&error))
            }
            Err(error) => Self { outcome: Ending::Failed, ..self }.because("not-attempted", chain(&error)),
        }
    }

    /// The event that this is. `None` for what is no act and no decision.
    pub(crate) fn event(&self) -> Option<Event> {
        let (process, update) = (self.process.clone(), self.update.clone());
        let livepatches = self.livepatches.clone();
        let code = || self.code.clone().unwrap_or_else(|| "unknown".into());
        let why = || self.why.clone().unwrap_or_default();
        Some(match self.outcome {
            Ending::Planned | Ending::Gone | Ending::Unchanged | Ending::Interrupted => return None,
            Ending::Applied => Event::Applied {
                process,
                update,
                livepatches,
                stopped_ns: self.measured.map_or(0, |m| m.stopped_ns),
                memory_bytes: self.measured.map_or(0, |m| m.memory_added_bytes),
                attempts: self.measured.map_or(0, |m| m.tries),
            },
            Ending::AlreadyApplied => Event::AlreadyApplied { process, update, livepatches },
            Ending::Deferred => Event::Deferred { process, update, livepatches, blocking: self.blocking.clone() },
            Ending::NotApplied | Ending::NeedsAccept | Ending::Refused | Ending::Failed => {
                Event::NotApplied { process, update, livepatches, code: code(), why: why() }
            }
            Ending::RolledBack => Event::RolledBack { process, update, livepatches, why: why() },
            Ending::Indeterminate => Event::Indeterminate { process, update, livepatches, why: why() },
        })
    }

    pub(crate) fn lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        write!(out, "  pid {} {}: {}", self.process.pid, one_line(&self.process.program), self.outcome.words())?;
        if let Some(measured) = self.measured {
            write!(
                out,
                " (stopped {}, {} of memory added)",
                duration_for_people(Duration::from_nanos(measured.longest_stop_ns)),
                bytes_for_people(measured.memory_added_bytes)
            )?;
        }
        match (&self.why, &self.code) {
            (Some(why), Some(code)) => writeln!(out, "; {} [{}]", one_line(why), one_line(code))?,
            _no_reason => writeln!(out)?,
        }
        for blocker in &self.blocking {
            let function = blocker.function.as_deref().unwrap_or("the whole thread");
            writeln!(out, "    thread {}: {}: {}", blocker.tid, one_line(function), one_line(&blocker.detail))?;
        }
        if verbose {
            for livepatch in &self.livepatches {
                writeln!(out, "    {} {}", livepatch.id, one_line(&livepatch.path))?;
            }
        }
        Ok(())
    }
}

pub(crate) fn blocker(blocking: &Blocking) -> Blocker {
    Blocker {
        tid: u32::try_from(blocking.tid).unwrap_or(0),
        function: Some(blocking.function.clone()).filter(|name| !name.is_empty()),
        detail: format!("{} ({})", blocking.why, blocking.comm),
    }
}
