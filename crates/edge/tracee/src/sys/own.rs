//! This program itself: its priority, a copy of it, its end.

use super::{Result, check};
use crate::Errno;
use libc::c_int;

/// The lowest real-time priority for the calling thread, or none (`sched_setscheduler(2)`).
/// Threads that it starts have the same: the ones that borrow while others stand.
pub(crate) fn be_real_time(real_time: bool) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: c_int::from(real_time) };
    let policy = if real_time { libc::SCHED_FIFO } else { libc::SCHED_OTHER };
    // SAFETY: `parameters` is a live local; with no number the kernel means the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    check(libc::c_long::from(result)).map(|_| ())
}

/// The same program twice: the child's number in the one, `None` in the other.
/// Refuses where a second thread runs: it would be missing in the copy.
pub(crate) fn fork() -> Result<Option<i32>> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|error| Errno::of(&error))?.count();
    if threads != 1 {
        return Err(Errno(libc::EBUSY));
    }
    // SAFETY: this is the only thread, looked at above, so the copy has all there is.
    match unsafe { libc::fork() } {
        -1 => Err(Errno::of(&std::io::Error::last_os_error())),
        0 => Ok(None),
        child => Ok(Some(child)),
    }
}

/// Waits for a child of this process to end.
pub(crate) fn await_end(child: i32) {
    let mut status: c_int = 0;
    // SAFETY: `status` is a live local integer.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1
        && Errno::of(&std::io::Error::last_os_error()) == Errno(libc::EINTR)
    {}
}

/// Ends this process at once: nothing that it shares with its copy is flushed or taken down.
pub(crate) fn end_at_once(status: c_int) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(status) }
}
