//! Payloads delivered, the transition made, and what came of it.

use super::place::{Chosen, Places};
use super::plan::Planned;
use super::writes::transition;
use crate::Errno;
use crate::commit::{self, Commit};
use crate::deliver::{self, DeliverError, Piece};
use crate::equip::{self, Kit, Need};
use crate::group::Run;
use crate::outcome::{Applied, AppliedImage, Committed, Lost, NotApplied, Outcome};
use crate::patcher::Patcher;
use crate::payload::Payload;
use crate::process::Process;
use crate::remote::{MMAP, RemoteError, Target};
use crate::scene::{End, Scene};
use crate::spot::AtSpot;
use crate::tidy;
use crate::transition::Site;
use crate::tries::{Ended, Transition};
use crate::workshop::Workshop;
use core::time::Duration;
use salve_elf::RuntimeAddr;

/// Delivers what is not there yet and makes all of `planned` in one transition.
pub(super) fn deliver_and_change(
    patcher: &Patcher,
    target: &Target<'_>,
    scene: &Scene,
    planned: &[Planned<'_>],
    writes: usize,
    run: &mut Run<'_>,
) -> Result<Outcome, End> {
    let adopted = planned.iter().map(|one| adopt(target, one)).collect::<Result<Vec<_>, _>>()?;
    let mut places = Places::new(patcher, target, planned, &adopted);
    let mut chosen = places.choose()?;
    if writes < 2 && chosen.is_empty() {
        let (plan, images) = transition(scene, planned, &adopted, &chosen)?;
        let site = Site { process: target.process, memory: target.memory, plan: &plan };
        return Ok(outcome(&run(site), target.process, images, Committed::InOneWrite));
    }
    let pieces: Vec<Piece> = chosen.iter().flat_map(|one| one.pieces.iter().copied()).collect();
    let need = Need { pieces: &pieces, files: chosen.len(), writes, ranges: pieces.len() };
    let (mut workshop, kit) = equip::open(target, &need)?;
    if let Err(end) = deliver_all(&mut workshop, kit.as_ref(), &mut places, &mut chosen) {
        let _ = workshop.close(&[]);
        return Err(end);
    }
    let result = change(target, scene, planned, &adopted, &chosen, &workshop, run);
    put_away(workshop, &chosen, result)
}

/// Delivers what was `chosen`, elsewhere if a place was taken meanwhile.
fn deliver_all(
    workshop: &mut Workshop<'_>,
    kit: Option<&Kit>,
    places: &mut Places<'_>,
    chosen: &mut Vec<Chosen>,
) -> Result<(), End> {
    loop {
        let payloads: Vec<_> = chosen.iter().map(|one| (&one.prepared.file, one.pieces.clone())).collect();
        match equip::deliver(workshop, &payloads, kit) {
            Err(DeliverError::Taken { parcel }) => {
                places.skip(parcel);
                *chosen = places.choose()?;
            }
            Err(DeliverError::Remote(error)) => return Err(error.into()),
            Err(DeliverError::NotWritable) => return Err(NotApplied::TextWriteForbidden.into()),
            Ok(()) => return Ok(()),
        }
    }
}

/// Closes the workshop, as what came of the transition asks for.
fn put_away(workshop: Workshop<'_>, chosen: &[Chosen], result: Result<Outcome, End>) -> Result<Outcome, End> {
    match result {
        // A thread may be in there still: the next command cleans up when it is not.
        Ok(Outcome::Indeterminate { .. }) => result,
        Ok(Outcome::Applied(applied)) => {
            let longest = workshop.longest;
            match workshop.close(&[]) {
                Err(RemoteError::Lost(why)) => Ok(Outcome::Indeterminate { why }),
                closed => Ok(Outcome::Applied(Applied { longest_borrow: closed.unwrap_or(longest), ..applied })),
            }
        }
        // Nothing leads into the new payloads: take them away again.
        other => {
            let pieces = chosen.iter().flat_map(|one| &one.pieces);
            let ranges: Vec<(RuntimeAddr, u64)> = pieces.map(|piece| (piece.at, piece.len_bytes)).collect();
            let _ = workshop.close(&ranges);
            other
        }
    }
}

/// The transition, with payloads and workshop in place.
fn change(
    target: &Target<'_>,
    scene: &Scene,
    planned: &[Planned<'_>],
    adopted: &[Option<Payload>],
    chosen: &[Chosen],
    workshop: &Workshop<'_>,
    run: &mut Run<'_>,
) -> Result<Outcome, End> {
    for one in chosen {
        if !deliver::is_intact(target, &one.prepared.payload, one.old) {
            return Err(NotApplied::RemoteCall { call: MMAP.1, errno: Errno::EIO }.into());
        }
    }
    let (mut plan, images) = transition(scene, planned, adopted, chosen)?;
    plan.commit = Commit::prepare(workshop, target.process, &plan.writes)?;
    commit::copy_pages(target.memory, &plan.writes)?;
    let transition = run(Site { process: target.process, memory: target.memory, plan: &plan });
    let committed = if plan.writes.len() < 2 { Committed::InOneWrite } else { Commit::by(plan.commit.as_ref()) };
    Ok(outcome(&transition, target.process, images, committed))
}

fn outcome(transition: &Transition, process: &Process, images: Vec<AppliedImage>, committed: Committed) -> Outcome {
    let (tries, longest_stop) = (transition.tries, transition.longest_stop);
    match transition.ended_for(process.pid()) {
        // It left the group by its own death, whatever became of the others.
        Ended::Done { .. } if process.still_there().is_err() => Outcome::Indeterminate { why: Lost::Exited },
        Ended::Done { stopped, threads } => Outcome::Applied(Applied {
            images,
            stopped,
            longest_stop,
            longest_borrow: Duration::ZERO,
            tries,
            memory_added_bytes: 0,
            threads,
            committed,
        }),
        Ended::Deferred(blocking) => Outcome::Deferred { blocking, tries },
        Ended::Not(_, why) => Outcome::NotApplied { why },
        Ended::RolledBack(why) => Outcome::RolledBack { why },
        Ended::Lost(why) => Outcome::Indeterminate { why },
    }
}

/// The payload that is there, if it is whole; what is left of one is cleared away.
fn adopt(target: &Target<'_>, one: &Planned<'_>) -> Result<Option<Payload>, End> {
    let Some(present) = one.adopted else { return Ok(None) };
    // Of another binding it is no payload for this process as it is now.
    if present.payload.imports == one.imports && deliver::is_intact(target, &present.payload, one.old) {
        return Ok(Some(present.payload.clone()));
    }
    let state = present.state(target.memory)?;
    if state.contains(&AtSpot::Changed) {
        return Err(NotApplied::ForgedPayload { path: one.change.image.path.clone() }.into());
    }
    // A Salve was killed while it mapped this; nothing leads there.
    tidy::clear(target, &present.mappings)?;
    Ok(None)
}
