//! Trying a transition until it succeeds, cannot, or the time is up.

use crate::leave::{self, InTheWay};
use crate::outcome::{Blocking, Lost, NotApplied, WriteFault};
use crate::patcher::ApplyError;
use crate::process::Process;
use crate::ties::Watch;
use crate::transition::{self, Blocked, Grow, Site, Tried};
use crate::{Limits, ReadError};
use core::time::Duration;
use std::time::Instant;

/// Pauses between tries grow from the one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A thread that sleeps on unchanged is not disturbed again before this has passed:
/// each stop restarts the timeout of its `epoll_wait`.
const LET_SLEEP: Duration = Duration::from_secs(2);
/// How long one that has ended its transfer stands until others have ended theirs: longer from
/// try to try.
const FIRST_TOGETHER: Duration = Duration::from_millis(2);
const LONGEST_TOGETHER: Duration = Duration::from_millis(50);
const GLANCE: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
pub(crate) enum Ended {
    Done {
        stopped: Duration,
        threads: usize,
    },
    Deferred(Vec<Blocking>),
    /// With the process of which that is true.
    Not(i32, NotApplied),
    RolledBack(WriteFault),
    Lost(Lost),
}

/// How one round of tries ended.
pub(crate) enum Round {
    Ended(Transition),
    /// These processes belong to the group, and were not prepared.
    Joined(Vec<i32>),
}

#[derive(Clone, Debug)]
pub(crate) struct Transition {
    pub(crate) ended: Ended,
    pub(crate) tries: u32,
    pub(crate) longest_stop: Duration,
}

impl Transition {
    /// One that ended before anything was tried.
    pub(crate) fn untried(ended: Ended) -> Self {
        Self { ended, tries: 0, longest_stop: Duration::ZERO }
    }

    /// What it came to for one process: why another could not be changed is why this one was not.
    pub(crate) fn ended_for(&self, pid: i32) -> Ended {
        match &self.ended {
            Ended::Not(other, why) if *other != pid => {
                Ended::Not(pid, NotApplied::Group { pid: *other, why: why.to_string() })
            }
            ended => ended.clone(),
        }
    }
}

/// How long, and with whom besides.
pub(crate) struct Terms<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) deadline: Instant,
    pub(crate) watch: &'a Watch,
    pub(crate) grow: Option<&'a Grow<'a>>,
}

/// How a try ended, for those that were in it.
pub(crate) fn ended(tried: &Tried) -> Ended {
    match tried {
        Tried::Done { stopped, threads } => Ended::Done { stopped: *stopped, threads: *threads },
        Tried::Blocked { .. } | Tried::Joined { .. } => Ended::Deferred(Vec::new()),
        Tried::Not(pid, why) => Ended::Not(*pid, why.clone()),
        Tried::RolledBack(why) => Ended::RolledBack(why.clone()),
        Tried::Lost(why) => Ended::Lost(why.clone()),
    }
}

