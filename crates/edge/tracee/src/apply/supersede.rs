//! A newer livepatch in the place of an older one (cumulative patches, atomic replace).
//!
//! Both were derived from the image that is mapped, so each by itself leads from
//! its code to that of another version. In one transition the older one's detours
//! become the newer one's where both have one, and the image's own code where only
//! the older one has one: afterwards the process runs the newer version and nothing
//! of the one between. No thread may be in either's functions meanwhile. The older
//! payload stays mapped; nothing leads there, and the next revert clears it away
//! if its policy allows it.

use super::plan::Planned;
use crate::image::{Found, read_image};
use crate::limits::Limits;
use crate::maps;
use crate::outcome::NotApplied;
use crate::present::Present;
use crate::process::Process;
use crate::scene::{End, Scene};
use crate::spot::{AtSpot, Bytes, Spot, crosses, original};
use crate::transition::Plan;
use crate::write::Write;
use salve_elf::{ContentHash, RuntimeAddr};
use salve_patch::RevertPolicy;

/// A livepatch in force that goes.
pub(super) struct Superseded<'a> {
    present: &'a Present,
    state: Vec<AtSpot>,
}

impl<'a> Superseded<'a> {
    /// One that may go for the sake of `newer`: its code has not escaped, and what it
    /// writes lies where the newer one writes or clear of that.
    pub(super) fn of(scene: &Scene, present: &'a Present, newer: &[Spot<'_>]) -> Result<Self, End> {
        let path = || present.payload.image().map(|image| image.path.clone()).unwrap_or_default();
        let state = present.state(&scene.memory)?;
        let policy = present.payload.livepatch().map_or(RevertPolicy::Refuse, |livepatch| livepatch.revert);
        if policy == RevertPolicy::Refuse {
            return Err(NotApplied::RevertRefused { path: path() }.into());
        }
        for ((spot, _), state) in present.spots().iter().zip(&state) {
            if let AtSpot::Other(found) = state {
                return Err(spot.unexpected(&path(), *found).into());
            }
            if newer.iter().any(|other| crosses(other, spot)) {
                return Err(NotApplied::OtherLivepatch { path: path(), livepatch: present.payload.id }.into());
            }
        }
        Ok(Self { present, state })
    }

    /// What it has written there, if that is in force.
    pub(super) fn written_at(&self, at: RuntimeAddr) -> Option<Bytes> {
        let spots = self.present.spots();
        let mut spots = spots.iter().zip(&self.state);
        spots.find_map(|((spot, changed), state)| (spot.at == at && *state == AtSpot::Changed).then_some(*changed))
    }

    /// How many of its writes are in force.
    pub(super) fn in_force(&self) -> usize {
        self.state.iter().filter(|state| **state == AtSpot::Changed).count()
    }

    /// What it says that it replaced is what the image's file has there: the payload in
    /// the process is foreign, and what it says is about to be written.
    pub(super) fn check(&self, process: &Process, image: &Found, limits: &Limits) -> Result<(), End> {
        let path = image.display();
        let bad = |why: &str| End::Not(NotApplied::BadLivepatch { path: path.clone(), why: why.to_owned() });
        let mapping = image.any_mapping().ok_or_else(|| bad("its image is gone"))?;
        let bytes = read_image(&process.open_mapped(mapping)?, limits)?;
        if ContentHash::of(&bytes) != image.image.sha256 {
            return Err(bad("its image's file changed"));
        }
        for (spot, _) in self.present.spots() {
            if original(&spot, image, &bytes, self.present.old) != Some(spot.original) {
                return Err(bad("the livepatch before it does not replace what the image's file has"));
            }
        }
        Ok(())
    }

    /// What only the older one has becomes the image's own code; nobody may be in its functions.
    pub(super) fn add_to(&self, plan: &mut Plan<'_>, newer: &Planned<'_>) -> Result<(), End> {
        let path = &newer.change.image.path;
        let bad = |why: &str| End::Not(NotApplied::BadLivepatch { path: path.clone(), why: why.to_owned() });
        let livepatch = self.present.payload.livepatch().ok_or_else(|| bad("the one before has none"))?;
        for ((spot, changed), state) in self.present.spots().iter().zip(&self.state) {
            if *state != AtSpot::Changed || newer.spots.iter().any(|other| other.va == spot.va) {
                continue;
            }
            let mapping = maps::find(&newer.image.image.mappings, spot.at).cloned();
            plan.writes.push(Write {
                at: spot.at,
                expected: *changed,
                // This is what the image's file has: `check` compared it.
                new: spot.original,
                path: path.clone(),
                function: spot.name.to_owned(),
                va: spot.va,
                mapping: mapping.ok_or_else(|| bad("what it wrote to is gone"))?,
            });
        }
        plan.forbidden.add_revert(livepatch, newer.old, self.present.payload.bias(newer.old), false);
        Ok(())
    }
}
