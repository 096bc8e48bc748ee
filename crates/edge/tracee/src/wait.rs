//! Waiting for a thread to stop, with a limit that `waitpid` does not have.

use crate::Errno;
use crate::alarm::Alarm;
use crate::sys::{self, Event};
use core::cell::Cell;
use core::time::Duration;
use std::time::Instant;

/// Rounds in which nobody sleeps; a stop takes microseconds.
const SPINS: u32 = 12;
/// Where nothing ends a wait, short naps, so that what is waited for gets a processor.
const NAP: Duration = Duration::from_micros(10);
const LONG_NAP: Duration = Duration::from_micros(100);
const NAPS: u32 = 1_000;
/// How often a wait is ended to look at the clock.
const ALARM: Duration = Duration::from_millis(2);

/// For how long a thread that comes before all others lets one of them run.
const WAY: Duration = Duration::from_micros(5);

thread_local! {
    static ALARMED: Cell<bool> = const { Cell::new(false) };
    /// Nobody but another real-time thread gets the processor while this one wants it.
    static FIRST: Cell<bool> = const { Cell::new(false) };
}

/// A tracing thread that waits for nobody, until it is dropped.
pub(crate) struct Hurry {
    _alarm: Option<Alarm>,
}

impl Drop for Hurry {
    fn drop(&mut self) {
        // Whoever was let go may be waiting for this processor.
        if FIRST.replace(false) {
            let _ = sys::be_real_time(false);
        }
        ALARMED.set(false);
    }
}

/// Makes the calling thread, which holds somebody's process, wait for nobody: among a
/// hundred runnable threads it would else be a hundred turns before the last is let
/// go. And a thread that was let go would take this one's processor, while others still
/// stand, until the next tick: no thread that is not a real-time one takes it (`sched(7)`).
/// Best effort; the thread ends with its work, so only the last is put back.
pub(crate) fn hurry() -> Hurry {
    // With no number the kernel means the calling thread.
    let _ = rustix::process::setpriority_process(None, -20);
    FIRST.set(sys::be_real_time(true).is_ok());
    let _ = rustix::thread::set_current_timer_slack(core::num::NonZeroU64::new(1));
    let alarm = Alarm::every(ALARM).ok();
    ALARMED.set(alarm.is_some());
    Hurry { _alarm: alarm }
}

/// Lets others run for a moment.
pub(crate) fn give_way() {
    if FIRST.get() {
        std::thread::sleep(WAY);
    } else {
        std::thread::yield_now();
    }
}

/// The thread's next event; `None` when there is none until `deadline`.
///
/// After a moment it sleeps until there is one: a thread of this priority that only gave
/// its processor away would get it back at once, and what it waits for may need just that.
pub(crate) fn event(tid: i32, deadline: Instant) -> Result<Option<Event>, Errno> {
    event_after(tid, deadline, 0)
}

/// The same, so many rounds later.
fn event_after(tid: i32, deadline: Instant, mut rounds: u32) -> Result<Option<Event>, Errno> {
    loop {
        let sleeps = rounds >= SPINS && ALARMED.get();
        match if sleeps { sys::wait(tid)? } else { sys::poll(tid)? } {
            Event::None => {}
            other => return Ok(Some(other)),
        }
        if !sleeps {
            rounds = rounds.saturating_add(1);
            match rounds {
                // It is slept through in the kernel from here on.
                SPINS if ALARMED.get() => {}
                ..SPINS => std::thread::yield_now(),
                SPINS..NAPS => std::thread::sleep(NAP),
                NAPS.. => std::thread::sleep(LONG_NAP),
            }
        }
        if (sleeps || rounds.is_multiple_of(16)) && Instant::now() >= deadline {
            return Ok(None);
        }
    }
}

/// Sleeps until there is an event of any thread that the caller traces, or for a moment.
pub(crate) fn any() {
    if !ALARMED.get() || !sys::wait_for_any() {
        std::thread::sleep(LONG_NAP);
    }
}

/// How a thread stands that was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The time was up.
    NotYet,
    Alone,
    /// Its process was stopped by a signal, and has to stay so.
    WithItsProcess,
}

/// Waits for the stop that `PTRACE_INTERRUPT` causes. A signal that is about to be
/// delivered is delivered: its handler's frame is set up first, and nothing is lost.
/// `Err(ESRCH)`: the thread is gone.
pub(crate) fn stopped(tid: i32, deadline: Instant) -> Result<Stopped, Errno> {
    stopped_after(tid, deadline, 0)
}

/// Of one of many that were interrupted: some of them have to run on this very processor to
/// come to a stop.
pub(crate) fn one_of_many_stopped(tid: i32, deadline: Instant) -> Result<Stopped, Errno> {
    stopped_after(tid, deadline, SPINS)
}

fn stopped_after(tid: i32, deadline: Instant, rounds: u32) -> Result<Stopped, Errno> {
    loop {
        match event_after(tid, deadline, rounds)? {
            None => return Ok(Stopped::NotYet),
            Some(Event::Stopped) => return Ok(Stopped::Alone),
            Some(Event::GroupStopped) => return Ok(Stopped::WithItsProcess),
            Some(Event::Signal(signal)) => sys::resume(tid, signal)?,
            Some(Event::SystemCall | Event::None) => sys::resume(tid, 0)?,
            Some(Event::Exited | Event::Killed(_)) => return Err(Errno(libc::ESRCH)),
        }
    }
}
