use crate::stanza::StanzaError;
use std::io;

/// Why a package cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    #[error("not a Debian package")]
    NotADeb,
    #[error("package format {found:?} is unknown")]
    UnknownFormat { found: String },
    #[error("package ends in the middle of {what}")]
    Truncated { what: String },
    #[error("archive header {index} is malformed")]
    ArHeader { index: usize },
    #[error("package has no {what}, or not in its place")]
    Missing { what: &'static str },
    #[error("compression of {member} is not supported")]
    Compression { member: String },
    #[error("{what} exceeds the limit of {limit}")]
    TooLarge { what: &'static str, limit: u64 },
    #[error("{member} is damaged")]
    Damaged {
        member: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the package")]
    Read {
        #[source]
        source: io::Error,
    },
    #[error("path {path:?} is empty or leaves the package's own tree")]
    Path { path: String },
    #[error("path {path:?} stands twice in the package")]
    Twice { path: String },
    #[error("tar entry {path:?} is of a kind that dpkg does not unpack ({kind:#04x})")]
    EntryKind { path: String, kind: u8 },
    #[error("control file is malformed")]
    Stanza(#[from] StanzaError),
    #[error("control file has no field {field}, or an invalid one")]
    Field { field: &'static str },
    #[error("control file is not UTF-8")]
    NotUtf8,
}
