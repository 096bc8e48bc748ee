//! What an update changes besides the code of its ELF images.
//!
//! No livepatch carries any of it, and whoever reads that an update is applied
//! has to know what of it is not: configuration files, maintainer scripts, data
//! and programs in other languages reach a service only with the package. The
//! list is for readers: nothing is decided by it.

use serde::{Deserialize, Serialize};

/// Files that one group names at most; [`NotHealedGroup::files`] counts all.
pub const MAX_NAMED: usize = 1000;

/// What else an update changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum NotHealed {
    /// The list of files of one side or both is not at hand. `present` counts
    /// what the new side has besides ELF images, where that is known: any of
    /// it may differ.
    Unknown { present: Vec<ClassCount> },
    /// Everything that differs, each class once, in the order of [`FileClass`].
    Known { groups: Vec<NotHealedGroup> },
}

/// How many files of a class there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    pub class: FileClass,
    pub files: u64,
}

/// What differs, of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotHealedGroup {
    pub class: FileClass,
    pub files: u64,
    /// Sorted by path; the first [`MAX_NAMED`].
    pub named: Vec<FileChange>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Path on the system; a maintainer script by its name in the package.
    pub path: String,
    pub change: ChangeKind,
}

/// What a file is to a running system; the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileClass {
    /// Configuration that the administrator owns (Debian Policy §10.7).
    Conffile,
    /// `preinst`, `postinst` and the like (Debian Policy §6): what they do is done at installation.
    MaintainerScript,
    /// Units, bus services, rules: what the service manager and the like read.
    ServiceUnit,
    /// Code of interpreters, executed from its file.
    Script,
    /// Symbolic and hard links.
    Link,
    Data,
    /// Manuals, changelogs, copyright and whatever else only people read.
    Documentation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    Added,
    Removed,
    Contents,
    /// Mode, owner or group alone.
    Permissions,
    /// One side keeps no checksum of it.
    Unknown,
}

impl FileClass {
    pub const ALL: [Self; 7] = [
        Self::Conffile,
        Self::MaintainerScript,
        Self::ServiceUnit,
        Self::Script,
        Self::Link,
        Self::Data,
        Self::Documentation,
    ];
}
