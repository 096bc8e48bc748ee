//! Whether an address of one image is the same thing as an address of the other.

use super::{Class, Learnt, Verifier};
use crate::content::{self, ContentDifference};
use crate::data::Correspondence;
use crate::side::{Place, Side};
use salve_code::{Reference, ReferenceKind};
use salve_elf::{Binding, SectionRole, Va, VaRange};
use salve_patch::DataRun;

impl Verifier<'_, '_, '_> {
    /// The same of what two instructions that differ in nothing else refer to.
    pub(super) fn same_target(
        &self,
        x: &Reference,
        y: &Reference,
        switch_of: Option<usize>,
        learnt: &mut Learnt,
    ) -> Result<bool, ContentDifference> {
        let ends = x.kind == ReferenceKind::Address && self.same_end(x.target, y.target);
        if ends { Ok(true) } else { self.same_address(x.target, y.target, switch_of, learnt) }
    }

    /// A linker's symbol for the end of a section may be aligned up, and is the start of the next
    /// one in one image and in none in the other.
    fn same_end(&self, old: Va, new: Va) -> bool {
        if self.old.image.section_at(old).is_some() && self.new.image.section_at(new).is_some() {
            return false;
        }
        let ends = section_ending(self.old, old).zip(section_ending(self.new, new));
        ends.is_some_and(|((a, i), (b, j))| a == b && (i == j || i == 1 || j == 1))
    }

    /// Whether the two addresses are the same thing. `Err` for corresponding
    /// read-only objects with other contents.
    pub(crate) fn same_address(
        &self,
        old: Va,
        new: Va,
        switch_of: Option<usize>,
        learnt: &mut Learnt,
    ) -> Result<bool, ContentDifference> {
        match (self.old.place(old), self.new.place(new)) {
            (Place::Import(a), Place::Import(b)) => Ok(a == b),
            (Place::Code { function: f, offset: p }, Place::Code { function: g, offset: q }) => {
                Ok(self.same_code(f, p, g, q))
            }
            (Place::Slot(a), Place::Slot(b)) => self.same_binding(a, b, learnt),
            (Place::Data { .. }, Place::Data { .. }) => self.same_data(old, new, switch_of, learnt),
            (Place::SectionEnd { section: a }, Place::SectionEnd { section: b }) => {
                let name = |side: &Side<'_, '_>, i: usize| side.image.sections().get(i).map(|s| s.name.to_owned());
                Ok(name(self.old, a) == name(self.new, b))
            }
            (Place::Other, Place::Other) => Ok(self.same_linker_made(old, new) || self.same_padding(old, new)),
            _different_kinds => Ok(false),
        }
    }

    pub(super) fn same_code(&self, f: usize, p: u64, g: usize, q: u64) -> bool {
        let stable = self.classes.get(g).is_some_and(|c| *c != Class::Changed);
        self.pairing.old_of(g) == Some(f) && p == q && (q == 0 || stable)
    }

    pub(crate) fn same_binding(&self, a: Binding, b: Binding, learnt: &mut Learnt) -> Result<bool, ContentDifference> {
        match (a, b) {
            (Binding::Relative { target: old }, Binding::Relative { target: new })
            | (Binding::Indirect { resolver: old }, Binding::Indirect { resolver: new }) => {
                self.same_address(old, new, None, learnt)
            }
            (Binding::Symbol { symbol: x, addend: m, kind: _ }, Binding::Symbol { symbol: y, addend: n, kind: _ }) => {
                Ok(m == n && self.same_symbol(x, y))
            }
            (
                Binding::ThreadLocal { symbol: x, addend: m, r_type: s },
                Binding::ThreadLocal { symbol: y, addend: n, r_type: t },
            ) => Ok(m == n
                && s == t
                && match (x, y) {
                    (None, None) => true,
                    (Some(x), Some(y)) => self.same_symbol(x, y),
                    _ => false,
                }),
            (Binding::Copy { symbol: x }, Binding::Copy { symbol: y }) => Ok(self.same_symbol(x, y)),
            _different_kinds => Ok(false),
        }
    }

    fn same_symbol(&self, old: usize, new: usize) -> bool {
        matches!((self.old.symbol_id(old), self.new.symbol_id(new)), (Some(a), Some(b)) if a == b)
    }

    pub(super) fn same_data(
        &self,
        old: Va,
        new: Va,
        switch_of: Option<usize>,
        learnt: &mut Learnt,
    ) -> Result<bool, ContentDifference> {
        let (Some(s), Some(t)) = (self.old.image.section_at(old), self.new.image.section_at(new)) else {
            return Ok(false);
        };
        if s.name != t.name {
            return Ok(false);
        }
        match t.role {
            SectionRole::ReadOnlyData | SectionRole::Unwind => {
                if let Some(owner) = switch_of
                    && let Some((table, len_bytes)) = self.jump_table(old, new, owner)
                {
                    learnt.tables.push(table);
                    learnt.runs.push(DataRun { new, old, len_bytes });
                    return Ok(true);
                }
                let len_bytes = content::compare(self.old, old, self.new, new)?;
                learnt.runs.push(DataRun { new, old, len_bytes });
                Ok(true)
            }
            SectionRole::Linking => Ok(old.raw().wrapping_sub(s.range.start().raw())
                == new.raw().wrapping_sub(t.range.start().raw())
                && s.bytes == t.bytes),
            SectionRole::RelroData | SectionRole::WritableData | SectionRole::ThreadLocal => {
                Ok(self.data.agrees(new, old) || self.data.old_of(new, self.new) == Some(Correspondence::Between(old)))
            }
            SectionRole::Code | SectionRole::Plt => Ok(false),
        }
    }

    /// Addresses that no object has: file headers, the procedure linkage
    /// table's own first entry, the words that the dynamic linker reserves.
    fn same_linker_made(&self, old: Va, new: Va) -> bool {
        match (self.old.image.section_at(old), self.new.image.section_at(new)) {
            (None, None) => old == new,
            (Some(s), Some(t)) => {
                let offset = |va: Va, range: VaRange| va.raw().wrapping_sub(range.start().raw());
                let reserved = matches!(s.role, SectionRole::Plt | SectionRole::RelroData);
                s.name == t.name && reserved && offset(old, s.range) == offset(new, t.range)
            }
            _ => false,
        }
    }
}

/// The name of the section that ends at `va`, or with nothing behind it right before, and the
/// alignment that led from its end there.
fn section_ending<'a>(side: &Side<'_, 'a>, va: Va) -> Option<(&'a str, u64)> {
    let before = side.image.sections().iter().filter(|s| s.range.start() < va);
    let last = before.max_by_key(|s| s.range.start())?;
    let distance = va.raw().checked_sub(last.range.end().raw())?;
    let align = [1_u64, 8, 16, 32].into_iter().find(|a| distance < *a && va.raw().is_multiple_of(*a))?;
    Some((last.name, align))
}
