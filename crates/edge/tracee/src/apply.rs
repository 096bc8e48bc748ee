//! Applying livepatches: plan, deliver, transition.

use crate::Errno;
use crate::commit::{self, Commit};
use crate::deliver::{self, DeliverError, Piece};
use crate::equip::{self, Need};
use crate::group::{Before, Run, Work};
use crate::headroom;
use crate::image::{Found, PAGE_BYTES, page_floor};
use crate::import;
use crate::maps;
use crate::outcome::{Applied, AppliedImage, Committed, Lost, NotApplied, Outcome};
use crate::patcher::{ApplyError, Change, Patcher};
use crate::payload::Payload;
use crate::place::{Chosen, Places};
use crate::present::Present;
use crate::process::{Process, ReadError};
use crate::remote::{MMAP, Target};
use crate::requirement;
use crate::scene::{End, Scene, did_not_stop, is_of_an_end};
use crate::spot::{AtSpot, Bytes, Kind, Spot, at_spot, changed, spots};
use crate::supersede::Superseded;
use crate::tidy;
use crate::transition::{Plan, Site};
use crate::tries::{Ended, Transition};
use crate::workshop::Workshop;
use crate::write::Write;
use core::time::Duration;
use salve_elf::{LoadBias, RuntimeAddr};
use salve_patch::{Livepatch, LivepatchId};

/// One livepatch and where it goes.
pub(crate) struct Planned<'a> {
    pub(crate) change: &'a Change<'a>,
    pub(crate) livepatch: &'a Livepatch,
    pub(crate) image: &'a Found,
    pub(crate) old: LoadBias,
    /// What is written to.
    pub(crate) spots: Vec<Spot<'a>>,
    /// The payload that is in the process already, if it is.
    adopted: Option<&'a Present>,
    /// Livepatches of the same image that are in force, and go in the same transition.
    superseded: Vec<Superseded<'a>>,
    /// Addresses for the livepatch's imports and pointers, in their order.
    pub(crate) imports: Vec<RuntimeAddr>,
}

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
    try_apply(patcher, process, changes, replaced, run).or_else(|end| early_end(process, end))
}

fn early_end(process: &Process, end: End) -> Result<Outcome, ApplyError> {
    match end {
        // Whatever failed, it failed because nobody was there any more.
        End::Not(why) if is_of_an_end(&why, process) => Ok(Outcome::NotApplied { why: NotApplied::Exited }),
        End::Error(_) if process.is_over() => Ok(Outcome::NotApplied { why: NotApplied::Exited }),
        End::Not(why) => Ok(Outcome::NotApplied { why }),
        End::Busy(blocking) => Ok(Outcome::Deferred { blocking, tries: 0 }),
        End::Late { tid } => Ok(Outcome::Deferred { blocking: did_not_stop(process, tid), tries: 0 }),
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
    match looked.map_or_else(|end| early_end(process, end).map(Some), |()| Ok(None))? {
        Some(Outcome::NotApplied { why }) => Ok(Some(why)),
        _ => Ok(None),
    }
}

/// What was found fit, and what stands at the spots of each.
struct Ready<'a> {
    planned: Vec<Planned<'a>>,
    states: Vec<Vec<AtSpot>>,
    /// All of it is in force.
    done: bool,
}

fn ready<'a>(
    patcher: &Patcher,
    process: &Process,
    scene: &'a Scene,
    changes: &'a [Change<'a>],
    replaced: &[LivepatchId],
) -> Result<Ready<'a>, End> {
    let mut planned: Vec<Planned<'_>> =
        changes.iter().map(|change| plan(scene, change, replaced)).collect::<Result<_, _>>()?;
    let mut states = Vec::new();
    for one in &planned {
        states.push(check_spots(scene, one)?);
    }
    let alone = planned.iter().all(|one| one.superseded.is_empty());
    if alone && states.iter().flatten().all(|&state| state == AtSpot::Changed) {
        return Ok(Ready { planned, states, done: true });
    }
    for one in &mut planned {
        for other in &one.superseded {
            other.check(process, one.image, patcher.limits())?;
        }
        for requirement in &one.livepatch.requirements {
            requirement::check(process, &scene.images, &one.change.image.path, requirement, patcher.limits())?;
        }
        one.imports = imports(patcher, process, scene, one)?;
    }
    Ok(Ready { planned, states, done: false })
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

