//! Whether two functions with equal masked bytes really are the same.
//!
//! Equal bytes can hide a change of target: every reference is followed on both sides, and
//! what it leads to has to be the same thing. A doubt is a mismatch.

mod jump_table;
mod padding;
mod same;

use crate::content::ContentDifference;
use crate::data::DataMap;
use crate::only_read::OnlyRead;
use crate::pair::Pairing;
use crate::side::{Side, namesakes};
use crate::words::WordRun;
use salve_code::{CodeSummary, LARGEST_UNCLEAR_BYTES, Reference};
use salve_elf::{FunctionSource, SectionRole, Symbol};
use salve_patch::{DataRun, JumpTable};

/// What the fixpoint knows about each function of the new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Equal code, every reference corresponds (as far as is known yet).
    Identical,
    /// Equal code, every reference corresponds, but read-only contents differ.
    Content,
    /// Something else, or unpaired.
    Changed,
}

/// One reference that keeps a pair from being identical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// It leads to something else.
    Target,
    /// It leads to the corresponding read-only object, whose contents differ.
    Content(usize, ContentDifference),
}

pub(crate) struct Verifier<'v, 'i, 'a> {
    pub(crate) old: &'v Side<'i, 'a>,
    pub(crate) new: &'v Side<'i, 'a>,
    pub(crate) pairing: &'v Pairing,
    pub(crate) classes: &'v [Class],
    pub(crate) data: &'v DataMap,
    pub(crate) only_read: &'v OnlyRead,
}

/// What a check learnt on the way, for the claims.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    pub(crate) runs: Vec<DataRun>,
    pub(crate) tables: Vec<JumpTable>,
    pub(crate) kept: Vec<DataRun>,
    pub(crate) words: Vec<WordRun>,
}

impl Verifier<'_, '_, '_> {
    /// What keeps the pair, whose masked bytes are equal, from being identical.
    pub(crate) fn check(&self, old: usize, new: usize, learnt: &mut Learnt) -> Vec<Mismatch> {
        let mismatches = self.check_as_code(old, new, learnt);
        self.unless_only_read(old, new, mismatches)
    }

    /// What is left of the mismatches of a pair that was taken for code.
    pub(crate) fn unless_only_read(&self, old: usize, new: usize, mismatches: Vec<Mismatch>) -> Vec<Mismatch> {
        if !mismatches.is_empty() && self.is_only_read(old, new) { Vec::new() } else { mismatches }
    }

    /// Equal bytes that may be data, and that nothing does anything to but read.
    fn is_only_read(&self, old: usize, new: usize) -> bool {
        let (here, there) = (undescribed_bytes(self.old, old), undescribed_bytes(self.new, new));
        here.is_some() && here == there && self.only_read.has((self.old, old), (self.new, new))
    }

    /// Checks every reference of the pair, whatever may be code being taken for it.
    pub(crate) fn check_as_code(&self, old: usize, new: usize, learnt: &mut Learnt) -> Vec<Mismatch> {
        let (Some(a), Some(b)) = (self.old.code.get(old), self.new.code.get(new)) else {
            return vec![Mismatch::Target];
        };
        if !(a.decoded && b.decoded) {
            let range = self.new.image.functions().get(new).map(|f| f.range);
            if range.is_none_or(|range| range.len_bytes() > LARGEST_UNCLEAR_BYTES) {
                return vec![Mismatch::Target];
            }
            let same = self.check_all_ways((old, a), (new, b), learnt);
            return same.is_none().then_some(Mismatch::Target).into_iter().collect();
        }
        if a.references.len() != b.references.len() {
            return vec![Mismatch::Target];
        }
        let mut mismatches = Vec::new();
        for (index, (x, y)) in a.references.iter().zip(&b.references).enumerate() {
            let fields = |r: &Reference| (r.at, r.field, r.kind);
            if fields(x) != fields(y) {
                return vec![Mismatch::Target];
            }
            let indirect = a.indirect_jump && b.indirect_jump;
            match self.same_target(x, y, indirect.then_some(new), learnt) {
                Ok(true) => {}
                Ok(false) => mismatches.push(Mismatch::Target),
                Err(difference) => mismatches.push(Mismatch::Content(index, difference)),
            }
        }
        mismatches
    }

    /// Checks what equal bytes refer to of which nobody knows where instructions begin, nor
    /// whether they are distances.
    fn check_all_ways(
        &self,
        (old, a): (usize, &CodeSummary),
        (new, b): (usize, &CodeSummary),
        learnt: &mut Learnt,
    ) -> Option<()> {
        if a.decoded != b.decoded || a.references.len() != b.references.len() {
            return None;
        }
        for (x, y) in a.references.iter().zip(&b.references) {
            let same = (x.at, x.field, x.kind) == (y.at, y.field, y.kind);
            self.same_target(x, y, None, learnt).ok().filter(|target| *target && same)?;
        }
        let range = |side: &Side<'_, '_>, index: usize| side.image.functions().get(index).map(|f| f.range);
        let (here, there) = (range(self.old, old)?, range(self.new, new)?);
        let is_code = |side: &Side<'_, '_>, va| side.role_at(va) == Some(SectionRole::Code);
        let words = self.new.image.read(there)?.chunks_exact(4).zip((0_i64..).step_by(4));
        for (word, at) in words {
            let distance = i64::from(i32::from_le_bytes(*word.first_chunk::<4>()?));
            // From where the stretch begins, or from where the distance stands.
            for base in [0, at] {
                let from = base.wrapping_add(distance);
                let (x, y) = (here.start().wrapping_offset(from), there.start().wrapping_offset(from));
                let inside = here.contains(x) && there.contains(y);
                let leads_out = distance != 0 && !inside && (is_code(self.old, x) || is_code(self.new, y));
                if leads_out && self.same_address(x, y, None, learnt) != Ok(true) {
                    return None;
                }
            }
        }
        Some(())
    }

    /// Exported read-only objects, which other images may refer to.
    pub(crate) fn learn_exports(&self, learnt: &mut Learnt) {
        let read_only = |side: &Side<'_, '_>, symbol: &Symbol<'_>| {
            symbol.defined && side.role_at(symbol.value) == Some(SectionRole::ReadOnlyData)
        };
        for (old, new) in namesakes(self.old, self.new, read_only) {
            // A difference is no mismatch of code; the validator finds what needs it.
            let _same = self.same_data(old, new, None, learnt);
        }
    }
}

/// The bytes of what may be data: parts, and stretches, that nothing describes.
fn undescribed_bytes<'a>(side: &Side<'_, 'a>, index: usize) -> Option<&'a [u8]> {
    let function = side.image.functions().get(index)?;
    let undescribed = match function.source {
        FunctionSource::Piece => true,
        FunctionSource::Gap => !side.code.get(index)?.decoded,
        FunctionSource::Fde | FunctionSource::Symbol => false,
    };
    if undescribed { side.image.read(function.range) } else { None }
}
