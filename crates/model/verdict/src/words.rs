//! Tables that code which stays reads, changed where they lie.
//!
//! `.data.rel.ro` is read-only once the loader is done with it, and in the same place and
//! of the same size in both images its words can become the new ones (psABI: an aligned
//! word is written whole). What was made of the old ones stays, so a person looks at it.
//! Of two words that belong together a reader might have one old and one new, so code that
//! refers to them may not run meanwhile; who was handed a pointer to a row is not known.

use crate::carry::Carried;
use crate::tables::is_constant;
use salve_elf::{ImageKind, Va, VaRange};
use salve_match::{ImageDiff, WordRun};
use salve_patch::{DataRun, Evidence};
use std::collections::BTreeSet;

const WORD_BYTES: u64 = 8;

/// What is written in place, and what that rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// `(old, new)`, by old address.
    pub words: Vec<(Va, Va)>,
    /// Runs that are the same once they are written.
    pub runs: Vec<DataRun>,
    /// Functions of the old image that stay and refer to them.
    pub readers: Vec<usize>,
}

impl Words {
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether the word that holds `new` is written.
    pub fn writes(&self, new: Va) -> bool {
        self.words.iter().any(|(_, word)| new.wrapping_distance_from(*word).cast_unsigned() < WORD_BYTES)
    }
}

/// Places in the new image whose old contents stay, because they name the build.
#[derive(Debug, Default)]
pub(crate) struct Staying {
    /// Slots that point to texts.
    pub(crate) pointers: BTreeSet<Va>,
    /// Texts within a table.
    pub(crate) texts: BTreeSet<Va>,
}

/// What is changed in place; of the differences those that it makes, and those that it does not.
pub(crate) fn in_place(
    diff: &ImageDiff<'_, '_>,
    carried: &Carried,
    differing: Vec<Evidence>,
    staying: &Staying,
) -> (Words, Vec<Evidence>, Vec<Evidence>) {
    let constant = [&diff.old, &diff.new].iter().all(|side| is_constant(side))
        && diff.new.image.kind() == ImageKind::PositionIndependent
        && diff.old.image.kind() == ImageKind::PositionIndependent;
    let mut words = Words::default();
    for found in diff.word_runs.iter().filter(|_| constant) {
        let pointer_stays = |new: &Va| staying.pointers.contains(new);
        let written: Vec<(Va, Va)> = found.words.iter().copied().filter(|(_, new)| !pointer_stays(new)).collect();
        // Where a text within it stays, where that ends is not known here.
        let text_stays = staying.texts.iter().any(|text| holds(found, *text));
        if !text_stays && !written.is_empty() && !written.iter().any(|(old, new)| is_exported(diff, *old, *new)) {
            words.words.extend(written);
            words.runs.push(found.run);
        }
    }
    words.words.sort_unstable();
    words.readers = readers(diff, carried, &words.words);
    let written = |evidence: &Evidence| evidence.new_va.is_some_and(|new| words.writes(new));
    let (inside, outside) = differing.into_iter().partition(written);
    (words, inside, outside)
}

/// Another image may have a copy of what has a name (`R_X86_64_COPY`, psABI §4.4.1), or its
/// own instead, and then nobody reads this one.
fn is_exported(diff: &ImageDiff<'_, '_>, old: Va, new: Va) -> bool {
    [(&diff.old, old), (&diff.new, new)].into_iter().any(|(side, word)| {
        side.image.symbols().iter().filter(|symbol| symbol.defined).any(|symbol| {
            let named = VaRange::new(symbol.value, symbol.len_bytes.max(WORD_BYTES));
            VaRange::new(word, WORD_BYTES).zip(named).is_some_and(|(word, named)| word.overlaps(named))
        })
    })
}

fn holds(found: &WordRun, at: Va) -> bool {
    VaRange::new(found.run.new, found.run.len_bytes).is_some_and(|run| run.contains(at))
}

/// Code that stays and refers to what reaches up to one of the words: to the last place
/// before it that such code refers to, or behind that.
fn readers(diff: &ImageDiff<'_, '_>, carried: &Carried, words: &[(Va, Va)]) -> Vec<usize> {
    let old = &diff.old;
    let replaced: BTreeSet<usize> =
        carried.pairs.iter().map(|pair| pair.old).chain(diff.gone.iter().copied()).collect();
    let staying = old.code.iter().enumerate().filter(|(function, _)| !replaced.contains(function));
    let mut targets: Vec<(Va, usize)> = staying
        .flat_map(|(function, code)| code.references.iter().map(move |reference| (reference.target, function)))
        .collect();
    targets.sort_unstable();
    let mut readers = BTreeSet::new();
    for (word, _) in words {
        let Some(section) = old.image.section_at(*word).map(|section| section.range) else { continue };
        let until = targets.partition_point(|(target, _)| *target < word.wrapping_offset(8));
        let before = targets.partition_point(|(target, _)| target <= word);
        let first = before.checked_sub(1).and_then(|last| targets.get(last)).map_or(*word, |(target, _)| *target);
        let from = targets.partition_point(|(target, _)| *target < first.max(section.start()));
        readers.extend(targets.get(from..until).unwrap_or_default().iter().map(|(_, function)| *function));
    }
    readers.into_iter().collect()
}
