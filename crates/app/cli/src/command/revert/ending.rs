//! How the revert of one process ended.

use crate::carry::Ending;
use crate::exit::Exit;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RevertEnding {
    /// It would be done; this was a dry run.
    Planned,
    Reverted,
    NothingToRevert,
    Gone,
    NotReverted,
    Deferred,
    Interrupted,
    RolledBack,
    Indeterminate,
    Failed,
}

impl RevertEnding {
    pub(super) const fn exit(self) -> Exit {
        match self {
            Self::Planned | Self::Reverted | Self::NothingToRevert | Self::Gone => Exit::Done,
            Self::NotReverted => Exit::Refused,
            Self::Deferred | Self::Interrupted => Exit::Incomplete,
            Self::RolledBack | Self::Indeterminate | Self::Failed => Exit::Failed,
        }
    }

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Planned => "would be reverted",
            Self::Reverted => "reverted",
            Self::NothingToRevert => "nothing to revert",
            Self::Gone => Ending::Gone.words(),
            Self::NotReverted => "not reverted",
            Self::Deferred => Ending::Deferred.words(),
            Self::Interrupted => Ending::Interrupted.words(),
            Self::RolledBack => Ending::RolledBack.words(),
            Self::Indeterminate => Ending::Indeterminate.words(),
            Self::Failed => Ending::Failed.words(),
        }
    }
}