/// Finds a change's image in the process, and what is there of it already.
fn plan<'a>(scene: &'a Scene, change: &'a Change<'a>, replaced: &[LivepatchId]) -> Result<Planned<'a>, End> {
    let path = || change.image.path.clone();
    let bad = |why: &str| NotApplied::BadLivepatch { path: path(), why: why.to_owned() };
    let livepatch = change.image.livepatch.as_ref().ok_or_else(|| bad("there is none"))?;
    let id = change.image.livepatch_id().ok_or_else(|| bad("it has no name"))?;
    let wanted = change.image.old.as_ref().ok_or_else(|| bad("it names no old image"))?;
    let mut same = scene
        .images
        .iter()
        .enumerate()
        .filter(|(_, found)| found.image.sha256 == wanted.sha256 && found.image.len_bytes == wanted.len_bytes);
    let (index, image) = match (same.next(), same.next()) {
        (Some(one), None) => one,
        (None, _) => return Err(NotApplied::ImageNotMapped { path: path(), image: wanted.sha256 }.into()),
        (Some(_), Some(_)) => return Err(NotApplied::MappedTwice { path: path() }.into()),
    };
    let old = image.bias().ok_or_else(|| NotApplied::MappedTwice { path: path() })?;
    let spots = spots(livepatch, old).ok_or_else(|| bad("a detour does not replace five bytes of code"))?;
    let in_place = |spot: &&Spot<'_>| match spot.kind {
        Kind::Detour => image.text_holds(spot.at),
        Kind::Word => image.constants_hold(spot.at),
    };
    if let Some(spot) = spots.iter().find(|spot| !in_place(spot)) {
        return Err(spot.not_from_file(&path()).into());
    }
    let (mut adopted, mut superseded) = (None, Vec::new());
    for present in scene.present.iter().filter(|present| present.image == index) {
        let in_force = present.state(&scene.memory)?.contains(&AtSpot::Changed);
        if present.payload.id == id {
            // A thread whose Salve died can finish mapping a payload after another was
            // put elsewhere: of two, the one that the detours lead to counts.
            if adopted.is_none() || in_force {
                adopted = Some(present);
            }
        } else if in_force && replaced.contains(&present.payload.id) {
            superseded.push(Superseded::of(scene, present, &spots)?);
        } else if in_force {
            return Err(NotApplied::OtherLivepatch { path: path(), livepatch: present.payload.id }.into());
        }
    }
    Ok(Planned { change, livepatch, image, old, spots, adopted, superseded, imports: Vec::new() })
}

fn imports(patcher: &Patcher, process: &Process, scene: &Scene, one: &Planned<'_>) -> Result<Vec<RuntimeAddr>, End> {
    if one.livepatch.bound_words().next().is_none() {
        return Ok(Vec::new());
    }
    let mappings = process.mappings(patcher.limits())?;
    let scope = import::Scope {
        process,
        memory: &scene.memory,
        mappings: &mappings,
        images: &scene.images,
        program: patcher.program(process)?.sha256,
        limits: patcher.limits(),
    };
    Ok(import::resolve(&scope, one.image, &one.change.image.path, one.livepatch)?)
}

/// What stands at every spot of a change; anything unknown ends the attempt.
fn check_spots(scene: &Scene, one: &Planned<'_>) -> Result<Vec<AtSpot>, End> {
    // Without a payload there is nothing of ours there.
    let ours = one.adopted.map(Present::spots).unwrap_or_default();
    let mut states = Vec::new();
    for (index, spot) in one.spots.iter().enumerate() {
        let state = at_spot(&scene.memory, spot, ours.get(index).map(|(_, changed)| *changed))?;
        if let AtSpot::Other(found) = state
            && !is_superseded(one, spot, found)
        {
            return Err(spot.unexpected(&one.change.image.path, found).into());
        }
        states.push(state);
    }
    Ok(states)
}

/// What a livepatch wrote that goes is as good as the image's own.
fn is_superseded(one: &Planned<'_>, spot: &Spot<'_>, found: Bytes) -> bool {
    one.superseded.iter().any(|other| other.written_at(spot.at) == Some(found))
}

