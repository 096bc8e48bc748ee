//! Where a run of data ends, no object may go on.
//!
//! A reference proves the place it leads to, not how far the object reaches from
//! there. If a run ended inside a table or a string, code that stays as it is would
//! be proven to refer to the right place and still find changed contents behind it.
//! So every end of a run that is not continued by the next run has to be a
//! boundary of objects, on both sides, on evidence:
//! * the section ends there, or both images' sections do;
//! * something refers to exactly that place, or a dynamic symbol starts or ends there;
//! * it follows the NUL of a string that something refers to;
//! * it is followed by nothing but the padding that the next such place needs for
//!   its alignment.

use crate::correspond::Correspondence;
use crate::image::{Image, Role, Section};
use crate::invalid::{Invalid, Side};
use crate::lockstep::Seen;
use salve_elf::{Va, VaRange};

/// Places that something refers to, sorted.
pub(crate) struct Targets {
    pub(crate) old: Vec<Va>,
    pub(crate) new: Vec<Va>,
}

impl Targets {
    pub(crate) fn new(map: &Correspondence<'_>, seen: &mut Seen) -> Self {
        Self {
            old: all(map.old, core::mem::take(&mut seen.old_data)),
            new: all(map.new, core::mem::take(&mut seen.new_data)),
        }
    }
}

fn all(image: &Image<'_>, mut targets: Vec<Va>) -> Vec<Va> {
    targets.extend(image.slots.iter().filter_map(|s| s.binding.target()));
    for definition in image.symbols.iter().filter_map(|s| s.defined).filter(|d| !d.is_tls && !d.is_absolute) {
        targets.push(definition.at);
        targets.extend(definition.at.checked_add(definition.len_bytes));
    }
    targets.sort_unstable();
    targets.dedup();
    targets
}

pub(crate) fn check(map: &Correspondence<'_>, targets: &Targets) -> Result<(), Invalid> {
    for (index, run) in map.index.runs.iter().enumerate() {
        let old_end = run.old.wrapping_offset(run.len_bytes.cast_signed());
        let new_end = run.new.wrapping_offset(run.len_bytes.cast_signed());
        let next = map.index.runs.get(index.saturating_add(1));
        if next.is_some_and(|next| (next.old, next.new) == (old_end, new_end)) {
            continue;
        }
        for (side, image, start, end, targets) in
            [(Side::Old, map.old, run.old, old_end, &targets.old), (Side::New, map.new, run.new, new_end, &targets.new)]
        {
            // Stubs' slots are judged one by one, and code's literals by hand-written code alone.
            let exempt = image.section_at(start).is_some_and(|s| s.role != Role::Data);
            if !exempt && !is_boundary(image, start, end, targets) {
                return Err(Invalid::RunEnd { side, at: end });
            }
        }
    }
    Ok(())
}

fn is_boundary(image: &Image<'_>, start: Va, end: Va, targets: &[Va]) -> bool {
    let Some(section) = image.section_at(start) else { return false };
    let limit = section.range.end();
    end == limit || targets.binary_search(&end).is_ok() || follows_string(image, start, end, targets) || {
        let next = targets.get(targets.partition_point(|t| *t < end)).copied().unwrap_or(limit).min(limit);
        is_padding(image, end, next)
    }
}

/// `end` follows the NUL (and perhaps more of them) of text that starts where something refers to.
fn follows_string(image: &Image<'_>, run: Va, end: Va, targets: &[Va]) -> bool {
    let start = targets.partition_point(|t| *t < end).checked_sub(1).and_then(|i| targets.get(i));
    let start = start.copied().unwrap_or(run).max(run);
    let Some(bytes) = VaRange::try_from((start, end)).ok().and_then(|r| image.bytes(r)) else { return false };
    let constant = image.section_at(start).is_some_and(Section::is_constant);
    let Some((0, text)) = bytes.split_last() else { return false };
    constant && text.iter().all(|b| matches!(b, 0 | b'\t'..=b'\r' | 0x1b | b' '..=b'~' | 0x80..))
}

/// Zeros that the alignment of the thing at `next` explains.
fn is_padding(image: &Image<'_>, from: Va, next: Va) -> bool {
    let Ok(gap) = VaRange::try_from((from, next)) else { return false };
    let explained = [2_u64, 4, 8, 16, 32, 64].iter().any(|k| next.raw().is_multiple_of(*k) && gap.len_bytes() < *k);
    let zero = image.section_at(from).is_some_and(Section::is_nobits)
        || image.bytes(gap).is_some_and(|bytes| bytes.iter().all(|b| *b == 0));
    explained && zero
}
