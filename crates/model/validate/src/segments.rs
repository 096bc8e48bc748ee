//! What a payload's segments may hold, where they may be placed, and how to read them.

use crate::correspond::Correspondence;
use crate::image::{Image, Role};
use crate::invalid::Invalid;
use salve_elf::{LoadBias, RuntimeAddr, Va, VaRange};
use salve_patch::{Distance, PlacedSegment, Segment};

const PAGE_BYTES: u64 = 4096;
/// `int3`: where nothing is carried, nothing runs.
pub(crate) const TRAP: u8 = 0xcc;

/// Two places for the payload, on no common grid but that of pages, both clear of the old image and within reach.
pub(crate) fn distances(map: &Correspondence<'_>) -> [Distance; 2] {
    let end = map.old.span.end().raw().max(map.new.span.end().raw());
    let clear = end.saturating_add(0x20_0000) & !0x1f_ffff;
    let far = clear.saturating_add(0x35_1000);
    [clear, far].map(|bytes| Distance::new(i64::try_from(bytes).unwrap_or(i64::MAX)))
}

pub(crate) fn check_shape(segments: &[Segment]) -> Result<(), Invalid> {
    let mut end = Va::new(0);
    for segment in segments {
        let wrong = Invalid::SegmentShape { at: segment.new_va };
        let range = segment.range().ok_or(wrong.clone())?;
        let whole = range.start().raw().is_multiple_of(PAGE_BYTES) && range.len_bytes().is_multiple_of(PAGE_BYTES);
        if !whole || range.is_empty() || range.start() < end {
            return Err(wrong);
        }
        end = range.end();
    }
    Ok(())
}

/// A page without code, or stubs that lead out of it, has no reason to be executable.
pub(crate) fn every_page_has_code(image: &Image<'_>, range: VaRange) -> bool {
    let mut page = range.start();
    while page < range.end() {
        let Some(extent) = VaRange::new(page, PAGE_BYTES) else { return false };
        if !image.sections.iter().any(|s| matches!(s.role, Role::Code | Role::Stubs) && s.range.overlaps(extent)) {
            return false;
        }
        page = extent.end();
    }
    true
}

pub(crate) fn check_filling(segment: &Segment, from: Va, to: Va, executable: bool) -> Result<(), Invalid> {
    let bytes = held(segment, from, to)?;
    match bytes.iter().position(|b| !(*b == 0 || executable && *b == TRAP)) {
        Some(at) => Err(Invalid::PayloadByte { at: from.wrapping_offset(i64::try_from(at).unwrap_or(0)) }),
        None => Ok(()),
    }
}

/// Bytes that a segment stores for `from..to`.
pub(crate) fn held(segment: &Segment, from: Va, to: Va) -> Result<&[u8], Invalid> {
    let offset = |at: Va| at.raw().checked_sub(segment.new_va.raw()).and_then(|o| usize::try_from(o).ok());
    let range = offset(from).zip(offset(to)).map(|(a, b)| a..b.max(a));
    range.and_then(|r| segment.bytes.get(r)).ok_or(Invalid::SegmentShape { at: from })
}

pub(crate) fn mapped(placed: &[PlacedSegment], at: Va, len: usize) -> Option<&[u8]> {
    placed.iter().find_map(|segment| {
        let offset = usize::try_from(at.raw().checked_sub(segment.new_va.raw())?).ok()?;
        segment.bytes.get(offset..offset.checked_add(len)?)
    })
}

pub(crate) fn is_mapped(placed: &[PlacedSegment], at: RuntimeAddr, bias: LoadBias) -> bool {
    mapped(placed, at.in_file(bias), 1).is_some()
}
