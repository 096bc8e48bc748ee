//! Trying a transition until it succeeds, cannot, or the time is up.

use crate::memory::Memory;
use crate::outcome::{Blocking, Lost, NotApplied, WriteFault};
use crate::patcher::ApplyError;
use crate::process::Process;
use crate::transition::{self, Blocked, Plan, Tried};
use crate::{Limits, ReadError};
use core::time::Duration;
use std::time::Instant;

/// Pauses between tries grow from the one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A thread that sleeps on unchanged is not disturbed again before this has passed:
/// each stop restarts the timeout of its `epoll_wait`.
const LET_SLEEP: Duration = Duration::from_secs(2);
const GLANCE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) enum Ended {
    Done { stopped: Duration, threads: usize },
    Deferred(Vec<Blocking>),
    Not(NotApplied),
    RolledBack(WriteFault),
    Lost(Lost),
}

#[derive(Debug)]
pub(crate) struct Transition {
    pub(crate) ended: Ended,
    pub(crate) tries: u32,
    pub(crate) longest_stop: Duration,
}

pub(crate) fn run(
    process: &Process,
    memory: &Memory,
    plan: &Plan<'_>,
    limits: &Limits,
    wait: Duration,
) -> Result<Transition, ApplyError> {
    let start = Instant::now();
    let deadline = start.checked_add(wait).unwrap_or(start);
    let mut pause = FIRST_PAUSE;
    let mut tries = 0_u32;
    let mut longest_stop = Duration::ZERO;
    loop {
        tries = tries.saturating_add(1);
        let tried = attempt(process, memory, plan, limits)?;
        let (ended, blocking) = match tried {
            Tried::Done { stopped, threads } => {
                longest_stop = longest_stop.max(stopped);
                (Some(Ended::Done { stopped, threads }), Vec::new())
            }
            Tried::Blocked { blocking, stopped } => {
                longest_stop = longest_stop.max(stopped);
                (None, blocking)
            }
            Tried::Not(why) => (Some(Ended::Not(why)), Vec::new()),
            Tried::RolledBack(why) => (Some(Ended::RolledBack(why)), Vec::new()),
            Tried::Lost(why) => (Some(Ended::Lost(why)), Vec::new()),
        };
        if let Some(ended) = ended {
            return Ok(Transition { ended, tries, longest_stop });
        }
        if Instant::now() >= deadline || process.still_there().is_err() {
            let named = blocking.into_iter().map(|blocked| blocked.named(process)).collect();
            let ended = match process.still_there() {
                Err(ReadError::Exited) => Ended::Not(NotApplied::Exited),
                _ => Ended::Deferred(named),
            };
            return Ok(Transition { ended, tries, longest_stop });
        }
        rest(process, &blocking, pause, deadline);
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// Waits before the next try; longer while every blocking thread visibly sleeps on.
fn rest(process: &Process, blocking: &[Blocked], pause: Duration, deadline: Instant) {
    let before: Vec<Option<Vec<u8>>> = blocking.iter().map(|blocked| sleeping(process, blocked.tid)).collect();
    let start = Instant::now();
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    std::thread::sleep(pause.min(left(deadline)));
    if before.iter().any(Option::is_none) {
        return;
    }
    while start.elapsed() < LET_SLEEP && !left(deadline).is_zero() {
        let now = blocking.iter().map(|blocked| sleeping(process, blocked.tid));
        if !now.eq(before.iter().cloned()) {
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
fn attempt(process: &Process, memory: &Memory, plan: &Plan<'_>, limits: &Limits) -> Result<Tried, ApplyError> {
    std::thread::scope(|scope| {
        let tracer = std::thread::Builder::new()
            .name("salve-transition".to_owned())
            .spawn_scoped(scope, || transition::attempt(process, memory, plan, limits))
            .map_err(ApplyError::Thread)?;
        tracer.join().map_err(|_| ApplyError::Thread(std::io::Error::other("the tracing thread failed")))
    })
}
