use salve_elf::Va;
use serde::{Deserialize, Serialize};

/// Old and new code of one function, aligned for a reader. For eyes only:
/// nothing is decided from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssemblyView {
    /// Path of the image in the package or tree.
    pub image: String,
    pub function: String,
    pub rows: Vec<AssemblyRow>,
    /// What a reader has to know: a side that is not at hand, rows that were cut off.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssemblyRow {
    pub kind: RowKind,
    pub old: Option<AssemblyLine>,
    pub new: Option<AssemblyLine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowKind {
    /// The same text; addresses are compared by what they lead to where that has a name.
    Same,
    Changed,
    Removed,
    Added,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssemblyLine {
    pub va: Va,
    /// The instruction's bytes in lower-case hexadecimal.
    pub bytes: String,
    /// Intel syntax.
    pub text: String,
}
