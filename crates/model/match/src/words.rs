//! Words of tables that differ, where the tables themselves lie in the same place.
//!
//! A table in `.data.rel.ro` is filled by the loader and made read-only, so that until it
//! is written to by force each of its words is what the two files say. Where a run of it
//! has the same length in both images and all that differs are whole aligned words, the
//! old table can become the new one where it lies.

use crate::verify::{Learnt, Verifier};
use salve_elf::{Binding, Image, SectionRole, Va, VaRange};
use salve_patch::DataRun;

/// What the loader fills and makes read-only.
pub const TABLES: &str = ".data.rel.ro";
const WORD_BYTES: u64 = 8;

/// A run of a table, and its words that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordRun {
    pub run: DataRun,
    /// `(old, new)`, by address.
    pub words: Vec<(Va, Va)>,
}

/// The words of a run that differ; `None` where none does, or something else does.
pub(crate) fn differing(verifier: &Verifier<'_, '_, '_>, run: DataRun) -> Option<WordRun> {
    let (old, new) = (verifier.old.image, verifier.new.image);
    let table = |image: &Image<'_>, at: Va| {
        image.section_at(at).is_some_and(|s| s.name == TABLES && s.role == SectionRole::RelroData && s.bytes.is_some())
    };
    let aligned = run.new.wrapping_distance_from(run.old).cast_unsigned().is_multiple_of(WORD_BYTES);
    if !aligned || !table(old, run.old) || !table(new, run.new) {
        return None;
    }
    let mut words = Vec::new();
    let end = run.new.checked_add(run.len_bytes)?;
    let mut at = run.new.page_floor(WORD_BYTES);
    while at < end {
        let there = run.old.wrapping_offset(at.wrapping_distance_from(run.new));
        if !is_same(verifier, there, at)? {
            // A word of which only a part is in the run is judged by nobody.
            let whole = at >= run.new && at.checked_add(WORD_BYTES)? <= end;
            words.push(whole.then_some((there, at))?);
        }
        at = at.checked_add(WORD_BYTES)?;
    }
    (!words.is_empty()).then_some(WordRun { run, words })
}

/// What a word holds once the loader is done with it.
enum Held<'a> {
    Number(&'a [u8]),
    Bound(Binding),
}

/// Whether two words hold the same; `None` where they hold no plain number or address.
fn is_same(verifier: &Verifier<'_, '_, '_>, old: Va, new: Va) -> Option<bool> {
    let plain = |binding| matches!(binding, Binding::Relative { .. });
    match (held(verifier.old.image, old)?, held(verifier.new.image, new)?) {
        (Held::Number(a), Held::Number(b)) => Some(a == b),
        (Held::Bound(a), Held::Bound(b)) => match verifier.same_binding(a, b, &mut Learnt::default()) {
            Ok(true) => Some(true),
            Ok(false) | Err(_) => (plain(a) && plain(b)).then_some(false),
        },
        (Held::Bound(one), Held::Number(_)) | (Held::Number(_), Held::Bound(one)) => plain(one).then_some(false),
    }
}

/// `None` where the loader fills a part of it.
fn held<'a>(image: &Image<'a>, at: Va) -> Option<Held<'a>> {
    let around = VaRange::try_from((at.wrapping_offset(-7), at.wrapping_offset(8))).ok()?;
    match image.relocs_in(around) {
        [] => Some(Held::Number(image.read(VaRange::new(at, WORD_BYTES)?)?)),
        [reloc] if reloc.at == at => Some(Held::Bound(reloc.binding)),
        _ => None,
    }
}
