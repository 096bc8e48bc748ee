//! Where a detour may be written.

use salve_elf::{Image, Va, VaRange, leading_padding};
use salve_match::{ImageDiff, Side};
use salve_patch::Detour;
use std::collections::BTreeSet;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// `e9 rel32`
const JUMP_BYTES: u64 = 5;

/// Every address in code that a branch of the old image leads to, sorted.
pub(crate) struct BranchTargets(BTreeSet<Va>);

impl BranchTargets {
    /// Branches inside the given functions and from anywhere into their insides.
    pub(crate) fn into(side: &Side<'_, '_>, functions: &[VaRange]) -> Self {
        let mut targets = BTreeSet::new();
        for range in functions {
            for instruction in salve_code::decode(side.image, *range).into_iter().flatten() {
                if instruction.op0_kind() == iced_x86::OpKind::NearBranch64 {
                    targets.insert(Va::new(instruction.near_branch64()));
                }
            }
        }
        for reference in side.code.iter().flat_map(|c| &c.references) {
            targets.insert(reference.target);
        }
        Self(targets)
    }

    fn any_in(&self, range: VaRange) -> bool {
        self.0.range(range.start()..range.end()).next().is_some()
    }
}

/// The end of a function and of the padding behind it, which nothing executes.
fn room_end(image: &Image<'_>, function: VaRange) -> Va {
    let functions = image.functions();
    let next = functions.get(functions.partition_point(|f| f.range.start() < function.end()));
    let section_end = image.section_at(function.start()).map_or(function.end(), |section| section.range.end());
    let gap_end = next.map_or(section_end, |next| section_end.min(next.range.start()));
    let padding = VaRange::try_from((function.end(), gap_end)).ok().and_then(|gap| image.read(gap));
    let len = u64::try_from(padding.map_or(0, leading_padding)).unwrap_or(0);
    function.end().checked_add(len).unwrap_or(function.end())
}

/// The detour of one function, or why there is no room for it.
pub(crate) fn detour(
    diff: &ImageDiff<'_, '_>,
    targets: &BranchTargets,
    old: usize,
    new: usize,
) -> Result<Detour, String> {
    let functions = (diff.old.image.functions().get(old), diff.new.image.functions().get(new));
    let (Some(f), Some(g)) = functions else { return Err("no such function".to_owned()) };
    let entry = f.range.start();
    let starts_with_endbr =
        VaRange::new(entry, 4).and_then(|r| diff.old.image.read(r)).is_some_and(|bytes| bytes == ENDBR64);
    let at = if starts_with_endbr { entry.checked_add(4) } else { Some(entry) }.ok_or("address overflow")?;
    let range = VaRange::new(at, JUMP_BYTES).ok_or("address overflow")?;
    if at >= f.range.end() || range.end() > room_end(diff.old.image, f.range) {
        return Err(format!(
            "the function has {} bytes, the jump needs {JUMP_BYTES}, and no padding follows",
            f.range.len_bytes()
        ));
    }
    let behind_first = VaRange::new(at.checked_add(1).ok_or("address overflow")?, JUMP_BYTES.saturating_sub(1));
    if behind_first.is_none_or(|inside| targets.any_in(inside)) {
        return Err("a branch leads into the bytes that the jump would overwrite".to_owned());
    }
    let expected = diff.old.image.read(range).ok_or("no bytes")?.to_vec();
    Ok(Detour { function: g.display_name(), old_entry: entry, old_va: at, expected, new_target: g.range.start() })
}
