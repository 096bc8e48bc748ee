//! Words of the old image's tables, as they are and as they come to be.

use crate::resolve::{Resolver, Unresolved, Word};
use salve_elf::{Binding, Image, Va, VaRange};
use salve_match::ImageDiff;
use salve_patch::{DataWord, Evidence, Reader, Reason, WordValue};
use salve_verdict::{Words, registry};

/// What is written in place, and who may not run meanwhile.
pub(crate) fn words(
    diff: &ImageDiff<'_, '_>,
    words: &Words,
    resolver: &Resolver<'_, '_, '_>,
    reasons: &mut Vec<Reason>,
) -> (Vec<DataWord>, Vec<Reader>) {
    let mut all = Vec::new();
    for (old, new) in &words.words {
        match (loaded(diff.old.image, *old), becomes(diff.new.image, *new, resolver)) {
            (Some(expected), Ok(value)) => all.push(DataWord { old_va: *old, expected, new: value }),
            (expected, value) => {
                let (code, seen) = match value {
                    Err(unresolved) if expected.is_some() => (unresolved.code, unresolved.seen),
                    _ => (registry::DATA_CHANGED, format!("the word at {old} is no number and no plain address")),
                };
                let evidence = Evidence { function: None, old_va: Some(*old), new_va: Some(*new), seen };
                reasons.push(code.because(code.meaning, vec![evidence]));
            }
        }
    }
    all.retain(|word| word.expected != word.new);
    let functions = words.readers.iter().filter_map(|reader| diff.old.image.functions().get(*reader));
    let readers = functions.map(|f| Reader { name: f.display_name(), old_range: f.range }).collect();
    (all, readers)
}

/// What the loader leaves there.
fn loaded(image: &Image<'_>, at: Va) -> Option<WordValue> {
    match image.reloc_at(at).map(|reloc| reloc.binding) {
        None => number(image, at),
        Some(Binding::Relative { target }) => Some(WordValue::Old(target)),
        Some(_) => None,
    }
}

fn becomes(image: &Image<'_>, at: Va, resolver: &Resolver<'_, '_, '_>) -> Result<WordValue, Unresolved> {
    let unclear = || Unresolved {
        code: registry::DATA_CHANGED,
        seen: format!("the word at {at} becomes no number and no plain address"),
    };
    let Some(reloc) = image.reloc_at(at) else { return number(image, at).ok_or_else(unclear) };
    match resolver.word(reloc)? {
        Word::Pointer(to) => Ok(to.into()),
        Word::Import(..) => Err(unclear()),
    }
}

fn number(image: &Image<'_>, at: Va) -> Option<WordValue> {
    let bytes = image.read(VaRange::new(at, 8)?)?;
    bytes.first_chunk().map(|bytes| WordValue::Number(u64::from_le_bytes(*bytes)))
}
