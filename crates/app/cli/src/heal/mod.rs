//! `salve heal`: finds the processes that run old code, derives what brings
//! them up to date, and applies what may be applied.
//!
//! Resolve (`disk`, `archive`, `handed`: which update is there for which
//! content, with the direction proven) → derive (`salve-derive`) → plan
//! (`plan::steps`, pure) → carry out (`carry`). Nothing is decided after the
//! plan but to stop: the guard that runs immediately before each process can
//! only say no.

mod archive;
mod disk;
mod handed;
mod offers;
mod pending;
mod report;
#[cfg(test)]
mod tests;

use crate::args::Heal;
use crate::carry::{self, Action, Ending, Task, livepatch_refs};
use crate::command::{Context, obstacle, settled as settled_by, updates, warn_of_stray};
use crate::console::Console;
use crate::event::{Event, LeftSubject};
use crate::machine::deriver::Deriving;
use crate::machine::packages::PackageFacts;
use crate::machine::processes::{Processes, Seen};
use crate::plan::{Decision, Leave, Offer, Step, steps};
use crate::problem::Problem;
pub(crate) use disk::{Obsolete, obsolete};
use offers::Offered;
use pending::Blocked;
pub(crate) use pending::{Pending, Resolved, carries};
use report::Mode;
pub(crate) use report::{HealReport, Left};
use salve_tracee::{Change, ProcessId};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn run(
    args: &Heal,
    context: &mut Context,
    packages: &dyn PackageFacts,
    deriver: &dyn Deriving,
) -> Result<HealReport, Problem> {
    let processes = Processes::that_may_be_cut(args.consent.cut_transfers);
    if let Some(why) = processes.list_problem() {
        Console::warn(&format!("nobody is touched: the list of processes to leave alone is not understood: {why}"));
    }
    let (mut seen, unseen) = processes.survey(&args.pids)?;
    if !args.pids.is_empty() {
        // A person who names a storage daemon by its number has chosen it.
        for process in seen.iter_mut().filter(|process| process.leave == Some(Leave::RootStorage)) {
            process.leave = None;
        }
    }
    let mut resolved = match (&args.candidate, args.from.as_slice()) {
        (Some(names), _) => archive::resolve(names, &seen, packages, context.console, &context.interrupt)?,
        (None, []) => disk::resolve(&seen, &processes, packages)?,
        (None, _) => handed::resolve(args, &seen, packages, deriver, &context.actor)?,
    };
    resolved.left.extend(unseen.into_iter().map(report::Left::unseen));
    let mode = match (&args.candidate, args.from.is_empty()) {
        (Some(_), _) => Mode::Candidate,
        (None, true) => Mode::Disk,
        (None, false) => Mode::From,
    };
    let pending = core::mem::take(&mut resolved.pending);
    let offered = offers::derive_all(pending, deriver, args, context);
    let accepted: BTreeSet<String> = args.consent.accept.iter().cloned().collect();
    let offers: Vec<_> = offered.iter().map(Offered::offer).collect();
    let healer = Healer { processes: &processes, offered: &offered, offers: &offers, accepted: &accepted };
    let mut actions = core::mem::take(&mut resolved.settled);
    let (tasks, settled) = healer.plan(&seen, &resolved.blocked);
    actions.extend(settled);
    if actions.iter().any(|action| action.outcome == Ending::NeedsAccept) {
        warn_of_stray(&accepted, offered.iter().flat_map(Offered::images));
    }
    if args.dry_run {
        actions.extend(tasks.iter().map(|task| carry::foreseen(&processes.patcher, task)));
    } else {
        record_left(context, &resolved);
        let mut tasks = tasks;
        let mut known: BTreeSet<ProcessId> = seen.iter().map(|process| process.id).collect();
        for action in actions.iter().filter_map(Action::event) {
            context.log.record(&action);
        }
        for _round in 0..carry::MAX_ROUNDS {
            if tasks.is_empty() {
                break;
            }
            actions.extend(healer.carry_out(&tasks, args, packages, context));
            if !args.pids.is_empty() || context.interrupt.came() {
                break;
            }
            // A process that forked before its turn left an old child behind.
            let (newcomers, unseen) = processes.newcomers(&known)?;
            resolved.left.extend(unseen.into_iter().map(report::Left::unseen));
            known.extend(newcomers.iter().map(|process| process.id));
            tasks = healer.plan(&healer.concerned(newcomers), &BTreeMap::new()).0;
        }
    }
    fall_back(&mut actions, &offered, context, args.dry_run);
    actions.sort_by(|a, b| (a.process.pid, &a.update).cmp(&(b.process.pid, &b.update)));
    Ok(HealReport::new(mode, args.dry_run, args.consent.accept.clone(), &offered, actions, resolved.left))
}

/// The updates that are on the disk and that these processes do not run, and
/// what could not be said. Nothing is derived.
pub(crate) fn on_disk_only(
    seen: &[Seen],
    processes: &Processes,
    packages: &dyn PackageFacts,
) -> Result<Resolved, Problem> {
    disk::resolve(seen, processes, packages)
}

/// What is planned and carried out with, round after round.
struct Healer<'a> {
    processes: &'a Processes,
    offered: &'a [Offered],
    offers: &'a [Offer<'a>],
    accepted: &'a BTreeSet<String>,
}

