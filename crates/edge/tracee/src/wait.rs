//! Waiting for a thread to stop, with a limit that `waitpid` does not have.

use crate::Errno;
use crate::sys::{self, Event};
use core::time::Duration;
use std::time::Instant;

/// Rounds in which the processor is only given away; a stop takes microseconds.
const SPINS: u32 = 2_000;
const NAP: Duration = Duration::from_micros(50);

/// The thread's next event; `None` when there is none until `deadline`.
pub(crate) fn event(tid: i32, deadline: Instant) -> Result<Option<Event>, Errno> {
    let mut rounds = 0_u32;
    loop {
        match sys::poll(tid)? {
            Event::None => {}
            other => return Ok(Some(other)),
        }
        rounds = rounds.saturating_add(1);
        if rounds < SPINS {
            std::thread::yield_now();
        } else {
            std::thread::sleep(NAP);
        }
        if rounds.is_multiple_of(64) && Instant::now() >= deadline {
            return Ok(None);
        }
    }
}

/// Waits for the stop that `PTRACE_INTERRUPT` causes. A signal that is about to be
/// delivered is delivered: its handler's frame is set up first, and nothing is lost.
/// `Ok(false)`: not until `deadline`; `Err(ESRCH)`: the thread is gone.
pub(crate) fn stopped(tid: i32, deadline: Instant) -> Result<bool, Errno> {
    loop {
        match event(tid, deadline)? {
            None => return Ok(false),
            Some(Event::Stopped) => return Ok(true),
            Some(Event::Signal(signal)) => sys::resume(tid, signal)?,
            Some(Event::SystemCall | Event::None) => sys::resume(tid, 0)?,
            Some(Event::Exited) => return Err(Errno(libc::ESRCH)),
        }
    }
}
