//! Padding between functions, where references that are none may seem to lead.

use super::{Class, Verifier};
use crate::side::Side;
use salve_elf::{SectionRole, Va, VaRange};

impl Verifier<'_, '_, '_> {
    /// The same byte of equal padding between the same two functions: whoever is led there comes
    /// to the entry of the second, whoever reads there reads the same bytes, which may be the
    /// zeros at an end of a table.
    pub(super) fn same_padding(&self, old: Va, new: Va) -> bool {
        let (Some(old), Some(new)) = (Padding::around(self.old, old), Padding::around(self.new, new)) else {
            return false;
        };
        let stays = |n: usize| self.classes.get(n).is_some_and(|class| *class != Class::Changed);
        let paired = |old: usize, new: usize| self.pairing.old_of(new) == Some(old);
        paired(old.before, new.before)
            && paired(old.behind, new.behind)
            && (stays(new.before) || stays(new.behind))
            && (old.at, old.bytes) == (new.at, new.bytes)
    }
}

/// What lies between two functions, and a place in it.
struct Padding<'a> {
    before: usize,
    behind: usize,
    at: i64,
    bytes: &'a [u8],
}

impl<'a> Padding<'a> {
    fn around(side: &Side<'_, 'a>, va: Va) -> Option<Self> {
        let section = side.image.section_at(va).filter(|section| section.role == SectionRole::Code)?;
        let functions = side.image.functions();
        let behind = functions.partition_point(|f| f.range.start() <= va);
        let before = behind.checked_sub(1)?;
        let padding = (functions.get(before)?.range.end(), functions.get(behind)?.range.start());
        let padding = VaRange::try_from(padding).ok().filter(|padding| padding.contains(va))?;
        let bytes = side.image.read(padding).filter(|_| section.range.contains(padding.end()))?;
        Some(Self { before, behind, at: va.wrapping_distance_from(padding.start()), bytes })
    }
}
