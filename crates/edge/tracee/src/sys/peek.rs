//! Asking what became of a thread without taking it away, and taking it.

use super::Result;
use crate::Errno;
use core::mem::MaybeUninit;
use libc::c_int;

/// What became of a thread, and is still to be asked for.
pub(super) struct Peeked {
    pub(super) tid: i32,
    pub(super) how: How,
}

#[derive(Clone, Copy)]
pub(super) enum How {
    /// With the signal that it died of, with its process.
    Ended {
        killed_by: Option<c_int>,
    },
    Stopped {
        signal: c_int,
        event: c_int,
    },
}

/// Asks what became of a thread that this thread traces, and leaves it to be asked for
/// again (`WNOWAIT`).
///
/// Who stands before a signal is handed it when its tracer dies, but only while nobody has
/// asked for that stop: `waitpid(2)` takes the signal's number away, and until the thread
/// is resumed with it the signal would die with the tracer.
pub(super) fn peek(kind: libc::idtype_t, id: libc::id_t, flags: c_int) -> Result<Option<Peeked>> {
    let flags = libc::WEXITED | libc::WNOWAIT | libc::__WALL | libc::__WNOTHREAD | flags;
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is a live local of the type that the kernel fills.
    if unsafe { libc::waitid(kind, id, info.as_mut_ptr(), flags) } == -1 {
        return Err(Errno::of(&std::io::Error::last_os_error()));
    }
    // SAFETY: all zeroes is a value of it, and whatever the kernel wrote is one.
    let info = unsafe { info.assume_init() };
    // SAFETY: `waitid` fills what goes with SIGCHLD, or leaves it zero.
    let tid = unsafe { info.si_pid() };
    // SAFETY: as before.
    let status = unsafe { info.si_status() };
    let how = match info.si_code {
        libc::CLD_TRAPPED | libc::CLD_STOPPED => How::Stopped { signal: status & 0xff, event: status >> 8 },
        libc::CLD_KILLED | libc::CLD_DUMPED => How::Ended { killed_by: Some(status) },
        _ => How::Ended { killed_by: None },
    };
    Ok((tid != 0).then_some(Peeked { tid, how }))
}

/// Takes what is known to have become of it.
pub(super) fn reap(tid: i32) {
    let mut status: c_int = 0;
    // SAFETY: `status` is a live local integer.
    let _taken = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG) };
}
