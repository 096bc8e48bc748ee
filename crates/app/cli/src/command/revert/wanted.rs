//! Which livepatches a person meant.

use crate::command::file;
use crate::problem::Problem;
use salve_patch::{ImageReport, LivepatchId};
use salve_tracee::{LivepatchState, ProcessStatus, Selection};
use std::collections::BTreeSet;
use std::path::Path;

pub(super) enum Wanted {
    All,
    Ids(Vec<LivepatchId>),
    /// The beginning of an id, in hexadecimal.
    Beginning(String),
}

impl Wanted {
    /// A patch file, or an id, or the beginning of one.
    pub(super) fn of(text: Option<&str>) -> Result<Self, Problem> {
        let Some(text) = text else { return Ok(Self::All) };
        let hexadecimal = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if hexadecimal && (8..=64).contains(&text.len()) && !Path::new(text).exists() {
            return Ok(Self::Beginning(text.to_owned()));
        }
        let (patch, _) = file::read_patch(Path::new(text)).map_err(|problem| {
            if hexadecimal { problem.hint("an id is given by its first eight digits at least") } else { problem }
        })?;
        Ok(Self::Ids(patch.images.iter().filter_map(ImageReport::livepatch_id).collect()))
    }

    /// Those of the wanted livepatches that this process carries.
    ///
    /// Where a Salve was killed, threads of the process may still be finishing what it began:
    /// what is not in force at this look can be at the next, and is meant as well.
    pub(super) fn among(&self, status: &ProcessStatus, untidy: bool) -> Result<Selection, Problem> {
        match self {
            Self::All if untidy => return Ok(Selection::All),
            Self::Ids(ids) if untidy => return Ok(Selection::These(ids.clone())),
            Self::All | Self::Ids(_) | Self::Beginning(_) => {}
        }
        let there = || in_force(status);
        let ids: Vec<LivepatchId> = match self {
            Self::All => there().collect(),
            Self::Ids(ids) => there().filter(|id| ids.contains(id)).collect(),
            Self::Beginning(text) => there().filter(|id| id.to_string().starts_with(text)).collect(),
        };
        self.check_distinct(ids.iter().copied())?;
        let distinct: BTreeSet<LivepatchId> = ids.into_iter().collect();
        Ok(Selection::These(distinct.into_iter().collect()))
    }

    /// A beginning has to mean one livepatch, wherever it is.
    pub(super) fn check_distinct(&self, found: impl Iterator<Item = LivepatchId>) -> Result<(), Problem> {
        if matches!(self, Self::Beginning(_)) && found.collect::<BTreeSet<_>>().len() > 1 {
            return Err(Problem::usage("ambiguous-livepatch", "more than one livepatch begins like that")
                .hint("give more digits of the id that `salve status` shows"));
        }
        Ok(())
    }
}

/// What a process carries, in whatever state but reverted.
pub(super) fn in_force(status: &ProcessStatus) -> impl Iterator<Item = LivepatchId> {
    status.livepatches.iter().filter(|one| one.state != LivepatchState::Reverted).map(|one| one.livepatch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_means_one_livepatch_in_however_many_processes() {
        let [one, other] = [b"one".as_slice(), b"other"].map(|bytes| LivepatchId(salve_elf::ContentHash::of(bytes)));
        let beginning = Wanted::Beginning("0123abcd".to_owned());
        assert!(beginning.check_distinct([one, one].into_iter()).is_ok());
        let refused = beginning.check_distinct([one, other].into_iter()).map_err(|problem| problem.code);
        assert_eq!(refused, Err("ambiguous-livepatch".into()));
        assert!(Wanted::All.check_distinct([one, other].into_iter()).is_ok());
    }
}
