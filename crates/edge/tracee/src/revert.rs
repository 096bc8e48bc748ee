//! Reverting livepatches: the same transition, the other way.
//!
//! What is written back comes from the image's own file, and has to be what the
//! livepatch expected to find when it was applied.

use crate::commit::{self, Commit};
use crate::deliver::DeliverError;
use crate::equip::{self, Need};
use crate::group::{Before, Run, Work};
use crate::image::read_image;
use crate::maps;
use crate::outcome::{Committed, Lost, NotApplied, RevertOutcome, Reverted};
use crate::patcher::{ApplyError, Patcher, RevertOptions, Selection};
use crate::present::Present;
use crate::process::{Process, ReadError};
use crate::remote::{RemoteError, Target};
use crate::scene::{End, Scene, is_of_an_end, late};
use crate::spot::{AtSpot, original};
use crate::tidy;
use crate::transition::{Plan, Site};
use crate::tries::{Ended, Transition};
use crate::write::Write;
use core::time::Duration;
use salve_elf::{ContentHash, RuntimeAddr};
use salve_patch::RevertPolicy;

/// Reverting, in the processes of a group.
pub(crate) struct Reverting<'a> {
    pub(crate) patcher: &'a Patcher,
    pub(crate) options: RevertOptions,
    /// All that is selected anywhere in the group, for those who join.
    pub(crate) all: Selection,
}

impl Work for Reverting<'_> {
    type Job = Selection;
    type End = RevertOutcome;

    fn prepare(
        &self,
        process: &Process,
        selection: &Selection,
        run: &mut Run<'_>,
    ) -> Result<RevertOutcome, ApplyError> {
        revert(self.patcher, process, selection, &self.options, run)
    }

    fn end_before(end: &RevertOutcome) -> Option<Before> {
        match end {
            RevertOutcome::NothingToRevert
            | RevertOutcome::NotReverted { why: NotApplied::Exited | NotApplied::Executed }
            | RevertOutcome::Reverted(_)
            | RevertOutcome::RolledBack { .. }
            | RevertOutcome::Indeterminate { .. } => None,
            RevertOutcome::NotReverted { why } => Some(Before::Not(why.clone())),
            RevertOutcome::Deferred { blocking, .. } => Some(Before::Deferred(blocking.clone())),
        }
    }

    fn changed(end: &RevertOutcome) -> bool {
        matches!(end, RevertOutcome::Reverted(_))
    }

    fn is_unsaid(end: &RevertOutcome) -> bool {
        matches!(end, RevertOutcome::Indeterminate { .. } | RevertOutcome::RolledBack { .. })
    }

    fn end_without(ended: Ended) -> RevertOutcome {
        match ended {
            Ended::Deferred(blocking) => RevertOutcome::Deferred { blocking, tries: 0 },
            Ended::Not(_, why) => RevertOutcome::NotReverted { why },
            // It was in none of these, and did not come to its own because it was gone.
            Ended::Done { .. } | Ended::RolledBack(_) | Ended::Lost(_) => {
                RevertOutcome::NotReverted { why: NotApplied::Exited }
            }
        }
    }

    fn job_for(&self, _process: &Process) -> Result<Option<Selection>, ReadError> {
        Ok(Some(self.all.clone()))
    }
}

fn revert(
    patcher: &Patcher,
    process: &Process,
    selection: &Selection,
    options: &RevertOptions,
    run: &mut Run<'_>,
) -> Result<RevertOutcome, ApplyError> {
    match try_revert(patcher, process, selection, options, run) {
        Ok(outcome) => Ok(outcome),
        // Whatever failed, it failed because nobody was there any more.
        Err(End::Not(why)) if is_of_an_end(&why, process) => Ok(RevertOutcome::NotReverted { why: NotApplied::Exited }),
        Err(End::Error(_)) if process.is_over() => Ok(RevertOutcome::NotReverted { why: NotApplied::Exited }),
        Err(End::Not(why)) => Ok(RevertOutcome::NotReverted { why }),
        Err(End::Busy(blocking)) => Ok(RevertOutcome::Deferred { blocking, tries: 0 }),
        Err(End::Late { tid, why }) => {
            Ok(RevertOutcome::Deferred { blocking: late(process, patcher.limits(), tid, why), tries: 0 })
        }
        Err(End::Lost(why)) => Ok(RevertOutcome::Indeterminate { why }),
        Err(End::Error(error)) => Err(error),
    }
}

