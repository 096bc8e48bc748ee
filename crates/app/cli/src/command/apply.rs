//! `salve apply FILE (--pid N … | --all)`: a patch file, by hand.

use super::Context;
use crate::args::Apply;
use crate::carry::{self, Action, Ending, Obstacle, Settled, Task, is_done_already, livepatch_refs};
use crate::command::{file, updates};
use crate::console::{Console, Report};
use crate::event::UpdateRef;
use crate::exit::Exit;
use crate::machine::processes::{Processes, Seen, Unseen};
use crate::plan::{self, Consent, Decision, Leave, Step, steps};
use crate::problem::Problem;
use crate::view::{PatchView, action_lines};
use salve_patch::{ImageReport, Origin, PatchFile};
use salve_tracee::{Change, ProcessId};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;

/// The code that has to be accepted where nothing proves which side is newer.
pub(crate) const DIRECTION_UNKNOWN: &str = "direction-unknown";

#[derive(Serialize)]
pub(crate) struct ApplyReport {
    dry_run: bool,
    file: PathBuf,
    update: UpdateRef,
    patch: PatchView,
    processes: Vec<Action>,
    /// What it means for the end of the command that some could not be looked at.
    #[serde(skip)]
    not_looked_at: Exit,
}

pub(crate) fn run(args: &Apply, context: &mut Context) -> Result<ApplyReport, Problem> {
    if !args.dry_run {
        context.switch.check()?;
    }
    file::check_handed_over(&args.file, &context.actor)?;
    let (patch, sha256) = file::read_patch(&args.file)?;
    let accepted: BTreeSet<String> = args.consent.accept.iter().cloned().collect();
    check_direction(&patch, &accepted).inspect_err(|_| warn_of_stray(&accepted, &patch.images))?;
    let view = PatchView::of(&patch, &args.file, sha256);
    let update = updates::update_of(&patch);
    let processes = Processes::that_may_be_cut(args.consent.cut_transfers);
    if let Some(why) = processes.list_problem() {
        Console::warn(&format!("nobody is touched: the list of processes to leave alone is not understood: {why}"));
    }
    let (seen, unseen) = processes.survey(&args.targets.pids)?;
    let mut not_looked_at = tell(&unseen, context);
    let offers = [updates::offer(&update, &patch)];
    let runners = updates::runners(&processes.patcher, &seen, &offers);
    let steps = steps(&runners, &offers, &accepted);
    let mut actions = Vec::new();
    if !args.targets.all {
        actions.extend(unmatched(&seen, &steps, &update));
    }
    let (mut tasks, mut done, mut obstacles) = (Vec::new(), Vec::new(), Vec::new());
    for step in steps {
        let Some(process) = seen.get(step.runner) else { continue };
        match planned(process, &step, &patch, &update, args.targets.all) {
            Ok(task) => tasks.push(task),
            Err(action) => {
                done.extend(settled(process, &step));
                obstacles.extend(obstacle(process, &step, &action));
                if !process.relative {
                    actions.push(*action);
                }
            }
        }
    }
    let (tasks, left) = carry::unobstructed(tasks, &obstacles);
    actions.extend(left);
    let named = seen.iter().filter(|process| !process.relative).map(|process| process.id).collect();
    let mut tasks = carry::concerning(tasks, &done, &named);
    if actions.iter().any(|action| action.outcome == Ending::NeedsAccept) {
        warn_of_stray(&accepted, &patch.images);
    }
    let report = |mut processes: Vec<Action>, not_looked_at| {
        processes.sort_by_key(|action| action.process.pid);
        let (dry_run, file, update) = (args.dry_run, args.file.clone(), update.clone());
        ApplyReport { dry_run, file, update, patch: view, processes, not_looked_at }
    };
    if args.dry_run {
        actions.extend(tasks.iter().map(|task| carry::foreseen(&processes.patcher, task)));
        return Ok(report(actions, not_looked_at));
    }
    for image in &patch.images {
        updates::record_judged(&mut context.log, &update, image, &args.consent.accept);
    }
    for event in actions.iter().filter_map(Action::event) {
        context.log.record(&event);
    }
    let mut known: BTreeSet<ProcessId> = seen.iter().map(|process| process.id).collect();
    for _round in 0..carry::MAX_ROUNDS {
        if tasks.is_empty() {
            break;
        }
        actions.extend(carry::apply_all(
            &processes,
            &tasks,
            args.consent.wait,
            &|_task| Ok(()),
            &carry::Brakes { interrupt: &context.interrupt, switch: &context.switch },
            &mut context.log,
            context.console,
        ));
        if !args.targets.all || context.interrupt.came() {
            break;
        }
        // A process that forked before its turn left an old child behind.
        let (newcomers, unseen) = processes.newcomers(&known)?;
        not_looked_at = not_looked_at.and(tell(&unseen, context));
        known.extend(newcomers.iter().map(|process| process.id));
        let runners = updates::runners(&processes.patcher, &newcomers, &offers);
        let steps = plan::steps(&runners, &offers, &accepted);
        let fresh = steps.iter().filter_map(|step| Some((newcomers.get(step.runner)?, step)));
        tasks = fresh.filter_map(|(process, step)| planned(process, step, &patch, &update, true).ok()).collect();
    }
    Ok(report(actions, not_looked_at))
}

/// Where consent is missing: what was accepted and is no reason here may be it, mistyped.
pub(crate) fn warn_of_stray<'i>(accepted: &BTreeSet<String>, images: impl IntoIterator<Item = &'i ImageReport>) {
    let reasons: BTreeSet<&str> =
        images.into_iter().flat_map(|image| &image.reasons).map(|reason| reason.code.as_str()).collect();
    let stray = accepted.iter().filter(|code| *code != DIRECTION_UNKNOWN && !reasons.contains(code.as_str()));
    for code in stray {
        Console::warn(&format!("--accept {code}: nothing here has that reason"));
    }
}

