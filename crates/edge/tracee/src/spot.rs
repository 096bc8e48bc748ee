//! The places in an image that a livepatch writes to: detours, and words of tables.

use crate::image::Found;
use crate::loaded::loaded;
use crate::memory::Memory;
use crate::outcome::NotApplied;
use crate::process::ReadError;
use core::fmt;
use core::ops::Deref;
use salve_elf::{LoadBias, RuntimeAddr, Va, VaRange};
use salve_patch::{Distance, Livepatch};

/// The longest write: an aligned word. A jump has five bytes.
const LONGEST_BYTES: usize = 8;

/// What stands at a spot: up to eight bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes {
    bytes: [u8; LONGEST_BYTES],
    len: usize,
}

impl Bytes {
    /// `None` where they are more than a write may be.
    pub(crate) fn of(from: &[u8]) -> Option<Self> {
        let mut bytes = [0; LONGEST_BYTES];
        bytes.get_mut(..from.len())?.copy_from_slice(from);
        Some(Self { bytes, len: from.len() })
    }

    /// As many as `self` has, read from the process.
    pub(crate) fn now(self, read: impl FnOnce(&mut [u8]) -> bool) -> Option<Self> {
        let mut found = Self { bytes: [0; LONGEST_BYTES], ..self };
        let there = found.bytes.get_mut(..self.len).is_some_and(read);
        there.then_some(found)
    }

    /// The eight bytes of which the first are these.
    pub(crate) fn padded(self) -> [u8; LONGEST_BYTES] {
        self.bytes
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// One place, and what it holds without the livepatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot<'l> {
    /// The function of a detour; what a word is called.
    pub(crate) name: &'l str,
    pub(crate) va: Va,
    pub(crate) at: RuntimeAddr,
    pub(crate) original: Bytes,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Detour,
    Word,
}

impl Spot<'_> {
    /// It holds neither what the image has there nor what a livepatch put there.
    pub(crate) fn unexpected(&self, path: &str, found: Bytes) -> NotApplied {
        let (path, function, va) = (path.to_owned(), self.name.to_owned(), self.va);
        NotApplied::UnexpectedBytes { path, function, va, found: found.to_vec() }
    }

    /// It is not where the image's file puts code, or constants.
    pub(crate) fn not_from_file(&self, path: &str) -> NotApplied {
        NotApplied::not_from_file(path, self.va, self.kind == Kind::Detour)
    }
}

/// What stands at a spot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtSpot {
    /// The image's own bytes.
    Original,
    /// This livepatch's.
    Changed,
    Other(Bytes),
}

/// Every spot of a livepatch, detours first; `None` where a detour is not five bytes.
pub(crate) fn spots(livepatch: &Livepatch, old: LoadBias) -> Option<Vec<Spot<'_>>> {
    let detours = livepatch.detours.iter().map(|detour| {
        let original = Bytes::of(&detour.expected).filter(|bytes| bytes.len() == 5)?;
        let (va, at) = (detour.old_va, detour.old_va.in_process(old));
        Some(Spot { name: &detour.function, va, at, original, kind: Kind::Detour })
    });
    let words = livepatch.words.iter().map(|word| {
        // No word is expected to lead into the payload, so where that lies says nothing.
        let original = Bytes::of(&word.expected.bytes(old, Distance::new(0)))?;
        let (va, at) = (word.old_va, word.old_va.in_process(old));
        Some(Spot { name: "a word of a table", va, at, original, kind: Kind::Word })
    });
    detours.chain(words).collect()
}

/// What each spot holds with the livepatch in force, its payload at this distance.
pub(crate) fn changed(livepatch: &Livepatch, jumps: &[[u8; 5]], distance: Distance, old: LoadBias) -> Vec<Bytes> {
    let jumps = jumps.iter().filter_map(|jump| Bytes::of(jump));
    jumps.chain(livepatch.words.iter().filter_map(|word| Bytes::of(&word.new.bytes(old, distance)))).collect()
}

pub(crate) fn at_spot(memory: &Memory, spot: &Spot<'_>, changed: Option<Bytes>) -> Result<AtSpot, ReadError> {
    let found = spot.original.now(|into| memory.read_exact(spot.at, into).is_ok()).ok_or(ReadError::Exited)?;
    Ok(if Some(found) == changed {
        AtSpot::Changed
    } else if found == spot.original {
        AtSpot::Original
    } else {
        AtSpot::Other(found)
    })
}

/// Whether two spots share bytes without being the same.
pub(crate) fn crosses(one: &Spot<'_>, other: &Spot<'_>) -> bool {
    let range = |spot: &Spot<'_>| VaRange::new(spot.va, u64::try_from(spot.original.len()).unwrap_or(0));
    match (range(one), range(other)) {
        (Some(a), Some(b)) => a != b && a.overlaps(b),
        _ => true,
    }
}

/// What the image's file, `bytes`, has there once it is loaded.
pub(crate) fn original(spot: &Spot<'_>, image: &Found, bytes: &[u8], old: LoadBias) -> Option<Bytes> {
    match spot.kind {
        Kind::Detour => {
            let offset = usize::try_from(image.file.elf.as_ref()?.file_offset(spot.va)?).ok()?;
            Bytes::of(bytes.get(offset..offset.checked_add(spot.original.len())?)?)
        }
        Kind::Word => Bytes::of(&loaded(bytes, spot.va)?.bytes(old, Distance::new(0))),
    }
}
