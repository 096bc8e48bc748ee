use crate::{AssemblyView, Failure, ProbeReport, SandboxReport};
use core::fmt;
use salve_elf::ContentHash;
use salve_patch::Verdict;
use serde::{Deserialize, Serialize};

/// One line from `salve-derive`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Response {
    /// First line: the sandbox stands, and no foreign byte has been read yet.
    Hello(Hello),
    Progress(Progress),
    Derived(DerivedSummary),
    Assembly(AssemblyView),
    Probed(ProbeReport),
    Attempted(AttemptReport),
    Failed(Failure),
}

impl Response {
    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        match self {
            Self::Hello(_) | Self::Progress(_) => false,
            Self::Derived(_) | Self::Assembly(_) | Self::Probed(_) | Self::Attempted(_) | Self::Failed(_) => true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    pub protocol_version: u32,
    /// Program and version.
    pub program: String,
    pub sandbox: SandboxReport,
}

/// What is being done, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Unpacking and hashing a side.
    Read,
    /// Finding out which images belong together.
    Pair,
    /// Comparing, judging, composing and validating one image.
    Analyse,
    /// Writing the patch file.
    Write,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reading",
            Self::Pair => "pairing",
            Self::Analyse => "analysing",
            Self::Write => "writing",
        })
    }
}

/// `done` of `total` of a stage; for images the one that was finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    pub stage: Stage,
    pub image: Option<String>,
    pub done: u64,
    pub total: u64,
}

/// The patch file is written; what is in it, in brief.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DerivedSummary {
    pub patch_len_bytes: u64,
    pub patch_sha256: ContentHash,
    pub verdict: Verdict,
    pub images: Vec<DerivedImage>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DerivedImage {
    pub path: String,
    pub verdict: Verdict,
    /// Reason codes, in the order of the report.
    pub reasons: Vec<String>,
    pub has_livepatch: bool,
    /// Time that comparing, judging, composing and validating took.
    pub analysis_micros: u64,
}

/// What came of a forbidden thing. Most attempts never get to answer: they are killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptReport {
    /// It was done: the sandbox does not hold.
    pub succeeded: bool,
    pub seen: String,
}
