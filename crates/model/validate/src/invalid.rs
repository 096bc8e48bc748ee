//! Every way in which a livepatch or its claims can fail to be proven.

use core::fmt;
use salve_elf::{Va, VaRange};
use salve_patch::{Access, PlaceError};

/// Which of the two images something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Old,
    New,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "old",
            Self::New => "new",
        })
    }
}

/// What about an ELF file keeps it from being judged at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageFault {
    #[error("not an ELF file: {0}")]
    Malformed(object::read::Error),
    #[error("unwind information is malformed: {0}")]
    Unwind(gimli::Error),
    #[error("not a 64-bit little-endian x86-64 executable or shared object")]
    Unsupported,
    #[error("has no section headers")]
    NoSections,
    #[error("section at {0} leaves the address space, the file or its segment")]
    SectionOutside(Va),
    #[error("sections overlap at {0}")]
    SectionsOverlap(Va),
    #[error("section at {0} is writable and executable")]
    WritableCode(Va),
    #[error("segment at {0} is executable where no executable section is")]
    UnnamedCode(Va),
    #[error("dynamic table is malformed")]
    Dynamic,
    #[error("relocations change read-only memory at {0}")]
    TextRelocation(Va),
    #[error("relocations overlap at {0}")]
    RelocationsOverlap(Va),
    #[error("relocation at {at} is of the unknown type {kind}")]
    UnknownRelocation { at: Va, kind: u32 },
    #[error("relocation at {0} lies in no section or names no symbol")]
    RelocationOutside(Va),
    #[error("symbol {0} is malformed")]
    Symbol(usize),
}

/// Why two references are not the same reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("the new target lies in nothing that is claimed to be the same")]
    Unclaimed,
    #[error("the claim leads to {expected}")]
    Elsewhere { expected: Va },
    #[error("the target is inside a function whose inside does not correspond")]
    Interior,
    #[error("the target is a function to which nothing is claimed to lead")]
    Unreached,
    #[error("the targets are stubs for different symbols")]
    Stub,
    #[error("the slots are bound to different things")]
    Binding,
    #[error("the slots depend on thread-local storage whose layout differs")]
    TlsLayout,
    #[error("the access is wider than what is claimed to be the same")]
    Extent,
    #[error("the slot is used in a way that is not understood")]
    SlotUse,
    #[error("the number may be an address, and the two do not correspond")]
    Number,
}

