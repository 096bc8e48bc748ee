//! Becoming the tracer of a thread that another tracer may be about to let go.
//!
//! A tracing thread's end lets go whatever it still traces, and so does the death of a
//! Salve that was killed. Who waits for that end is told before the kernel is through with
//! it: `pthread_join` returns, and a process that is being killed is no tracer to wait for
//! any more, while the thread is traced still. That passes, and is waited for; a tracer
//! that lives on is not.

use crate::process::{Process, ReadError, Status, parse_stat};
use crate::{Errno, sys};
use core::time::Duration;
use std::time::Instant;

/// An end takes microseconds, and as long as a busy machine makes it wait for a processor.
const PATIENCE: Duration = Duration::from_secs(2);
/// A tracer that has taken its SIGKILL and has not begun to exit looks alive for a moment.
const LIVES_ON: Duration = Duration::from_millis(50);
const NAP: Duration = Duration::from_micros(100);

/// Attaches without stopping.
pub(crate) fn seize(process: &Process, tid: i32) -> Result<(), Errno> {
    let refused = match sys::seize(tid) {
        Err(Errno(libc::EPERM)) => Errno(libc::EPERM),
        done => return done,
    };
    match lasting_tracer(process, Some(tid)) {
        // Let go since, or forbidden for another reason, which is the answer then.
        Ok(None) => sys::seize(tid),
        Ok(Some(_)) | Err(_) => Err(refused),
    }
}

/// The process that traces a thread (without a number, the first one), and does not end.
pub(crate) fn lasting_tracer(process: &Process, tid: Option<i32>) -> Result<Option<i32>, ReadError> {
    let start = Instant::now();
    let mut ending = start;
    loop {
        let tracer = process.status(tid)?.tracer();
        if tracer == 0 {
            return Ok(None);
        }
        let now = Instant::now();
        if is_done_tracing(tracer) {
            ending = now;
        }
        if now.duration_since(ending) >= LIVES_ON || now.duration_since(start) >= PATIENCE {
            return Ok(Some(process_of(tracer).unwrap_or(tracer)));
        }
        std::thread::sleep(NAP);
    }
}

/// The kernel names a tracer by the number of its thread.
fn process_of(tracer: i32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{tracer}/status")).ok()?;
    Status::of(text).field("Tgid")?.parse().ok()
}

/// The process that traces a thread (without a number, the first one).
pub(crate) fn tracer(process: &Process, tid: Option<i32>) -> Option<i32> {
    let tracer = process.status(tid).ok()?.tracer();
    (tracer != 0).then(|| process_of(tracer).unwrap_or(tracer))
}

/// Whether a thread ended, which is why it could not be traced: a zombie, or gone since.
pub(crate) fn has_ended(process: &Process, tid: i32) -> bool {
    match process.status(Some(tid)) {
        Ok(status) => status.field("State").is_some_and(|state| state.starts_with(['Z', 'X'])),
        Err(error) => matches!(error, ReadError::Exited),
    }
}

/// Whether this tracer (a thread, by its number) is one of ours, which traces nothing else by
/// now, or gone or going.
fn is_done_tracing(tracer: i32) -> bool {
    let group = std::fs::read_to_string(format!("/proc/{tracer}/status")).ok().map(Status::of);
    let own = |status: Status| status.field("Tgid").is_some_and(|group| group.parse() == Ok(std::process::id()));
    group.is_some_and(own) || ends(tracer)
}

/// Whether a thread is gone, or going.
pub(crate) fn ends(tid: i32) -> bool {
    const KILLED: u64 = 1 << (libc::SIGKILL - 1);
    // `include/linux/sched.h`, shown in `proc_pid_stat(5)` field 9.
    const PF_EXITING: u64 = 4;
    let Ok(text) = std::fs::read_to_string(format!("/proc/{tid}/status")) else { return true };
    let status = Status::of(text);
    let dead = status.field("State").is_some_and(|state| state.starts_with(['Z', 'X']));
    let pending = |name: &str| status.field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    // Past its signals, and not yet through with its files.
    let exiting = || {
        let stat = std::fs::read(format!("/proc/{tid}/stat")).ok();
        stat.is_none_or(|stat| parse_stat(&stat).is_some_and(|stat| stat.flags & PF_EXITING != 0))
    };
    dead || exiting() || (pending("SigPnd") | pending("ShdPnd")) & KILLED != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::sync::mpsc;

    /// As with a join that returns early: a thread of ours traces it for a while yet.
    fn traced_for_a_moment(then: impl FnOnce(&Process)) {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let tid = i32::try_from(child.id()).unwrap();
        let process = Process::open(tid).unwrap();
        let (held, wait) = mpsc::channel();
        let (go, gone) = mpsc::channel();
        let other = std::thread::spawn(move || {
            sys::seize(tid).unwrap();
            held.send(()).unwrap();
            gone.recv().unwrap();
            std::thread::sleep(NAP * 100);
        });
        wait.recv().unwrap();
        assert_eq!(sys::seize(tid), Err(Errno(libc::EPERM)));
        go.send(()).unwrap();
        then(&process);
        other.join().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }

    #[test]
    fn a_tracer_that_ends_is_waited_for() {
        traced_for_a_moment(|process| assert_eq!(seize(process, process.pid()), Ok(())));
        traced_for_a_moment(|process| assert_eq!(lasting_tracer(process, None).unwrap(), None));
    }

    #[test]
    fn who_is_not_there_has_ended_and_who_runs_has_not() {
        assert!(ends(i32::MAX));
        assert!(is_done_tracing(i32::try_from(std::process::id()).unwrap()));
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(!ends(pid));
        let _ = child.kill();
        // Killed, ending, or a zombie, which is the same here; for a moment it looks alive.
        let deadline = Instant::now().checked_add(Duration::from_secs(60)).unwrap();
        while !ends(pid) && Instant::now() < deadline {
            std::thread::sleep(NAP);
        }
        assert!(ends(pid));
        let _ = child.wait();
    }
}
