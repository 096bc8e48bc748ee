//! Salve killed at every moment, and what a process notices of it.
//!
//! The victim (`victims/torture.c`) checks itself: answers, mixtures of old and new
//! functions, floating point, queued signals, calls that end with `EINTR`. From outside it
//! is looked at for what was left: text, mappings, descriptors. After each kill the next
//! command has to find what was half done and finish or undo it.
//!
//! A round costs one run of Salve that is killed and one that is not: the victim is kept,
//! and the order of the rounds ([`rounds`]) is such that the command after one kill brings
//! the victim to where the next one begins.

mod adversity;
mod busy;
mod tally;
mod victim;

pub use adversity::{Adversity, Hardship};
pub use busy::Busy;
pub use tally::{Seen, Tally};
pub use victim::{Victim, Words};

use crate::patchfile::{self, Derived};
use crate::salve::{Salve, exit};
use crate::tree;
use crate::victim::Source;
use anyhow::{Result, ensure};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// How a victim spends its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    OneThread,
    /// Workers, threads asleep in every kind of call, threads that come and go.
    ManyThreads,
    /// Three processes that were forked from one another and share memory; one of them
    /// has the threads. They change together (decision 0017).
    Group,
    /// Two threads on one processor that count in restartable sequences (decision 0015).
    Sequences,
}

impl Life {
    pub const ALL: [Self; 4] = [Self::OneThread, Self::ManyThreads, Self::Group, Self::Sequences];
    /// Those to which anything else may happen as well.
    pub const ALONE: [Self; 2] = [Self::OneThread, Self::ManyThreads];

    /// By this name the victim knows it.
    #[must_use]
    pub const fn argument(self) -> &'static str {
        match self {
            Self::OneThread => "one",
            Self::ManyThreads => "many",
            Self::Group => "group",
            Self::Sequences => "sequences",
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneThread => "one thread",
            Self::ManyThreads => "many threads",
            Self::Group => "a group of processes",
            Self::Sequences => "restartable sequences",
        })
    }
}

impl Life {
    /// At which of its calls an act is killed in a full run. A group's act makes three times
    /// the calls, and each kill takes as much longer.
    #[must_use]
    pub const fn stride(self) -> u64 {
        match self {
            Self::OneThread | Self::ManyThreads | Self::Sequences => 1,
            Self::Group => 5,
        }
    }

    /// How many processes it has besides the one that is started.
    const fn children(self) -> usize {
        match self {
            Self::OneThread | Self::ManyThreads | Self::Sequences => 0,
            Self::Group => 2,
        }
    }
}

/// What is killed; also where a victim stands after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Apply,
    Revert,
}

impl Act {
    pub const ALL: [Self; 2] = [Self::Apply, Self::Revert];

    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Apply => Self::Revert,
            Self::Revert => Self::Apply,
        }
    }

    /// What the victim answers by after it.
    const fn answer(self) -> u64 {
        match self {
            Self::Revert => 1,
            Self::Apply => 2,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apply => "apply",
            Self::Revert => "revert",
        })
    }
}

/// One kill: what is killed, at which number, and the command after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    pub act: Act,
    pub at: u64,
    pub next: Act,
}

/// Four rounds for two numbers, from a process without livepatch back to one. Each act is
/// killed at both, and after a kill the same command follows once and its opposite once.
pub const fn rounds(at: u64, then: u64) -> [Round; 4] {
    [
        Round { act: Act::Apply, at, next: Act::Revert },
        Round { act: Act::Apply, at: then, next: Act::Apply },
        Round { act: Act::Revert, at, next: Act::Apply },
        Round { act: Act::Revert, at: then, next: Act::Revert },
    ]
}

/// Both versions of the program, the patch between them, and a Salve to be killed.
#[derive(Debug)]
pub struct Bench {
    salve: Salve,
    old: PathBuf,
    derived: Derived,
    directory: TempDir,
}

impl Bench {
    pub fn new() -> Result<Self> {
        let directory = tree::scratch("torture")?;
        let salve = Salve::built()?.events_to(&directory.path().join("events.jsonl"));
        let [old, new] = Source::named("torture.c")?.programs(directory.path(), &[])?;
        let derived = patchfile::derive(&salve, &old, &new)?;
        ensure!(derived.run.code == Some(exit::DONE), "{}{}", derived.run.stdout, derived.run.stderr);
        Ok(Self { salve, old, derived, directory })
    }

    fn arguments(&self, act: Act, pid: u32) -> Vec<OsString> {
        let mut words: Vec<OsString> = match act {
            Act::Apply => vec!["apply".into(), "--accept".into(), "direction-unknown".into()],
            Act::Revert => vec!["revert".into()],
        };
        words.extend(["--pid".into(), pid.to_string().into(), "--wait".into(), "30s".into()]);
        if act == Act::Apply {
            words.push(self.derived.file.clone().into_os_string());
        }
        words
    }

    pub fn start(&self, life: Life) -> Result<Victim<'_>> {
        Victim::start(self, life)
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_where_the_command_before_it_ended() {
        let mut state = Act::Revert;
        for round in rounds(4, 9) {
            assert_eq!(round.act.other(), state, "{round:?}");
            state = round.next;
        }
        assert_eq!(state, Act::Revert);
        for act in Act::ALL {
            let of_act: Vec<u64> = rounds(4, 9).iter().filter(|round| round.act == act).map(|round| round.at).collect();
            assert_eq!(of_act, [4, 9]);
        }
    }
}
