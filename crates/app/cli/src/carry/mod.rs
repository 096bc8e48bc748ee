//! Carrying a plan out: each process in one transition, as many at a time as there
//! are processors, with no choice left but when to stop trying.

mod action;
mod clock;
mod crew;

pub(crate) use action::{Action, Ending, blocker, nanoseconds};

use clock::Clock;

use crate::console::Console;
use crate::event::{Event, EventLog, LivepatchRef, ProcessRef, UpdateRef};
use crate::machine::packages::compare;
use crate::machine::processes::reopen;
use crate::switch::{self, Switch};
use salve_patch::{LivepatchId, Origin};
use salve_tracee::{ApplyOptions, Change, LivepatchState, NotApplied, Outcome, Patcher, Process, ProcessId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One process, and what changes in it together.
pub(crate) struct Task<'a> {
    pub(crate) id: ProcessId,
    pub(crate) process: ProcessRef,
    pub(crate) update: UpdateRef,
    pub(crate) changes: Vec<Change<'a>>,
}

/// A process is tried for this long at a time: between two slices an interrupt is heard.
pub(crate) const SLICE: Duration = Duration::from_secs(2);

/// Rounds of looking for processes that appeared meanwhile. A program that forks
/// faster than this is patched in most of its processes, and the next run finds the rest.
pub(crate) const MAX_ROUNDS: usize = 10;

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

/// What ends a run before its end.
pub(crate) struct Brakes<'a> {
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) switch: &'a Switch,
}

/// What has to be true immediately before a process is changed: `Err` has a
/// stable code and the words.
pub(crate) type Guard<'a> = dyn Fn(&Task<'_>) -> Result<(), (String, String)> + Sync + 'a;

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
/// deferred are tried again, in turn, until `wait` is over; none of them holds
/// the others up.
pub(crate) fn apply_all(
    patcher: &Patcher,
    tasks: &[Task<'_>],
    wait: Duration,
    guard: &Guard<'_>,
    brakes: &Brakes<'_>,
    log: &mut EventLog,
    console: Console,
) -> Vec<Action> {
    let clock = Clock::start(wait);
    let progress = console.progress(tasks.len(), "patching");
    let mut ends: Vec<Option<Action>> = tasks.iter().map(|_| None).collect();
    let mut again: Vec<(usize, u32)> = Vec::new();
    // Alone, it may use the time at once; among others it gets one try first.
    let first = if tasks.len() == 1 { wait.min(SLICE) } else { Duration::ZERO };
    let try_once = |task: &Task<'_>| {
        if brakes.interrupt.came() {
            return (interrupted(task), 0);
        }
        attempt(patcher, task, first, guard, brakes.switch, 0)
    };
    crew::each(tasks, crew::hands(), try_once, |index, (end, tries)| {
        progress.step(&format!("{} (pid {})", end.process.program, end.process.pid));
        let deferred = end.outcome == Ending::Deferred && !wait.is_zero();
        if deferred {
            again.push((index, tries));
        }
        if let Some(place) = ends.get_mut(index) {
            *place = Some(if deferred { end } else { finish(end, log) });
        }
    });
    again.sort_unstable();
    drop(progress);
    let progress = console.progress(again.len(), "waiting for");
    while !again.is_empty() {
        let slice = clock.slice(again.len());
        let mut still = Vec::new();
        for (index, tries) in core::mem::take(&mut again) {
            let (Some(task), Some(end)) = (tasks.get(index), ends.get_mut(index)) else { continue };
            let over = clock.is_over() || brakes.interrupt.came();
            progress.say(&waiting_for(task, end.as_ref(), &clock));
            let (last, tries) = match end.take() {
                Some(deferred) if over => (deferred, tries),
                _try_again => attempt(patcher, task, slice, guard, brakes.switch, tries),
            };
            if last.outcome == Ending::Deferred && !over {
                still.push((index, tries));
                *end = Some(last);
            } else {
                progress.step(&task.process.program);
                *end = Some(finish(last, log));
            }
        }
        again = still;
        if !again.is_empty() {
            clock.rest(brakes);
        }
    }
    drop(progress);
    let ends: Vec<Action> = ends.into_iter().flatten().collect();
    let remaining: Vec<ProcessRef> =
        ends.iter().filter(|end| end.outcome == Ending::Interrupted).map(|end| end.process.clone()).collect();
    if !remaining.is_empty() {
        log.record(&Event::Interrupted { remaining });
    }
    ends
}