pub(crate) fn run(sites: &[Site<'_>], terms: &Terms<'_>) -> Result<Round, ApplyError> {
    let mut pause = FIRST_PAUSE;
    let mut in_the_way: Option<(Vec<Blocked>, Instant, Duration)> = None;
    let mut together = FIRST_TOGETHER;
    let mut tries = 0_u32;
    let mut longest_stop = Duration::ZERO;
    loop {
        tries = tries.saturating_add(1);
        let tried = attempt(sites, terms, in_the_way.as_ref())?;
        if let Tried::Done { stopped, .. } | Tried::Blocked { stopped, .. } = &tried {
            longest_stop = longest_stop.max(*stopped);
        }
        let blocking = match tried {
            Tried::Blocked { blocking, .. } => blocking,
            Tried::Joined { pids } => return Ok(Round::Joined(pids)),
            tried @ (Tried::Done { .. } | Tried::Not(..) | Tried::RolledBack(_) | Tried::Lost(_)) => {
                return Ok(Round::Ended(Transition { ended: ended(&tried), tries, longest_stop }));
            }
        };
        let there = sites.iter().any(|site| !matches!(site.process.still_there(), Err(ReadError::Exited)));
        if Instant::now() >= terms.deadline || !there {
            let ended = match sites.first() {
                Some(site) if !there => Ended::Not(site.process.pid(), NotApplied::Exited),
                _ => Ended::Deferred(named(sites, blocking)),
            };
            return Ok(Round::Ended(Transition { ended, tries, longest_stop }));
        }
        let waited = in_the_way.take().is_some();
        if !leave::can_be_awaited(&blocking, |blocked| of(sites, blocked), terms.deadline) {
            rest(sites, &blocking, pause, terms.deadline);
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            continue;
        }
        // Who leaves is caught. Where that was in vain, everybody runs for a while.
        if waited {
            together = together.saturating_mul(2).min(LONGEST_TOGETHER);
            std::thread::sleep(pause.min(terms.deadline.saturating_duration_since(Instant::now())));
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
        let asleep =
            |blocked: &Blocked| of(sites, blocked).is_some_and(|process| sleeping(process, blocked.tid).is_some());
        let patience = if blocking.iter().all(asleep) { LET_SLEEP } else { LONGEST_PAUSE };
        let until = Instant::now().checked_add(patience).map_or(terms.deadline, |until| until.min(terms.deadline));
        in_the_way = Some((blocking, until, together));
    }
}

fn of<'a>(sites: &'a [Site<'a>], blocked: &Blocked) -> Option<&'a Process> {
    sites.iter().map(|site| site.process).find(|process| process.pid() == blocked.pid)
}

fn named(sites: &[Site<'_>], blocking: Vec<Blocked>) -> Vec<Blocking> {
    blocking.into_iter().filter_map(|blocked| of(sites, &blocked).map(|process| blocked.named(process))).collect()
}

/// Waits before the next try; longer while every blocking thread visibly sleeps on.
fn rest(sites: &[Site<'_>], blocking: &[Blocked], pause: Duration, deadline: Instant) {
    let asleep = |blocked: &Blocked| of(sites, blocked).and_then(|process| sleeping(process, blocked.tid));
    let before: Vec<Option<Vec<u8>>> = blocking.iter().map(asleep).collect();
    let start = Instant::now();
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    std::thread::sleep(pause.min(left(deadline)));
    if before.iter().any(Option::is_none) {
        return;
    }
    while start.elapsed() < LET_SLEEP && !left(deadline).is_zero() {
        if !blocking.iter().map(asleep).eq(before.iter().cloned()) {
            return;
        }
        std::thread::sleep(GLANCE.min(left(deadline)));
    }
}

/// The call that a thread sleeps in, with its arguments and stack pointer; `None` while it runs.
fn sleeping(process: &Process, tid: i32) -> Option<Vec<u8>> {
    let text = process.read_entry(&format!("task/{tid}/syscall"), "syscall", 512).ok()?;
    (!text.starts_with(b"running")).then_some(text)
}

/// One try on a thread of its own: when that ends, the kernel lets go whatever it still traces.
fn attempt(
    sites: &[Site<'_>],
    terms: &Terms<'_>,
    in_the_way: Option<&(Vec<Blocked>, Instant, Duration)>,
) -> Result<Tried, ApplyError> {
    let in_the_way =
        in_the_way.map(|(blocking, until, together)| InTheWay { blocking, until: *until, together: *together });
    std::thread::scope(|scope| {
        let tracer = std::thread::Builder::new()
            .name("salve-transition".to_owned())
            .spawn_scoped(scope, || transition::attempt(sites, terms.limits, terms.watch, terms.grow, in_the_way))
            .map_err(ApplyError::Thread)?;
        tracer.join().map_err(|_| ApplyError::Thread(std::io::Error::other("the tracing thread failed")))
    })
}
