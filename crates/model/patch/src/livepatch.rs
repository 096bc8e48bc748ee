use crate::{DataWord, Reader, Unwind};
use core::fmt;
use salve_elf::{BuildId, ContentHash, Va, VaRange};
use serde::{Deserialize, Serialize};

/// Names one image; two images are the same if and only if the hashes are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageId {
    pub sha256: ContentHash,
    pub len_bytes: u64,
    /// An index for finding candidates, never an identity.
    pub build_id: Option<BuildId>,
    pub soname: Option<String>,
}

/// Hash of a livepatch's own content; the name by which it is applied, listed and reverted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LivepatchId(pub ContentHash);

impl fmt::Display for LivepatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a payload segment may do once it is mapped. There is no writable and
/// executable kind, and none may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    #[serde(rename = "r--")]
    Read,
    #[serde(rename = "r-x")]
    ReadExecute,
}

/// Whole pages of the payload, at the addresses they have in the new image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Page aligned.
    pub new_va: Va,
    pub access: Access,
    /// A multiple of the page size; what the payload does not use is zero
    /// (data) or `int3` (code). Stored as ELF section contents, not in the manifest.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

impl Segment {
    pub fn range(&self) -> Option<VaRange> {
        VaRange::new(self.new_va, u64::try_from(self.bytes.len()).ok()?)
    }
}

/// A field of the payload whose value depends on how far the payload lies from
/// the old image, or on where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fixup {
    /// Where the field starts in the payload.
    pub new_va: Va,
    #[serde(flatten)]
    pub kind: FixupKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FixupKind {
    /// Four bytes, little endian: the distance from `new_next` (the address of
    /// the following instruction) to `old_target`, as `R_X86_64_PC32`
    /// (psABI §4.4).
    PcRel32 { new_next: Va, old_target: Va },
}

/// A slot of the payload for a symbol that the old image does not import: eight
/// bytes, zero as derived, that become the symbol's address in each process, as the
/// loader would have filled the new image's slot (`R_X86_64_GLOB_DAT` and
/// `R_X86_64_JUMP_SLOT` without addend, psABI §4.4).
///
/// Who applies the livepatch looks for the symbol among the images that are mapped,
/// and takes it only where there is one answer whatever the order of the search.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImportSlot {
    /// Where the new image has the slot; the payload has it there too.
    pub new_va: Va,
    pub symbol: String,
    /// The version that the new image asks for, if it asks for one.
    pub version: Option<String>,
    /// The new image defines the symbol itself, here: where the old image exports it, or in
    /// the payload if it does not. No other image may define it. Since format version 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnAddress>,
}

/// A pointer in the payload's constants to something of the image itself: eight bytes, zero
/// as derived, that become an address in each process (`R_X86_64_RELATIVE`, psABI §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pointer {
    pub new_va: Va,
    pub to: OwnAddress,
}

/// An address of the image itself, which moves with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnAddress {
    /// In the old image.
    Old(Va),
    /// In the payload.
    Payload(Va),
}

/// Bytes overwritten in an old function so that its callers reach the new one:
/// `e9 rel32` at `old_va`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detour {
    pub function: String,
    /// Entry of the old function.
    pub old_entry: Va,
    /// Where the jump is written: the entry, or four bytes on after `endbr64`.
    pub old_va: Va,
    /// The bytes that have to be there before, exactly as long as the jump.
    pub expected: Vec<u8>,
    /// Where the jump leads: in the payload. Past the new function's `endbr64`
    /// is never needed: a direct jump may land on it.
    pub new_target: Va,
}

/// A function that may run on neither side while the transition happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedFunction {
    pub name: String,
    /// All its parts in the old image (body, `.cold`), for the stack check on apply.
    /// Empty for a function that the new image adds.
    pub old_ranges: Vec<VaRange>,
    /// All its parts in the payload, for the stack check on revert.
    pub new_ranges: Vec<VaRange>,
    /// The verdict proves that an old activation may end in old code while
    /// new activations run: the transition need not wait for it.
    pub may_overlap: bool,
}

/// Something that has to be true in the process and cannot be seen in the two files.
/// Checked before anything is written; unknown means not met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Requirement {
    /// A constant of a dependency's headers is baked in and differs between the
    /// two builds. The library that is mapped in the process has to be one whose
    /// own exported function `symbol` (which takes no argument that matters and
    /// returns a constant) reports a value that agrees with `value` in the bits
    /// of `mask`.
    DependencyConstant { soname: String, symbol: String, value: u64, mask: u64, why: String },
}

/// What a revert may do with the payload once the detours are gone, the most lenient first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevertPolicy {
    /// No address of the payload can have been stored anywhere: it may be unmapped
    /// once no thread is inside.
    Unmap,
    /// Addresses of the payload's data may have escaped into the process's
    /// memory: the text is restored, the payload stays mapped.
    KeepMapped,
    /// Addresses of the payload's code may have escaped: after a revert old
    /// state could still call new code, so revert is not offered unless forced.
    Refuse,
}

/// The change to one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Livepatch {
    /// Sorted by address, not overlapping.
    pub segments: Vec<Segment>,
    /// Sorted by address.
    pub fixups: Vec<Fixup>,
    /// Sorted by address; since format version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<ImportSlot>,
    /// Sorted by address; since format version 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pointers: Vec<Pointer>,
    /// Sorted by `old_va`, not overlapping.
    pub detours: Vec<Detour>,
    /// Sorted by `old_va`; since format version 6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<DataWord>,
    /// Sorted by address, not overlapping; since format version 6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readers: Vec<Reader>,
    pub replaced: Vec<ReplacedFunction>,
    pub requirements: Vec<Requirement>,
    pub revert: RevertPolicy,
    /// For debuggers only; since format version 4.
    #[serde(default, skip_serializing_if = "Unwind::is_empty")]
    pub unwind: Unwind,
}
