//! Processes that change together: all are prepared, all are stopped, all change or none.
//!
//! Each process is prepared by the same code as one alone (`apply`, `revert`), which
//! comes to the point where its transition is to be tried and calls back. The call goes
//! on to the next process, and the last one tries the transition of all (`tries`). On the
//! way back each cleans up after itself, knowing what it came to. So nothing that a
//! process needs outlives it, whichever of them fails.
//!
//! Who joins meanwhile (a child that was forked after the group was listed) is seen at the
//! stop, and prepared as well: first while the others run on; and if some still come,
//! while the others are held, for then nobody is left who could make more. Where they
//! come faster than they can be prepared, all that are prepared change, and the rest are
//! changed as soon as they are listed.

use crate::Limits;
use crate::gone::{self, Answer};
use crate::outcome::{Blocking, BlockingReason, NotApplied};
use crate::patcher::ApplyError;
use crate::process::{OpenError, Process, ProcessId, ReadError};
use crate::sys::{self, Shared};
use crate::ties::Watch;
use crate::transition::{MOST_JOINED, Site, Tried};
use crate::tries::{self, Ended, Round, Terms, Transition};
use core::cmp::Ordering;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Tries the transition of a process that is ready for it.
pub(crate) type Run<'r> = dyn FnMut(Site<'_>) -> Transition + 'r;

/// Rounds in which processes join while the others run, before the others are held.
const ROUNDS_RUNNING: u32 = 3;
const MOST_ROUNDS: u32 = 8;
/// How long the child of a `vfork` may take to execute its program.
const VFORK_PATIENCE: Duration = Duration::from_millis(300);
/// Between two preparations of the same processes.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Of the stack, for each process: it is prepared in a call within the one before's.
const STACK_BYTES: usize = 96 << 10;
const SPARE: usize = 256;

/// What is done to the processes of a group.
pub(crate) trait Work: Sync {
    type Job;
    type End: Send;

    fn prepare(&self, process: &Process, job: &Self::Job, run: &mut Run<'_>) -> Result<Self::End, ApplyError>;

    /// How the group ends when a process ended like that before its transition was tried;
    /// `None`: it needs nothing, and the others go on.
    fn end_before(end: &Self::End) -> Option<Before>;

    /// Whether the process is another one now.
    fn changed(end: &Self::End) -> bool;

    /// The end of a process whose turn never came, because the group had ended like this.
    fn end_without(ended: Ended) -> Self::End;

    /// Whether it cannot be said what became of it: what was found out once is not asked again.
    fn is_unsaid(end: &Self::End) -> bool;

    /// What is to be done with one that joined, if anything.
    fn job_for(&self, process: &Process) -> Result<Option<Self::Job>, ReadError>;
}

/// Why a process never came to its transition.
pub(crate) enum Before {
    Not(NotApplied),
    Deferred(Vec<Blocking>),
}

pub(crate) type Ends<E> = BTreeMap<ProcessId, Result<E, ApplyError>>;

pub(crate) struct Group<'g, W: Work> {
    work: &'g W,
    limits: &'g Limits,
    watch: &'g Watch,
    deadline: Instant,
    capacity: usize,
    /// Those that were prepared, in the kernel's order of memories.
    memories: Mutex<Vec<i32>>,
    ends: Mutex<Ends<W::End>>,
}

/// Carries the work out on all of them, in one transition.
pub(crate) fn together<W: Work>(
    work: &W,
    members: &[(&Process, W::Job)],
    limits: &Limits,
    watch: &Watch,
    deadline: Instant,
) -> Result<Ends<W::End>, ApplyError>
where
    W::Job: Sync,
    Result<W::End, ApplyError>: Answer,
{
    let in_time = || in_time::<W>(deadline, &|| once(work, members, limits, watch, deadline));
    let mut ends = in_time()?;
    for look in 1..=gone::LOOKS {
        // One that only looked like gone, as one that executes a program does.
        let restless = |process: &Process| ends.get(&process.id()).is_some_and(Answer::says_gone) && !process.is_over();
        let restless: Vec<ProcessId> =
            members.iter().filter(|(process, _)| restless(process)).map(|(process, _)| process.id()).collect();
        let changed = ends.values().any(|end| end.as_ref().is_ok_and(W::changed));
        if restless.is_empty() {
            break;
        }
        if changed || look == gone::LOOKS {
            ends.extend(restless.into_iter().map(|id| (id, Answer::restless())));
            break;
        }
        std::thread::sleep(gone::pause(look));
        ends = in_time()?;
    }
    Ok(ends)
}

