//! Catching threads as they leave a function that is replaced.
//!
//! A thread that spends nearly all of its time in such a function is hardly ever seen
//! outside of it by looking at random. Where it is known to which address it comes out (by
//! strict unwinding, or by the looks of what is near on its stack), a breakpoint there
//! (`breakpoint`) makes it stand before the first instruction outside, and everybody else is
//! stopped then.
//!
//! Until it leaves it runs on, traced and undisturbed. What it was caught by is a signal
//! that it ignores, so that nothing happens to it if this process dies at any moment. That
//! it is outside is not believed but looked at, as for any other thread.

use crate::breakpoint::{self, Breakpoint};
use crate::limits::Limits;
use crate::outcome::BlockingReason;
use crate::process::Process;
use crate::remote::bell;
use crate::seize::seize;
use crate::stop::{HeldThread, Sent, mended_registers};
use crate::sys::{self, Event};
use crate::transfer;
use crate::transition::Blocked;
use core::cell::RefCell;
use core::time::Duration;
use salve_elf::RuntimeAddr;
use std::time::Instant;

/// More threads than this are not awaited at once, and so many frames are gone outwards to
/// see where one comes out: everybody stands meanwhile.
const MOST: usize = 8;
const FRAMES: usize = 16;
/// How long it is worth to wait until breakpoints can be set, instead of another try at random.
const UNTIL_READY: Duration = Duration::from_millis(100);

thread_local! {
    static LATER: RefCell<Vec<Snare>> = const { RefCell::new(Vec::new()) };
}

/// What makes a thread stand as soon as it is outside.
#[derive(Debug)]
pub(crate) struct Snare {
    signal: i32,
    breakpoints: Vec<Breakpoint>,
    /// It has caught its thread, which it does once.
    spent: bool,
}

impl Snare {
    /// For a thread that is traced already.
    fn lay(process: &Process, tid: i32, at: &[RuntimeAddr]) -> Option<Self> {
        let signal = signal(process, tid)?;
        let mut breakpoints = Vec::with_capacity(at.len());
        for &at in at {
            match Breakpoint::set(tid, at, signal) {
                Ok(breakpoint) => breakpoints.push(breakpoint),
                // It is gone, or somebody else has some of them, or this place has none.
                Err(_) => break,
            }
        }
        (!breakpoints.is_empty()).then_some(Self { signal, breakpoints, spent: false })
    }

    /// The kernel takes milliseconds for it: not while anybody stands, but when the calling
    /// thread ends, which makes one try.
    pub(crate) fn take_down_later(self) {
        LATER.with_borrow_mut(|later| later.push(self));
    }

    /// Whether this signal, before which the thread stands, is this snare's and nobody else's.
    fn is_its_own(&self, tid: i32, signal: i32) -> bool {
        let from = || sys::signal_descriptor(tid).ok().flatten();
        let known = |from| self.breakpoints.iter().any(|breakpoint| breakpoint.descriptor() == from);
        signal == self.signal && from().is_some_and(known)
    }
}

/// What tells of a breakpoint. Of `SIGCHLD` the kernel hides which descriptor sent it.
fn signal(process: &Process, tid: i32) -> Option<i32> {
    let bell = bell(&process.status(Some(tid)).ok()?)?;
    (bell.signal != libc::SIGCHLD).then_some(bell.signal)
}

/// How many frames to go outwards, while everybody stands, to see where the next of the
/// blocking threads comes out.
pub(crate) fn frames(known: usize) -> usize {
    if known < MOST && breakpoint::may_exist() { FRAMES } else { 0 }
}

/// Whether there is any of them to wait for in this way, before `deadline`.
pub(crate) fn can_be_awaited<'a>(
    blocking: &[Blocked],
    process_of: impl Fn(&Blocked) -> Option<&'a Process>,
    deadline: Instant,
) -> bool {
    let has_signal = |blocked: &Blocked| process_of(blocked).and_then(|process| signal(process, blocked.tid)).is_some();
    let mut known = blocking.iter().take(MOST).filter(|blocked| !blocked.leaves_to.is_empty());
    known.any(has_signal)
        && breakpoint::are_ready_within(UNTIL_READY.min(deadline.saturating_duration_since(Instant::now())))
}

/// Threads that are traced already when everybody is stopped.
#[derive(Debug, Default)]
pub(crate) struct Caught {
    /// With their processes.
    pub(crate) threads: Vec<(i32, HeldThread)>,
    /// Since when the first of them has been standing.
    pub(crate) since: Option<Instant>,
}

/// Whom a try found in the way, and how long they are waited for.
#[derive(Clone, Copy)]
pub(crate) struct InTheWay<'a> {
    pub(crate) blocking: &'a [Blocked],
    /// For the first to leave.
    pub(crate) until: Instant,
    /// For the others, of those that are in transfers: the first stands meanwhile.
    pub(crate) together: Duration,
}

