//! Carrying a plan out: each transition group in one transition, as many groups at a time
//! as there are processors, with no choice left but when to stop trying.

mod action;
mod clock;
mod crew;
mod unit;

pub(crate) use action::{
    Action, Cut, Ending, blocker, blocker_lines, cut_short, is_done_already, nanoseconds, why_deferred, with_others,
};
pub(crate) use unit::{Obstacle, Settled, concerning, foreseen, unobstructed};

pub(crate) use clock::Clock;

use crate::console::Console;
use crate::event::{Blocker, Event, EventLog, LivepatchRef, ProcessRef, UpdateRef};
use crate::machine::packages::compare;
use crate::machine::processes::Processes;
use crate::switch::Switch;
use salve_patch::{LivepatchId, Origin};
use salve_tracee::{Change, LivepatchState, Patcher, Process, ProcessId, Tie};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One process, and what changes in it together.
pub(crate) struct Task<'a> {
    pub(crate) id: ProcessId,
    pub(crate) process: ProcessRef,
    pub(crate) update: UpdateRef,
    pub(crate) changes: Vec<Change<'a>>,
    /// What ties it to others, with which it changes together.
    pub(crate) ties: BTreeSet<Tie>,
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

/// Carries out every task, and records each end as it comes. Those that are tied
/// together are one transition. Groups that are deferred are tried again, in turn, until
/// `wait` is over, once at least; none of them holds the others up.
pub(crate) fn apply_all(
    processes: &Processes,
    tasks: &[Task<'_>],
    wait: Duration,
    guard: &Guard<'_>,
    brakes: &Brakes<'_>,
    log: &mut EventLog,
    console: Console,
) -> Vec<Action> {
    let clock = Clock::start(wait);
    let units = unit::units(tasks);
    let progress = console.progress(tasks.len(), "patching");
    let mut ends: Vec<Vec<Action>> = units.iter().map(|_| Vec::new()).collect();
    let mut again: Vec<(usize, u32)> = Vec::new();
    // Alone, it may use the time at once; among others it gets one try first.
    let first = if units.len() == 1 { wait.min(SLICE) } else { Duration::ZERO };
    let try_once = |unit: &unit::Unit<'_, '_>| {
        if brakes.interrupt.came() {
            return unit::not_begun(unit);
        }
        unit::attempt(processes, unit, first, guard, brakes, 0)
    };
    crew::each(&units, crew::hands(), try_once, |index, tried| {
        for end in &tried.actions {
            progress.step(&format!("{} (pid {})", end.process.program, end.process.pid));
        }
        let deferred = tried.is_deferred() && !wait.is_zero();
        if deferred {
            again.push((index, tried.tries));
        }
        if let Some(place) = ends.get_mut(index) {
            *place = if deferred { tried.actions } else { finish(tried.actions, log) };
        }
    });
    again.sort_unstable();
    drop(progress);
    let progress = console.progress(again.len(), "waiting for");
    for round in 0.. {
        if again.is_empty() {
            break;
        }
        let slice = clock.slice_of(round, again.len());
        let mut still = Vec::new();
        for (index, tries) in core::mem::take(&mut again) {
            let (Some(unit), Some(end)) = (units.get(index), ends.get_mut(index)) else { continue };
            let over = (round > 0 && clock.is_over()) || brakes.interrupt.came();
            progress.say(&waiting_for(end, &clock));
            let tried = if over {
                unit::Tried { actions: core::mem::take(end), tries }
            } else {
                unit::attempt(processes, unit, slice, guard, brakes, tries)
            };
            if tried.is_deferred() && !over {
                still.push((index, tried.tries));
                *end = tried.actions;
            } else {
                progress.step(unit.first().map_or("", |task| &task.process.program));
                *end = finish(tried.actions, log);
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
fn waiting_for(ends: &[Action], clock: &Clock) -> String {
    let deferred = ends.iter().find(|end| end.outcome == Ending::Deferred);
    let Some(end) = deferred else { return String::new() };
    let place = match end.blocking.first() {
        Some(Blocker { tid, function: Some(function), .. }) => format!(", thread {tid} in {function}"),
        Some(Blocker { tid, function: None, .. }) => format!(", thread {tid}"),
        None => String::new(),
    };
    format!("{} (pid {}{place}), {} s left", end.process.program, end.process.pid, clock.left().as_secs())
}

fn interrupted(task: &Task<'_>) -> Action {
    Action::new(task.process.clone(), task.update.clone(), livepatch_refs(&task.changes), Ending::Interrupted)
        .because("interrupted", "the run was interrupted before its turn")
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

fn finish(ends: Vec<Action>, log: &mut EventLog) -> Vec<Action> {
    for event in ends.iter().filter_map(Action::event) {
        log.record(&event);
    }
    ends
}
