use serde::{Deserialize, Serialize};

/// One binary package as its control file names it (Debian Policy §5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PackageId {
    pub name: String,
    pub source: String,
    pub version: String,
    pub architecture: String,
}

/// Where the two images came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Origin {
    /// Two versions of one package: the direction is known from the versions.
    Packages { old: PackageId, new: PackageId, cves: Cves },
    /// Two plain files or trees: the direction is what the caller said, nothing proves it.
    Files { old: String, new: String },
}

/// CVE ids that the new package's changelog names and the old one's does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Cves {
    /// No changelog at hand; never guessed.
    Unknown,
    Known {
        ids: Vec<String>,
    },
}
