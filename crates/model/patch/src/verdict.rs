use crate::{ImageId, Livepatch};
use salve_elf::Va;
use serde::{Deserialize, Serialize};

/// What may be done with one image, gravest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// This update changes no code here. It never says "not affected".
    Unchanged,
    /// Every reference is proven, and none of the known signals of state that
    /// two files cannot show is present. Not a proof that the two programs
    /// mean the same.
    Safe,
    /// Every reference is proven, but a signal is present that a person has to judge.
    Review,
    /// No livepatch can be made that Salve could prove.
    Refused,
}

/// Why a verdict is what it is: a registered code and what was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A code of the registry in `salve-verdict`, e.g. `struct-layout`. Codes are API.
    pub code: String,
    /// The least favourable verdict that this reason allows.
    pub verdict: Verdict,
    /// One sentence for a reader.
    pub summary: String,
    pub evidence: Vec<Evidence>,
}

/// One thing that a person can check with a disassembler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Function it was seen in: its name, or `fn_<address>` for one without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_va: Option<Va>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_va: Option<Va>,
    /// What was seen there.
    pub seen: String,
}

/// A function that differs only in what is proven not to matter, and was left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoiseReport {
    pub function: String,
    pub old_va: Va,
    pub new_va: Va,
    /// Each differing value: where it stands, what it was and is, and where it flows.
    pub proof: Vec<Evidence>,
}

/// How many functions of an image fell into which class; the classes partition them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCounts {
    pub old: u64,
    pub new: u64,
    pub identical: u64,
    pub noise: u64,
    pub changed: u64,
    pub added: u64,
    pub gone: u64,
}

/// References that the livepatch's code and data make, by where they lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceCounts {
    /// To the payload itself.
    pub payload: u64,
    /// To functions of the old image.
    pub old_code: u64,
    /// To data of the old image.
    pub old_data: u64,
    /// Through a slot of the old image that the loader bound to another image.
    pub imports: u64,
}

/// The verdict on one image of the pair, and the livepatch if there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReport {
    /// Path inside the package or tree, e.g. `/usr/sbin/haproxy`.
    pub path: String,
    /// `None` where the image exists on the new side only.
    pub old: Option<ImageId>,
    /// `None` where the image exists on the old side only.
    pub new: Option<ImageId>,
    pub verdict: Verdict,
    pub reasons: Vec<Reason>,
    pub functions: FunctionCounts,
    pub references: ReferenceCounts,
    pub noise: Vec<NoiseReport>,
    /// Present exactly when the verdict is `safe` or `review`.
    pub livepatch: Option<Livepatch>,
}
