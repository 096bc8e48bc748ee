//! What the deriving side claims about two images, for the validator to check.
//!
//! The claims are a bisimulation written down: pairs of functions and runs of
//! data of which it is said "this is the same thing in both images", each to
//! be checked on its own against the bytes, with every reference between them
//! leading to another claimed pair. The checker finds nothing by itself, so it
//! shares no search, no heuristic and no decoder with the matcher.
//!
//! Claims are values in memory between derivation and validation; they are no
//! part of the patch file.

use salve_elf::{Va, VaRange};

/// All claims about one pair of images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Functions (and PLT stubs, and code without unwind information) whose
    /// instructions are equal but for references, and whose references all
    /// lead to the same thing. Sorted by `new`.
    pub same: Vec<FunctionPair>,
    /// Functions equal but for the listed sites, left as they are. Sorted by `new`.
    pub noise: Vec<NoiseClaim>,
    /// Functions whose new body is in the payload and replaces the old one:
    /// their entries correspond, nothing inside does. Sorted by `new`.
    pub changed: Vec<FunctionPair>,
    /// Functions that differ, of which neither image has a way to run them: no claim
    /// covers what they do, and nothing may lead to them. Sorted by `new`.
    pub unreached: Vec<FunctionPair>,
    /// Where two versions of a `changed` function take the addresses of both versions
    /// of another one, in straight code that is equal: what shows that the one has the
    /// role of the other where nothing that stays does.
    pub takings: Vec<TakingSite>,
    /// Functions of the new image in the payload that have no old counterpart.
    pub added: Vec<VaRange>,
    /// Functions of the old image that have no new counterpart.
    pub gone: Vec<VaRange>,
    /// Runs of data that are the same object in both images. In sections with
    /// contents the bytes are equal, but for relocated slots (which have to
    /// bind the same thing) and listed jump tables. Sorted by `new`.
    pub data: Vec<DataRun>,
    /// Parts of runs in writable data whose initial contents differ: the process
    /// keeps the value it has, and the verdict says so. Never slots, never data
    /// that is read-only once the image is loaded. Sorted by `new`.
    pub kept: Vec<DataRun>,
    /// Texts that are equal up to and including their terminating zero, where no
    /// run fits because the linker stored one as the tail of another (suffix
    /// merging). Only addresses that are taken may lead there. Sorted.
    pub texts: Vec<TextPair>,
    /// Slots that hold the addresses of zero-terminated texts which differ, in
    /// objects that are else the same: the old text stays, and the verdict says
    /// why it may. No run need cover them. Sorted.
    pub text_slots: Vec<TextPair>,
    /// Jump tables in read-only data: `entries` signed 32-bit distances from
    /// the table's start into the function that owns it. Sorted by `new`.
    pub jump_tables: Vec<JumpTable>,
}

/// One function part and its counterpart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FunctionPair {
    pub old: VaRange,
    pub new: VaRange,
}

/// Two instructions, one in each version of a changed function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TakingSite {
    pub new_at: Va,
    pub old_at: Va,
    /// No other place in either version is like it.
    pub unique: bool,
}

/// A function that differs at some sites in values that are noise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoiseClaim {
    pub pair: FunctionPair,
    pub sites: Vec<NoiseSite>,
}

/// One instruction whose operand differs in value only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoiseSite {
    /// Address of the instruction in each image.
    pub old_at: Va,
    pub new_at: Va,
    pub kind: NoiseKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseKind {
    /// Both refer to a NUL-terminated string in read-only data; the strings differ.
    String,
    /// Both have an immediate operand of the same size; the values differ.
    Immediate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataRun {
    pub new: Va,
    pub old: Va,
    pub len_bytes: u64,
}

/// Starts of two zero-terminated texts in read-only data, or slots that point to two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TextPair {
    pub new: Va,
    pub old: Va,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JumpTable {
    pub new: Va,
    pub old: Va,
    pub entries: u32,
    /// Entry of the function pair (in `same` or `noise`) that jumps through it.
    pub new_owner: Va,
}
