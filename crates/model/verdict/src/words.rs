//! Tables that code which stays reads, changed where they lie.
//!
//! `.data.rel.ro` is read-only once the loader is done with it, and in the same place and
//! of the same size in both images its words can become the new ones. What was made of the
//! old ones stays, so a person looks at it.
//!
//! A text may become another wherever a table points to one. A number may be the size, the
//! count or the place of something: it may change only where no data of the image have
//! another size. A function in a table is a role, and stays.
//!
//! Of two words that belong together a reader might have one old and one new. Where a table
//! begins nobody says, so whoever stays and refers to anything beside it may not run
//! meanwhile, nor the parts of it that lie elsewhere; who was handed a pointer to a row is
//! not known.

use crate::carry::Carried;
use crate::distances;
use crate::tables::is_constant;
use salve_code::ReferenceKind;
use salve_elf::{Binding, ImageKind, SectionRole, Va, VaRange};
use salve_match::{DataChangeKind, ImageDiff, Side, TABLES, WordRun, text_at};
use salve_patch::{DataRun, Evidence, MAX_WORDS};
use std::cell::LazyCell;
use std::collections::BTreeSet;

const WORD_BYTES: u64 = 8;
/// How far before its section code may count from: a table whose rows are numbered from one
/// is referred to before its first.
const BEFORE_BYTES: i64 = 256;

/// What is written in place, and what that rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// `(old, new)`, by old address.
    pub words: Vec<(Va, Va)>,
    /// Runs that are the same once they are written.
    pub runs: Vec<DataRun>,
    /// Functions of the old image that stay and may read them.
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

/// What is changed in place, with evidence; and of the differences those that it does not make.
pub(crate) fn in_place(
    diff: &ImageDiff<'_, '_>,
    carried: &Carried,
    differing: Vec<Evidence>,
    staying: &Staying,
) -> (Words, Vec<Evidence>, Vec<Evidence>) {
    let constant = [&diff.old, &diff.new]
        .iter()
        .all(|side| is_constant(side) && side.image.kind() == ImageKind::PositionIndependent);
    let resized = diff.data_changes.iter().any(|change| matches!(change.kind, DataChangeKind::Resized { .. }));
    let mut words = Words::default();
    let distances = LazyCell::new(|| distances::Words::of(diff));
    for found in diff.word_runs.iter().filter(|_| constant) {
        let pointer_stays = |new: &Va| staying.pointers.contains(new);
        let written: Vec<(Va, Va)> = found.words.iter().copied().filter(|(_, new)| !pointer_stays(new)).collect();
        // Where a text within it stays, where that ends is not known here.
        let text_stays = staying.texts.iter().any(|text| holds(found, *text));
        let fits = |(old, new): &(Va, Va)| {
            !distances.hold_distance(*old, *new)
                && match (Held::of(&diff.old, *old), Held::of(&diff.new, *new)) {
                    (Held::Other(_), _) | (_, Held::Other(_)) => false,
                    (before, after) if resized => before.is_text_or_none() && after.is_text_or_none(),
                    _ => true,
                }
        };
        let free = !written.iter().any(|(old, new)| is_exported(&diff.old, *old) || is_exported(&diff.new, *new));
        if !text_stays && !written.is_empty() && free && written.iter().all(fits) {
            words.words.extend(written);
            words.runs.push(found.run);
        }
    }
    if words.words.len() > MAX_WORDS {
        words = Words::default();
    }
    words.words.sort_unstable();
    if !words.is_empty() {
        words.readers = readers(diff, carried);
    }
    let evidence = words.words.iter().map(|(old, new)| Evidence {
        function: None,
        old_va: Some(*old),
        new_va: Some(*new),
        seen: format!("{}, before {}", Held::of(&diff.new, *new).words(), Held::of(&diff.old, *old).words()),
    });
    let readers = words.readers.iter().filter_map(|reader| diff.old.image.functions().get(*reader));
    let readers = readers.map(|function| Evidence {
        function: Some(function.display_name()),
        old_va: Some(function.range.start()),
        new_va: None,
        seen: "may read it, and does not run while it changes".to_owned(),
    });
    let evidence = evidence.chain(readers).collect();
    let outside = differing.into_iter().filter(|one| !one.new_va.is_some_and(|new| words.writes(new))).collect();
    (words, evidence, outside)
}

/// What a word holds.
enum Held {
    Number(u64),
    Text(String),
    Data(Va),
    /// Code, or what the loader finds out.
    Other(Va),
}

