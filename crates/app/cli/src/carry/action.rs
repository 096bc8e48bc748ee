//! What came of one attempt on one process, as it is reported.

use crate::console::Console;
use crate::event::{Blocker, Event, LivepatchRef, ProcessRef, UpdateRef};
use crate::exit::Exit;
use crate::problem::{chain, one_line};
use crate::view::{bytes_for_people, duration_for_people};
use core::time::Duration;
use salve_tracee::{
    Applied, ApplyError, Blocking, BlockingReason, CutShort, Lost, NotApplied, Outcome, Process, ReadError,
};
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

/// Whether all of them, and there are some, had it before.
pub(crate) fn is_done_already<'a>(actions: impl IntoIterator<Item = &'a Action>) -> bool {
    let mut actions = actions.into_iter().peekable();
    actions.peek().is_some() && actions.all(|action| action.outcome == Ending::AlreadyApplied)
}

impl Ending {
    /// What a person can do instead, where nothing was done.
    pub(crate) const fn advice(self) -> Option<&'static str> {
        match self {
            Self::Planned | Self::Applied | Self::AlreadyApplied | Self::Unchanged | Self::Gone => None,
            Self::NeedsAccept => Some(
                "judge it (`salve heal --dry-run` shows the evidence), then `salve heal --accept CODE`; or restart it",
            ),
            Self::Refused => Some("no livepatch is proven for it: restart it, with the update installed"),
            Self::NotApplied => Some("it cannot be changed the way it runs: restart it, with the update installed"),
            Self::Deferred => Some("`salve heal --wait 5m` tries until the threads have left; a restart does it too"),
            Self::Interrupted => Some("run the same command again"),
            Self::RolledBack | Self::Indeterminate | Self::Failed => {
                Some("look with `salve status PID`, and restart it")
            }
        }
    }

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
    /// All processes of its transition group, itself included; none where it changes alone.
    pub(crate) group: Vec<u32>,
    pub(crate) update: UpdateRef,
    pub(crate) livepatches: Vec<LivepatchRef>,
    pub(crate) outcome: Ending,
    /// A stable word for the reason, where there is one.
    pub(crate) code: Option<String>,
    pub(crate) why: Option<String>,
    pub(crate) blocking: Vec<Blocker>,
    /// Calls that the last try may have cut short.
    pub(crate) cut_short: Vec<Cut>,
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
            group: Vec::new(),
            update,
            livepatches,
            outcome,
            code: None,
            why: None,
            blocking: Vec::new(),
            cut_short: Vec::new(),
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
                let (code, why) = why_deferred(&blocking, "threads are inside functions that are replaced");
                let blocking: Vec<Blocker> = blocking.iter().map(blocker).collect();
                Self { outcome: Ending::Deferred, blocking, ..self }.because(code, why)
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
        let group = self.group.clone();
        let code = || self.code.clone().unwrap_or_else(|| "unknown".into());
        let why = || self.why.clone().unwrap_or_default();
        Some(match self.outcome {
            Ending::Planned | Ending::Gone | Ending::Unchanged | Ending::Interrupted => return None,
            Ending::Applied => Event::Applied {
                process,
                group,
                update,
                livepatches,
                stopped_ns: self.measured.map_or(0, |m| m.stopped_ns),
                memory_bytes: self.measured.map_or(0, |m| m.memory_added_bytes),
                attempts: self.measured.map_or(0, |m| m.tries),
            },
            Ending::AlreadyApplied => Event::AlreadyApplied { process, update, livepatches },
            Ending::Deferred => {
                Event::Deferred { process, group, update, livepatches, blocking: self.blocking.clone() }
            }
            Ending::NotApplied | Ending::NeedsAccept | Ending::Refused | Ending::Failed => {
                Event::NotApplied { process, group, update, livepatches, code: code(), why: why() }
            }
            Ending::RolledBack => Event::RolledBack { process, group, update, livepatches, why: why() },
            Ending::Indeterminate => Event::Indeterminate { process, group, update, livepatches, why: why() },
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
        write!(out, "{}", with_others(self.process.pid, &self.group))?;
        match (&self.why, &self.code) {
            (Some(why), Some(code)) => writeln!(out, "; {} [{}]", one_line(why), one_line(code))?,
            _no_reason => writeln!(out)?,
        }
        blocker_lines(self.process.pid, &self.blocking, "    ", out)?;
        if verbose {
            for livepatch in &self.livepatches {
                writeln!(out, "    {} {}", livepatch.id, one_line(&livepatch.path))?;
            }
        }
        Ok(())
    }
}

