//! Which members a file of each version may have: those that later versions added are in no earlier file.

use super::Invalid;
use crate::{FORMAT_VERSION, Livepatch, OLDEST_FORMAT_VERSION, PatchFile};

/// The first version with a list of what is not healed.
const NOT_HEALED_SINCE: u32 = 2;
/// The first version with slots for imports.
const IMPORTS_SINCE: u32 = 3;
/// The first version with call frame information.
const UNWIND_SINCE: u32 = 4;
/// The first version with slots for what an image defines itself, and with pointers.
const OWN_SINCE: u32 = 5;
/// The first version whose livepatches change words of the old image's constants.
const WORDS_SINCE: u32 = 6;

/// A version that this program knows.
pub(super) fn check(patch: &PatchFile) -> Result<(), Invalid> {
    let known = (OLDEST_FORMAT_VERSION..=FORMAT_VERSION).contains(&patch.format_version);
    if known { Ok(()) } else { Err(Invalid::Version { found: patch.format_version }) }
}

/// The list of what is not healed is there in every file since it exists, and in none before.
pub(super) fn check_list(patch: &PatchFile) -> Result<(), Invalid> {
    let has_to = patch.format_version >= NOT_HEALED_SINCE;
    if has_to == patch.not_healed.is_some() { Ok(()) } else { Err(Invalid::NotHealedAgainstVersion) }
}

/// What the livepatch of this image has, its version knows.
pub(super) fn check_members(version: u32, image: usize, livepatch: &Livepatch) -> Result<(), Invalid> {
    let own = livepatch.imports.iter().any(|import| import.own.is_some()) || !livepatch.pointers.is_empty();
    let words = !(livepatch.words.is_empty() && livepatch.readers.is_empty());
    let members = [
        (!livepatch.imports.is_empty(), IMPORTS_SINCE, Invalid::ImportsAgainstVersion { image }),
        (own, OWN_SINCE, Invalid::OwnAgainstVersion { image }),
        (!livepatch.unwind.is_empty(), UNWIND_SINCE, Invalid::UnwindAgainstVersion { image }),
        (words, WORDS_SINCE, Invalid::WordsAgainstVersion { image }),
    ];
    let early = members.into_iter().find(|(is_there, since, _)| *is_there && version < *since);
    early.map_or(Ok(()), |(_, _, invalid)| Err(invalid))
}