/// Waits until one of them leaves, or all that are in transfers do. `None` where a number has
/// come to be another process's thread: it is let go when the calling thread ends.
pub(crate) fn catch<'a>(
    in_the_way: InTheWay<'_>,
    process_of: impl Fn(&Blocked) -> Option<&'a Process>,
    limits: &Limits,
) -> Option<Caught> {
    let InTheWay { blocking, until, together } = in_the_way;
    let mut caught = Caught::default();
    for blocked in blocking.iter().take(MOST) {
        let Some(process) = process_of(blocked).filter(|_| !blocked.leaves_to.is_empty()) else { continue };
        // It was there at the last try, which is a while ago.
        let listed = process.threads(limits).is_ok_and(|tids| tids.contains(&blocked.tid));
        let is_transfer = matches!(blocked.why, BlockingReason::Transfer(_));
        // One that is past it would be caught at the end of the next one only.
        let awaited = listed && (!is_transfer || transfer::is_still_in(process, blocked));
        if awaited && Instant::now() < until && seize(process, blocked.tid).is_ok() {
            // Traced, it keeps its number.
            process.status(Some(blocked.tid)).ok()?;
            let snare = Snare::lay(process, blocked.tid, &blocked.leaves_to);
            let thread = HeldThread { snare, ..HeldThread::running(blocked.tid) };
            caught.threads.push((blocked.pid, thread));
        }
    }
    let in_transfer = |thread: &HeldThread| {
        let of_it = blocking.iter().find(|blocked| blocked.tid == thread.tid);
        of_it.is_some_and(|blocked| matches!(blocked.why, BlockingReason::Transfer(_)))
    };
    while caught.threads.iter().any(|(_, thread)| thread.is_ensnared()) {
        caught.threads.retain_mut(|(_, thread)| settle(thread));
        let stands = |thread: &HeldThread| thread.registers.is_some();
        if caught.since.is_none() && caught.threads.iter().any(|(_, thread)| stands(thread)) {
            caught.since = Some(Instant::now());
        }
        let waits_on = |(_, thread): &(i32, HeldThread)| thread.is_ensnared() && !stands(thread) && in_transfer(thread);
        let over = match caught.since {
            Some(since) => since.elapsed() >= together || !caught.threads.iter().any(waits_on),
            None => Instant::now() >= until,
        };
        if over {
            break;
        }
        crate::wait::any();
    }
    for blocked in blocking {
        let stands = caught.threads.iter().any(|(_, held)| held.tid == blocked.tid && held.registers.is_some());
        if let Some(process) = process_of(blocked).filter(|_| !stands) {
            transfer::keep_in_mind(process, blocked);
        }
    }
    Some(caught)
}

/// Lets threads run until each has left, at the latest until `until`; `false` where one of
/// them has nothing that would make it stand.
pub(crate) fn await_all(threads: &mut [HeldThread], tids: &[i32], until: Instant) -> bool {
    let awaited = || tids.iter();
    let is_awaited = |thread: &HeldThread| awaited().any(|&tid| tid == thread.tid);
    if threads.iter().filter(|thread| is_awaited(thread)).any(|thread| !thread.is_ensnared()) {
        return false;
    }
    while Instant::now() < until {
        let mut running = false;
        for thread in threads.iter_mut().filter(|thread| is_awaited(thread)) {
            running |= settle(thread) && thread.registers.is_none();
        }
        if !running {
            break;
        }
        crate::wait::give_way();
    }
    true
}

impl HeldThread {
    /// Something makes it stand where it leaves.
    fn is_ensnared(&self) -> bool {
        self.snare.as_ref().is_some_and(|snare| !snare.spent)
    }
}

/// Looks what became of a thread that runs; `false` if it ended.
fn settle(thread: &mut HeldThread) -> bool {
    if thread.registers.is_some() {
        return true;
    }
    let tid = thread.tid;
    match sys::poll(tid) {
        Ok(Event::None) => true,
        Ok(Event::Signal(signal)) if !thread.snare.as_ref().is_some_and(|snare| snare.is_its_own(tid, signal)) => {
            // One that is ignored is dropped where nobody traces, and ends no call.
            let _ = mended_registers(tid);
            sys::resume(tid, signal).is_ok()
        }
        Ok(Event::SystemCall) => sys::resume(tid, 0).is_ok(),
        Ok(event @ (Event::Signal(_) | Event::Stopped | Event::GroupStopped)) => {
            if let (Event::Signal(_), Some(snare)) = (event, &mut thread.snare) {
                snare.spent = true;
            }
            thread.registers = mended_registers(tid).ok();
            thread.group_stopped = event == Event::GroupStopped;
            thread.sent = Sent::Nowhere;
            thread.registers.is_some()
        }
        Ok(Event::Exited | Event::Killed(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper() -> (Child, Process) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::open(i32::try_from(child.id()).unwrap()).unwrap();
        (child, process)
    }

    #[test]
    fn a_number_that_is_another_processs_by_now_is_left_alone() {
        let [(mut one, its), (mut other, stranger)] = [sleeper(), sleeper()];
        let why = BlockingReason::Executing { at: RuntimeAddr::new(0x1000) };
        let leaves_to = vec![RuntimeAddr::new(0x1000)];
        let blocked = Blocked { pid: its.pid(), tid: stranger.pid(), function: String::new(), why, leaves_to };
        let until = Instant::now().checked_add(Duration::from_secs(60)).unwrap();
        let in_the_way = InTheWay { blocking: &[blocked], until, together: Duration::ZERO };
        let caught = catch(in_the_way, |_| Some(&its), &Limits::default()).unwrap();
        assert!(caught.threads.is_empty());
        assert_eq!(stranger.status(None).unwrap().tracer(), 0);
        for child in [&mut one, &mut other] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
