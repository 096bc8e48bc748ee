//! What of a change is to be done in one process: its image, its bytes, what is there already.

use super::supersede::Superseded;
use crate::image::Found;
use crate::outcome::NotApplied;
use crate::patcher::{Change, Patcher};
use crate::present::Present;
use crate::process::Process;
use crate::scene::{End, Scene};
use crate::spot::{AtSpot, Bytes, Kind, Spot, at_spot, spots};
use crate::{import, requirement};
use salve_elf::{LoadBias, RuntimeAddr};
use salve_patch::{Livepatch, LivepatchId};

/// One livepatch and where it goes.
pub(super) struct Planned<'a> {
    pub(super) change: &'a Change<'a>,
    pub(super) livepatch: &'a Livepatch,
    pub(super) image: &'a Found,
    pub(super) old: LoadBias,
    /// What is written to.
    pub(super) spots: Vec<Spot<'a>>,
    /// The payload that is in the process already, if it is.
    pub(super) adopted: Option<&'a Present>,
    /// Livepatches of the same image that are in force, and go in the same transition.
    pub(super) superseded: Vec<Superseded<'a>>,
    /// Addresses for the livepatch's imports and pointers, in their order.
    pub(super) imports: Vec<RuntimeAddr>,
}

/// What was found fit, and what stands at the spots of each.
pub(super) struct Ready<'a> {
    pub(super) planned: Vec<Planned<'a>>,
    pub(super) states: Vec<Vec<AtSpot>>,
    /// All of it is in force.
    pub(super) done: bool,
}

pub(super) fn ready<'a>(
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
pub(super) fn is_superseded(one: &Planned<'_>, spot: &Spot<'_>, found: Bytes) -> bool {
    one.superseded.iter().any(|other| other.written_at(spot.at) == Some(found))
}
