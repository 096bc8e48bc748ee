//! What can be wrong with a patch file, and with one livepatch of it.

use super::JUMP_BYTES;
use crate::{FORMAT_VERSION, OLDEST_FORMAT_VERSION, Verdict};
use salve_elf::{Va, VaRange};

/// Contents that contradict themselves. `image` and `livepatch` count from zero.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("format version {found} is not in {OLDEST_FORMAT_VERSION}..={FORMAT_VERSION}")]
    Version { found: u32 },
    #[error("{what} is empty, too long or has control characters")]
    Name { what: &'static str },
    #[error("image {image} has slots for imports, which belong to a later version")]
    ImportsAgainstVersion { image: usize },
    #[error("image {image} has slots or pointers for addresses of its own, which belong to a later version")]
    OwnAgainstVersion { image: usize },
    #[error("image {image} has call frame information, which belongs to a later version")]
    UnwindAgainstVersion { image: usize },
    #[error("image {image} changes words of constants, which belongs to a later version")]
    WordsAgainstVersion { image: usize },
    #[error("the list of what is not healed is missing, or belongs to a later version")]
    NotHealedAgainstVersion,
    #[error("the list of what is not healed is not in order, counts less than it names, or names too much")]
    NotHealed,
    #[error("image {image} exists on neither side")]
    NoImage { image: usize },
    #[error("image {image} is {verdict:?} and has a livepatch, or lacks one")]
    LivepatchAgainstVerdict { image: usize, verdict: Verdict },
    #[error("image {image} has a livepatch and is the same on both sides, or lacks a side")]
    LivepatchWithoutPair { image: usize },
    #[error("verdict {verdict:?} on image {image} is milder than its reason {code} allows")]
    VerdictTooMild { image: usize, verdict: Verdict, code: String },
    #[error("verdict {verdict:?} on image {image} has no reason")]
    NoReason { image: usize, verdict: Verdict },
    #[error("image {image} has another livepatch for the content of image {earlier}")]
    AmbiguousImage { image: usize, earlier: usize },
    #[error("{count} livepatches or their segments are too many for one file")]
    TooMany { count: usize },
    #[error("livepatch {livepatch}: {fault}")]
    Livepatch {
        livepatch: usize,
        #[source]
        fault: Fault,
    },
}

/// What is wrong with one livepatch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("no payload or no detour")]
    Nothing,
    #[error("segment at {new_va} is empty or not whole pages")]
    SegmentUnaligned { new_va: Va },
    #[error("segment at {new_va} is too high or too far from the first")]
    SegmentOutOfReach { new_va: Va },
    #[error("segment at {new_va} overlaps the one before or is out of order")]
    SegmentOrder { new_va: Va },
    #[error("fix-up at {new_va} overlaps the one before or is out of order")]
    FixupOrder { new_va: Va },
    #[error("fix-up at {new_va} lies outside the payload")]
    FixupOutside { new_va: Va },
    #[error("fix-up at {new_va} belongs to an instruction that ends at {new_next}")]
    FixupInstruction { new_va: Va, new_next: Va },
    #[error("slot at {new_va} is no aligned slot of read-only payload, or overlaps a fix-up")]
    ImportPlace { new_va: Va },
    #[error("slot at {new_va} overlaps the one before or is out of order")]
    ImportOrder { new_va: Va },
    #[error("pointer at {new_va} is out of order, no word of read-only payload, or leads nowhere")]
    PointerPlace { new_va: Va },
    #[error("detour at {old_va} overlaps the one before or is out of order")]
    DetourOrder { old_va: Va },
    #[error("detour at {old_va} expects {len} bytes, not {JUMP_BYTES}")]
    DetourLength { old_va: Va, len: usize },
    #[error("detour at {old_va} does not begin at its function's entry {old_entry} or after endbr64")]
    DetourEntry { old_va: Va, old_entry: Va },
    #[error("detour at {old_va} overwrites bytes of no replaced function")]
    DetourOutsideFunction { old_va: Va },
    #[error("detour at {old_va} leads to {new_target}, which is in no new function")]
    DetourTarget { old_va: Va, new_target: Va },
    #[error("{count} words are too many to be written in one go")]
    TooManyWords { count: usize },
    #[error("word at {old_va} is out of order, not aligned, or overlaps the one before")]
    WordPlace { old_va: Va },
    #[error("word at {old_va} does not change, lies in a detour, or leads nowhere")]
    WordValue { old_va: Va },
    #[error("function {range} that reads words is empty, out of order, or reads none")]
    ReaderPlace { range: VaRange },
    #[error("function {name} has neither an old nor a new part")]
    FunctionNowhere { name: String },
    #[error("function {name} has the empty part {range}")]
    FunctionEmpty { name: String, range: VaRange },
    #[error("function {name} has a part at {range} outside the executable payload")]
    FunctionOutside { name: String, range: VaRange },
    #[error("part {range} of a function overlaps another function's")]
    FunctionOverlap { range: VaRange },
    #[error("call frame information of {new_range} is empty, out of order, outside the code or names no entry")]
    UnwindPlace { new_range: VaRange },
    #[error("call frame information has an entry that nothing uses, or one that is too long")]
    UnwindEntry,
    #[error("requirement on {symbol} tests no bit")]
    RequirementEmpty { symbol: String },
    #[error("{what} is empty, too long or has control characters")]
    Name { what: &'static str },
}
