//! One transition group, carried out: every process of it changes, or none does.

use super::{Action, Brakes, Ending, Guard, Task, cut_short, interrupted, livepatch_refs, older};
use crate::event::{LivepatchRef, ProcessRef};
use crate::machine::processes::{Processes, name, reopen};
use crate::plan::{Bound, together};
use crate::problem::chain;
use crate::switch;
use salve_tracee::{
    ApplyError, ApplyMember, ApplyOptions, Limits, Mark, NotApplied, Outcome, Patcher, Process, ProcessId, Tie,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The code of a process that is left because another of its group cannot be changed.
const GROUP: &str = "group";

/// Tasks that are carried out in one transition.
pub(super) type Unit<'t, 'a> = Vec<&'t Task<'a>>;

pub(super) fn units<'t, 'a>(tasks: &'t [Task<'a>]) -> Vec<Unit<'t, 'a>> {
    let bound: Vec<Bound<'_>> =
        tasks.iter().map(|task| Bound { source: &task.update.source, ties: &task.ties }).collect();
    together(&bound).into_iter().map(|group| group.into_iter().filter_map(|index| tasks.get(index)).collect()).collect()
}

/// A process that will not change, though it runs what an update changes.
pub(crate) struct Obstacle {
    pub(crate) source: String,
    pub(crate) ties: BTreeSet<Tie>,
    pub(crate) pid: u32,
    pub(crate) why: String,
}

/// Takes out the tasks of processes that are tied to one that will not change: of a group
/// all change or none.
pub(crate) fn unobstructed<'a>(tasks: Vec<Task<'a>>, obstacles: &[Obstacle]) -> (Vec<Task<'a>>, Vec<Action>) {
    let of_tasks = tasks.iter().map(|task| Bound { source: &task.update.source, ties: &task.ties });
    let of_others = obstacles.iter().map(|other| Bound { source: &other.source, ties: &other.ties });
    let bound: Vec<Bound<'_>> = of_tasks.chain(of_others).collect();
    let mut in_the_way: BTreeMap<usize, &Obstacle> = BTreeMap::new();
    for group in together(&bound) {
        let obstacle = group.iter().find_map(|index| obstacles.get(index.checked_sub(tasks.len())?));
        if let Some(obstacle) = obstacle {
            in_the_way.extend(group.iter().map(|index| (*index, obstacle)));
        }
    }
    let (mut free, mut left) = (Vec::new(), Vec::new());
    for (index, task) in tasks.into_iter().enumerate() {
        match in_the_way.get(&index) {
            None => free.push(task),
            Some(obstacle) => {
                left.push(plain(&task, Ending::Refused).because(GROUP, cannot(obstacle.pid, &obstacle.why)));
            }
        }
    }
    (free, left)
}

/// A process in which the update is in force already: a Salve that was killed came so far.
pub(crate) struct Settled {
    pub(crate) id: ProcessId,
    pub(crate) source: String,
    pub(crate) ties: BTreeSet<Tie>,
}

/// Of these, the groups that have one of `named` in them, whether or not that one needs
/// anything. Who is settled ties the others of its group together.
pub(crate) fn concerning<'a>(tasks: Vec<Task<'a>>, settled: &[Settled], named: &BTreeSet<ProcessId>) -> Vec<Task<'a>> {
    let mut wanted: BTreeMap<usize, BTreeSet<Tie>> = BTreeMap::new();
    let of_tasks = tasks.iter().map(|task| (task.id, Bound { source: &task.update.source, ties: &task.ties }));
    let of_others = settled.iter().map(|other| (other.id, Bound { source: &other.source, ties: &other.ties }));
    let (ids, bound): (Vec<ProcessId>, Vec<Bound<'_>>) = of_tasks.chain(of_others).unzip();
    for group in together(&bound) {
        if !group.iter().any(|index| ids.get(*index).is_some_and(|id| named.contains(id))) {
            continue;
        }
        let others = group.iter().filter_map(|index| settled.get(index.checked_sub(tasks.len())?));
        let ties: BTreeSet<Tie> = others.flat_map(|other| other.ties.iter().copied()).collect();
        wanted.extend(group.iter().map(|index| (*index, ties.clone())));
    }
    let all = tasks.into_iter().enumerate();
    all.filter_map(|(index, mut task)| {
        task.ties.extend(wanted.remove(&index)?);
        Some(task)
    })
    .collect()
}