/// Again while there is time, where one could not be prepared yet: a transition that was tried
/// has taken all of it.
fn in_time<W: Work>(
    deadline: Instant,
    once: &dyn Fn() -> Result<Ends<W::End>, ApplyError>,
) -> Result<Ends<W::End>, ApplyError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let ends = once()?;
        let left = deadline.saturating_duration_since(Instant::now());
        // What two processes share they go on sharing.
        let lasts =
            |blocking: &[Blocking]| blocking.iter().any(|one| matches!(one.why, BlockingReason::SharesMemory { .. }));
        let is_deferred = |end: &W::End| matches!(W::end_before(end), Some(Before::Deferred(why)) if !lasts(&why));
        let ends_here = |end: &W::End| W::changed(end) || W::is_unsaid(end);
        let deferred = ends.values().flatten().any(is_deferred) && !ends.values().flatten().any(ends_here);
        if !deferred || left.is_zero() {
            return Ok(ends);
        }
        std::thread::sleep(pause.min(left));
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

fn once<W: Work>(
    work: &W,
    members: &[(&Process, W::Job)],
    limits: &Limits,
    watch: &Watch,
    deadline: Instant,
) -> Result<Ends<W::End>, ApplyError>
where
    W::Job: Sync,
{
    let capacity = members.len().saturating_add(SPARE);
    let group = Group { work, limits, watch, deadline, capacity, memories: Mutex::default(), ends: Mutex::default() };
    let all: Vec<(&Process, &W::Job)> = members.iter().map(|(process, job)| (*process, job)).collect();
    let go = || group.go(&all, &[], &mut |sites| group.transition(sites, 0, members.len()));
    let transition = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("salve-group".to_owned())
            .stack_size(capacity.saturating_mul(STACK_BYTES))
            .spawn_scoped(scope, go)
            .map_err(ApplyError::Thread)?
            .join()
            .map_err(|_| ApplyError::Thread(std::io::Error::other("the preparing thread failed")))
    })?;
    let mut ends = group.ends.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (process, _) in members {
        ends.entry(process.id()).or_insert_with(|| Ok(W::end_without(transition.ended_for(process.pid()))));
    }
    Ok(ends)
}

