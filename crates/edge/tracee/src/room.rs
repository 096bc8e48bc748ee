//! Where a payload may lie.
//!
//! Within reach of the old image; not where the heap (`brk`) or the stack grows;
//! and, if it can be, at one of a few distances that are the same in every
//! process, so that the payload's bytes are, and its pages are shared.

use crate::image::{PAGE_BYTES, page_floor};
use crate::maps::Mapping;
use crate::process::{Process, ReadError};
use salve_elf::LoadBias;
use salve_patch::{Distance, Livepatch};

/// Canonical distances are multiples of this, up to the reach of a jump.
const STEP_BYTES: i64 = 64 << 20;
const STEPS: i64 = 31;
/// The heap is left room to grow by this much at least.
const HEAP_ROOM_BYTES: u64 = 1 << 30;
/// The main stack, likewise, where its limit is lower; the kernel keeps this gap too.
const STACK_ROOM_BYTES: u64 = 128 << 20;
const STACK_GUARD_BYTES: u64 = 2 << 20;
/// What the kernel keeps free at the bottom (`vm.mmap_min_addr`) and at the top.
const LOWEST: u64 = 0x1_0000;
const HIGHEST: u64 = 0x7fff_ffff_0000;

/// Runs of addresses, `start..end`, where nothing may be mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken(Vec<(u64, u64)>);

impl Taken {
    pub(crate) fn of(process: &Process, mappings: &[Mapping]) -> Result<Self, ReadError> {
        let mut taken: Vec<(u64, u64)> =
            mappings.iter().map(|mapping| (mapping.start.raw(), mapping.end.raw())).collect();
        taken.push(heap(process, mappings)?);
        if let Some(stack) = mappings.iter().find(|mapping| mapping.is_named("[stack]")) {
            let limit = soft_limit(process, "Max stack size")?.unwrap_or(16 << 30);
            let room = limit.clamp(STACK_ROOM_BYTES, 16 << 30).saturating_add(STACK_GUARD_BYTES);
            taken.push((stack.end.raw().saturating_sub(room), stack.end.raw()));
        }
        taken.sort_unstable();
        Ok(Self(taken))
    }

    /// From now on nothing may come here.
    pub(crate) fn add(&mut self, start: u64, end: u64) {
        self.0.push((start, end));
        self.0.sort_unstable();
    }

    fn is_free(&self, start: u64, end: u64) -> bool {
        LOWEST <= start && start < end && end <= HIGHEST && !self.0.iter().any(|&(s, e)| s < end && start < e)
    }

    /// The free runs, lowest first.
    fn gaps(&self) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut from = LOWEST;
        for &(start, end) in &self.0 {
            if from < start {
                gaps.push((from, start.min(HIGHEST)));
            }
            from = from.max(end);
        }
        if from < HIGHEST {
            gaps.push((from, HIGHEST));
        }
        gaps
    }
}

/// Where the heap is and may come to be.
fn heap(process: &Process, mappings: &[Mapping]) -> Result<(u64, u64), ReadError> {
    let shown = mappings.iter().filter(|mapping| mapping.is_named("[heap]"));
    let end = shown.clone().map(|mapping| mapping.end.raw()).max();
    let start = match shown.map(|mapping| mapping.start.raw()).min() {
        Some(start) => start,
        None => process.heap_start()?,
    };
    Ok((start, end.unwrap_or(start).saturating_add(HEAP_ROOM_BYTES)))
}

/// One line of `/proc/PID/limits`; `None` for "unlimited".
pub(crate) fn soft_limit(process: &Process, name: &str) -> Result<Option<u64>, ReadError> {
    let what = "limits";
    let text = process.read_entry("limits", what, 1 << 16)?;
    let text = String::from_utf8_lossy(&text);
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .ok_or(ReadError::Malformed { what })?;
    if value == "unlimited" { Ok(None) } else { value.parse().map(Some).map_err(|_| ReadError::Malformed { what }) }
}

/// Distances worth trying, the best first: nothing is there now, nothing is meant to
/// grow there, and every reference of the livepatch reaches.
pub(crate) fn distances(livepatch: &Livepatch, old: LoadBias, taken: &Taken) -> Vec<Distance> {
    let Some((first, last)) = livepatch.span() else { return Vec::new() };
    // One page in front for the file's header, one left free on either side.
    let margin = PAGE_BYTES.saturating_mul(2);
    let low = first.raw().wrapping_sub(margin).wrapping_add(old.raw());
    let high = last.raw().wrapping_add(PAGE_BYTES).wrapping_add(old.raw());
    let usable = |distance: i64| {
        let place = |edge: u64| edge.checked_add_signed(distance);
        matches!((place(low), place(high)), (Some(start), Some(end)) if taken.is_free(start, end))
    };
    let canonical = (1..=STEPS).map(|step| step.saturating_mul(STEP_BYTES).saturating_neg());
    let canonical = canonical.chain((1..=STEPS).map(|step| step.saturating_mul(STEP_BYTES)));
    let len = high.saturating_sub(low);
    let mut near: Vec<i64> = taken
        .gaps()
        .into_iter()
        .flat_map(|(start, end)| [Some(start), end.checked_sub(len)].into_iter().flatten())
        .map(|start| page_floor(start.saturating_add(PAGE_BYTES).saturating_sub(1)).wrapping_sub(low).cast_signed())
        .collect();
    near.sort_unstable_by_key(|distance| distance.unsigned_abs());
    canonical
        .chain(near)
        .filter(|&distance| distance.unsigned_abs() < 1 << 31 && usable(distance))
        .map(Distance::new)
        .filter(|&distance| livepatch.place(distance).is_ok() && livepatch.jumps(distance).is_ok())
        .take(16)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use salve_elf::Va;
    use salve_patch::{Access, RevertPolicy, Segment};

    fn livepatch() -> Livepatch {
        Livepatch {
            segments: vec![Segment { new_va: Va::new(0x2000), access: Access::ReadExecute, bytes: vec![0; 0x1000] }],
            fixups: vec![],
            detours: vec![],
            replaced: vec![],
            imports: vec![],
            pointers: vec![],
            words: vec![],
            readers: vec![],
            requirements: vec![],
            revert: RevertPolicy::Unmap,
            unwind: salve_patch::Unwind::default(),
        }
    }

    #[test]
    fn a_canonical_distance_comes_first_and_the_nearest_gap_when_none_is_free() {
        let old = LoadBias::new(0x5555_0000_0000);
        let open = Taken(vec![(0x5555_0000_0000, 0x5555_0001_0000)]);
        assert_eq!(distances(&livepatch(), old, &open).first(), Some(&Distance::new(-STEP_BYTES)));

        let full = Taken(vec![(0x1_0000, 0x5554_f000_0000), (0x5554_f010_0000, HIGHEST)]);
        let found = distances(&livepatch(), old, &full);
        let place = found.first().map(|d| d.payload_bias(old).raw() + 0x2000);
        assert!(place.is_some_and(|at| (0x5554_f000_1000..0x5554_f010_0000).contains(&at)));
    }

    #[test]
    fn no_room_within_reach_is_no_distance() {
        let all = Taken(vec![(LOWEST, HIGHEST)]);
        assert!(distances(&livepatch(), LoadBias::new(0x5555_0000_0000), &all).is_empty());
    }
}
