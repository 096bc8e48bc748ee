//! Watching the numbers that are given out to processes for those who join a group.

use super::Tie;
use super::numbers::{Mark, given_out, is_process, last_pid, open_numbers, started};
use crate::limits::Limits;
use crate::maps::Mapping;
use crate::process::{OpenError, Process, ProcessId, ReadError, list_pids};
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::{Mutex, PoisonError};

/// Sees who joins a group between the moment it was listed and its stop.
pub(crate) struct Watch {
    state: Mutex<State>,
}

/// What a number that was given out turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing, or a process in the making.
    Nobody,
    /// One that is none of the group and will not become one of it.
    Stranger,
    Joined,
}

struct State {
    /// `None`: nobody is watched for.
    ties: Option<BTreeSet<Tie>>,
    /// The images that change, by device and inode of their mappings.
    images: BTreeSet<((u32, u32), u64)>,
    known: BTreeSet<ProcessId>,
    /// The number that was given out last when the group stood and everybody was looked at.
    mark: i32,
    /// Who started before was there when all were listed.
    ticks: u64,
    glance: Option<Glance>,
    /// `/proc/loadavg`, once it was opened.
    numbers: Option<File>,
}

/// What was seen a moment before the group is stopped, so that it need not be looked at
/// while it stands.
struct Glance {
    /// The number given out last, read before anybody was looked at.
    last: i32,
    /// Numbers up to that one behind which nobody was found: processes in the making
    /// may be. `None` where they are too many to be named.
    nobody: Option<Vec<i32>>,
    strangers: BTreeSet<i32>,
}

impl Watch {
    pub(crate) fn nobody() -> Self {
        Self::of(None, Mark { last: 0, ticks: 0 })
    }

    pub(crate) fn new(ties: BTreeSet<Tie>, mark: Mark) -> Self {
        Self::of(Some(ties), mark)
    }

    fn of(ties: Option<BTreeSet<Tie>>, mark: Mark) -> Self {
        let (images, known) = (BTreeSet::new(), BTreeSet::new());
        let Mark { last: mark, ticks } = mark;
        Self { state: Mutex::new(State { ties, images, known, mark, ticks, glance: None, numbers: None }) }
    }

    /// Who maps none of these files does not change.
    pub(crate) fn concerns<'m>(&self, mappings: impl Iterator<Item = &'m Mapping>) {
        self.lock().images.extend(mappings.map(|mapping| (mapping.dev, mapping.inode)));
    }

    /// It is looked after, or need not be.
    pub(crate) fn knows(&self, process: ProcessId) {
        self.lock().known.insert(process);
    }

    /// It is looked for again.
    pub(crate) fn forgets(&self, process: ProcessId) {
        self.lock().known.remove(&process);
    }

    /// Processes that belong to the group and are not known, before it is stopped. A child
    /// in the making cannot be seen yet, so this proves nothing.
    pub(crate) fn joined_already(&self, limits: &Limits) -> Result<Vec<i32>, ReadError> {
        let mut state = self.lock();
        state.glance = None;
        let Some(last) = state.last_to_look_at()? else { return Ok(Vec::new()) };
        let numbers = given_out(state.mark, last);
        let looked_at = match &numbers {
            Some(numbers) => state.look(numbers.clone(), limits)?,
            None => state.look(list_pids()?.into_iter(), limits)?,
        };
        state.glance = Some(Glance {
            last,
            nobody: numbers.map(|_| of_kind(&looked_at, Seen::Nobody).collect()),
            strangers: of_kind(&looked_at, Seen::Stranger).collect(),
        });
        Ok(of_kind(&looked_at, Seen::Joined).collect())
    }

    /// The same while the group stands and can make no more. Reads nothing but `/proc`.
    pub(crate) fn joined(&self, limits: &Limits) -> Result<Vec<i32>, ReadError> {
        let mut state = self.lock();
        let Some(last) = state.last_to_look_at()? else { return Ok(Vec::new()) };
        let numbers: Vec<i32> = match state.glance.as_ref().and_then(|glance| glance.left(last)) {
            Some(left) => left,
            None => match given_out(state.mark, last) {
                Some(numbers) => numbers.collect(),
                None => list_pids()?,
            },
        };
        let strange = |pid: &i32| state.glance.as_ref().is_some_and(|glance| glance.strangers.contains(pid));
        let looked_at = state.look(numbers.into_iter().filter(|pid| !strange(pid)), limits)?;
        let joined: Vec<i32> = of_kind(&looked_at, Seen::Joined).collect();
        if joined.is_empty() {
            state.mark = last;
        }
        Ok(joined)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_kind(looked_at: &[(i32, Seen)], kind: Seen) -> impl Iterator<Item = i32> + '_ {
    looked_at.iter().filter(move |(_, seen)| *seen == kind).map(|(pid, _)| *pid)
}

