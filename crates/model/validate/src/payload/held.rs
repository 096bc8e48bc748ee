//! What the payload has, of the new image.

use super::Payload;
use crate::segments::{TRAP, held, mapped};
use salve_elf::{Va, VaRange};
use salve_patch::{Access, Segment};

impl Payload<'_, '_> {
    /// Whether the payload has these bytes of the new image, every one of them.
    pub(super) fn holds(&self, range: VaRange) -> bool {
        self.map.new.bytes(range).is_some_and(|bytes| self.holds_bytes(range, bytes))
    }

    pub(super) fn holds_bytes(&self, range: VaRange, bytes: &[u8]) -> bool {
        let mut at = range.start();
        while at < range.end() {
            let Some(segment) = self.livepatch.segments.iter().find(|s| s.range().is_some_and(|r| r.contains(at)))
            else {
                return false;
            };
            let end = segment.range().map_or(at, VaRange::end).min(range.end());
            let offset = |to: Va| usize::try_from(to.raw().wrapping_sub(range.start().raw())).ok();
            let wanted = offset(at).zip(offset(end)).and_then(|(from, to)| bytes.get(from..to));
            if wanted.is_none() || held(segment, at, end).ok() != wanted {
                return false;
            }
            at = end;
        }
        true
    }

    /// Whether one executable segment spans it.
    pub(super) fn has_in_code(&self, range: VaRange) -> bool {
        let spans = |held: VaRange| held.contains(range.start()) && range.end() <= held.end();
        let code = self.livepatch.segments.iter().filter(|segment| segment.access == Access::ReadExecute);
        code.filter_map(Segment::range).any(spans)
    }

    /// Eight bytes of read-only payload with nothing in them.
    pub(super) fn is_empty_slot(&self, slot: Va) -> bool {
        let end = slot.wrapping_offset(8);
        self.livepatch
            .segments
            .iter()
            .filter(|segment| segment.access == Access::Read)
            .any(|segment| held(segment, slot, end).is_ok_and(|bytes| bytes == [0; 8]))
    }

    /// One past the last of the constants that the payload has, in no other section of
    /// constants: where a walk over them stops.
    pub(super) fn ends_held_constants(&self, at: Va) -> bool {
        let next = self.map.new.section_at(at);
        let other = next.is_none_or(|section| matches!(section.name, b".eh_frame_hdr" | b".eh_frame"));
        other && self.map.new.sections.iter().any(|s| s.is_constant() && s.range.end() == at && self.holds(s.range))
    }

    pub(super) fn is_trap_after(&self, at: Va) -> bool {
        let ends = at.checked_sub(1).and_then(|last| self.map.index.carried_at(last)).is_some_and(|r| r.end() == at);
        let trap = self.placed.iter().all(|(_, placed)| mapped(placed, at, 1) == Some(&[TRAP]));
        ends && trap
    }
}