/// What was violated, and where. Each variant is a distinct violation.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    // The images.
    #[error("{side} image: {fault}")]
    Image { side: Side, fault: ImageFault },
    #[error("the images are of different kinds (fixed and position-independent)")]
    KindsDiffer,

    // Shape of the claims and accounting.
    #[error("{side} image: claimed range {range} is empty or outside executable sections")]
    OutsideCode { side: Side, range: VaRange },
    #[error("{side} image: claimed range {range} overlaps another")]
    Overlap { side: Side, range: VaRange },
    #[error("{side} image: code at {at} belongs to no claim and is no padding")]
    Unaccounted { side: Side, at: Va },

    // Functions said to be the same, or noise.
    #[error("{old} and {new} differ in length")]
    LengthDiffers { old: VaRange, new: VaRange },
    #[error("{side} image: instruction at {at} is not understood")]
    Undecodable { side: Side, at: Va },
    #[error("{side} image: instruction at {at} leaves its function")]
    Straddles { side: Side, at: Va },
    #[error("instructions differ at {old_at} (old) and {new_at} (new)")]
    BytesDiffer { old_at: Va, new_at: Va },
    #[error("reference at {new_at} leads to {new_target}, at {old_at} to {old_target}: {why}")]
    Reference { old_at: Va, new_at: Va, old_target: Va, new_target: Va, why: Mismatch },
    #[error("{side} image: branch or pointer leads to {target}, where no claimed instruction starts")]
    NotAnInstruction { side: Side, target: Va },
    #[error("functions {old} and {new} run on into code that does not correspond")]
    FallsThrough { old: VaRange, new: VaRange },
    #[error("thread-local storage differs in layout and is used at {new_at}")]
    TlsLayout { new_at: Va },
    #[error("noise site at {new_at} is no instruction of its function, or not of the kind claimed")]
    NoiseSite { new_at: Va },
    #[error("unwind information of {old} and {new} differs")]
    Unwind { old: VaRange, new: VaRange },

    // Data said to be the same.
    #[error("data run at {new} (old {old}) is empty, out of order, overlapping or in no section pair")]
    RunOutside { old: Va, new: Va },
    #[error("data run in executable section at {at} covers code")]
    RunOverCode { side: Side, at: Va },
    #[error("data kept at {new} (old {old}) is in no run, relocated, or read-only in the end")]
    KeptOutside { old: Va, new: Va },
    #[error("data differs at {old} (old) and {new} (new)")]
    DataDiffers { old: Va, new: Va },
    #[error("slots at {old} (old) and {new} (new) do not hold the same thing: {why}")]
    Slot { old: Va, new: Va, why: Mismatch },
    #[error("{side} image: data run ends at {at}, which may be inside an object")]
    RunEnd { side: Side, at: Va },
    #[error("jump table at {new} is outside its data run, or its owner is not claimed to be the same")]
    TableOutside { new: Va },
    #[error("entry {entry} of the jump table at {new} leads to {new_target}, in the old image to {old_target}")]
    TableEntry { new: Va, entry: u32, old_target: Va, new_target: Va },
    #[error("{side} image: slot at {at} is run by the loader and is in no data run")]
    UncoveredSlot { side: Side, at: Va },

    // Exports.
    #[error("exported symbol {name} leads to {new}, in the old image to {old}: {why}")]
    Export { name: String, old: Va, new: Va, why: Mismatch },

    // The payload.
    #[error("payload segment at {at} is not whole pages, out of order, overlapping or too large")]
    SegmentShape { at: Va },
    #[error("payload segment at {at} is mapped {access:?}, which its contents forbid")]
    SegmentAccess { at: Va, access: Access },
    #[error("payload byte at {at} is not what the new image has there")]
    PayloadByte { at: Va },
    #[error("carried function {range} is not in the payload")]
    NotCarried { range: VaRange },
    #[error("the payload cannot be placed: {0}")]
    Place(String),
    #[error(
        "reference of the payload at {at} leads to {old_target} in the old image, in the new one to {new_target}: {why}"
    )]
    PayloadReference { at: Va, old_target: Va, new_target: Va, why: Mismatch },
    #[error("reference of the payload at {at} leads to {new_target}, which the payload does not hold")]
    Unresolved { at: Va, new_target: Va },
    #[error(
        "reference of the payload at {at} takes the address of {new_target} in the payload, not of the old function"
    )]
    PointerIdentity { at: Va, new_target: Va },
    #[error("fix-up at {at} is out of order, doubled, or no reference of a carried function that leaves the payload")]
    StrayFixup { at: Va },
    #[error("fix-up at {at} states the wrong following instruction")]
    FixupNext { at: Va },
    #[error("slot at {at} is not bound to the stated symbol in the new image, or is out of order")]
    ImportSlot { at: Va },
    #[error("slot at {at} is for an import that nothing in the payload goes through")]
    StrayImport { at: Va },
    #[error("pointer at {at} is out of order, missing, or not what the loader would put there")]
    Pointer { at: Va },
    #[error("{side} image: instruction at {at} writes into a table of pointers that the payload has a copy of")]
    TableWritten { side: Side, at: Va },
    #[error("the address of {new_target} in the payload is taken at {at}, and may be held when the patch is reverted")]
    Revert { at: Va, new_target: Va },
    #[error("carried function {range} has exception handlers, which a payload cannot register")]
    LandingPads { range: VaRange },

    // Words changed in place.
    #[error("the word at {old_va} is out of order, or no aligned word of a table that is the same but for such words")]
    WordPlace { old_va: Va },
    #[error("the word at {old_va} is not what the loader leaves there")]
    WordExpected { old_va: Va },
    #[error("the word at {old_va} does not become what the loader makes of the one at {new_va}")]
    WordValue { old_va: Va, new_va: Va },
    #[error("the word at {old_va} may be the size or the place of something, and data have another size")]
    WordResized { old_va: Va },
    #[error("the function at {entry} may read words that change and is not named, or there are none")]
    WordReader { entry: Va },

    // Detours.
    #[error("detour at {old_va} is out of order or overlaps another")]
    DetourOrder { old_va: Va },
    #[error("detour of {old_entry} is of no function that is claimed to be changed")]
    DetourUnclaimed { old_entry: Va },
    #[error("detour of {old_entry} is written at {old_va}, not at the entry or after its endbr64")]
    DetourPlace { old_entry: Va, old_va: Va },
    #[error("detour at {old_va} expects other bytes than the old image has")]
    DetourExpected { old_va: Va },
    #[error("detour at {old_va} leads to {new_target}, not to the new function")]
    DetourTarget { old_va: Va, new_target: Va },
    #[error("detour at {old_va} overwrites bytes past the end of its function")]
    DetourTooLong { old_va: Va },
    #[error("{at} leads to {target}, inside the bytes that a detour overwrites")]
    DetourEntered { at: Va, target: Va },
    #[error("changed function at {old_entry} is reached from outside and has no detour")]
    DetourMissing { old_entry: Va },
    #[error("changed function at {old_entry} has a detour, and nothing shows that the new one has its role")]
    RoleUnproven { old_entry: Va },
    #[error("instructions at {old_at} (old) and {new_at} (new) do not take the two versions of one function alike")]
    Taking { old_at: Va, new_at: Va },
    #[error("{side} image: something leads to the function at {entry}, to which nothing is claimed to lead")]
    Reached { side: Side, entry: Va },
    #[error("{side} range {range} is missing from, or has no place in, the list of replaced functions")]
    Replaced { side: Side, range: VaRange },
}

impl From<PlaceError> for Invalid {
    fn from(error: PlaceError) -> Self {
        Self::Place(error.to_string())
    }
}
