//! The payload: whole pages in order, and what is filled in when it is placed lies within them.

use super::{Fault, is_name};
use crate::{Access, Fixup, FixupKind, Livepatch, OwnAddress, Segment, layout};
use salve_elf::{Va, VaRange};

/// The field of a `PcRel32`.
const FIELD_BYTES: u64 = 4;
/// A slot that the loader fills.
const SLOT_BYTES: u64 = 8;
/// What may stand between the field and the end of its instruction: an
/// immediate of at most four bytes (Intel SDM, volume 2, §2.1).
const MAX_IMMEDIATE_BYTES: u64 = 4;
/// A payload has to lie within a rel32 of the old image as a whole.
const MAX_SPAN_BYTES: u64 = 1 << 31;

pub(super) fn segments(segments: &[Segment]) -> Result<(), Fault> {
    let mut span: Option<(Va, Va)> = None;
    for segment in segments {
        let new_va = segment.new_va;
        let range = segment.range().ok_or(Fault::SegmentOutOfReach { new_va })?;
        let page = |value: u64| value.is_multiple_of(layout::PAGE_BYTES);
        if range.is_empty() || !page(new_va.raw()) || !page(range.len_bytes()) {
            return Err(Fault::SegmentUnaligned { new_va });
        }
        let (first, end) = span.unwrap_or((new_va, new_va));
        if new_va < end {
            return Err(Fault::SegmentOrder { new_va });
        }
        let far = range.end().raw().saturating_sub(first.raw()) >= MAX_SPAN_BYTES;
        if far || range.end().raw() > 1 << layout::LANE_BITS {
            return Err(Fault::SegmentOutOfReach { new_va });
        }
        span = Some((first, range.end()));
    }
    Ok(())
}

pub(super) fn fixups(fixups: &[Fixup], segments: &[Segment]) -> Result<(), Fault> {
    let mut end = Va::new(0);
    for fixup in fixups {
        let new_va = fixup.new_va;
        let field = VaRange::new(new_va, FIELD_BYTES).ok_or(Fault::FixupOutside { new_va })?;
        if new_va < end {
            return Err(Fault::FixupOrder { new_va });
        }
        end = field.end();
        if !layout::segment_of(segments, new_va).is_some_and(|(_, segment)| contains(segment, field)) {
            return Err(Fault::FixupOutside { new_va });
        }
        let FixupKind::PcRel32 { new_next, .. } = fixup.kind;
        let after = new_next.raw().checked_sub(field.end().raw());
        if after.is_none_or(|bytes| bytes > MAX_IMMEDIATE_BYTES) {
            return Err(Fault::FixupInstruction { new_va, new_next });
        }
    }
    Ok(())
}

pub(super) fn imports(livepatch: &Livepatch) -> Result<(), Fault> {
    let mut end = Va::new(0);
    for import in &livepatch.imports {
        let new_va = import.new_va;
        if new_va < end {
            return Err(Fault::ImportOrder { new_va });
        }
        end = bound_word(livepatch, new_va).ok_or(Fault::ImportPlace { new_va })?;
        if let Some(OwnAddress::Payload(at)) = import.own
            && !layout::segment_of(&livepatch.segments, at).is_some_and(|(_, s)| s.access == Access::ReadExecute)
        {
            return Err(Fault::ImportPlace { new_va });
        }
        if !is_name(&import.symbol) || !import.version.as_deref().is_none_or(is_name) {
            return Err(Fault::Name { what: "symbol or version of an import" });
        }
    }
    Ok(())
}

pub(super) fn pointers(livepatch: &Livepatch) -> Result<(), Fault> {
    let mut end = Va::new(0);
    for pointer in &livepatch.pointers {
        let new_va = pointer.new_va;
        let is_import = livepatch.imports.binary_search_by_key(&new_va, |import| import.new_va).is_ok();
        let leads_nowhere = match pointer.to {
            OwnAddress::Payload(at) => layout::segment_of(&livepatch.segments, at).is_none(),
            OwnAddress::Old(_) => false,
        };
        let word = bound_word(livepatch, new_va).filter(|_| new_va >= end && !is_import && !leads_nowhere);
        end = word.ok_or(Fault::PointerPlace { new_va })?;
    }
    Ok(())
}

/// The end of an aligned word of read-only payload, apart from every fix-up.
fn bound_word(livepatch: &Livepatch, new_va: Va) -> Option<Va> {
    let word = VaRange::new(new_va, SLOT_BYTES).filter(|_| new_va.raw().is_multiple_of(SLOT_BYTES))?;
    let (_, segment) = layout::segment_of(&livepatch.segments, new_va)?;
    let inside = segment.access == Access::Read && contains(segment, word);
    let fixed = |fixup: &Fixup| {
        fixup.new_va < word.end() && fixup.new_va.checked_add(FIELD_BYTES).is_none_or(|field| field > new_va)
    };
    (inside && !livepatch.fixups.iter().any(fixed)).then_some(word.end())
}

pub(crate) fn contains(segment: &Segment, inner: VaRange) -> bool {
    segment.range().is_some_and(|outer| outer.start() <= inner.start() && inner.end() <= outer.end())
}
