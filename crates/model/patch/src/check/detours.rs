//! Detours: jumps from the entries of replaced functions to new ones.

use super::functions::{holding, sorted};
use super::{Fault, is_name};
use crate::{Detour, ReplacedFunction};
use salve_elf::{Va, VaRange};

/// The jump that a detour writes: `e9 rel32`.
pub(crate) const JUMP_BYTES: u64 = 5;
/// `endbr64`, which a detour may leave standing.
const ENDBR_BYTES: u64 = 4;

/// A detour begins in a replaced function's old code and overwrites no other replaced
/// function. It may reach beyond a function that is shorter than the jump: the transition
/// looks for instruction pointers in whatever is overwritten, and that what lies behind is
/// padding is proven against the image before a patch is written.
pub(super) fn check(detours: &[Detour], replaced: &[ReplacedFunction]) -> Result<(), Fault> {
    let old = sorted(replaced, |function| &function.old_ranges);
    let new = sorted(replaced, |function| &function.new_ranges);
    let mut end = Va::new(0);
    for detour in detours {
        let old_va = detour.old_va;
        if !is_name(&detour.function) {
            return Err(Fault::Name { what: "function name of a detour" });
        }
        let jump = VaRange::new(old_va, JUMP_BYTES).ok_or(Fault::DetourOutsideFunction { old_va })?;
        if old_va < end {
            return Err(Fault::DetourOrder { old_va });
        }
        end = jump.end();
        if detour.expected.len() as u64 != JUMP_BYTES {
            return Err(Fault::DetourLength { old_va, len: detour.expected.len() });
        }
        let skipped = old_va.raw().checked_sub(detour.old_entry.raw());
        if !matches!(skipped, Some(0 | ENDBR_BYTES)) {
            return Err(Fault::DetourEntry { old_va, old_entry: detour.old_entry });
        }
        let next = old.get(old.partition_point(|range| range.start() <= old_va));
        if holding(&old, old_va).is_none() || next.is_some_and(|next| next.start() < jump.end()) {
            return Err(Fault::DetourOutsideFunction { old_va });
        }
        let new_target = detour.new_target;
        if holding(&new, new_target).is_none() {
            return Err(Fault::DetourTarget { old_va, new_target });
        }
    }
    Ok(())
}