fn try_revert(
    patcher: &Patcher,
    process: &Process,
    selection: &Selection,
    options: &RevertOptions,
    run: &mut Run<'_>,
) -> Result<RevertOutcome, End> {
    let scene = tidy::scene(patcher, process)?;
    let target = scene.target(patcher, process);
    let mut plan = scene.plan();
    let mut chosen = Vec::new();
    for present in scene.present.iter().filter(|present| selection.contains(present.payload.id)) {
        let state = present.state(&scene.memory)?;
        if !state.contains(&AtSpot::Changed) {
            continue;
        }
        let policy = policy(present, options)?;
        add(&mut plan, patcher, process, &scene, present, &state, policy)?;
        chosen.push((present, policy));
    }
    let asked_for = chosen.len();
    // A payload that nothing leads to, and that may be unmapped, was left by a Salve that
    // was killed.
    for present in &scene.present {
        let state = present.state(&scene.memory)?;
        let unmap = present.payload.livepatch().is_some_and(|livepatch| livepatch.revert == RevertPolicy::Unmap);
        if unmap && !state.contains(&AtSpot::Changed) {
            add(&mut plan, patcher, process, &scene, present, &state, RevertPolicy::Unmap)?;
            chosen.push((present, RevertPolicy::Unmap));
        }
    }
    if chosen.is_empty() {
        return Ok(RevertOutcome::NothingToRevert);
    }
    let outcome = change(&target, plan, &chosen, run)?;
    Ok(match outcome {
        RevertOutcome::Reverted(_) if asked_for == 0 => RevertOutcome::NothingToRevert,
        RevertOutcome::Reverted(reverted) => {
            let livepatches = reverted.livepatches.into_iter().take(asked_for).collect();
            RevertOutcome::Reverted(Reverted { livepatches, ..reverted })
        }
        other => other,
    })
}

fn change(
    target: &Target<'_>,
    plan: Plan<'_>,
    chosen: &[(&Present, RevertPolicy)],
    run: &mut Run<'_>,
) -> Result<RevertOutcome, End> {
    // Of a lifetime of its own: the workshop, which it comes to refer to, is opened here.
    let mut plan: Plan<'_> = plan;
    let process = target.process;
    if plan.writes.len() < 2 {
        commit::copy_pages(target.memory, &plan.writes)?;
        let transition = run(Site { process, memory: target.memory, plan: &plan });
        let done = matches!(transition.ended, Ended::Done { .. });
        let mut unmapped = false;
        if done {
            unmapped = true;
            for (present, policy) in chosen {
                unmapped &= *policy == RevertPolicy::Unmap
                    && match tidy::clear(target, &present.mappings) {
                        Err(RemoteError::Lost(why)) => return Err(End::Lost(why)),
                        cleared => cleared.is_ok(),
                    };
            }
        }
        return Ok(outcome(&transition, process, plan.writes.len(), chosen, unmapped, Committed::InOneWrite));
    }
    let ranges: Vec<(RuntimeAddr, u64)> = chosen
        .iter()
        .filter(|(_, policy)| *policy == RevertPolicy::Unmap)
        .flat_map(|(present, _)| present.mappings.iter().map(|mapping| (mapping.start, mapping.len_bytes())))
        .collect();
    let need = Need { pieces: &[], files: 0, writes: plan.writes.len(), ranges: ranges.len() };
    let (mut workshop, kit) = equip::open(target, &need)?;
    let delivered = equip::deliver(&mut workshop, &[], kit.as_ref()).map_err(|error| match error {
        DeliverError::Remote(error) => End::from(error),
        DeliverError::Taken { .. } | DeliverError::NotWritable => NotApplied::TextWriteForbidden.into(),
    });
    let transition = delivered.and_then(|()| {
        plan.commit = Commit::prepare(&workshop, process, &plan.writes)?;
        commit::copy_pages(target.memory, &plan.writes)?;
        Ok(run(Site { process, memory: target.memory, plan: &plan }))
    });
    let committed = Commit::by(plan.commit.as_ref());
    let detours = plan.writes.len();
    drop(plan);
    let closed = match &transition {
        // A thread may be in there still: the next command cleans up when it is not.
        Ok(Transition { ended: Ended::Lost(_), .. }) => Ok(Duration::ZERO),
        Ok(Transition { ended: Ended::Done { .. }, .. }) => workshop.close(&ranges),
        _ => workshop.close(&[]),
    };
    let all = chosen.iter().all(|(_, policy)| *policy == RevertPolicy::Unmap);
    if let Err(RemoteError::Lost(why)) = closed {
        return Err(End::Lost(why));
    }
    let unmapped = all && closed.is_ok() && is_unmapped(target, &ranges);
    Ok(outcome(&transition?, process, detours, chosen, unmapped, committed))
}

