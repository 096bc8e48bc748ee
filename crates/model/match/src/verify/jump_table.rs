//! Tables of jumps: distances from the table itself, which differ wherever code moved.

use super::Verifier;
use crate::side::{Place, Side};
use salve_elf::{Va, VaRange};
use salve_patch::JumpTable;

impl Verifier<'_, '_, '_> {
    /// Reads distances from both tables while they lead to corresponding code;
    /// what follows to the next object has to be equal. The table, and the bytes compared.
    pub(super) fn jump_table(&self, old: Va, new: Va, owner: usize) -> Option<(JumpTable, u64)> {
        let (a, b) = (up_to_anchor(self.old, old)?, up_to_anchor(self.new, new)?);
        let owner = self.new.image.functions().get(owner)?.range;
        let entries = self.leading_entries((old, a), (new, b), owner)?;
        let read_bytes = usize::try_from(entries).ok()?.checked_mul(4)?;
        let same_rest = a.iter().zip(b).skip(read_bytes).all(|(x, y)| x == y);
        let table = JumpTable { new, old, entries, new_owner: owner.start() };
        (entries > 0 && same_rest).then_some((table, u64::try_from(a.len().min(b.len())).ok()?))
    }

    /// How many distances lead to corresponding code, from the first on.
    fn leading_entries(&self, (old, a): (Va, &[u8]), (new, b): (Va, &[u8]), owner: VaRange) -> Option<u32> {
        let mut entries = 0_u32;
        for (x, y) in a.chunks_exact(4).zip(b.chunks_exact(4)) {
            let distance = |c: &[u8]| c.first_chunk::<4>().map(|c| i64::from(i32::from_le_bytes(*c)));
            let (to_old, to_new) = (old.wrapping_offset(distance(x)?), new.wrapping_offset(distance(y)?));
            let (Place::Code { function: f, offset: p }, Place::Code { function: g, offset: q }) =
                (self.old.place(to_old), self.new.place(to_new))
            else {
                break;
            };
            if !self.same_code(f, p, g, q) {
                break;
            }
            // The first entry has to lead into the function itself: constants do not.
            if entries == 0 && !owner.contains(to_new) {
                return None;
            }
            entries = entries.saturating_add(1);
        }
        Some(entries)
    }
}

/// What lies between an address and the next that something refers to.
fn up_to_anchor<'a>(side: &Side<'_, 'a>, va: Va) -> Option<&'a [u8]> {
    let len_bytes = side.next_anchor(va)?.raw().checked_sub(va.raw())?;
    VaRange::new(va, len_bytes).and_then(|range| side.image.read(range))
}
