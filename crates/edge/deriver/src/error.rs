use crate::LocateError;
use rustix::io::Errno;
use salve_patch::DecodeError;
use salve_protocol::{Failure, LimitedResource, LineError};
use std::path::PathBuf;
use std::time::Duration;

/// Why a file could not be handed over.
#[derive(Debug, thiserror::Error)]
pub enum InputFault {
    #[error("cannot open it for reading")]
    Reopen {
        #[source]
        source: Errno,
    },
    #[error("cannot hash it")]
    Hash {
        #[source]
        source: Errno,
    },
    #[error("it was not handed over")]
    Missing,
}

/// How a patch file that came back contradicts the request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWhatWasAsked {
    #[error("{have_bytes} bytes were written, {said_bytes} announced")]
    Length { said_bytes: u64, have_bytes: u64 },
    #[error("the bytes that were written are not those that were announced")]
    Digest,
    #[error("another program is named as its creator")]
    CreatedBy,
    #[error("other packages are named as its origin")]
    Origin,
    #[error("{image} is none of the images that were handed over, or changed meanwhile")]
    ForeignImage { image: String },
}

/// What may come of a request besides its answer.
#[derive(Debug, thiserror::Error)]
pub enum DeriverError {
    #[error("cannot find salve-derive")]
    Locate(#[from] LocateError),
    #[error("cannot start {}", program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make a channel")]
    Channel {
        #[source]
        source: Errno,
    },
    #[error("cannot make a place for the result")]
    CreateOutput {
        #[source]
        source: Errno,
    },
    #[error("cannot seal the result")]
    SealOutput {
        #[source]
        source: Errno,
    },
    #[error("cannot read the result")]
    ReadOutput {
        #[source]
        source: Errno,
    },
    #[error("cannot hand over {name}")]
    Input {
        name: String,
        #[source]
        fault: InputFault,
    },
    #[error("{have} files, the limit is {limit}")]
    TooManyFiles { have: usize, limit: usize },
    #[error("cannot send the request")]
    Send {
        #[source]
        source: Errno,
    },
    #[error("cannot listen to salve-derive")]
    Listen {
        #[source]
        source: Errno,
    },
    /// It answered that it cannot; a typed kind, with the words that go with it.
    #[error("salve-derive could not do it")]
    Failed(#[source] Failure),
    #[error("salve-derive hit its limit on {resource} ({limit})")]
    ResourceLimit { resource: LimitedResource, limit: u64 },
    /// It called the kernel in a way the filter forbids: a defect, or an attack that was stopped.
    #[error("salve-derive was killed by its sandbox ({signal_name})")]
    SandboxViolation { signal: i32, signal_name: &'static str, said: String },
    #[error("salve-derive was killed by signal {signal} ({signal_name})")]
    Killed { signal: i32, signal_name: &'static str, said: String },
    #[error("salve-derive ended with status {code} before it answered")]
    Ended { code: i32, said: String },
    #[error("salve-derive did not answer within {limit:?}")]
    TimedOut { limit: Duration },
    #[error("salve-derive speaks protocol {theirs}, this program {ours}")]
    Version { theirs: u32, ours: u32 },
    #[error("salve-derive sent something that is no answer")]
    Garbled {
        #[source]
        source: LineError,
    },
    #[error("salve-derive answered something else than was asked")]
    UnexpectedAnswer,
    #[error("the patch file that came back cannot be read")]
    BadPatch {
        #[source]
        source: DecodeError,
    },
    #[error("the patch file that came back is not what was asked for")]
    NotWhatWasAsked(#[from] NotWhatWasAsked),
}

impl DeriverError {
    /// What a person may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Failed(failure) => failure.hint.clone(),
            Self::Locate(LocateError::NotFound { .. }) => Some(
                "install the package salve-derive (`apt install salve-derive`); a build of your own needs it beside \
                 salve, or named in SALVE_DERIVE"
                    .to_owned(),
            ),
            Self::Locate(LocateError::BadOverride { .. }) => {
                Some("unset SALVE_DERIVE, or have it name the program salve-derive".to_owned())
            }
            Self::Version { .. } => Some("salve and salve-derive come from different builds; install both".to_owned()),
            Self::SandboxViolation { .. } => {
                Some("the input may be hostile; keep it, and report this if it came from your distributor".to_owned())
            }
            Self::Killed { signal, .. } if *signal == rustix::process::Signal::KILL.as_raw() => {
                Some("the kernel does this when memory runs out".to_owned())
            }
            Self::TooManyFiles { .. } => Some("derive from packages, or from a part of the tree".to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_missing_is_asked_for_by_its_package_and_a_wrong_name_by_the_variable() {
        let hint = |error: LocateError| DeriverError::Locate(error).hint().unwrap_or_default();
        assert!(hint(LocateError::NotFound { tried: Vec::new() }).contains("apt install salve-derive"));
        assert!(hint(LocateError::BadOverride { path: "/x".into() }).starts_with("unset SALVE_DERIVE"));
    }
}
