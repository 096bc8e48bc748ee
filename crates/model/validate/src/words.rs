//! Words of the old image's tables that change where they lie.
//!
//! Each is a whole aligned word of `.data.rel.ro` in a run that is the same but for such
//! words. It is expected to hold what the loader left there, becomes what the loader would
//! make of the new image's, and no instruction of either image writes there. Code that
//! stays and refers to what may reach up to it is named, because it may not run meanwhile.

use crate::brought::{each_reference, is_table};
use crate::correspond::Correspondence;
use crate::decode::{Base, Decoder, Use};
use crate::image::{Binding, Image, Role, Section};
use crate::index::{Class, Index};
use crate::invalid::{Invalid, Side};
use salve_elf::{Va, VaRange};
use salve_patch::{DataRun, DataWord, Livepatch, RevertPolicy, WordValue};
use std::collections::BTreeSet;

const WORD_BYTES: u64 = 8;
/// As far before the tables code may count from.
const BEFORE_BYTES: i64 = 256;

/// Where the words are in the new image, sorted.
pub(crate) struct Words {
    places: Vec<Va>,
}

impl Words {
    /// The words lie in order, in tables, in runs.
    pub(crate) fn new(
        (old, new): (&Image<'_>, &Image<'_>),
        index: &Index,
        livepatch: &Livepatch,
    ) -> Result<Self, Invalid> {
        let mut places = Vec::new();
        let mut last = None;
        for word in &livepatch.words {
            let old_va = word.old_va;
            let place = Invalid::WordPlace { old_va };
            let run = index.run_at_old(old_va).ok_or(place.clone())?;
            let new_va = run.new.wrapping_offset(old_va.wrapping_distance_from(run.old));
            let whole = index.covers(new_va, WORD_BYTES) && run_holds(run, old_va);
            let aligned = old_va.raw().is_multiple_of(WORD_BYTES) && new_va.raw().is_multiple_of(WORD_BYTES);
            let in_tables = [(old, old_va), (new, new_va)]
                .into_iter()
                .all(|(image, at)| image.section_at(at).is_some_and(|section| is_table(image, section)));
            let exported = is_exported(old, old_va) || is_exported(new, new_va);
            if last >= Some(old_va) || !whole || !aligned || !in_tables || exported || old.fixed || new.fixed {
                return Err(place);
            }
            last = Some(old_va);
            places.push(new_va);
        }
        places.sort_unstable();
        Ok(Self { places })
    }

    /// Whether the byte at `new` is part of a word that becomes the new image's.
    pub(crate) fn hold(&self, new: Va) -> bool {
        let next = self.places.partition_point(|place| *place <= new);
        let place = next.checked_sub(1).and_then(|index| self.places.get(index));
        place.is_some_and(|place| new.raw().saturating_sub(place.raw()) < WORD_BYTES)
    }
}

/// Of what has a name another image may have a copy, or its own instead.
fn is_exported(image: &Image<'_>, word: Va) -> bool {
    let defined = image.symbols.iter().filter(|symbol| !symbol.local).filter_map(|symbol| symbol.defined);
    let section = image.section_at(word).map(|section| section.range);
    defined.filter(|definition| !definition.is_tls && !definition.is_absolute).any(|definition| {
        // Where one without a size ends nobody says.
        let unsized_before = definition.len_bytes == 0
            && definition.at <= word
            && section.is_some_and(|section| section.contains(definition.at));
        let named = VaRange::new(definition.at, definition.len_bytes);
        unsized_before || VaRange::new(word, WORD_BYTES).zip(named).is_some_and(|(word, named)| word.overlaps(named))
    })
}

fn run_holds(run: &DataRun, old_va: Va) -> bool {
    let into = old_va.raw().saturating_sub(run.old.raw());
    into.saturating_add(WORD_BYTES) <= run.len_bytes
}

