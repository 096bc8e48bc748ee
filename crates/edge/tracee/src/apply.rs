//! Applying livepatches: plan, deliver, transition.

mod change;
mod cost;
mod place;
mod plan;
mod supersede;
mod writes;

use crate::group::{Before, Run, Work};
use crate::image::PAGE_BYTES;
use crate::outcome::{Applied, NotApplied, Outcome};
use crate::patcher::{ApplyError, Change, Patcher};
use crate::process::{Process, ReadError};
use crate::scene::{End, Scene, is_of_an_end, late};
use crate::spot::AtSpot;
use crate::tidy;
use crate::tries::Ended;
use change::deliver_and_change;
use cost::{check_headroom, copied_pages, page_tables};
use plan::{Ready, ready};
use salve_patch::LivepatchId;
use supersede::Superseded;

/// Changes for one process, and which livepatches may go for them.
pub(crate) struct Job<'a> {
    pub(crate) changes: Vec<Change<'a>>,
    pub(crate) replaced: Vec<LivepatchId>,
}

/// Applying, to the processes of a group.
pub(crate) struct Applying<'a> {
    pub(crate) patcher: &'a Patcher,
    /// All changes and all replaced livepatches of the group, for those who join.
    pub(crate) all: Job<'a>,
}

impl<'a> Work for Applying<'a> {
    type Job = Job<'a>;
    type End = Outcome;

    fn prepare(&self, process: &Process, job: &Job<'a>, run: &mut Run<'_>) -> Result<Outcome, ApplyError> {
        apply(self.patcher, process, &job.changes, &job.replaced, run)
    }

    fn end_before(end: &Outcome) -> Option<Before> {
        match end {
            Outcome::AlreadyApplied { .. }
            | Outcome::NotApplied { why: NotApplied::Exited | NotApplied::Executed }
            | Outcome::Applied(_)
            | Outcome::RolledBack { .. }
            | Outcome::Indeterminate { .. } => None,
            Outcome::NotApplied { why } => Some(Before::Not(why.clone())),
            Outcome::Deferred { blocking, .. } => Some(Before::Deferred(blocking.clone())),
        }
    }

    fn changed(end: &Outcome) -> bool {
        matches!(end, Outcome::Applied(_))
    }

    fn is_unsaid(end: &Outcome) -> bool {
        matches!(end, Outcome::Indeterminate { .. } | Outcome::RolledBack { .. })
    }

    fn end_without(ended: Ended) -> Outcome {
        match ended {
            Ended::Deferred(blocking) => Outcome::Deferred { blocking, tries: 0 },
            Ended::Not(_, why) => Outcome::NotApplied { why },
            // It was in none of these, and did not come to its own because it was gone.
            Ended::Done { .. } | Ended::RolledBack(_) | Ended::Lost(_) => {
                Outcome::NotApplied { why: NotApplied::Exited }
            }
        }
    }

    fn job_for(&self, process: &Process) -> Result<Option<Job<'a>>, ReadError> {
        let images = self.patcher.images(process)?;
        let maps = |change: &&Change<'_>| {
            change.image.old.as_ref().is_some_and(|old| images.iter().any(|image| image.sha256 == old.sha256))
        };
        let changes: Vec<Change<'a>> = self.all.changes.iter().filter(maps).copied().collect();
        Ok((!changes.is_empty()).then(|| Job { changes, replaced: self.all.replaced.clone() }))
    }
}

fn apply(
    patcher: &Patcher,
    process: &Process,
    changes: &[Change<'_>],
    replaced: &[LivepatchId],
    run: &mut Run<'_>,
) -> Result<Outcome, ApplyError> {
    try_apply(patcher, process, changes, replaced, run).or_else(|end| early_end(patcher, process, end))
}

fn early_end(patcher: &Patcher, process: &Process, end: End) -> Result<Outcome, ApplyError> {
    match end {
        // Whatever failed, it failed because nobody was there any more.
        End::Not(why) if is_of_an_end(&why, process) => Ok(Outcome::NotApplied { why: NotApplied::Exited }),
        End::Error(_) if process.is_over() => Ok(Outcome::NotApplied { why: NotApplied::Exited }),
        End::Not(why) => Ok(Outcome::NotApplied { why }),
        End::Busy(blocking) => Ok(Outcome::Deferred { blocking, tries: 0 }),
        End::Late { tid, why } => {
            Ok(Outcome::Deferred { blocking: late(process, patcher.limits(), tid, why), tries: 0 })
        }
        End::Lost(why) => Ok(Outcome::Indeterminate { why }),
        End::Error(error) => Err(error),
    }
}

/// Why these would not be applied, as far as that can be told by looking.
pub(crate) fn foresee(
    patcher: &Patcher,
    process: &Process,
    changes: &[Change<'_>],
) -> Result<Option<NotApplied>, ApplyError> {
    let looked = Scene::read(patcher, process).and_then(|scene| {
        let ready = ready(patcher, process, &scene, changes, &[])?;
        check_headroom(process, &ready.planned, copied_pages(&ready.planned))
    });
    match looked.map_or_else(|end| early_end(patcher, process, end).map(Some), |()| Ok(None))? {
        Some(Outcome::NotApplied { why }) => Ok(Some(why)),
        _ => Ok(None),
    }
}

fn try_apply(
    patcher: &Patcher,
    process: &Process,
    changes: &[Change<'_>],
    replaced: &[LivepatchId],
    run: &mut Run<'_>,
) -> Result<Outcome, End> {
    let scene = tidy::scene(patcher, process)?;
    let Ready { planned, states, done } = ready(patcher, process, &scene, changes, replaced)?;
    if done {
        let livepatches = planned.iter().filter_map(|one| one.change.image.livepatch_id()).collect();
        return Ok(Outcome::AlreadyApplied { livepatches });
    }
    let pages = copied_pages(&planned);
    check_headroom(process, &planned, pages)?;
    let tables_before = page_tables(process);
    let restored: usize = planned.iter().flat_map(|one| &one.superseded).map(Superseded::in_force).sum();
    let writes = states.iter().flatten().filter(|&&state| state != AtSpot::Changed).count().saturating_add(restored);
    let target = scene.target(patcher, process);
    let outcome = deliver_and_change(patcher, &target, &scene, &planned, writes, run)?;
    Ok(match outcome {
        Outcome::Applied(applied) => {
            let tables = page_tables(process).saturating_sub(tables_before);
            let memory_added_bytes = pages.saturating_mul(PAGE_BYTES).saturating_add(tables);
            Outcome::Applied(Applied { memory_added_bytes, ..applied })
        }
        other => other,
    })
}
