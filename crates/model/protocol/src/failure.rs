use core::fmt;
use salve_patch::PackageId;
use serde::{Deserialize, Serialize};

/// Which of the two inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SideName {
    Old,
    New,
}

impl fmt::Display for SideName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "old",
            Self::New => "new",
        })
    }
}

/// What there was not enough of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitedResource {
    Memory,
    ProcessorTime,
    Output,
    InputBytes,
    Images,
}

impl fmt::Display for LimitedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::ProcessorTime => "processor time",
            Self::Output => "output bytes",
            Self::InputBytes => "input bytes",
            Self::Images => "images",
        })
    }
}

/// Why a request came to nothing. A refusal to patch is none of these: it is a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FailureKind {
    #[error("not an ELF file")]
    NotElf { input: String },
    #[error("ELF file of another word size or byte order")]
    NotElf64 { input: String },
    #[error("ELF file for another architecture")]
    OtherArchitecture { input: String },
    #[error("not a program or shared object")]
    NotLoadable { input: String },
    #[error("statically linked program")]
    StaticProgram { input: String },
    #[error("truncated ELF file")]
    TruncatedElf { input: String },
    #[error("malformed ELF file")]
    MalformedElf { input: String },
    #[error("not a Debian package")]
    NotADeb { input: String },
    #[error("malformed Debian package")]
    MalformedDeb { input: String },
    #[error("two different packages")]
    DifferentPackages { old: Box<PackageId>, new: Box<PackageId> },
    #[error("new version {new} is older than {old}")]
    Downgrade { old: String, new: String },
    #[error("both sides are version {version}")]
    SameVersion { version: String },
    #[error("no ELF image on the {side} side")]
    NoImages { side: SideName },
    #[error("limit on {resource} exceeded ({limit})")]
    ResourceLimit { resource: LimitedResource, limit: u64 },
    #[error("not a regular file")]
    NotAFile { input: String },
    #[error("cannot read an input")]
    Unreadable { input: String },
    #[error("cannot write the result")]
    Unwritable,
    #[error("not a patch file")]
    BadPatch,
    #[error("no such function")]
    NoSuchFunction { function: String },
    #[error("several images have such a function")]
    AmbiguousFunction { function: String, images: Vec<String> },
    #[error("malformed request")]
    BadRequest,
    #[error("cannot set up the sandbox")]
    Sandbox,
    #[error("defect in the analysis")]
    Internal,
}

/// A typed failure, with the words that go with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{kind}")]
pub struct Failure {
    pub kind: FailureKind,
    /// What led to it, outermost first; lowercase fragments, as any error chain.
    pub chain: Vec<String>,
    /// What a person may do about it.
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(kind: FailureKind) -> Self {
        Self { kind, chain: Vec::new(), hint: None }
    }

    /// The failure with the words of `error` and of everything beneath it.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn core::error::Error) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            self.chain.push(error.to_string());
            cause = error.source();
        }
        self
    }

    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.chain.push(why.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<FailureKind> for Failure {
    fn from(kind: FailureKind) -> Self {
        Self::new(kind)
    }
}
