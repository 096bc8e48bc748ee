//! System calls made by a borrowed thread of the target.
//!
//! The order is what makes it safe: the stub and its table are written; the registers
//! are set, by which the thread is already on a way that leads home; then its signals
//! are blocked; then it runs, makes all calls of the table by itself, and waits a moment
//! at their end. There it is stopped again, before it gets back to user space by itself,
//! and gets its mask and its registers: only at such a stop the kernel repeats an
//! interrupted call as it would have. One that nobody catches goes home by itself.
//!
//! No other thread is traced meanwhile, the process's first one least of all: while that is,
//! no signal of the process counts as ignored, and each wakes somebody whose call ends then.

mod bell;
mod borrow;
mod calls;
mod candidates;
mod prepared;
mod sequence;

pub(crate) use bell::bell;
pub(crate) use borrow::{Failed, Task, nobody_astray, run};
pub(crate) use calls::{CLOSE, FCNTL, MMAP, MUNMAP, POLL, PPOLL, PWRITE, RECVMSG, RT_SIGPROCMASK, SOCKETPAIR, Sys};
use prepared::has_descriptors_of;
pub(crate) use prepared::{Prepared, repeats_by_syscall};
pub(crate) use sequence::restart_of;

use crate::Errno;
use crate::image::Found;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::outcome::{BlockingReason, Lost, NotApplied};
use crate::process::{Process, ReadError};

/// Everything that borrowing needs to know about a target.
pub(crate) struct Target<'a> {
    pub(crate) process: &'a Process,
    pub(crate) memory: &'a Memory,
    pub(crate) images: &'a [Found],
    pub(crate) limits: &'a Limits,
}

#[derive(Debug)]
pub(crate) enum RemoteError {
    /// This thread cannot be borrowed now; another may.
    Unsuitable(String),
    /// It cannot be borrowed yet: it did not stop in time, or steps through its own code.
    Late { tid: i32, why: BlockingReason },
    /// The process or the thread went away.
    Gone,
    /// No thread of this process will do.
    Not(NotApplied),
    /// The call itself failed in the target.
    Call { call: &'static str, errno: Errno },
    /// A borrowed thread went on by itself, and what it did cannot be said.
    Unseen { tid: i32 },
    /// One was let go before it was at the end of its stub, and may still be in there.
    Astray { tid: i32 },
    /// The process was killed while a thread of it was borrowed.
    Lost(Lost),
    /// The tracing thread could not be started.
    Thread(std::io::Error),
    /// The process is there and could not be looked at.
    Unread(ReadError),
}

impl From<ReadError> for RemoteError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Exited => Self::Gone,
            other => Self::Unread(other),
        }
    }
}

impl From<Errno> for RemoteError {
    fn from(errno: Errno) -> Self {
        if errno.0 == libc::ESRCH { Self::Gone } else { Self::Unsuitable(format!("tracing failed: {errno}")) }
    }
}

pub(crate) fn forbidden(errno: Errno) -> RemoteError {
    match errno.0 {
        libc::EIO | libc::EPERM | libc::EACCES => RemoteError::Not(NotApplied::TextWriteForbidden),
        _ => RemoteError::Gone,
    }
}