fn is_unmapped(target: &Target<'_>, ranges: &[(RuntimeAddr, u64)]) -> bool {
    target.process.mappings(target.limits).is_ok_and(|mappings| {
        ranges.iter().all(|(at, _)| maps::find(&mappings, *at).is_none_or(|mapping| !mapping.is_payload()))
    })
}

fn outcome(
    transition: &Transition,
    process: &Process,
    detours: usize,
    chosen: &[(&Present, RevertPolicy)],
    unmapped: bool,
    committed: Committed,
) -> RevertOutcome {
    let (tries, longest_stop) = (transition.tries, transition.longest_stop);
    match transition.ended_for(process.pid()) {
        // It left the group by its own death, whatever became of the others.
        Ended::Done { .. } if process.still_there().is_err() => RevertOutcome::Indeterminate { why: Lost::Exited },
        Ended::Done { stopped, .. } => RevertOutcome::Reverted(Reverted {
            livepatches: chosen.iter().map(|(present, _)| present.payload.id).collect(),
            detours,
            unmapped,
            stopped,
            longest_stop,
            tries,
            committed,
        }),
        Ended::Deferred(blocking) => RevertOutcome::Deferred { blocking, tries },
        Ended::Not(_, why) => RevertOutcome::NotReverted { why },
        Ended::RolledBack(why) => RevertOutcome::RolledBack { why },
        Ended::Lost(why) => RevertOutcome::Indeterminate { why },
    }
}

fn path(present: &Present) -> String {
    present.payload.image().map(|image| image.path.clone()).unwrap_or_default()
}

/// What the livepatch allows; forced, it is as if its addresses had escaped.
fn policy(present: &Present, options: &RevertOptions) -> Result<RevertPolicy, NotApplied> {
    let policy = present.payload.livepatch().map_or(RevertPolicy::Refuse, |livepatch| livepatch.revert);
    match policy {
        RevertPolicy::Refuse if options.force => Ok(RevertPolicy::KeepMapped),
        RevertPolicy::Refuse => Err(NotApplied::RevertRefused { path: path(present) }),
        RevertPolicy::Unmap | RevertPolicy::KeepMapped => Ok(policy),
    }
}

fn add(
    plan: &mut Plan<'_>,
    patcher: &Patcher,
    process: &Process,
    scene: &Scene,
    present: &Present,
    state: &[AtSpot],
    policy: RevertPolicy,
) -> Result<(), End> {
    let bad = |why: &str| End::Not(NotApplied::BadLivepatch { path: path(present), why: why.to_owned() });
    let image = scene.images.get(present.image).ok_or_else(|| bad("its image is gone"))?;
    let livepatch = present.payload.livepatch().ok_or_else(|| bad("there is none"))?;
    let mapping = image.any_mapping().ok_or_else(|| bad("its image is gone"))?;
    let bytes = read_image(&process.open_mapped(mapping)?, patcher.limits())?;
    if ContentHash::of(&bytes) != image.image.sha256 {
        return Err(bad("its image's file changed"));
    }
    // Where nothing leads to this payload there is nothing to write back.
    let in_force = state.contains(&AtSpot::Changed);
    for ((spot, changed), state) in present.spots().iter().zip(state).filter(|_| in_force) {
        match state {
            AtSpot::Original => continue,
            AtSpot::Changed => {}
            AtSpot::Other(found) => {
                return Err(spot.unexpected(&path(present), *found).into());
            }
        }
        let new =
            original(spot, image, &bytes, present.old).ok_or_else(|| bad("it writes outside its image's file"))?;
        if spot.original != new {
            return Err(bad("it does not replace what the image's file has there"));
        }
        plan.writes.push(Write {
            at: spot.at,
            expected: *changed,
            new,
            path: path(present),
            function: spot.name.to_owned(),
            va: spot.va,
            mapping: maps::find(&image.image.mappings, spot.at)
                .cloned()
                .ok_or_else(|| bad("what it wrote to is gone"))?,
        });
    }
    let whole = policy == RevertPolicy::Unmap;
    plan.forbidden.add_revert(livepatch, present.old, present.payload.bias(present.old), whole);
    Ok(())
}