impl<'a> Healer<'a> {
    /// What is to be done in these processes, and what needs nothing done. Those
    /// that are left alone by policy are in neither: they were named when they were found.
    fn plan(&self, seen: &[Seen], blocked: &BTreeMap<(ProcessId, String), Blocked>) -> (Vec<Task<'a>>, Vec<Action>) {
        let runners = updates::runners(&self.processes.patcher, seen, self.offers);
        let (mut tasks, mut settled) = (Vec::new(), Vec::new());
        let (mut done, mut obstacles) = (Vec::new(), Vec::new());
        for step in &steps(&runners, self.offers, self.accepted) {
            let Some(process) = seen.get(step.runner) else { continue };
            let planned = planned(process, step, self.offered, blocked);
            match (planned, process.leave) {
                (Ok(task), None) => tasks.push(task),
                (Ok(task), Some(leave)) => {
                    let action = Action::new(task.process, task.update, Vec::new(), Ending::Refused);
                    obstacles.extend(obstacle(process, step, &action.because(leave.code(), leave.why())));
                }
                (Err(action), leave) => {
                    done.extend(settled_by(process, step));
                    obstacles.extend(obstacle(process, step, &action));
                    if leave.is_none() && !process.relative {
                        settled.push(*action);
                    }
                }
            }
        }
        let (tasks, left) = carry::unobstructed(tasks, &obstacles);
        settled.extend(left);
        let named = seen.iter().filter(|process| !process.relative).map(|process| process.id).collect();
        (carry::concerning(tasks, &done, &named), settled)
    }

    fn carry_out(
        &self,
        tasks: &[Task<'_>],
        args: &Heal,
        packages: &dyn PackageFacts,
        context: &mut Context,
    ) -> Vec<Action> {
        carry::apply_all(
            self.processes,
            tasks,
            args.consent.wait,
            &|task| offers::check_again(task, self.offered, packages),
            &carry::Brakes { interrupt: &context.interrupt, switch: &context.switch },
            &mut context.log,
            context.console,
        )
    }

    /// Of processes that appeared meanwhile those that may be treated like the
    /// ones that were found at first: they run a content whose direction was proven
    /// there, and the files that were derived from may command them.
    fn concerned(&self, newcomers: Vec<Seen>) -> Vec<Seen> {
        let concerns = |process: &Seen, offered: &Offered| {
            process.images.iter().any(|image| offered.mapped.contains(&image.sha256))
                && offered.may_command(&process.privilege)
        };
        let all_may = |process: &Seen| {
            let mut touching = self.offered.iter().filter(|offered| {
                offered.images_of_old().any(|old| process.images.iter().any(|image| image.sha256 == old))
            });
            touching.all(|offered| concerns(process, offered))
        };
        newcomers.into_iter().filter(|process| process.leave.is_none() && all_may(process)).collect()
    }
}

/// A step as a task, or as the end it comes to without one.
fn planned<'a>(
    process: &Seen,
    step: &Step,
    offered: &'a [Offered],
    blocked: &BTreeMap<(ProcessId, String), Blocked>,
) -> Result<Task<'a>, Box<Action>> {
    let changes: Vec<Change<'a>> = step
        .images
        .iter()
        .filter_map(|(offer, image)| {
            let patch = offered.get(*offer)?.patch()?;
            let image = patch.images.get(*image)?;
            image.livepatch.as_ref().map(|_| Change { patch, image })
        })
        .collect();
    let update = step
        .images
        .first()
        .and_then(|(offer, _)| offered.get(*offer))
        .map_or_else(|| pending::nameless(&step.source), |offered| offered.update.clone());
    let action = |ending| Action::new(process.name.clone(), update.clone(), livepatch_refs(&changes), ending);
    if let Some(Blocked { code, why }) = blocked.get(&(process.id, step.source.clone())) {
        return Err(Box::new(action(Ending::Refused).because(code.clone(), why.clone())));
    }
    match updates::ending_of(&step.decision) {
        None => {
            let ties = process.ties.clone();
            Ok(Task { id: process.id, process: process.name.clone(), update, changes, ties })
        }
        Some((ending, code, why)) => Err(Box::new(match &step.decision {
            Decision::Already | Decision::Unchanged => action(ending),
            _left => action(ending).because(code, why),
        })),
    }
}

fn record_left(context: &mut Context, resolved: &Resolved) {
    // Who may not be looked at is no decision; an ordinary user may look at few.
    for left in resolved.left.iter().filter(|left| left.code != report::NOT_LOOKED_AT) {
        let subject = match (&left.process, &left.path, &left.update) {
            (Some(process), Some(path), _) => LeftSubject::Image { process: process.clone(), path: path.clone() },
            (Some(process), None, _) => LeftSubject::Process(process.clone()),
            (None, _, Some(update)) => LeftSubject::Update(update.clone()),
            (None, _, None) => continue,
        };
        context.log.record(&Event::Left { subject, code: left.code.clone(), why: left.why.clone() });
    }
}

/// Whoever runs new code that the disk does not have goes back to the old code
/// at the next restart: said, and an event.
fn fall_back(actions: &mut [Action], offered: &[Offered], context: &mut Context, dry_run: bool) {
    for action in actions {
        if !matches!(action.outcome, Ending::Applied | Ending::AlreadyApplied | Ending::Planned) {
            continue;
        }
        let Some(offer) = offered.iter().find(|offer| offer.update == action.update) else { continue };
        action.restart_falls_back = offer.disk_is_old;
        if action.restart_falls_back && action.outcome == Ending::Applied && !dry_run {
            context.log.record(&Event::RestartFallsBack {
                process: action.process.clone(),
                update: action.update.clone(),
                installed_version: offer.installed_version.clone(),
            });
        }
    }
}