impl Glance {
    /// The numbers that may have become somebody since.
    fn left(&self, last: i32) -> Option<Vec<i32>> {
        let nobody = self.nobody.as_ref()?;
        if last == self.last {
            return Some(nobody.clone());
        }
        Some(nobody.iter().copied().chain(given_out(self.last, last)?).collect())
    }
}

impl State {
    /// The number given out last; `None` where nobody is watched for, or nobody came.
    fn last_to_look_at(&mut self) -> Result<Option<i32>, ReadError> {
        if self.ties.is_none() {
            return Ok(None);
        }
        let numbers = match self.numbers.take() {
            Some(numbers) => numbers,
            None => open_numbers()?,
        };
        let last = last_pid(self.numbers.insert(numbers))?;
        Ok((last != self.mark).then_some(last))
    }

    fn look(&self, pids: impl Iterator<Item = i32>, limits: &Limits) -> Result<Vec<(i32, Seen)>, ReadError> {
        let Some(ties) = &self.ties else { return Ok(Vec::new()) };
        pids.map(|pid| Ok((pid, self.kind_of(pid, ties, limits)?))).collect()
    }

    fn kind_of(&self, pid: i32, ties: &BTreeSet<Tie>, limits: &Limits) -> Result<Seen, ReadError> {
        match is_process(pid)? {
            None => return Ok(Seen::Nobody),
            Some(false) => return Ok(Seen::Stranger),
            Some(true) => {}
        }
        match started(pid)? {
            None => return Ok(Seen::Nobody),
            Some(ticks) if ticks < self.ticks => return Ok(Seen::Stranger),
            Some(_) => {}
        }
        match Process::open(pid) {
            // Who may not even be looked at is none that may be changed.
            Err(
                OpenError::NoSuchProcess
                | OpenError::NoPermission
                | OpenError::Read(ReadError::Exited | ReadError::NoPermission { .. }),
            ) => Ok(Seen::Nobody),
            // The first two fork no more, or never did. What the third has mapped is not shown, so
            // nobody can tell whether it is tied to anybody.
            Err(OpenError::Zombie | OpenError::KernelThread | OpenError::Read(ReadError::FirstThreadEnded)) => {
                Ok(Seen::Stranger)
            }
            Err(OpenError::Read(error)) => Err(error),
            Ok(process) => self.is_tied(&process, ties, limits),
        }
    }

    fn is_tied(&self, process: &Process, ties: &BTreeSet<Tie>, limits: &Limits) -> Result<Seen, ReadError> {
        if self.known.contains(&process.id()) {
            return Ok(Seen::Stranger);
        }
        let maps_image =
            |mapping: &Mapping| mapping.perms.execute && self.images.contains(&(mapping.dev, mapping.inode));
        let own = process.mappings(limits).and_then(|mappings| {
            if mappings.iter().any(maps_image) { process.ties_in(&mappings).map(Some) } else { Ok(None) }
        });
        match own {
            Ok(Some(own)) if !own.is_disjoint(ties) => Ok(Seen::Joined),
            Ok(_) => Ok(Seen::Stranger),
            // Parts that vanish are those of one that ends, or begins another program.
            Err(ReadError::Exited | ReadError::Restless | ReadError::NoPermission { .. }) => Ok(Seen::Nobody),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ties::numbers::NO_MARK;

    #[test]
    fn who_was_there_before_the_mark_is_a_stranger_and_who_comes_after_it_is_looked_at() {
        let own = Process::open(std::process::id().cast_signed()).unwrap();
        let per_second = rustix::param::clock_ticks_per_second();
        let now = Mark::now();
        // This test runs for a moment only, and the clock is the one of start times.
        assert!(own.id().start_time <= now.ticks && now.ticks < own.id().start_time + 3600 * per_second, "{now:?}");
        let limits = Limits::default();
        let ties = own.ties(&limits).unwrap();
        let mappings = own.mappings(&limits).unwrap();
        let seen = |mark| {
            let watch = Watch::new(ties.clone(), mark);
            watch.concerns(mappings.iter());
            watch.joined_already(&limits).unwrap()
        };
        let everybody = Mark { last: NO_MARK, ticks: 0 };
        assert!(seen(everybody).contains(&own.pid()));
        assert!(!seen(Mark { ticks: own.id().start_time + 1, ..everybody }).contains(&own.pid()));
    }
}
