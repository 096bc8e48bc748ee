//! The patch file and what is in it.
//!
//! A patch file holds the verdict on every ELF image of an update, and for the
//! images that changed and can be healed, the [`Livepatch`]: new code and data
//! (the payload), the [`Fixup`]s that bind them to the old image, and the
//! [`Detour`]s that lead callers to them. Everything here is a value; nothing
//! touches a file or a process.
//!
//! Two address spaces meet in a livepatch and are kept apart by name: fields
//! called `old_*` hold addresses of the old image, fields called `new_*` those
//! of the new image, whose layout the payload keeps (a sparse new image).
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod check;
mod claims;
mod decode;
mod encode;
mod id;
mod layout;
mod livepatch;
mod not_healed;
mod origin;
mod place;
mod unwind;
mod verdict;
mod words;

pub use check::{Fault, Invalid};
pub use claims::{Claims, DataRun, FunctionPair, JumpTable, NoiseClaim, NoiseKind, NoiseSite, TakingSite, TextPair};
pub use decode::{DecodeError, Limits, decode};
pub use encode::{EncodeError, encode};
pub use livepatch::{
    Access, Detour, Fixup, FixupKind, ImageId, ImportSlot, Livepatch, LivepatchId, OwnAddress, Pointer,
    ReplacedFunction, Requirement, RevertPolicy, Segment,
};
pub use not_healed::{ChangeKind, ClassCount, FileChange, FileClass, MAX_NAMED, NotHealed, NotHealedGroup};
pub use origin::{Cves, Origin, PackageId};
pub use place::{Distance, PlaceError, PlacedSegment};
pub use unwind::{Cie, Fde, Unwind};
pub use verdict::{Evidence, FunctionCounts, ImageReport, NoiseReport, Reason, ReferenceCounts, Verdict};
pub use words::{DataWord, MAX_WORDS, Reader, WordValue};

use serde::{Deserialize, Serialize};

/// Version of the manifest's shape that is written; a reader refuses one it does not know.
pub const FORMAT_VERSION: u32 = 6;

/// The oldest version that is read still.
pub const OLDEST_FORMAT_VERSION: u32 = 1;

/// All that one patch file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchFile {
    pub format_version: u32,
    /// Program and version that derived it, e.g. `salve 0.1.0`.
    pub created_by: String,
    pub origin: Origin,
    /// What else the update changes; always there since version 2, and never before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_healed: Option<NotHealed>,
    /// One record for every ELF image of the pair, changed or not.
    pub images: Vec<ImageReport>,
}

impl PatchFile {
    /// The gravest verdict of all images: what the update as a whole is.
    pub fn verdict(&self) -> Verdict {
        self.images.iter().map(|image| image.verdict).max().unwrap_or(Verdict::Unchanged)
    }

    /// What else the update changes; unknown in files that do not say.
    pub fn not_healed(&self) -> NotHealed {
        self.not_healed.clone().unwrap_or(NotHealed::Unknown { present: Vec::new() })
    }

    /// Every livepatch in the file, with the image it belongs to.
    pub fn livepatches(&self) -> impl Iterator<Item = (&ImageReport, &Livepatch)> {
        self.images.iter().filter_map(|image| image.livepatch.as_ref().map(|livepatch| (image, livepatch)))
    }
}
