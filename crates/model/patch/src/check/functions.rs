//! Replaced functions: each is somewhere, and no two share a byte.

use super::payload::contains;
use super::{Fault, is_name};
use crate::{Access, ReplacedFunction, Segment, layout};
use salve_elf::{Va, VaRange};

pub(super) fn check(replaced: &[ReplacedFunction], segments: &[Segment]) -> Result<(), Fault> {
    let executable = |range: VaRange| {
        layout::segment_of(segments, range.start())
            .is_some_and(|(_, segment)| segment.access == Access::ReadExecute && contains(segment, range))
    };
    for function in replaced {
        if !is_name(&function.name) {
            return Err(Fault::Name { what: "function name" });
        }
        if function.old_ranges.is_empty() && function.new_ranges.is_empty() {
            return Err(Fault::FunctionNowhere { name: function.name.clone() });
        }
        if let Some(&range) = function.old_ranges.iter().chain(&function.new_ranges).find(|range| range.is_empty()) {
            return Err(Fault::FunctionEmpty { name: function.name.clone(), range });
        }
        if let Some(&range) = function.new_ranges.iter().find(|range| !executable(**range)) {
            return Err(Fault::FunctionOutside { name: function.name.clone(), range });
        }
    }
    disjoint(&sorted(replaced, |function| &function.old_ranges))?;
    disjoint(&sorted(replaced, |function| &function.new_ranges))
}

/// The ranges of all functions, sorted by address.
pub(super) fn sorted(replaced: &[ReplacedFunction], side: impl Fn(&ReplacedFunction) -> &Vec<VaRange>) -> Vec<VaRange> {
    let mut ranges: Vec<VaRange> = replaced.iter().flat_map(|function| side(function).iter().copied()).collect();
    ranges.sort_unstable();
    ranges
}

fn disjoint(sorted: &[VaRange]) -> Result<(), Fault> {
    let mut end = Va::new(0);
    for &range in sorted {
        if range.start() < end {
            return Err(Fault::FunctionOverlap { range });
        }
        end = range.end();
    }
    Ok(())
}

/// The one of sorted, disjoint ranges that holds `va`.
pub(super) fn holding(sorted: &[VaRange], va: Va) -> Option<VaRange> {
    let after = sorted.partition_point(|range| range.start() <= va);
    sorted.get(after.checked_sub(1)?).copied().filter(|range| range.contains(va))
}