/// Names the others that a process changes together with.
pub(crate) fn with_others(pid: u32, group: &[u32]) -> String {
    const MOST: usize = 8;
    let others: Vec<String> = group.iter().filter(|other| **other != pid).map(u32::to_string).collect();
    match others.len() {
        0 => String::new(),
        1..=MOST => format!(", together with {}", others.join(", ")),
        count => format!(", together with {count} others"),
    }
}

/// Which threads are in the way of process `pid`, and where they are.
pub(crate) fn blocker_lines(pid: u32, blocking: &[Blocker], indent: &str, out: &mut dyn Write) -> io::Result<()> {
    for blocker in blocking {
        let function = blocker.function.as_deref().unwrap_or("the whole thread");
        writeln!(out, "{indent}{}: {}: {}", blocker.place(pid), one_line(function), one_line(&blocker.detail))?;
    }
    Ok(())
}

/// The code and the words for it: `inside` where some are in functions that change.
pub(crate) fn why_deferred<'w>(blocking: &[Blocking], inside: &'w str) -> (&'static str, &'w str) {
    let in_transfer = |one: &Blocking| matches!(one.why, BlockingReason::Transfer(_));
    if blocking.is_empty() || !blocking.iter().all(in_transfer) {
        return ("in-use", inside);
    }
    ("in-transfer", "threads sleep in calls that a stop may cut short (--cut-transfers goes on all the same)")
}

/// A call that came back with less than it was asked for when its thread was stopped.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cut {
    tid: u32,
    call: &'static str,
    asked: Option<u64>,
    done: u64,
    /// What these two count.
    unit: &'static str,
}

/// What stops of this process may have cut short, said to whoever watches as well.
pub(crate) fn cut_short(process: &Process) -> Vec<Cut> {
    let told = process.take_cut_short();
    for cut in &told {
        Console::warn(&format!("pid {}: {cut}", process.pid()));
    }
    let cut = |cut: &CutShort| Cut {
        tid: u32::try_from(cut.tid).unwrap_or(0),
        call: cut.asked.call,
        asked: cut.asked.amount,
        done: cut.done,
        unit: cut.asked.unit,
    };
    told.iter().map(cut).collect()
}

