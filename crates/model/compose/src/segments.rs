//! The pages of the payload.

use crate::PAGE_BYTES;
use salve_elf::{Image, SectionRole, Va, VaRange};
use salve_patch::{Access, ImportSlot, OwnAddress, Segment};
use std::collections::BTreeMap;

/// `int3`: what fills code pages around the carried functions.
const FILL: u8 = 0xcc;

/// Code pages with the given functions and stubs, read-only data pages if wanted, pages with
/// the tables of pointers, and pages for slots; slots and pointers stay empty.
/// `None` if a page would have to be both, or a range has no bytes.
pub(crate) fn segments(
    image: &Image<'_>,
    code: &[VaRange],
    slots: &BTreeMap<Va, ImportSlot>,
    (pointers, tables): (&BTreeMap<Va, OwnAddress>, Option<VaRange>),
    with_data: bool,
) -> Option<Vec<Segment>> {
    let mut pages: BTreeMap<Va, (Access, Vec<u8>)> = BTreeMap::new();
    if let Some(tables) = tables {
        paint(&mut pages, tables, image.read(tables)?, Access::Read, 0)?;
    }
    for slot in slots.keys().chain(pointers.keys()) {
        paint(&mut pages, VaRange::new(*slot, 8)?, &[0; 8], Access::Read, 0)?;
    }
    for range in code {
        paint(&mut pages, *range, image.read(*range)?, Access::ReadExecute, FILL)?;
    }
    if with_data {
        for section in image.sections().iter().filter(|s| s.role == SectionRole::ReadOnlyData) {
            paint(&mut pages, section.range, section.bytes?, Access::Read, 0)?;
        }
    }
    let mut segments: Vec<Segment> = Vec::new();
    for (at, (access, bytes)) in pages {
        let continues = segments
            .last()
            .filter(|s| s.access == access)
            .and_then(Segment::range)
            .is_some_and(|range| range.end() == at);
        match segments.last_mut().filter(|_| continues) {
            Some(segment) => segment.bytes.extend_from_slice(&bytes),
            None => segments.push(Segment { new_va: at, access, bytes }),
        }
    }
    Some(segments)
}

fn paint(
    pages: &mut BTreeMap<Va, (Access, Vec<u8>)>,
    range: VaRange,
    bytes: &[u8],
    access: Access,
    fill: u8,
) -> Option<()> {
    let page_len = usize::try_from(PAGE_BYTES).ok()?;
    let mut at = range.start();
    let mut rest = bytes;
    while !rest.is_empty() {
        let page = at.page_floor(PAGE_BYTES);
        let offset = usize::try_from(at.raw().checked_sub(page.raw())?).ok()?;
        let len = rest.len().min(page_len.checked_sub(offset)?);
        let (have, contents) = pages.entry(page).or_insert_with(|| (access, vec![fill; page_len]));
        if *have != access {
            return None;
        }
        let (now, later) = rest.split_at_checked(len)?;
        contents.get_mut(offset..offset.checked_add(len)?)?.copy_from_slice(now);
        rest = later;
        at = at.checked_add(u64::try_from(len).ok()?)?;
    }
    Some(())
}
