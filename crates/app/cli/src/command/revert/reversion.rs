//! What came of one process, as it is reported.

use super::ending::RevertEnding;
use crate::carry::{Cut, blocker, nanoseconds, why_deferred};
use crate::event::{Blocker, Event, ProcessRef};
use crate::machine::processes::FIRST_THREAD_ENDED;
use crate::problem::chain;
use salve_tracee::{ApplyError, Lost, NotApplied, ReadError, RevertOutcome, Selection};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Reversion {
    pub(super) process: ProcessRef,
    /// All processes of its transition group, itself included; none where it changes alone.
    pub(super) group: Vec<u32>,
    pub(super) livepatches: Vec<String>,
    pub(super) outcome: RevertEnding,
    pub(super) code: Option<String>,
    pub(super) why: Option<String>,
    pub(super) blocking: Vec<Blocker>,
    /// Calls that the last try may have cut short.
    pub(super) cut_short: Vec<Cut>,
    pub(super) stopped_ns: Option<u64>,
    pub(super) longest_stop_ns: Option<u64>,
    /// The payload stays mapped, because an address of it may have escaped.
    pub(super) payload_kept: Option<bool>,
}

impl Reversion {
    /// It could not be looked at, and may carry what was to be reverted.
    pub(super) fn unread(pid: i32, error: &ReadError) -> Self {
        let pid = u32::try_from(pid).unwrap_or(u32::MAX);
        let process = ProcessRef { pid, start_ticks: 0, program: String::new() };
        let end = Self::new(process, &Selection::These(Vec::new()));
        match error {
            ReadError::FirstThreadEnded => end.because(RevertEnding::NotReverted, FIRST_THREAD_ENDED, chain(error)),
            other => end.because(RevertEnding::Failed, "unreadable", chain(other)),
        }
    }

    pub(super) fn new(process: ProcessRef, selection: &Selection) -> Self {
        let livepatches = match selection {
            Selection::All => Vec::new(),
            Selection::These(ids) => ids.iter().map(ToString::to_string).collect(),
        };
        Self {
            process,
            group: Vec::new(),
            livepatches,
            outcome: RevertEnding::NothingToRevert,
            code: None,
            why: None,
            blocking: Vec::new(),
            cut_short: Vec::new(),
            stopped_ns: None,
            longest_stop_ns: None,
            payload_kept: None,
        }
    }

    pub(super) fn because(self, outcome: RevertEnding, code: &str, why: String) -> Self {
        Self { outcome, code: Some(code.to_owned()), why: Some(why), ..self }
    }

    pub(super) fn ended(self, result: Result<RevertOutcome, ApplyError>) -> Self {
        match result {
            Ok(RevertOutcome::Reverted(reverted)) => Self {
                outcome: RevertEnding::Reverted,
                livepatches: reverted.livepatches.iter().map(ToString::to_string).collect(),
                stopped_ns: Some(nanoseconds(reverted.stopped)),
                longest_stop_ns: Some(nanoseconds(reverted.longest_stop)),
                payload_kept: Some(!reverted.unmapped),
                ..self
            },
            Ok(RevertOutcome::NothingToRevert) => Self { outcome: RevertEnding::NothingToRevert, ..self },
            Ok(RevertOutcome::Deferred { blocking, tries: _ }) => {
                let (code, why) = why_deferred(&blocking, "threads are inside the new code");
                let blocking = blocking.iter().map(blocker).collect();
                Self { blocking, ..self }.because(RevertEnding::Deferred, code, why.into())
            }
            Ok(
                RevertOutcome::NotReverted { why: NotApplied::Exited }
                | RevertOutcome::Indeterminate { why: Lost::Exited },
            )
            | Err(ApplyError::Read(ReadError::Exited)) => Self { outcome: RevertEnding::Gone, ..self },
            Ok(RevertOutcome::NotReverted { why }) => self.because(RevertEnding::NotReverted, why.code(), chain(&why)),
            Ok(RevertOutcome::RolledBack { why }) => self.because(RevertEnding::RolledBack, "write-fault", chain(&why)),
            Ok(RevertOutcome::Indeterminate { why }) => {
                self.because(RevertEnding::Indeterminate, "indeterminate", chain(&why))
            }
            Err(error @ ApplyError::Read(ReadError::NoPermission { .. })) => {
                self.because(RevertEnding::Failed, "no-permission", chain(&error))
            }
            Err(error) => self.because(RevertEnding::Failed, "not-attempted", chain(&error)),
        }
    }

