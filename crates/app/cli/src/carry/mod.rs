//! Carrying a plan out: one process after the other, each in one transition,
//! with no choice left but when to stop trying.

mod action;

pub(crate) use action::{Action, Ending, blocker, nanoseconds};

use crate::console::Console;
use crate::event::{Event, EventLog, LivepatchRef, ProcessRef, UpdateRef};
use crate::machine::processes::reopen;
use salve_tracee::{ApplyOptions, Change, Outcome, Patcher, ProcessId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One process, and what changes in it together.
pub(crate) struct Task<'a> {
    pub(crate) id: ProcessId,
    pub(crate) process: ProcessRef,
    pub(crate) update: UpdateRef,
    pub(crate) changes: Vec<Change<'a>>,
}

/// A process is tried for this long at a time: between two slices an interrupt is heard.
pub(crate) const SLICE: Duration = Duration::from_secs(2);

/// Set by SIGINT and SIGTERM. The process at hand is finished, the rest left.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// A second signal ends the program at once; the target goes on by itself.
    pub(crate) fn listen() -> Self {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // Registered in this order: the first signal finds the flag unset, passes, and sets it.
            let _without_it_a_signal_ends_us =
                signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag));
            let _without_it_a_signal_ends_us = signal_hook::flag::register(signal, Arc::clone(&flag));
        }
        Self(flag)
    }

    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What has to be true immediately before a process is changed: `Err` has a
/// stable code and the words.
pub(crate) type Guard<'a> = dyn Fn(&Task<'_>) -> Result<(), (String, String)> + 'a;

pub(crate) fn livepatch_refs(changes: &[Change<'_>]) -> Vec<LivepatchRef> {
    changes
        .iter()
        .filter_map(|change| {
            Some(LivepatchRef {
                id: change.image.livepatch_id()?.to_string(),
                path: change.image.path.clone(),
                old_sha256: change.image.old.as_ref()?.sha256,
            })
        })
        .collect()
}

/// Carries out every task, and records each end as it comes. Those that are
/// deferred are tried again, in turn, until `wait` is over.
pub(crate) fn apply_all(
    patcher: &Patcher,
    tasks: &[Task<'_>],
    wait: Duration,
    guard: &Guard<'_>,
    interrupt: &Interrupt,
    log: &mut EventLog,
    console: Console,
) -> Vec<Action> {
    let deadline = Instant::now().checked_add(wait);
    let progress = console.progress(tasks.len(), "patching");
    let mut ends: Vec<Option<Action>> = Vec::new();
    let mut again: Vec<(usize, u32)> = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        progress.step(&format!("{} (pid {})", task.process.program, task.process.pid));
        // Alone, it may use the time at once; among others it gets one try first.
        let first = if tasks.len() == 1 { wait.min(SLICE) } else { Duration::ZERO };
        let (end, tries) =
            if interrupt.came() { (interrupted(task), 0) } else { attempt(patcher, task, first, guard, 0) };
        if end.outcome == Ending::Deferred && !wait.is_zero() {
            again.push((index, tries));
            ends.push(Some(end));
        } else {
            ends.push(Some(finish(end, log)));
        }
    }
    drop(progress);
    while !again.is_empty() {
        let remaining = deadline.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        let share = u32::try_from(again.len()).unwrap_or(u32::MAX).max(1);
        let slice = (remaining / share).max(Duration::from_millis(50)).min(SLICE).min(remaining);
        let mut still = Vec::new();
        for (index, tries) in core::mem::take(&mut again) {
            let (Some(task), Some(end)) = (tasks.get(index), ends.get_mut(index)) else { continue };
            let over = deadline.is_none_or(|at| Instant::now() >= at) || interrupt.came();
            let (last, tries) = match end.take() {
                Some(deferred) if over => (deferred, tries),
                _try_again => attempt(patcher, task, slice, guard, tries),
            };
            if last.outcome == Ending::Deferred && !over {
                still.push((index, tries));
                *end = Some(last);
            } else {
                *end = Some(finish(last, log));
            }
        }
        again = still;
    }
    let ends: Vec<Action> = ends.into_iter().flatten().collect();
    let remaining: Vec<ProcessRef> =
        ends.iter().filter(|end| end.outcome == Ending::Interrupted).map(|end| end.process.clone()).collect();
    if !remaining.is_empty() {
        log.record(&Event::Interrupted { remaining });
    }
    ends
}

fn interrupted(task: &Task<'_>) -> Action {
    Action::new(task.process.clone(), task.update.clone(), livepatch_refs(&task.changes), Ending::Interrupted)
        .because("interrupted", "the run was interrupted before its turn")
}

fn attempt(patcher: &Patcher, task: &Task<'_>, wait: Duration, guard: &Guard<'_>, tries: u32) -> (Action, u32) {
    let action = Action::new(task.process.clone(), task.update.clone(), livepatch_refs(&task.changes), Ending::Gone);
    let process = match reopen(task.id) {
        Ok(Some(process)) => process,
        Ok(None) => return (action, tries),
        Err(problem) => {
            let report = problem.report();
            let why = core::iter::once(report.message).chain(report.causes).collect::<Vec<_>>().join(": ");
            return (Action { outcome: Ending::Failed, ..action }.because(report.code, why), tries);
        }
    };
    if let Err((code, why)) = guard(task) {
        return (Action { outcome: Ending::NotApplied, ..action }.because(code, why), tries);
    }
    let result = patcher.apply(&process, &task.changes, &ApplyOptions { wait });
    let more = match &result {
        Ok(Outcome::Applied(applied)) => applied.tries,
        Ok(Outcome::Deferred { tries, .. }) => *tries,
        _nothing_was_tried => 0,
    };
    let tries = tries.saturating_add(more);
    (action.ended(result, tries), tries)
}

fn finish(end: Action, log: &mut EventLog) -> Action {
    if let Some(event) = end.event() {
        log.record(&event);
    }
    end
}
