//! What the transition writes, and where everything lies.

use super::place::Chosen;
use super::plan::{Planned, is_superseded};
use crate::maps;
use crate::outcome::AppliedImage;
use crate::payload::Payload;
use crate::scene::{End, Scene};
use crate::spot::{AtSpot, at_spot, changed};
use crate::transition::Plan;
use crate::write::Write;
use salve_elf::RuntimeAddr;

/// What is written, and where everything lies.
pub(super) fn transition<'a>(
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