fn cannot(pid: u32, why: &str) -> String {
    format!("process {pid}, which has to change together with it, cannot: {why}")
}

/// What came of one try, for each process, and how many transitions were tried in all.
pub(super) struct Tried {
    pub(super) actions: Vec<Action>,
    pub(super) tries: u32,
}

impl Tried {
    pub(super) fn is_deferred(&self) -> bool {
        self.actions.iter().any(|action| action.outcome == Ending::Deferred)
    }
}

/// What would come of it, as far as a look can tell.
pub(crate) fn foreseen(patcher: &Patcher, task: &Task<'_>) -> Action {
    let process = match reopen(task.id) {
        Ok(Some(process)) => process,
        Ok(None) => return plain(task, Ending::Gone),
        Err(_) => return plain(task, Ending::Planned),
    };
    match patcher.foresee(&process, &task.changes) {
        Ok(Some(NotApplied::Exited)) => plain(task, Ending::Gone),
        // An older one of ours may be replaced.
        Ok(None | Some(NotApplied::OtherLivepatch { .. })) => plain(task, Ending::Planned),
        Ok(Some(why)) => plain(task, Ending::NotApplied).because(why.code(), chain(&why)),
        Err(error) => plain(task, Ending::Planned).ended(Err(error), 0),
    }
}

fn plain(task: &Task<'_>, ending: Ending) -> Action {
    Action::new(task.process.clone(), task.update.clone(), livepatch_refs(&task.changes), ending)
}

