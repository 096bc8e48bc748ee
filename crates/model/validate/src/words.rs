//! Words of the old image's tables that change where they lie.
//!
//! Each is a whole aligned word of `.data.rel.ro` in a run that is the same but for such
//! words. It is expected to hold what the loader left there, becomes what the loader would
//! make of the new image's, and no instruction of either image writes there. Code that
//! stays and refers to what may reach up to it is named, because it may not run meanwhile.

use crate::brought::is_table;
use crate::correspond::Correspondence;
use crate::decode::{Base, Decoder, Use};
use crate::image::{Binding, Image};
use crate::index::{Class, Index};
use crate::invalid::{Invalid, Side};
use salve_elf::{Va, VaRange};
use salve_patch::{DataWord, Livepatch, RevertPolicy, WordValue};

const WORD_BYTES: u64 = 8;

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
    defined.filter(|definition| !definition.is_tls && !definition.is_absolute).any(|definition| {
        let named = VaRange::new(definition.at, definition.len_bytes.max(WORD_BYTES));
        VaRange::new(word, WORD_BYTES).zip(named).is_some_and(|(word, named)| word.overlaps(named))
    })
}

fn run_holds(run: &salve_patch::DataRun, old_va: Va) -> bool {
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
        match (loaded(map.new, new_va).ok_or(wrong.clone())?, word.new) {
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

enum Loaded {
    Number(u64),
    Address(Va),
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

/// Everybody who stays and refers to what may reach up to a word is named: to the last
/// place before it that such code refers to, or behind that.
pub(crate) fn check_readers(map: &Correspondence<'_>, decoder: &Decoder, livepatch: &Livepatch) -> Result<(), Invalid> {
    if livepatch.words.is_empty() {
        return livepatch
            .readers
            .first()
            .map_or(Ok(()), |stray| Err(Invalid::WordReader { entry: stray.old_range.start() }));
    }
    let mut targets = Vec::new();
    for pair in map.index.pairs.iter().filter(|pair| pair.class != Class::Changed) {
        refers_to(map.old, decoder, pair.old, &mut targets)?;
    }
    targets.sort_unstable();
    for word in &livepatch.words {
        let Some(section) = map.old.section_at(word.old_va).map(|section| section.range) else { continue };
        let until = targets.partition_point(|(target, _)| *target < word.old_va.wrapping_offset(8));
        let before = targets.partition_point(|(target, _)| *target <= word.old_va);
        let last = before.checked_sub(1).and_then(|last| targets.get(last)).map(|(target, _)| *target);
        let first = last.unwrap_or(word.old_va).max(section.start());
        let from = targets.partition_point(|(target, _)| *target < first);
        for (_, range) in targets.get(from..until).unwrap_or_default() {
            if !livepatch.readers.iter().any(|reader| reader.old_range == *range) {
                return Err(Invalid::WordReader { entry: range.start() });
            }
        }
    }
    Ok(())
}

/// Where in data the instructions of a function lead.
fn refers_to(
    image: &Image<'_>,
    decoder: &Decoder,
    range: VaRange,
    targets: &mut Vec<(Va, VaRange)>,
) -> Result<(), Invalid> {
    let mut at = range.start();
    while at < range.end() {
        let undecodable = Invalid::Undecodable { side: Side::Old, at };
        let code = image.section_at(at).and_then(|section| section.from(at)).ok_or(undecodable.clone())?;
        let instr = decoder.decode(code, image.fixed).ok_or(undecodable.clone())?;
        let next = at.wrapping_offset(i64::try_from(instr.len).map_err(|_| undecodable)?);
        for field in instr.fields().filter(|field| !matches!(field.role, Use::Jump | Use::Call)) {
            if let (Base::Next, Some(distance)) = (field.base, field.read(code)) {
                targets.push((next.wrapping_offset(distance), range));
            }
        }
        at = next;
    }
    Ok(())
}
