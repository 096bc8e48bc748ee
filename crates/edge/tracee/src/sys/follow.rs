//! Following programs that are started, and what happens to any of their threads.

use super::peek::{How, Peeked, peek, reap};
use super::{Result, plain};
use crate::Errno;
use libc::c_int;

/// Attaches without stopping; tells of executed programs and, if wanted, follows children.
pub(crate) fn seize_to_follow(tid: i32, children: bool) -> Result<()> {
    let follow = libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACECLONE;
    let options = libc::PTRACE_O_TRACEEXEC | if children { follow } else { 0 };
    plain(libc::PTRACE_SEIZE, tid, 0, usize::try_from(options).unwrap_or(0))
}

/// What happened to any of the threads that this thread traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// Nothing yet.
    Nothing,
    /// No thread is traced any more.
    Nobody,
    /// A program was executed in this process; it has not run yet.
    Executed(i32),
    /// Stopped with its whole process by a signal, to be left so.
    GroupStopped(i32),
    /// About to be handed this signal.
    Signal(i32, c_int),
    /// Stopped for any other reason; it only has to go on.
    Other(i32),
    Exited(i32),
}

/// What became of any thread that this thread traces; waits for it where `block` says so.
pub(crate) fn followed(block: bool) -> Result<Followed> {
    let Peeked { tid, how } = match peek(libc::P_ALL, 0, if block { 0 } else { libc::WNOHANG }) {
        Ok(Some(peeked)) => peeked,
        Ok(None) | Err(Errno(libc::EINTR)) => return Ok(Followed::Nothing),
        Err(Errno(libc::ECHILD)) => return Ok(Followed::Nobody),
        Err(other) => return Err(other),
    };
    let followed = match how {
        How::Ended { .. } => Followed::Exited(tid),
        // To be resumed with it at once.
        How::Stopped { signal, event: 0 } => return Ok(Followed::Signal(tid, signal)),
        How::Stopped { event: libc::PTRACE_EVENT_EXEC, .. } => Followed::Executed(tid),
        How::Stopped {
            signal: libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU,
            event: libc::PTRACE_EVENT_STOP,
        } => Followed::GroupStopped(tid),
        How::Stopped { .. } => Followed::Other(tid),
    };
    // So that the next look is at somebody else.
    reap(tid);
    Ok(followed)
}