/// Who is waited for, and who stands in the way there.
fn waiting_for(task: &Task<'_>, end: Option<&Action>, clock: &Clock) -> String {
    let blocker = end.and_then(|end| end.blocking.first());
    let function = blocker.and_then(|blocker| blocker.function.as_deref());
    let place = match (blocker, function) {
        (Some(blocker), Some(function)) => format!(", thread {} in {function}", blocker.tid),
        (Some(blocker), None) => format!(", thread {}", blocker.tid),
        (None, _) => String::new(),
    };
    format!("{} (pid {}{place}), {} s left", task.process.program, task.process.pid, clock.left().as_secs())
}

fn interrupted(task: &Task<'_>) -> Action {
    Action::new(task.process.clone(), task.update.clone(), livepatch_refs(&task.changes), Ending::Interrupted)
        .because("interrupted", "the run was interrupted before its turn")
}

fn attempt(
    patcher: &Patcher,
    task: &Task<'_>,
    wait: Duration,
    guard: &Guard<'_>,
    switch: &Switch,
    tries: u32,
) -> (Action, u32) {
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
    let _permit = match switch.permit() {
        Ok(permit) => permit,
        Err(off) => {
            let why = off.words().unwrap_or_default();
            return (Action { outcome: Ending::NotApplied, ..action }.because(switch::CODE, why), tries);
        }
    };
    let options = ApplyOptions { wait };
    let mut result = patcher.apply(&process, &task.changes, &options);
    if let Ok(Outcome::NotApplied { why: NotApplied::OtherLivepatch { .. } }) = &result
        && let Some(older) = older(patcher, &process, task)
    {
        result = patcher.replace(&process, &task.changes, &older, &options);
    }
    let more = match &result {
        Ok(Outcome::Applied(applied)) => applied.tries,
        Ok(Outcome::Deferred { tries, .. }) => *tries,
        _nothing_was_tried => 0,
    };
    let tries = tries.saturating_add(more);
    (action.ended(result, tries), tries)
}

/// The livepatches in force that this task's are newer versions of: of the same
/// package, by the versions that both carry. `None` where one is in the way whose
/// version is not proven to be lower; nothing is replaced then.
fn older(patcher: &Patcher, process: &Process, task: &Task<'_>) -> Option<Vec<LivepatchId>> {
    let status = patcher.status(process).ok()?;
    let mut older = Vec::new();
    for there in status.livepatches.iter().filter(|there| there.state != LivepatchState::Reverted) {
        let old = there.patch.images.first()?.old.as_ref()?.sha256;
        let mut of_image = task.changes.iter().filter(|c| c.image.old.as_ref().is_some_and(|id| id.sha256 == old));
        let Some(change) = of_image.next().filter(|c| c.image.livepatch_id() != Some(there.livepatch)) else {
            continue;
        };
        let (Origin::Packages { new: theirs, .. }, Origin::Packages { new: ours, .. }) =
            (&there.patch.origin, &change.patch.origin)
        else {
            return None;
        };
        let same_package = theirs.name == ours.name && theirs.architecture == ours.architecture;
        let lower = compare(&theirs.version, &ours.version) == Some(core::cmp::Ordering::Less);
        if !(same_package && lower) {
            return None;
        }
        older.push(there.livepatch);
    }
    Some(older).filter(|older| !older.is_empty())
}

fn finish(end: Action, log: &mut EventLog) -> Action {
    if let Some(event) = end.event() {
        log.record(&event);
    }
    end
}