impl Held {
    fn of(side: &Side<'_, '_>, at: Va) -> Self {
        let Some(binding) = side.image.reloc_at(at).map(|reloc| reloc.binding) else {
            let bytes = VaRange::new(at, WORD_BYTES).and_then(|word| side.image.read(word));
            let number = bytes.and_then(|bytes| bytes.first_chunk()).map(|bytes| u64::from_le_bytes(*bytes));
            return number.map_or(Self::Other(at), Self::Number);
        };
        let Binding::Relative { target } = binding else { return Self::Other(at) };
        let role = side.image.section_at(target).map(|section| section.role);
        match (role, text_at(side, target, 0)) {
            (Some(SectionRole::ReadOnlyData), Some(text)) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            (Some(SectionRole::ReadOnlyData | SectionRole::RelroData | SectionRole::WritableData), _) => {
                Self::Data(target)
            }
            _ => Self::Other(target),
        }
    }

    fn is_text_or_none(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Number(0))
    }

    fn words(&self) -> String {
        match self {
            Self::Number(number) => format!("the number {number:#x}"),
            Self::Text(text) => format!("the text {text:?}"),
            Self::Data(at) => format!("the address {at}"),
            Self::Other(at) => format!("something else at {at}"),
        }
    }
}

/// Another image may have a copy of what has a name (`R_X86_64_COPY`, psABI §4.4.1), or its
/// own instead, and then nobody reads this one.
fn is_exported(side: &Side<'_, '_>, word: Va) -> bool {
    side.image.symbols().iter().filter(|symbol| symbol.defined).any(|symbol| {
        let behind = side
            .next_anchor(symbol.value)
            .map_or(WORD_BYTES, |next| next.wrapping_distance_from(symbol.value).cast_unsigned());
        let len_bytes = if symbol.len_bytes == 0 { behind } else { symbol.len_bytes };
        let named = VaRange::new(symbol.value, len_bytes);
        VaRange::new(word, WORD_BYTES).zip(named).is_some_and(|(word, named)| word.overlaps(named))
    })
}

fn holds(found: &WordRun, at: Va) -> bool {
    VaRange::new(found.run.new, found.run.len_bytes).is_some_and(|run| run.contains(at))
}

/// Code that stays and refers to the tables, with those parts of it that lie elsewhere: they
/// have the row's address in a register.
fn readers(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Vec<usize> {
    let old = &diff.old;
    let Some(tables) = old.image.section_named(TABLES).map(|section| section.range) else {
        return Vec::new();
    };
    let first = tables.start().wrapping_offset(BEFORE_BYTES.wrapping_neg());
    let replaced: BTreeSet<usize> = carried.pairs.iter().map(|pair| pair.old).collect();
    let reads = |function: &usize| {
        let references = old.code.get(*function).into_iter().flat_map(|code| &code.references);
        references.filter(|r| !is_branch(r.kind)).any(|r| first <= r.target && r.target <= tables.end())
    };
    let mut found: BTreeSet<usize> = (0..old.code.len()).filter(reads).collect();
    let parts = parts(old);
    loop {
        let beside = parts.iter().filter(|(one, other)| found.contains(one) != found.contains(other));
        let more: Vec<usize> = beside.flat_map(|(one, other)| [*one, *other]).collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found.into_iter().filter(|function| !replaced.contains(function)).collect()
}

/// Pairs of which one jumps into the middle of the other, or to its start and nothing calls
/// or names that: what looks like two functions may be one.
fn parts(side: &Side<'_, '_>) -> BTreeSet<(usize, usize)> {
    let start_of = |function: usize| side.image.functions().get(function).map(|f| f.range.start());
    let references =
        || side.code.iter().enumerate().flat_map(|(from, code)| code.references.iter().map(move |r| (from, r)));
    let called = references().filter(|(_, r)| r.kind != ReferenceKind::Jump).map(|(_, r)| r.target);
    let held = side.image.relocs().iter().filter_map(|reloc| match reloc.binding {
        Binding::Relative { target } => Some(target),
        _ => None,
    });
    let named = side.image.symbols().iter().filter(|symbol| symbol.defined).map(|symbol| symbol.value);
    let entries: BTreeSet<Va> = called.chain(held).chain(named).collect();
    references()
        .filter(|(_, reference)| reference.kind == ReferenceKind::Jump)
        .filter_map(|(from, reference)| Some((from, side.image.function_index_at(reference.target)?, reference.target)))
        .filter(|(from, to, target)| from != to && (start_of(*to) != Some(*target) || !entries.contains(target)))
        .map(|(from, to, _)| (from, to))
        .collect()
}

fn is_branch(kind: ReferenceKind) -> bool {
    matches!(kind, ReferenceKind::Call | ReferenceKind::Jump)
}
