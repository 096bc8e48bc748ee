use crate::RootError;
use crate::stanza::StanzaError;

/// Why the package database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DpkgError {
    #[error("there is no package database")]
    NoDatabase,
    #[error(transparent)]
    Root(#[from] RootError),
    #[error("{file} is malformed")]
    Stanza {
        file: String,
        #[source]
        source: StanzaError,
    },
    #[error("record of package {package} in {file} lacks the field {field}, or has an invalid one")]
    Field { file: String, package: String, field: &'static str },
    #[error("diversions are malformed at line {line}")]
    Diversions { line: usize },
}