pub(super) fn not_begun(unit: &[&Task<'_>]) -> Tried {
    Tried { actions: unit.iter().map(|task| interrupted(task)).collect(), tries: 0 }
}

/// The processes that are still there, or why one of them cannot be changed.
fn opened<'t, 'a>(unit: &[&'t Task<'a>], guard: &Guard<'_>) -> (Vec<(&'t Task<'a>, Process)>, Vec<Action>) {
    let (mut open, mut ends) = (Vec::new(), Vec::new());
    for task in unit {
        match reopen(task.id) {
            Ok(Some(process)) => match guard(task) {
                Ok(()) => open.push((*task, process)),
                Err((code, why)) => ends.push(plain(task, Ending::NotApplied).because(code, why)),
            },
            Ok(None) => ends.push(plain(task, Ending::Gone)),
            Err(problem) => {
                let report = problem.report();
                let why = core::iter::once(report.message).chain(report.causes).collect::<Vec<_>>().join(": ");
                ends.push(plain(task, Ending::Failed).because(report.code, why));
            }
        }
    }
    (open, ends)
}

pub(super) fn attempt(
    processes: &Processes,
    unit: &[&Task<'_>],
    wait: Duration,
    guard: &Guard<'_>,
    brakes: &Brakes<'_>,
    tries: u32,
) -> Tried {
    let (open, mut actions) = opened(unit, guard);
    let in_the_way = actions
        .iter()
        .find(|end| end.outcome != Ending::Gone)
        .map(|end| (GROUP.to_owned(), cannot(end.process.pid, end.why.as_deref().unwrap_or_default())));
    let permit = brakes.switch.permit();
    let off = permit.as_ref().err().map(|off| (switch::CODE.to_owned(), off.words().unwrap_or_default()));
    if let Some((code, why)) = off.or(in_the_way) {
        let left = open.iter().map(|(task, _)| plain(task, Ending::NotApplied).because(code.clone(), why.clone()));
        actions.extend(left);
        return Tried { actions, tries };
    }
    if open.is_empty() {
        return Tried { actions, tries };
    }
    let results = together_with_older(&processes.patcher, &open, processes.mark, wait);
    let more = match &results {
        Ok(ends) => ends.values().filter_map(tried).max().unwrap_or(0),
        Err(_) => 0,
    };
    let tries = tries.saturating_add(more);
    actions.extend(ended(&open, results, tries));
    let mut group: Vec<u32> =
        actions.iter().filter(|end| end.outcome != Ending::Gone).map(|end| end.process.pid).collect();
    group.sort_unstable();
    if group.len() > 1 {
        for action in &mut actions {
            action.group.clone_from(&group);
        }
    }
    Tried { actions, tries }
}

fn tried(end: &Result<Outcome, ApplyError>) -> Option<u32> {
    match end {
        Ok(Outcome::Applied(applied)) => Some(applied.tries),
        Ok(Outcome::Deferred { tries, .. }) => Some(*tries),
        _nothing_was_tried => None,
    }
}

type Ends = Result<BTreeMap<ProcessId, Result<Outcome, ApplyError>>, ApplyError>;

fn together_with_older(patcher: &Patcher, open: &[(&Task<'_>, Process)], mark: Mark, wait: Duration) -> Ends {
    let options = ApplyOptions { wait };
    let mut members: Vec<ApplyMember<'_>> = open
        .iter()
        .map(|(task, process)| ApplyMember { process, changes: task.changes.clone(), replaced: Vec::new() })
        .collect();
    let results = patcher.apply_group(&members, mark, &options);
    let is_other = |end: &Result<Outcome, ApplyError>| {
        matches!(end, Ok(Outcome::NotApplied { why: NotApplied::OtherLivepatch { .. } }))
    };
    if !results.as_ref().is_ok_and(|ends| ends.values().any(is_other)) {
        return results;
    }
    let mut any = false;
    for (member, (task, process)) in members.iter_mut().zip(open) {
        if let Some(older) = older(patcher, process, task) {
            member.replaced = older;
            any = true;
        }
    }
    if any { patcher.apply_group(&members, mark, &options) } else { results }
}

/// What it came to for each, and for those who joined.
fn ended(open: &[(&Task<'_>, Process)], results: Ends, tries: u32) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut ends = match results {
        Ok(ends) => ends,
        Err(error) => {
            let why = crate::problem::chain(&error);
            let failed = |task: &Task<'_>| plain(task, Ending::Failed).because("not-attempted", why.clone());
            return open.iter().map(|(task, _)| failed(task)).collect();
        }
    };
    for (task, process) in open {
        let action = plain(task, Ending::Gone);
        let mut action = match ends.remove(&task.id) {
            Some(end) => action.ended(end, tries),
            None => action,
        };
        action.cut_short = cut_short(process);
        actions.push(action);
    }
    let Some((first, _)) = open.first() else { return actions };
    let refs: Vec<LivepatchRef> = open.iter().flat_map(|(task, _)| livepatch_refs(&task.changes)).collect();
    for (id, end) in ends {
        // Who was forked from one that was changed before needs nothing.
        if matches!(end, Ok(Outcome::AlreadyApplied { .. } | Outcome::NotApplied { why: NotApplied::Exited })) {
            continue;
        }
        let process = newcomer(id).unwrap_or_else(|| ProcessRef {
            pid: u32::try_from(id.pid).unwrap_or(u32::MAX),
            start_ticks: id.start_time,
            program: first.process.program.clone(),
        });
        let mut livepatches = refs.clone();
        livepatches.sort_by(|a, b| a.id.cmp(&b.id));
        livepatches.dedup();
        if let Ok(Outcome::Applied(applied)) = &end {
            livepatches.retain(|of| applied.images.iter().any(|image| image.livepatch.to_string() == of.id));
        }
        let action = Action::new(process, first.update.clone(), livepatches, Ending::Gone).ended(end, tries);
        actions.push(action);
    }
    actions
}

fn newcomer(id: ProcessId) -> Option<ProcessRef> {
    let process = reopen(id).ok()??;
    process.facts(&Limits::default()).ok().map(|facts| name(&facts))
}
