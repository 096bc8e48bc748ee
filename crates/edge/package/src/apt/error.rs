use crate::stanza::StanzaError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why apt gave no candidate.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    #[error("{program} is not installed")]
    NotInstalled { program: &'static str },
    #[error("cannot run {program}")]
    Run {
        program: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{program} did not finish within {limit:?}")]
    TimedOut { program: &'static str, limit: Duration },
    #[error("{program} printed more than {limit} bytes")]
    TooMuchOutput { program: &'static str, limit: u64 },
    /// Another program holds one of apt's locks.
    #[error("apt is busy: {message}")]
    Locked { message: String },
    /// The archive, or the proxy to it, does not answer.
    #[error("the archive cannot be reached: {message}")]
    Unreachable { message: String },
    #[error("the package is not authenticated: {message}")]
    Unauthenticated { message: String },
    #[error("{program} failed: {message}")]
    Failed { program: &'static str, message: String },
    #[error("{name:?} is no name of a package")]
    Name { name: String },
    #[error("apt knows no package {name}")]
    Unknown { name: String },
    #[error("apt has no candidate for {name}")]
    NoCandidate { name: String },
    #[error("{what} of apt cannot be understood: {line:?}")]
    Output { what: &'static str, line: String },
    #[error("record of {name} {version} is malformed")]
    Stanza {
        name: String,
        version: String,
        #[source]
        source: StanzaError,
    },
    #[error("record of {name} {version} has no SHA-256")]
    NoHash { name: String, version: String },
    #[error("cannot use the directory {path}")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("apt reports success and left no package behind")]
    NothingDownloaded,
    #[error("cannot read what apt downloaded")]
    Read {
        #[source]
        source: io::Error,
    },
    #[error("package of {len} bytes exceeds the limit of {limit}")]
    TooLarge { len: u64, limit: u64 },
    #[error("downloaded package has the hash {found}, the archive's list says {expected}")]
    HashMismatch { expected: String, found: String },
}