    pub(super) fn event(&self) -> Option<Event> {
        let (process, group, livepatches) = (self.process.clone(), self.group.clone(), self.livepatches.clone());
        match self.outcome {
            RevertEnding::Reverted => Some(Event::Reverted {
                process,
                group,
                livepatches,
                stopped_ns: self.stopped_ns.unwrap_or(0),
                payload_kept: self.payload_kept.unwrap_or(true),
            }),
            RevertEnding::Planned | RevertEnding::NothingToRevert | RevertEnding::Gone | RevertEnding::Interrupted => {
                None
            }
            RevertEnding::NotReverted
            | RevertEnding::Deferred
            | RevertEnding::RolledBack
            | RevertEnding::Indeterminate
            | RevertEnding::Failed => Some(Event::NotReverted {
                process,
                group,
                livepatches,
                code: self.code.clone().unwrap_or_default(),
                why: self.why.clone().unwrap_or_default(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use core::time::Duration;
    use salve_elf::RuntimeAddr;
    use salve_tracee::{Errno, WriteFault};

    #[test]
    fn every_outcome_of_a_revert_has_its_own_exit_code_word_and_event() {
        let at = RuntimeAddr::new(0x1000);
        let process = || ProcessRef { pid: 812, start_ticks: 4711, program: "/usr/sbin/x".into() };
        let reverted = salve_tracee::Reverted {
            livepatches: Vec::new(),
            detours: 3,
            unmapped: false,
            stopped: Duration::from_micros(100),
            committed: salve_tracee::Committed::ByTarget,
            longest_stop: Duration::from_micros(120),
            tries: 1,
        };
        let undo = Lost::UndoFailed { at, errno: Errno(5) };
        let refused = NotApplied::RevertRefused { path: "/usr/sbin/x".into() };
        let cases = [
            (Ok(RevertOutcome::Reverted(reverted)), Exit::Done, "reverted", Some("reverted")),
            (Ok(RevertOutcome::NothingToRevert), Exit::Done, "nothing-to-revert", None),
            (
                Ok(RevertOutcome::Deferred { blocking: Vec::new(), tries: 9 }),
                Exit::Incomplete,
                "deferred",
                Some("not-reverted"),
            ),
            (Ok(RevertOutcome::NotReverted { why: refused }), Exit::Refused, "not-reverted", Some("not-reverted")),
            (
                Ok(RevertOutcome::RolledBack { why: WriteFault::ReadBack { at } }),
                Exit::Failed,
                "rolled-back",
                Some("not-reverted"),
            ),
            (Ok(RevertOutcome::Indeterminate { why: undo }), Exit::Failed, "indeterminate", Some("not-reverted")),
            (Ok(RevertOutcome::Indeterminate { why: Lost::Exited }), Exit::Done, "gone", None),
            (Err(ApplyError::NothingGiven), Exit::Failed, "failed", Some("not-reverted")),
        ];
        for (result, exit, word, event) in cases {
            let shown = format!("{result:?}");
            let end = Reversion::new(process(), &Selection::These(Vec::new())).ended(result);
            assert_eq!(end.outcome.exit(), exit, "{shown}");
            assert_eq!(serde_json::to_value(&end).expect("JSON")["outcome"], word, "{shown}");
            let told = end.event().map(|event| serde_json::to_value(&event).expect("JSON"));
            assert_eq!(told.as_ref().and_then(|event| event["event"].as_str()), event, "{shown}");
        }
    }
}
