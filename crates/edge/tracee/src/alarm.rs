//! Ending a wait that would last: `waitpid` has no limit of its own.

use crate::Errno;
use libc::c_int;

/// A timer that keeps ending the waits of the thread that made it, by a signal of its
/// own to which nothing else happens.
pub(crate) struct Alarm(libc::timer_t);

extern "C" fn nothing(_: c_int) {}

/// Nothing on Linux sends it.
const ALARM: c_int = libc::SIGSTKFLT;

impl Alarm {
    pub(crate) fn every(interval: core::time::Duration) -> Result<Self, Errno> {
        handle_alarms()?;
        // SAFETY: plain integers and pointers, for which zero is a value.
        let mut event: libc::sigevent = unsafe { core::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = ALARM;
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        let mut timer: libc::timer_t = core::ptr::null_mut();
        // SAFETY: both point to live locals; the kernel fills the second.
        let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        check(made)?;
        let alarm = Self(timer);
        let nanoseconds = libc::c_long::from(interval.subsec_nanos().cast_signed());
        let every = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds };
        let when = libc::itimerspec { it_interval: every, it_value: every };
        // SAFETY: the timer was made above; `when` is a live local.
        let set = unsafe { libc::timer_settime(timer, 0, &raw const when, core::ptr::null_mut()) };
        check(set).map(|()| alarm)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer is this value's, made in `every` and deleted only here.
        let _ = unsafe { libc::timer_delete(self.0) };
    }
}

/// Without `SA_RESTART`, so that a wait ends; and not blocked in this thread.
fn handle_alarms() -> Result<(), Errno> {
    // SAFETY: plain integers and pointers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
    // SAFETY: `action` is a live local; the handler does nothing, so it may run anywhere.
    let set = unsafe { libc::sigaction(ALARM, &raw const action, core::ptr::null_mut()) };
    check(set)?;
    let mut signals = action.sa_mask;
    // SAFETY: `signals` is a live local set, empty because it is zero.
    let added = unsafe { libc::sigaddset(&raw mut signals, ALARM) };
    check(added)?;
    // SAFETY: `signals` is a live local set.
    let unblocked = unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const signals, core::ptr::null_mut()) };
    if unblocked == 0 { Ok(()) } else { Err(Errno(unblocked)) }
}

fn check(result: c_int) -> Result<(), Errno> {
    if result == -1 { Err(Errno::of(&std::io::Error::last_os_error())) } else { Ok(()) }
}
