//! Reverting, each group of processes in one transition.

use super::carrier::Carrier;
use super::ending::RevertEnding;
use super::reversion::Reversion;
use crate::carry::{Brakes, Clock, SLICE, cut_short};
use crate::command::Context;
use crate::machine::processes::{self, Processes};
use crate::plan::{Bound, together};
use crate::problem::chain;
use crate::switch::{self, State};
use core::time::Duration;
use salve_tracee::{ApplyError, Ends, Process, ProcessId, RevertOptions, RevertOutcome, Selection};

pub(super) struct Reverting<'p> {
    pub(super) processes: &'p Processes,
    /// Even though the switch is off.
    pub(super) while_off: bool,
}

/// A process that is held open, to be changed.
type Open<'c> = (&'c Carrier, Process);

impl Reverting<'_> {
    /// Group by group; each end is recorded as it comes. Groups that are deferred are tried
    /// again, in turn, until `wait` is over, once at least; none of them holds the others up.
    pub(super) fn all(&self, found: &[Carrier], wait: Duration, context: &mut Context) -> Vec<Reversion> {
        let clock = Clock::start(wait);
        let progress = context.console.progress(found.len(), "reverting");
        let (mut waiting, mut all) = groups(found);
        // Alone, it may use the time at once; among others each gets one try first.
        let mut slice = if waiting.len() == 1 { wait.min(SLICE) } else { Duration::ZERO };
        for round in 0.. {
            let mut still = Vec::new();
            for group in waiting {
                let ends = self.group(&group, slice, context);
                let deferred = ends.iter().any(|end| end.outcome == RevertEnding::Deferred);
                let over = wait.is_zero() || (round > 0 && clock.is_over()) || context.interrupt.came();
                if deferred && !over {
                    still.push(group);
                    continue;
                }
                for end in ends {
                    progress.step(&format!("pid {}", end.process.pid));
                    if let Some(event) = end.event() {
                        context.log.record(&event);
                    }
                    all.push(end);
                }
            }
            if still.is_empty() {
                break;
            }
            clock.rest(&Brakes { interrupt: &context.interrupt, switch: &context.switch });
            slice = clock.slice_of(round, still.len());
            waiting = still;
        }
        all.sort_by_key(|end| end.process.pid);
        all
    }

    /// One try of one group, and what came of each of its processes.
    fn group(&self, group: &[&Carrier], wait: Duration, context: &Context) -> Vec<Reversion> {
        if context.interrupt.came() {
            let interrupted = |one: &&Carrier| Reversion { outcome: RevertEnding::Interrupted, ..plain(one) };
            return group.iter().map(interrupted).collect();
        }
        let (open, mut ends) = opened(group);
        if open.is_empty() {
            return ends;
        }
        let all = |outcome: RevertEnding, code: &str, why: String| {
            let one = move |carrier: &Carrier| plain(carrier).because(outcome, code, why.clone());
            open.iter().map(|(carrier, _)| one(carrier)).collect::<Vec<Reversion>>()
        };
        match self.attempt(&open, wait, context) {
            Ok(Ok(results)) => {
                for (id, result) in results {
                    ends.extend(self.ended(&open, id, result));
                }
                tie(&mut ends);
            }
            Ok(Err(error)) => ends.extend(all(RevertEnding::Failed, "not-attempted", chain(&error))),
            Err(off) => {
                ends.extend(all(RevertEnding::NotReverted, switch::CODE, off.words().unwrap_or_default()));
            }
        }
        ends
    }

    /// As long as one try may take.
    fn attempt(&self, open: &[Open<'_>], wait: Duration, context: &Context) -> Result<Ends<RevertOutcome>, State> {
        let _permit = match context.switch.permit() {
            Ok(permit) => Some(permit),
            Err(_off) if self.while_off => None,
            Err(off) => return Err(off),
        };
        let members: Vec<(&Process, Selection)> =
            open.iter().map(|(one, process)| (process, one.selection.clone())).collect();
        let options = RevertOptions { wait, force: false };
        Ok(self.processes.patcher.revert_group(&members, self.processes.mark, &options))
    }

    /// What came of one of the group, or of one that joined it; `None` of one that had nothing to lose.
    fn ended(&self, open: &[Open<'_>], id: ProcessId, result: Result<RevertOutcome, ApplyError>) -> Option<Reversion> {
        if let Some((known, process)) = open.iter().find(|(one, _)| one.id == id) {
            return Some(Reversion { cut_short: cut_short(process), ..plain(known).ended(result) });
        }
        if matches!(result, Ok(RevertOutcome::NothingToRevert)) {
            return None;
        }
        let joined = processes::reopen(id).ok().flatten()?;
        let facts = self.processes.facts(&joined).ok()?;
        Some(Reversion::new(processes::name(&facts), &Selection::All).ended(result))
    }
}

/// What would be tried, without touching anybody.
pub(super) fn foreseen(found: &[Carrier]) -> Vec<Reversion> {
    let (waiting, mut all) = groups(found);
    for group in waiting {
        let mut ends: Vec<Reversion> = group.iter().map(|one| planned(one)).collect();
        tie(&mut ends);
        all.extend(ends);
    }
    all.sort_by_key(|end| end.process.pid);
    all
}

fn planned(one: &Carrier) -> Reversion {
    let livepatches = one.carried.iter().map(ToString::to_string).collect();
    Reversion { outcome: RevertEnding::Planned, livepatches, ..plain(one) }
}

/// Those that change together and have something, and what is said of those that have nothing.
fn groups(found: &[Carrier]) -> (Vec<Vec<&Carrier>>, Vec<Reversion>) {
    let bound: Vec<Bound<'_>> = found.iter().map(|one| Bound { source: "", ties: &one.ties }).collect();
    let (mut groups, mut nothing) = (Vec::new(), Vec::new());
    for group in together(&bound) {
        let members = group.into_iter().filter_map(|index| found.get(index));
        let (active, idle): (Vec<&Carrier>, Vec<&Carrier>) = members.partition(|one| one.has_something());
        nothing.extend(idle.into_iter().map(idle_end));
        groups.push(active);
    }
    (groups, nothing)
}

/// Who has nothing of what was named may have something else: whoever mistyped an id has to see that.
fn idle_end(one: &Carrier) -> Reversion {
    let end = plain(one);
    let Some(first) = one.others.first() else { return end };
    let why = match one.others.len() {
        1 => format!("it carries {first}, which was not named"),
        several => format!("it carries {first} and {} more, which were not named", several.saturating_sub(1)),
    };
    end.because(RevertEnding::NothingToRevert, "other-livepatch", why)
}

fn plain(one: &Carrier) -> Reversion {
    Reversion::new(one.name.clone(), &one.selection)
}

/// The processes that are still there, or why one of them is not changed.
fn opened<'c>(group: &[&'c Carrier]) -> (Vec<Open<'c>>, Vec<Reversion>) {
    let (mut open, mut ends) = (Vec::new(), Vec::new());
    for one in group {
        match processes::reopen(one.id) {
            Ok(Some(process)) => open.push((*one, process)),
            Ok(None) => ends.push(Reversion { outcome: RevertEnding::Gone, ..plain(one) }),
            Err(problem) => {
                ends.push(plain(one).because(RevertEnding::Failed, "no-permission", problem.report().message));
            }
        }
    }
    (open, ends)
}

/// Each is told whom it changed together with.
fn tie(ends: &mut [Reversion]) {
    let there = ends.iter().filter(|end| end.outcome != RevertEnding::Gone);
    let mut pids: Vec<u32> = there.map(|end| end.process.pid).collect();
    pids.sort_unstable();
    if pids.len() > 1 {
        for end in ends {
            end.group.clone_from(&pids);
        }
    }
}