/// Names them. Somebody else's are as they should be; any other may carry old code.
fn tell(unseen: &[Unseen], context: &Context) -> Exit {
    for missed in unseen {
        context.console.note(&format!("pid {} was not looked at: {}", missed.pid, missed.why));
    }
    let exit = |missed: &Unseen| match missed {
        Unseen { barred: true, .. } => Exit::Done,
        Unseen { outlived: true, .. } => Exit::Refused,
        _unread => Exit::Incomplete,
    };
    unseen.iter().map(exit).fold(Exit::Done, Exit::and)
}

/// A patch file made of two plain files says nothing about which is newer; one
/// made of two packages does, and has to agree with itself.
pub(super) fn check_direction(patch: &PatchFile, accepted: &BTreeSet<String>) -> Result<(), Problem> {
    match &patch.origin {
        Origin::Packages { old, new, .. } => updates::check_forward(old, new),
        Origin::Files { .. } if accepted.contains(DIRECTION_UNKNOWN) => Ok(()),
        Origin::Files { old, new } => Err(Problem::refused(
            DIRECTION_UNKNOWN,
            format!("direction unknown: nothing says that {new} is newer than {old}"),
        )
        .hint(format!(
            "if you know that it is, say so: --accept {DIRECTION_UNKNOWN}{}; packages (.deb) prove it themselves",
            asked_besides(patch, accepted)
        ))),
    }
}

/// What else a person has to accept: said at once, not one after the other.
fn asked_besides(patch: &PatchFile, accepted: &BTreeSet<String>) -> String {
    let images = patch.images.iter().map(|image| (image.verdict, image.reasons.as_slice()));
    let Consent::Accept { codes } = plan::consent(images, accepted) else { return String::new() };
    let accepts: Vec<String> = codes.iter().map(|code| format!("--accept {code}")).collect();
    format!(" (and, after reading `salve inspect`, {})", accepts.join(" "))
}

/// Processes that were named and that no image of the patch fits.
fn unmatched(seen: &[Seen], steps: &[Step], update: &UpdateRef) -> Vec<Action> {
    let named = seen.iter().enumerate().filter(|(_, process)| !process.relative);
    let missed = named.filter(|(index, _)| !steps.iter().any(|step| step.runner == *index));
    missed
        .map(|(_, process)| {
            Action::new(process.name.clone(), update.clone(), Vec::new(), Ending::NotApplied)
                .because("image-not-mapped", "it maps no image whose content this patch file is for")
        })
        .collect()
}

pub(super) fn planned<'a>(
    process: &Seen,
    step: &Step,
    patch: &'a PatchFile,
    update: &UpdateRef,
    all: bool,
) -> Result<Task<'a>, Box<Action>> {
    let changes: Vec<Change<'a>> = step
        .images
        .iter()
        .filter_map(|(_, image)| patch.images.get(*image))
        .filter(|image| image.livepatch.is_some())
        .map(|image| Change { patch, image })
        .collect();
    let action = |ending| Action::new(process.name.clone(), update.clone(), livepatch_refs(&changes), ending);
    if let Some(leave) = process.leave {
        // Named by its number, a container's process or a storage daemon was
        // chosen by a person; process 1 and Salve's own line never work.
        let never = match leave {
            Leave::Init | Leave::OwnLine | Leave::Listed(_) | Leave::ListUnknown => true,
            Leave::RootStorage | Leave::Elsewhere { .. } => all,
        };
        if never {
            return Err(Box::new(action(Ending::Refused).because(leave.code(), leave.why())));
        }
    }
    updates::ending_of(&step.decision).map_or_else(
        || {
            Ok(Task {
                id: process.id,
                process: process.name.clone(),
                update: update.clone(),
                changes: changes.clone(),
                ties: process.ties.clone(),
            })
        },
        |(ending, code, why)| {
            let action = action(ending);
            Err(Box::new(match &step.decision {
                Decision::Already | Decision::Unchanged => action,
                _left => action.because(code, why),
            }))
        },
    )
}

/// What a process that will not change means for those that are tied to it.
pub(crate) fn obstacle(process: &Seen, step: &Step, action: &Action) -> Option<Obstacle> {
    let changes = !matches!(step.decision, Decision::Already | Decision::Unchanged);
    changes.then(|| Obstacle {
        source: action.update.source.clone(),
        ties: process.ties.clone(),
        pid: process.name.pid,
        why: action.why.clone().unwrap_or_default(),
    })
}

/// What a process that is done already means for them.
pub(crate) fn settled(process: &Seen, step: &Step) -> Option<Settled> {
    let done = step.decision == Decision::Already;
    done.then(|| Settled { id: process.id, source: step.source.clone(), ties: process.ties.clone() })
}

impl Report for ApplyReport {
    fn exit(&self) -> Exit {
        self.processes.iter().fold(self.not_looked_at, |exit, action| exit.and(action.outcome.exit()))
    }

    fn human(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        self.patch.heading(out)?;
        let said_before = !verbose && is_done_already(self.processes.iter());
        for image in &self.patch.images {
            if said_before { image.brief(out) } else { image.summary(out, verbose) }?;
        }
        if self.processes.is_empty() {
            return writeln!(out, "no process runs what this patch file is for");
        }
        writeln!(out)?;
        action_lines(self.processes.iter(), out, verbose)?;
        if self.processes.iter().any(|action| action.outcome == Ending::Deferred) {
            writeln!(out, "deferred: a longer --wait tries until the threads have left; a restart does it too")?;
        }
        Ok(())
    }
}
