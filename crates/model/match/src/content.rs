//! Comparing read-only objects whose size nobody states.
//!
//! An object runs at least to the next address that anything refers to; a text
//! runs at least to its terminating zero, even where another reference points
//! into its tail (linkers merge equal tails).

use crate::side::Side;
use salve_elf::{Va, VaRange};

/// How the contents behind two corresponding references differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentDifference {
    /// Both are zero-terminated text.
    Text { old: Va, new: Va },
    /// Anything else; the first differing byte.
    Bytes { old: Va, new: Va, offset: u64 },
}

/// The zero-terminated text at `va`, if it looks like one: printable or white
/// space, at least `min_len_bytes` long.
pub fn text_at<'a>(side: &Side<'_, 'a>, va: Va, min_len_bytes: usize) -> Option<&'a [u8]> {
    const LONGEST: usize = 64 << 10;
    let tail = side.image.section_at(va)?.tail(va)?;
    let tail = tail.get(..tail.len().min(LONGEST))?;
    let len = tail.iter().position(|b| *b == 0)?;
    let text = tail.get(..len)?;
    (len >= min_len_bytes && text.iter().all(|b| is_printable(*b))).then_some(text)
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\r' | 0x1b | 0x20..=0x7e | 0x80..=0xff)
}

/// A text that cannot well be anything else: long enough, or with others behind it. The
/// first bytes of a number or a structure may be printable and precede a zero, too.
pub(crate) fn telling_text_at<'a>(side: &Side<'_, 'a>, va: Va) -> Option<&'a [u8]> {
    const LONG: usize = 8;
    const TELLING: usize = 16;
    let text = text_at(side, va, 1)?;
    if text.len() >= LONG {
        return Some(text);
    }
    let bytes = side.image.section_at(va)?.tail(va)?.get(..TELLING)?;
    let texts = bytes.iter().all(|b| *b == 0 || is_printable(*b)) && !bytes.windows(2).any(|two| two == [0, 0]);
    texts.then_some(bytes)
}

/// The printable bytes around `va`, without what ends them.
pub(crate) fn text_around(side: &Side<'_, '_>, va: Va) -> Option<VaRange> {
    const FURTHEST: usize = 1024;
    let section = side.image.section_at(va)?;
    let bytes = section.bytes?;
    let at = usize::try_from(va.raw().checked_sub(section.range.start().raw())?).ok()?;
    let printable = |b: &u8| matches!(b, 0x20..=0x7e | b'\t' | b'\n');
    let before = bytes.get(..at)?.iter().rev().take(FURTHEST).take_while(|b| printable(b)).count();
    let after = bytes.get(at..)?.iter().take(FURTHEST).take_while(|b| printable(b)).count();
    let start = va.wrapping_offset(i64::try_from(before).ok()?.wrapping_neg());
    VaRange::new(start, u64::try_from(before.saturating_add(after)).ok()?)
}

/// Length in bytes of the object that may begin at `va`.
pub(crate) fn extent(side: &Side<'_, '_>, va: Va) -> Option<u64> {
    let to_anchor = side.next_anchor(va)?.raw().checked_sub(va.raw())?;
    let text = text_at(side, va, 4).map_or(0, |t| u64::try_from(t.len()).unwrap_or(u64::MAX).saturating_add(1));
    Some(to_anchor.max(text))
}

/// Compares the read-only objects at `old_va` and `new_va`; the number of bytes
/// that are known to be the same, if the objects are.
pub(crate) fn compare(
    old: &Side<'_, '_>,
    old_va: Va,
    new: &Side<'_, '_>,
    new_va: Va,
) -> Result<u64, ContentDifference> {
    let differ = |offset| Err(ContentDifference::Bytes { old: old_va, new: new_va, offset });
    let (Some(old_len), Some(new_len)) = (extent(old, old_va), extent(new, new_va)) else {
        return differ(0);
    };
    let len = old_len.min(new_len);
    let read = |side: &Side<'_, '_>, va, len| {
        VaRange::new(va, len).and_then(|range| side.image.read(range)).map(<[u8]>::to_vec)
    };
    let (Some(a), Some(b)) = (read(old, old_va, old_len), read(new, new_va, new_len)) else {
        return differ(0);
    };
    let common = usize::try_from(len).unwrap_or(usize::MAX);
    let first = a.iter().zip(&b).position(|(x, y)| x != y).or_else(|| {
        // One object reaches further to the next reference: that may only be padding.
        let rest = |bytes: &[u8]| bytes.get(common..).is_some_and(|rest| rest.iter().any(|b| *b != 0));
        (rest(&a) || rest(&b)).then_some(common)
    });
    let Some(first) = first else { return Ok(len) };
    let offset = u64::try_from(first).unwrap_or(u64::MAX);
    match (text_at(old, old_va, 2), text_at(new, new_va, 2)) {
        // The texts differ, and nothing lies behind them that could belong to the object.
        (Some(x), Some(y)) if x != y && only_text(&a, x) && only_text(&b, y) => {
            Err(ContentDifference::Text { old: old_va, new: new_va })
        }
        // One text, and what differs lies behind the padding that follows it.
        (Some(x), Some(y)) if x == y && padded(&a, x, old_va) && padded(&b, y, new_va) => {
            // An array large enough to hold rows of text is aligned to 16 in both images.
            let row = old_va.raw().is_multiple_of(16) && new_va.raw().is_multiple_of(16);
            let text_len = u64::try_from(x.len()).unwrap_or(u64::MAX).saturating_add(1);
            if row { differ(offset) } else { Ok(text_len) }
        }
        _ => differ(offset),
    }
}

/// Whether `text` at `va` is followed by zeros up to the next multiple of 16.
fn padded(object: &[u8], text: &[u8], va: Va) -> bool {
    let start = va.raw() % 16;
    let end = start.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX)).saturating_add(1);
    let bound = usize::try_from(end.next_multiple_of(16).saturating_sub(start)).unwrap_or(usize::MAX);
    let padding = object.get(text.len()..bound.min(object.len()));
    padding.is_some_and(|p| p.iter().all(|b| *b == 0))
}

/// Whether `object` is `text`, its terminating zero and zero padding.
fn only_text(object: &[u8], text: &[u8]) -> bool {
    object.get(text.len()..).is_some_and(|rest| rest.iter().all(|b| *b == 0))
}
