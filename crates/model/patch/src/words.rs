//! Words of the old image's constants that change where they lie.

use crate::check::{Fault, JUMP_BYTES, is_name};
use crate::{Distance, Livepatch, OwnAddress, layout};
use salve_elf::{LoadBias, Va, VaRange};
use serde::{Deserialize, Serialize};

const WORD_BYTES: u64 = 8;

/// As many as are written in one go: each is a call of a thread while all others stand.
pub const MAX_WORDS: usize = 1024;

/// Eight bytes of the old image's constants that become others where they lie: a word of a
/// table that code which stays reads, and that nobody writes once the loader is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DataWord {
    /// A multiple of eight.
    pub old_va: Va,
    /// What the loader left there. Never an address of the payload.
    pub expected: WordValue,
    pub new: WordValue,
}

/// What eight bytes hold in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WordValue {
    /// The same in every process, little endian.
    Number(u64),
    /// An address in the old image.
    Old(Va),
    /// An address in the payload.
    Payload(Va),
}

impl From<OwnAddress> for WordValue {
    fn from(address: OwnAddress) -> Self {
        match address {
            OwnAddress::Old(va) => Self::Old(va),
            OwnAddress::Payload(va) => Self::Payload(va),
        }
    }
}

/// A function of the old image that stays and refers to words that change. It may not run
/// while they do: of two words that belong together it would have an old and a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    pub name: String,
    pub old_range: VaRange,
}

impl WordValue {
    /// The eight bytes in a process, given where the old image and the payload lie.
    pub fn bytes(self, old: LoadBias, distance: Distance) -> [u8; 8] {
        match self {
            Self::Number(number) => number,
            Self::Old(va) => va.in_process(old).raw(),
            Self::Payload(va) => va.in_process(distance.payload_bias(old)).raw(),
        }
        .to_le_bytes()
    }
}

pub(crate) fn check(livepatch: &Livepatch) -> Result<(), Fault> {
    if livepatch.words.len() > MAX_WORDS {
        return Err(Fault::TooManyWords { count: livepatch.words.len() });
    }
    let mut end = Va::new(0);
    for word in &livepatch.words {
        let old_va = word.old_va;
        let range = VaRange::new(old_va, WORD_BYTES).filter(|_| old_va.raw().is_multiple_of(WORD_BYTES));
        let range = range.filter(|_| old_va >= end).ok_or(Fault::WordPlace { old_va })?;
        end = range.end();
        let into_code = livepatch
            .detours
            .iter()
            .any(|detour| VaRange::new(detour.old_va, JUMP_BYTES).is_none_or(|jump| jump.overlaps(range)));
        let leads_nowhere = match word.new {
            WordValue::Payload(at) => layout::segment_of(&livepatch.segments, at).is_none(),
            WordValue::Number(_) | WordValue::Old(_) => false,
        };
        let foreign = matches!(word.expected, WordValue::Payload(_)) || word.expected == word.new;
        if into_code || leads_nowhere || foreign {
            return Err(Fault::WordValue { old_va });
        }
    }
    readers(livepatch)
}

/// They are there for the words only.
fn readers(livepatch: &Livepatch) -> Result<(), Fault> {
    let mut end = Va::new(0);
    for reader in &livepatch.readers {
        if !is_name(&reader.name) {
            return Err(Fault::Name { what: "name of a function that reads words" });
        }
        let range = reader.old_range;
        if range.is_empty() || range.start() < end || livepatch.words.is_empty() {
            return Err(Fault::ReaderPlace { range });
        }
        end = range.end();
    }
    Ok(())
}
