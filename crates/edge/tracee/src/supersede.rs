//! A newer livepatch in the place of an older one (cumulative patches, atomic replace).
//!
//! Both were derived from the image that is mapped, so each by itself leads from
//! its code to that of another version. In one transition the older one's detours
//! become the newer one's where both have one, and the image's own code where only
//! the older one has one: afterwards the process runs the newer version and nothing
//! of the one between. No thread may be in either's functions meanwhile. The older
//! payload stays mapped; nothing leads there, and the next revert clears it away
//! if its policy allows it.

use crate::apply::Planned;
use crate::image::{Found, read_image};
use crate::limits::Limits;
use crate::maps;
use crate::outcome::NotApplied;
use crate::present::{AtDetour, Present};
use crate::process::Process;
use crate::scene::{End, Scene};
use crate::transition::Plan;
use crate::write::{JUMP_BYTES, Write};
use salve_elf::{ContentHash, RuntimeAddr};
use salve_patch::{Livepatch, RevertPolicy};

/// A livepatch in force that goes.
pub(crate) struct Superseded<'a> {
    present: &'a Present,
    state: Vec<AtDetour>,
}

impl<'a> Superseded<'a> {
    /// One that may go for the sake of `newer`: its code has not escaped, and its
    /// detours lie where the newer one's lie or clear of them.
    pub(crate) fn of(scene: &Scene, present: &'a Present, newer: &Livepatch) -> Result<Self, End> {
        let path = || present.payload.image().map(|image| image.path.clone()).unwrap_or_default();
        let state = present.state(&scene.memory)?;
        let policy = present.payload.livepatch().map_or(RevertPolicy::Refuse, |livepatch| livepatch.revert);
        if policy == RevertPolicy::Refuse {
            return Err(NotApplied::RevertRefused { path: path() }.into());
        }
        for ((detour, _, _), state) in present.detours().zip(&state) {
            if let AtDetour::Other(found) = state {
                return Err(NotApplied::UnexpectedBytes {
                    path: path(),
                    function: detour.function.clone(),
                    va: detour.old_va,
                    found: found.to_vec(),
                }
                .into());
            }
            let jump_bytes = u64::try_from(JUMP_BYTES).unwrap_or(u64::MAX);
            let crossing = newer.detours.iter().any(|other| {
                let apart = other.old_va.raw().abs_diff(detour.old_va.raw());
                apart != 0 && apart < jump_bytes
            });
            if crossing {
                return Err(NotApplied::OtherLivepatch { path: path(), livepatch: present.payload.id }.into());
            }
        }
        Ok(Self { present, state })
    }

    /// The jump that it has there, if it has one in force.
    pub(crate) fn jump_at(&self, at: RuntimeAddr) -> Option<[u8; JUMP_BYTES]> {
        let mut detours = self.present.detours().zip(&self.state);
        detours.find_map(|((_, jump, here), state)| (here == at && *state == AtDetour::Jump).then_some(jump))
    }

    /// How many of its jumps are in force.
    pub(crate) fn jumps(&self) -> usize {
        self.state.iter().filter(|state| **state == AtDetour::Jump).count()
    }

    /// What it says that it replaced is what the image's file has there: the payload in
    /// the process is foreign, and what it says is about to be written.
    pub(crate) fn check(&self, process: &Process, image: &Found, limits: &Limits) -> Result<(), End> {
        let path = image.display();
        let bad = |why: &str| End::Not(NotApplied::BadLivepatch { path: path.clone(), why: why.to_owned() });
        let mapping = image.any_mapping().ok_or_else(|| bad("its image is gone"))?;
        let bytes = read_image(&process.open_mapped(mapping)?, limits)?;
        if ContentHash::of(&bytes) != image.image.sha256 {
            return Err(bad("its image's file changed"));
        }
        for (detour, _, _) in self.present.detours() {
            let original = || -> Option<&[u8]> {
                let offset = usize::try_from(image.file.elf.as_ref()?.file_offset(detour.old_va)?).ok()?;
                bytes.get(offset..offset.checked_add(JUMP_BYTES)?)
            };
            if original() != Some(detour.expected.as_slice()) {
                return Err(bad("the livepatch before it does not replace what the image's file has"));
            }
        }
        Ok(())
    }

    /// What only the older one has becomes the image's own code; nobody may be in its functions.
    pub(crate) fn add_to(&self, plan: &mut Plan<'_>, newer: &Planned<'_>) -> Result<(), End> {
        let path = &newer.change.image.path;
        let bad = |why: &str| End::Not(NotApplied::BadLivepatch { path: path.clone(), why: why.to_owned() });
        let livepatch = self.present.payload.livepatch().ok_or_else(|| bad("the one before has none"))?;
        for ((detour, jump, at), state) in self.present.detours().zip(&self.state) {
            if *state != AtDetour::Jump || newer.livepatch.detours.iter().any(|other| other.old_va == detour.old_va) {
                continue;
            }
            // This is what the image's file has: `check` compared it.
            let new = detour.expected.as_slice().try_into().map_err(|_| bad("a detour of another length"))?;
            let mapping = maps::find(&newer.image.image.mappings, at).cloned();
            plan.writes.push(Write {
                at,
                expected: jump,
                new,
                path: path.clone(),
                function: detour.function.clone(),
                va: detour.old_va,
                mapping: mapping.ok_or_else(|| bad("its text is gone"))?,
            });
        }
        plan.forbidden.add_revert(livepatch, newer.old, self.present.payload.bias(newer.old), false);
        Ok(())
    }
}