pub(crate) fn blocker(blocking: &Blocking) -> Blocker {
    Blocker {
        pid: u32::try_from(blocking.pid).unwrap_or(0),
        tid: u32::try_from(blocking.tid).unwrap_or(0),
        function: Some(blocking.function.clone()).filter(|name| !name.is_empty()),
        detail: format!("{} ({})", blocking.why, blocking.comm),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use salve_elf::{RuntimeAddr, Va};
    use salve_tracee::{BlockingReason, Errno, WriteFault};

    fn ended(result: Result<Outcome, ApplyError>) -> Action {
        let process = ProcessRef { pid: 812, start_ticks: 4711, program: "/usr/sbin/x".into() };
        let update = UpdateRef { source: "x".into(), old_version: None, new_version: None };
        Action::new(process, update, Vec::new(), Ending::Gone).ended(result, 3)
    }

    fn applied() -> Applied {
        Applied {
            images: Vec::new(),
            stopped: Duration::from_micros(150),
            committed: salve_tracee::Committed::ByTarget,
            longest_stop: Duration::from_micros(200),
            longest_borrow: Duration::from_micros(90),
            tries: 2,
            memory_added_bytes: 8192,
            threads: 4,
        }
    }

    /// Every outcome that there is, with the exit code, the word in JSON and the
    /// event that it has to come to. None is folded into another.
    #[test]
    fn every_outcome_has_its_own_exit_code_word_and_event() {
        let at = RuntimeAddr::new(0x5555_0000_1000);
        let blocking = Blocking {
            pid: 812,
            tid: 815,
            comm: "worker".into(),
            function: "parse".into(),
            why: BlockingReason::Executing { at },
        };
        let fault = WriteFault::ReadBack { at };
        let lost = Lost::UndoFailed { at, errno: Errno(5) };
        let unexpected = NotApplied::UnexpectedBytes {
            path: "/usr/sbin/x".into(),
            function: "parse".into(),
            va: Va::new(0x1000),
            found: vec![0xcc],
        };
        let cases = [
            (Ok(Outcome::Applied(applied())), Exit::Done, "applied", Some("applied"), None),
            (
                Ok(Outcome::AlreadyApplied { livepatches: Vec::new() }),
                Exit::Done,
                "already-applied",
                Some("already-applied"),
                None,
            ),
            (
                Ok(Outcome::Deferred { blocking: vec![blocking], tries: 3 }),
                Exit::Incomplete,
                "deferred",
                Some("deferred"),
                Some("in-use"),
            ),
            (
                Ok(Outcome::NotApplied { why: unexpected }),
                Exit::Refused,
                "not-applied",
                Some("not-applied"),
                Some("unexpected-bytes"),
            ),
            (
                Ok(Outcome::RolledBack { why: fault }),
                Exit::Failed,
                "rolled-back",
                Some("rolled-back"),
                Some("write-fault"),
            ),
            (
                Ok(Outcome::Indeterminate { why: lost }),
                Exit::Failed,
                "indeterminate",
                Some("indeterminate"),
                Some("indeterminate"),
            ),
            (Ok(Outcome::NotApplied { why: NotApplied::Exited }), Exit::Done, "gone", None, None),
            (Ok(Outcome::Indeterminate { why: Lost::Exited }), Exit::Done, "gone", None, None),
            (Err(ApplyError::Read(ReadError::Exited)), Exit::Done, "gone", None, None),
            (
                Err(ApplyError::Read(ReadError::NoPermission { what: "mem" })),
                Exit::Failed,
                "failed",
                Some("not-applied"),
                Some("no-permission"),
            ),
            (Err(ApplyError::NothingGiven), Exit::Failed, "failed", Some("not-applied"), Some("not-attempted")),
        ];
        for (result, exit, word, event, code) in cases {
            let shown = format!("{result:?}");
            let action = ended(result);
            assert_eq!(action.outcome.exit(), exit, "{shown}");
            let json = serde_json::to_value(&action).expect("JSON");
            assert_eq!(json["outcome"], word, "{shown}");
            assert_eq!(json["code"].as_str(), code, "{shown}");
            let told = action.event().map(|event| serde_json::to_value(&event).expect("JSON"));
            assert_eq!(told.as_ref().and_then(|event| event["event"].as_str()), event, "{shown}");
            let mut text = anstream::StripStream::new(Vec::new());
            action.lines(&mut text, true).expect("written");
            let text = String::from_utf8_lossy(&text.into_inner()).into_owned();
            assert!(text.contains(action.outcome.words()), "{text}");
        }
    }

    #[test]
    fn what_is_rolled_back_or_unknown_says_where_and_why() {
        let at = RuntimeAddr::new(0x5555_0000_1000);
        let why = |outcome| ended(Ok(outcome)).why.unwrap_or_default();
        let rolled = why(Outcome::RolledBack { why: WriteFault::Write { at, errno: Errno(28) } });
        assert!(rolled.contains("0x555500001000") && rolled.contains("No space"), "{rolled}");
        let lost = why(Outcome::Indeterminate { why: Lost::UndoFailed { at, errno: Errno(5) } });
        assert!(lost.contains("could not be undone"), "{lost}");
        let measured = ended(Ok(Outcome::Applied(applied()))).measured.expect("measured");
        assert_eq!((measured.longest_stop_ns, measured.tries, measured.threads), (200_000, 3, 4));
    }
}