/// Every word is expected to be what it is, and becomes what it has to be; `leads` proves
/// what an address in it leads to.
pub(crate) fn check_values(
    map: &Correspondence<'_>,
    livepatch: &Livepatch,
    mut leads: impl FnMut(&DataWord, Va, Va) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    for word in &livepatch.words {
        let old_va = word.old_va;
        let run = map.index.run_at_old(old_va).ok_or(Invalid::WordPlace { old_va })?;
        let new_va = run.new.wrapping_offset(old_va.wrapping_distance_from(run.old));
        let before = loaded(map.old, old_va).ok_or(Invalid::WordExpected { old_va })?;
        let expected = match before {
            Loaded::Number(number) => WordValue::Number(number),
            Loaded::Address(target) => WordValue::Old(target),
        };
        if word.expected != expected {
            return Err(Invalid::WordExpected { old_va });
        }
        let wrong = Invalid::WordValue { old_va, new_va };
        let after = loaded(map.new, new_va).ok_or(wrong.clone())?;
        // Which function a row names is a role.
        let is_code = |image: &Image<'_>, held: &Loaded| matches!(held, Loaded::Address(to) if image.section_at(*to).is_none_or(Section::is_code));
        if is_code(map.old, &before) || is_code(map.new, &after) {
            return Err(wrong);
        }
        let of_texts = is_text_or_none(map.old, &before) && is_text_or_none(map.new, &after);
        if !of_texts && !nothing_is_resized(map) {
            return Err(Invalid::WordResized { old_va });
        }
        match (after, word.new) {
            (Loaded::Number(number), WordValue::Number(written)) if number == written => {}
            (Loaded::Address(target), WordValue::Payload(to)) if to == target => {
                // Whoever read it may keep it.
                if livepatch.revert == RevertPolicy::Unmap {
                    return Err(Invalid::Revert { at: new_va, new_target: target });
                }
                leads(word, new_va, target)?;
            }
            (Loaded::Address(target), WordValue::Old(_)) => leads(word, new_va, target)?,
            _ => return Err(wrong),
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Loaded {
    Number(u64),
    Address(Va),
}

fn is_text_or_none(image: &Image<'_>, held: &Loaded) -> bool {
    match held {
        Loaded::Number(number) => *number == 0,
        Loaded::Address(to) => is_text(image, *to),
    }
}

/// Printable up to its terminating zero, in constant data.
fn is_text(image: &Image<'_>, at: Va) -> bool {
    let bytes = image.section_at(at).filter(|section| section.is_constant()).and_then(|section| section.from(at));
    let text = bytes.and_then(|bytes| bytes.get(..bytes.iter().position(|byte| *byte == 0)?));
    text.is_some_and(|text| text.iter().all(|byte| matches!(byte, b'\t'..=b'\r' | 0x1b | b' '..=b'~' | 0x80..)))
}

/// Whether all data that a process may write, and all tables, have their sizes and places of
/// before: then no number can be a size, a count or a place that became another.
fn nothing_is_resized(map: &Correspondence<'_>) -> bool {
    let of_data = |section: &Section<'_>| section.role == Role::Data && !section.is_constant() && !section.is_code();
    let stays = |section: &Section<'_>| map.new.section_named(section.name).is_some();
    let all_stay = map.old.sections.iter().filter(|section| of_data(section)).all(stays);
    all_stay
        && map.new.sections.iter().filter(|section| of_data(section)).all(|section| {
            let before = map.old.section_named(section.name).map(|before| before.range);
            let same = before.filter(|before| before.len_bytes() == section.range.len_bytes());
            same.is_some_and(|before| {
                let moved = section.range.start().wrapping_distance_from(before.start());
                let inside = |run: &&DataRun| section.range.contains(run.new);
                map.index.runs.iter().filter(inside).all(|run| run.new.wrapping_distance_from(run.old) == moved)
            })
        })
}

/// What the loader leaves in a word, if it is a number or an address as a whole.
fn loaded(image: &Image<'_>, at: Va) -> Option<Loaded> {
    let before = at.checked_sub(7)?;
    let around = VaRange::try_from((before, at.checked_add(WORD_BYTES)?)).ok()?;
    match image.slots_in(around) {
        [] => image.array(at).map(|bytes| Loaded::Number(u64::from_le_bytes(bytes))),
        [slot] if slot.at == at && slot.len_bytes == WORD_BYTES => match slot.binding {
            Binding::Relative(target) => Some(Loaded::Address(target)),
            _ => None,
        },
        _ => None,
    }
}

/// Everybody who stays and refers to the tables, or to a little before them, is named, with
/// the parts of it that lie elsewhere.
pub(crate) fn check_readers(
    map: &Correspondence<'_>,
    decoder: &Decoder,
    livepatch: &Livepatch,
    gone: &[VaRange],
) -> Result<(), Invalid> {
    if livepatch.words.is_empty() {
        let stray = livepatch.readers.first();
        return stray.map_or(Ok(()), |stray| Err(Invalid::WordReader { entry: stray.old_range.start() }));
    }
    let Some(tables) = map.old.section_named(b".data.rel.ro").map(|section| section.range) else {
        return Ok(());
    };
    let first = tables.start().wrapping_offset(BEFORE_BYTES.wrapping_neg());
    let mut code = Code::default();
    for range in map.index.pairs.iter().map(|pair| pair.old).chain(gone.iter().copied()) {
        code.read(map.old, decoder, range)?;
    }
    let reads = |(target, _): &&(Va, VaRange)| first <= *target && *target <= tables.end();
    let mut readers: BTreeSet<VaRange> = code.references.iter().filter(reads).map(|(_, range)| *range).collect();
    let parts = code.parts(map.old);
    loop {
        let beside = parts.iter().filter(|(one, other)| readers.contains(one) != readers.contains(other));
        let more: Vec<VaRange> = beside.flat_map(|(one, other)| [*one, *other]).collect();
        if more.is_empty() {
            break;
        }
        readers.extend(more);
    }
    // Nobody may be in what is replaced or gone either.
    let changed = map.index.pairs.iter().filter(|pair| pair.class == Class::Changed).map(|pair| pair.old);
    let waited_for: BTreeSet<VaRange> =
        changed.chain(gone.iter().copied()).chain(livepatch.readers.iter().map(|reader| reader.old_range)).collect();
    match readers.difference(&waited_for).next() {
        Some(range) => Err(Invalid::WordReader { entry: range.start() }),
        None => Ok(()),
    }
}

/// Where the instructions of the old image's functions lead.
#[derive(Default)]
struct Code {
    ranges: BTreeSet<VaRange>,
    references: Vec<(Va, VaRange)>,
    jumps: Vec<(Va, VaRange)>,
    calls: BTreeSet<Va>,
}

impl Code {
    fn read(&mut self, image: &Image<'_>, decoder: &Decoder, range: VaRange) -> Result<(), Invalid> {
        self.ranges.insert(range);
        each_reference((image, Side::Old), decoder, range, |_, _, field, target| {
            match field.role {
                // A number that is no distance leads nowhere in an image that may lie anywhere.
                _ if matches!(field.base, Base::Absolute) => {}
                Use::Jump => self.jumps.push((target, range)),
                Use::Call => drop(self.calls.insert(target)),
                _ => self.references.push((target, range)),
            }
            Ok(())
        })
    }

    /// Pairs of which one jumps into the middle of the other, or to its start and nothing
    /// calls, holds or names that: what looks like two functions may be one.
    fn parts(&self, image: &Image<'_>) -> BTreeSet<(VaRange, VaRange)> {
        let taken = self.references.iter().map(|(target, _)| *target);
        let held = image.slots.iter().filter_map(|slot| slot.binding.target());
        let named = image.symbols.iter().filter_map(|symbol| symbol.defined).map(|definition| definition.at);
        let entries: BTreeSet<Va> = self.calls.iter().copied().chain(taken).chain(held).chain(named).collect();
        let ranges: Vec<VaRange> = self.ranges.iter().copied().collect();
        let mut parts = BTreeSet::new();
        for (target, from) in &self.jumps {
            let behind = ranges.partition_point(|range| range.start() <= *target);
            let to = behind.checked_sub(1).and_then(|index| ranges.get(index));
            let Some(to) = to.filter(|to| to.contains(*target) && *to != from) else { continue };
            if to.start() != *target || !entries.contains(target) {
                parts.insert((*from, *to));
            }
        }
        parts
    }
}