/// Pages that are copied for the detours, the words and the stub.
fn copied_pages(planned: &[Planned<'_>]) -> u64 {
    let mut pages: Vec<u64> = planned
        .iter()
        .flat_map(|one| {
            one.spots.iter().flat_map(|spot| {
                let last = u64::try_from(spot.original.len().saturating_sub(1)).unwrap_or(0);
                [page_floor(spot.at.raw()), page_floor(spot.at.raw().saturating_add(last))]
            })
        })
        .collect();
    pages.sort_unstable();
    pages.dedup();
    u64::try_from(pages.len()).unwrap_or(u64::MAX).saturating_add(1)
}

fn check_headroom(process: &Process, planned: &[Planned<'_>], pages: u64) -> Result<(), End> {
    let payload = |one: &Planned<'_>| -> u64 {
        let segments = one.livepatch.segments.iter();
        segments.map(|segment| u64::try_from(segment.bytes.len()).unwrap_or(u64::MAX)).fold(0, u64::saturating_add)
    };
    let mapped = planned.iter().map(payload).fold(PAGE_BYTES, u64::saturating_add);
    // Copied pages, a scratch page, and page tables for a region of its own.
    let private = pages.saturating_add(8).saturating_mul(PAGE_BYTES);
    match headroom::check(process, mapped.saturating_add(PAGE_BYTES), private)? {
        Some(why) => Err(why.into()),
        None => Ok(()),
    }
}

fn page_tables(process: &Process) -> u64 {
    process.status(None).ok().and_then(|status| status.size_bytes("VmPTE")).unwrap_or(0)
}

fn deliver_and_change(
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
    let delivered = loop {
        let payloads: Vec<_> = chosen.iter().map(|one| (&one.prepared.file, one.pieces.clone())).collect();
        match equip::deliver(&mut workshop, &payloads, kit.as_ref()) {
            Err(DeliverError::Taken { parcel }) => {
                places.skip(parcel);
                match places.choose() {
                    Ok(others) => chosen = others,
                    Err(end) => break Err(end),
                }
            }
            Err(DeliverError::Remote(error)) => break Err(error.into()),
            Err(DeliverError::NotWritable) => break Err(NotApplied::TextWriteForbidden.into()),
            Ok(()) => break Ok(()),
        }
    };
    let ranges = || -> Vec<(RuntimeAddr, u64)> {
        chosen.iter().flat_map(|one| one.pieces.iter().map(|piece| (piece.at, piece.len_bytes))).collect()
    };
    if let Err(end) = delivered {
        let _ = workshop.close(&[]);
        return Err(end);
    }
    let result = change(target, scene, planned, &adopted, &chosen, &workshop, run);
    match &result {
        // A thread may be in there still: the next command cleans up when it is not.
        Ok(Outcome::Indeterminate { .. }) => result,
        Ok(Outcome::Applied(_)) => {
            let longest = workshop.longest;
            let longest_borrow = workshop.close(&[]).unwrap_or(longest);
            result.map(|outcome| match outcome {
                Outcome::Applied(applied) => Outcome::Applied(Applied { longest_borrow, ..applied }),
                other => other,
            })
        }
        // Nothing leads into the new payloads: take them away again.
        _ => {
            let _ = workshop.close(&ranges());
            result
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
    let committed = match (&plan.commit, plan.writes.len()) {
        (_, ..2) => Committed::InOneWrite,
        (Some(_), _) => Committed::ByTarget,
        (None, _) => Committed::BySalve,
    };
    let site = Site { process: target.process, memory: target.memory, plan: &plan };
    Ok(outcome(&run(site), target.process, images, committed))
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

/// What is written, and where everything lies.
fn transition<'a>(
    scene: &'a Scene,
    planned: &[Planned<'_>],
    adopted: &[Option<Payload>],
    chosen: &[Chosen],
) -> Result<(Plan<'a>, Vec<AppliedImage>), End> {
    let mut plan = scene.plan();
    let mut images = Vec::new();
    for (index, (one, adopted)) in planned.iter().zip(adopted).enumerate() {
        let new = chosen.iter().find(|chosen| chosen.planned == index).map(|chosen| &chosen.prepared.payload);
        let Some(payload) = adopted.as_ref().or(new) else { continue };
        let before = plan.writes.len();
        add_writes(&mut plan.writes, scene, one, payload)?;
        plan.forbidden.add_apply(one.livepatch, one.old);
        for other in &one.superseded {
            other.add_to(&mut plan, one)?;
        }
        let first =
            payload.segments.first().map_or(0, |segment| segment.new_va.in_process(payload.bias(one.old)).raw());
        images.push(AppliedImage {
            path: one.change.image.path.clone(),
            livepatch: payload.id,
            detours: plan.writes.len().saturating_sub(before),
            payload_at: RuntimeAddr::new(first),
            payload_bytes: payload.len_bytes(),
        });
    }
    Ok((plan, images))
}

/// What is not there yet.
fn add_writes(writes: &mut Vec<Write>, scene: &Scene, one: &Planned<'_>, payload: &Payload) -> Result<(), End> {
    let path = &one.change.image.path;
    let becomes = changed(one.livepatch, &payload.jumps, payload.distance, one.old);
    for (spot, new) in one.spots.iter().zip(becomes) {
        let expected = match at_spot(&scene.memory, spot, Some(new))? {
            AtSpot::Changed => continue,
            AtSpot::Original => spot.original,
            AtSpot::Other(found) if is_superseded(one, spot, found) => found,
            AtSpot::Other(found) => return Err(spot.unexpected(path, found).into()),
        };
        let mapping = maps::find(&one.image.image.mappings, spot.at).cloned();
        let mapping = mapping.ok_or_else(|| spot.not_from_file(path))?;
        let (path, function) = (path.clone(), spot.name.to_owned());
        writes.push(Write { at: spot.at, expected, new, path, function, va: spot.va, mapping });
    }
    Ok(())
}