impl<W: Work> Group<'_, W> {
    /// Prepares the first of these and goes on to the next; behind the last comes `end`.
    fn go(
        &self,
        members: &[(&Process, &W::Job)],
        sites: &[Site<'_>],
        end: &mut dyn FnMut(&[Site<'_>]) -> Transition,
    ) -> Transition {
        let Some(((process, job), others)) = members.split_first() else { return end(sites) };
        self.watch.knows(process.id());
        if let Some(blocking) = self.in_one_memory(process) {
            let ended = Ended::Deferred(vec![blocking]);
            self.ends
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(process.id(), Ok(W::end_without(ended.clone())));
            return Transition::untried(ended);
        }
        let mut shared = None;
        let result = self.work.prepare(process, job, &mut |site| {
            self.watch.concerns(site.plan.writes.iter().map(|write| &write.mapping));
            let all: Vec<Site<'_>> = sites.iter().copied().chain([site]).collect();
            let transition = self.go(others, &all, end);
            shared = Some(transition.clone());
            transition
        });
        let transition = match (shared, &result) {
            (Some(transition), _) => transition,
            (None, Err(error)) => Transition::untried(Ended::Not(process.pid(), unread(error))),
            (None, Ok(ended)) => match W::end_before(ended) {
                None => self.go(others, sites, end),
                Some(Before::Not(why)) => Transition::untried(Ended::Not(process.pid(), why)),
                Some(Before::Deferred(blocking)) => Transition::untried(Ended::Deferred(blocking)),
            },
        };
        if !matches!(transition.ended, Ended::Done { .. }) {
            self.watch.forgets(process.id());
        }
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).insert(process.id(), result);
        transition
    }

    /// Says so if one that was prepared has the same memory: what is being prepared there would
    /// be taken for what somebody left behind. Waits a moment for the child of a `vfork`.
    fn in_one_memory(&self, process: &Process) -> Option<Blocking> {
        let start = Instant::now();
        loop {
            let with = self.owner_of_the_memory(process.pid())?;
            if start.elapsed() > VFORK_PATIENCE || process.still_there().is_err() {
                let why = BlockingReason::SharesMemory { with };
                let (pid, comm) = (process.pid(), process.thread_name(process.pid()));
                return Some(Blocking { pid, tid: pid, comm, function: String::new(), why });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Who was prepared in the memory of this one, which counts as prepared if nobody was.
    fn owner_of_the_memory(&self, pid: i32) -> Option<i32> {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories.retain(|other| *other != pid);
        let search = |memories: &[i32]| {
            let mut gone = false;
            let place = memories.binary_search_by(|other| {
                sys::order(Shared::Memory, *other, pid).unwrap_or_else(|_| {
                    gone = true;
                    Ordering::Less
                })
            });
            (place, gone)
        };
        let (mut place, gone) = search(&memories);
        if gone {
            // One that ended has no place in the order; the others have.
            memories.retain(|other| sys::share(Shared::Memory, *other, *other).is_ok());
            (place, _) = search(&memories);
        }
        match place {
            Ok(found) => memories.get(found).copied(),
            Err(place) => {
                let place = place.min(memories.len());
                memories.insert(place, pid);
                None
            }
        }
    }

    /// The transition of all, and of those who join.
    fn transition(&self, sites: &[Site<'_>], round: u32, before: usize) -> Transition {
        if sites.is_empty() {
            let (stopped, threads) = (Duration::ZERO, 0);
            return Transition::untried(Ended::Done { stopped, threads });
        }
        let grow = |pids: &[i32], end: &mut dyn FnMut(&[Site<'_>]) -> Tried| self.grow(pids, end);
        let grow: Option<&crate::transition::Grow<'_>> = if round < ROUNDS_RUNNING { None } else { Some(&grow) };
        let terms = Terms { limits: self.limits, deadline: self.deadline, watch: self.watch, grow };
        let pids = match tries::run(sites, &terms) {
            Ok(Round::Ended(transition)) => return transition,
            Ok(Round::Joined(pids)) => pids,
            Err(error) => return not_run(sites, &error),
        };
        let more = match self.newcomers(&pids) {
            Ok(more) => more,
            Err(error) => return not_run(sites, &error),
        };
        let fewer = more.len().saturating_mul(2) <= before || more.len() <= MOST_JOINED;
        let room = sites.len().saturating_add(more.len()) < self.capacity;
        if round >= MOST_ROUNDS || !room || (round > 0 && !fewer) {
            return self.without_the_rest(sites);
        }
        let count = more.len();
        let more: Vec<(&Process, &W::Job)> = more.iter().map(|(process, job)| (process, job)).collect();
        self.go(&more, sites, &mut |all| self.transition(all, round.saturating_add(1), count))
    }

    /// The transition of those who are prepared.
    fn without_the_rest(&self, sites: &[Site<'_>]) -> Transition {
        let watch = Watch::nobody();
        let terms = Terms { limits: self.limits, deadline: self.deadline, watch: &watch, grow: None };
        match tries::run(sites, &terms) {
            Ok(Round::Ended(transition)) => transition,
            Ok(Round::Joined(_)) => Transition::untried(Ended::Deferred(Vec::new())),
            Err(error) => not_run(sites, &error),
        }
    }

    /// Prepares those who joined while the others are held.
    fn grow(&self, pids: &[i32], end: &mut dyn FnMut(&[Site<'_>]) -> Tried) -> Option<Tried> {
        let more = match self.newcomers(pids) {
            Ok(more) => more,
            Err(error) => return Some(Tried::Not(pids.first().copied().unwrap_or(0), unread(&error))),
        };
        let more: Vec<(&Process, &W::Job)> = more.iter().map(|(process, job)| (process, job)).collect();
        let mut ended = None;
        self.go(&more, &[], &mut |sites| {
            let tried = end(sites);
            let transition = Transition::untried(tries::ended(&tried));
            ended = Some(tried);
            transition
        });
        ended
    }

    fn newcomers(&self, pids: &[i32]) -> Result<Vec<(Process, W::Job)>, ApplyError> {
        let mut more = Vec::new();
        for pid in pids {
            let process = match Process::open(*pid) {
                Ok(process) => process,
                Err(
                    OpenError::NoSuchProcess
                    | OpenError::Zombie
                    | OpenError::KernelThread
                    | OpenError::Read(ReadError::FirstThreadEnded),
                ) => continue,
                Err(OpenError::Read(error)) => return Err(ApplyError::Read(error)),
                // It may not be traced, and so it cannot change with the others.
                Err(OpenError::NoPermission) => return Err(ReadError::NoPermission { what: "/proc/PID" }.into()),
            };
            match self.work.job_for(&process) {
                Ok(Some(job)) => more.push((process, job)),
                Ok(None) => self.watch.knows(process.id()),
                Err(ReadError::Exited) => {}
                Err(error) => return Err(ApplyError::Read(error)),
            }
        }
        Ok(more)
    }
}

fn unread(error: &ApplyError) -> NotApplied {
    match error {
        ApplyError::Read(error) => NotApplied::of_unread(error),
        other => NotApplied::NoThread { why: chain(other) },
    }
}

fn not_run(sites: &[Site<'_>], error: &ApplyError) -> Transition {
    let pid = sites.first().map_or(0, |site| site.process.pid());
    Transition::untried(Ended::Not(pid, unread(error)))
}

fn chain(error: &ApplyError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
