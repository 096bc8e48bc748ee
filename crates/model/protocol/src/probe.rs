use salve_elf::{BuildId, ContentHash};
use salve_patch::PackageId;
use serde::{Deserialize, Serialize};

/// What one side consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeReport {
    /// As the control file says, or as the caller did; `None` for plain files.
    pub package: Option<PackageId>,
    /// Every ELF file, and of the files that were named one by one every file; sorted by path.
    pub files: Vec<ProbedFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbedFile {
    pub path: String,
    pub sha256: ContentHash,
    pub len_bytes: u64,
    pub what: ProbedKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ProbedKind {
    /// An image that Salve can work on.
    Image(ElfFacts),
    /// An ELF file, or something that was called one, that it cannot.
    Unusable(UnusableFile),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElfFacts {
    /// An index for finding candidates, never an identity.
    pub build_id: Option<BuildId>,
    pub soname: Option<String>,
    /// A dynamic linker binds it.
    pub dynamic: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnusableFile {
    pub why: String,
}
