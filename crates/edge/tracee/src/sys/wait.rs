//! What became of the threads that this thread traces.

use super::Result;
use super::peek::{How, Peeked, peek, reap};
use crate::Errno;
use libc::c_int;

/// What `waitpid` told of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing yet.
    None,
    /// Stopped by `PTRACE_INTERRUPT`.
    Stopped,
    /// Stopped with its whole process, by a signal like `SIGSTOP`.
    GroupStopped,
    /// At the entry or the exit of a system call.
    SystemCall,
    /// About to be handed this signal.
    Signal(c_int),
    /// Gone, of itself.
    Exited,
    /// Gone with its process, of this signal.
    Killed(c_int),
}

/// Asks, without waiting, what became of a thread that this thread traces.
pub(crate) fn poll(tid: i32) -> Result<Event> {
    wait_with(tid, libc::WNOHANG)
}

/// Waits until something becomes of it, or an alarm goes off.
pub(crate) fn wait(tid: i32) -> Result<Event> {
    wait_with(tid, 0)
}

/// Waits until something becomes of any thread that this thread traces, or an alarm goes
/// off; `false` where there is nobody to wait for.
pub(crate) fn wait_for_any() -> bool {
    !matches!(peek(libc::P_ALL, 0, 0), Err(errno) if errno != Errno(libc::EINTR))
}

fn wait_with(tid: i32, flags: c_int) -> Result<Event> {
    let id = libc::id_t::try_from(tid).map_err(|_| Errno(libc::ESRCH))?;
    match peek(libc::P_PID, id, flags) {
        Ok(None) | Err(Errno(libc::EINTR)) => Ok(Event::None),
        Ok(Some(Peeked { how: How::Ended { killed_by }, .. })) => {
            reap(tid);
            Ok(killed_by.map_or(Event::Exited, Event::Killed))
        }
        Ok(Some(Peeked { how: How::Stopped { signal, event }, .. })) => Ok(match (signal, event) {
            (libc::SIGTRAP, libc::PTRACE_EVENT_STOP) => Event::Stopped,
            (_, libc::PTRACE_EVENT_STOP) => Event::GroupStopped,
            (signal, 0) if signal == libc::SIGTRAP | 0x80 => Event::SystemCall,
            (signal, 0) => Event::Signal(signal),
            // No other event was asked for; a thread in one is stopped all the same.
            _ => Event::Stopped,
        }),
        Err(Errno(libc::ECHILD)) => Ok(Event::Exited),
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{resume, seize};
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    /// A thread that ends lets its tracees go just as a process that is killed does.
    #[test]
    fn a_tracer_that_dies_before_it_hands_a_signal_on_does_not_take_it_along() {
        let script = "trap 'echo got' USR1; echo ready; while :; do sleep 0.01; done";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let tid = i32::try_from(child.id()).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(std::io::Result::unwrap);
        assert_eq!(lines.next().unwrap(), "ready");
        std::thread::spawn(move || {
            seize(tid).unwrap();
            let pid = rustix::process::Pid::from_raw(tid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
            loop {
                match wait(tid).unwrap() {
                    Event::Signal(libc::SIGUSR1) => break,
                    Event::Signal(other) => resume(tid, other).unwrap(),
                    _ => resume(tid, 0).unwrap(),
                }
            }
        })
        .join()
        .unwrap();
        // Where it was lost, this is what comes instead.
        let killer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_secs(20));
            let _ = child.kill();
            child.wait()
        });
        assert_eq!(lines.next().as_deref(), Some("got"));
        let pid = rustix::process::Pid::from_raw(tid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        drop(killer);
    }
}
