//! What an apply costs in memory, and whether the process may have it.

use super::plan::Planned;
use crate::headroom;
use crate::image::{PAGE_BYTES, page_floor};
use crate::process::Process;
use crate::scene::End;

/// Pages that are copied for the detours, the words and the stub.
pub(super) fn copied_pages(planned: &[Planned<'_>]) -> u64 {
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

pub(super) fn check_headroom(process: &Process, planned: &[Planned<'_>], pages: u64) -> Result<(), End> {
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

pub(super) fn page_tables(process: &Process) -> u64 {
    process.status(None).ok().and_then(|status| status.size_bytes("VmPTE")).unwrap_or(0)
}
