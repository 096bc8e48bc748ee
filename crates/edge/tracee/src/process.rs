//! One process and what the kernel says about it.
//!
//! A [`Process`] pins its `/proc/PID` directory and a pidfd when it is opened,
//! so that every later read is of that very process or fails: a recycled pid
//! cannot be mistaken for it. The start time is kept as well, because a reader
//! of an event has nothing but numbers.

mod error;
mod facts;
mod mapped;
mod stat;
mod status;
mod threads;
mod worker;

pub use error::{OpenError, ReadError};
pub use facts::{Facts, Namespaces};
pub(crate) use stat::parse_stat;
pub use status::Seccomp;
pub(crate) use status::Status;

use crate::limits::Limits;
use crate::transfer::{CutShort, Notes};
use core::fmt;
use core::sync::atomic::{AtomicI32, Ordering};
use core::time::Duration;
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use stat::Stat;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

/// A process, told apart from a later one with the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProcessId {
    pub pid: i32,
    /// Clock ticks after boot (`proc_pid_stat(5)`, field 22).
    pub start_time: u64,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pid)
    }
}

/// A process that was there when it was opened.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    directory: OwnedFd,
    pidfd: OwnedFd,
    notes: Notes,
    /// A borrowed thread was let go before it was at the end of its stub: until somebody has
    /// looked, it may be in there.
    astray: AtomicI32,
}

/// The numbers of all processes there are now.
pub fn list_pids() -> Result<Vec<i32>, ReadError> {
    let entries = std::fs::read_dir("/proc").map_err(|e| ReadError::of_io("/proc", &e))?;
    let mut pids: Vec<i32> = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| ReadError::of_io("/proc", &e))?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse().ok()).filter(|&pid: &i32| pid > 0));
    }
    pids.sort_unstable();
    Ok(pids)
}

/// `PF_KTHREAD` of `include/linux/sched.h`, shown in `proc_pid_stat(5)` field 9.
const PF_KTHREAD: u64 = 0x0020_0000;

/// How long the threads of a process that ends may end one after the other.
const ENDS_SOON: Duration = Duration::from_millis(100);

impl Process {
    pub fn open(pid: i32) -> Result<Self, OpenError> {
        let number = Pid::from_raw(pid).filter(|_| pid > 0).ok_or(OpenError::NoSuchProcess)?;
        let pidfd = pidfd_open(number, PidfdFlags::empty()).map_err(|errno| match errno {
            // EINVAL: the number is a thread's, not a process's.
            rustix::io::Errno::SRCH | rustix::io::Errno::INVAL => OpenError::NoSuchProcess,
            other => OpenError::Read(ReadError::of("pidfd", other)),
        })?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let read = |error: ReadError| match error {
            ReadError::Exited => OpenError::NoSuchProcess,
            other => OpenError::Read(other),
        };
        let directory = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())
            .map_err(|errno| read(ReadError::of("/proc/PID", errno)))?;
        let mut process = Self {
            id: ProcessId { pid, start_time: 0 },
            directory,
            pidfd,
            notes: Notes::default(),
            astray: AtomicI32::new(0),
        };
        let stat = process.stat().map_err(read)?;
        process.id.start_time = stat.start_time;
        // The directory was opened after the pidfd: if the pidfd's process still
        // lives, the number was not recycled in between.
        process.still_there().map_err(read)?;
        match stat {
            Stat { flags, .. } if flags & PF_KTHREAD != 0 => Err(OpenError::KernelThread),
            stat if stat.is_outlived() && !process.is_ending() && !process.exits_within(ENDS_SOON) => {
                Err(OpenError::Read(ReadError::FirstThreadEnded))
            }
            Stat { state: b'Z' | b'X', .. } => Err(OpenError::Zombie),
            _ => Ok(process),
        }
    }

    pub fn id(&self) -> ProcessId {
        self.id
    }

    pub fn pid(&self) -> i32 {
        self.id.pid
    }

    /// Calls of its threads that stops have cut short since this was asked for last.
    pub fn take_cut_short(&self) -> Vec<CutShort> {
        self.notes.take_cut_short()
    }

    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The thread that may still be in a stub, if there is one.
    pub(crate) fn astray(&self) -> Option<i32> {
        Some(self.astray.load(Ordering::Relaxed)).filter(|tid| *tid != 0)
    }

    pub(crate) fn set_astray(&self, tid: Option<i32>) {
        self.astray.store(tid.unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether this very process still runs (a zombie does not).
    pub fn still_there(&self) -> Result<(), ReadError> {
        match self.poll_exit(Duration::ZERO) {
            Ok(false) => Ok(()),
            Ok(true) => Err(ReadError::Exited),
            Err(errno) => Err(ReadError::of("pidfd", errno)),
        }
    }

    /// Waits at most that long for its end.
    pub(crate) fn exits_within(&self, time: Duration) -> bool {
        self.poll_exit(time).unwrap_or(false)
    }

    /// Whether it is gone, or on its way: it has no memory any more.
    pub(crate) fn is_over(&self) -> bool {
        match self.mappings(&Limits::default()) {
            Ok(mappings) => mappings.is_empty(),
            Err(ReadError::Exited) => true,
            Err(_unknown) => self.exits_within(Duration::ZERO),
        }
    }

    /// A pidfd becomes readable when its process has exited (`pidfd_open(2)`).
    fn poll_exit(&self, time: Duration) -> rustix::io::Result<bool> {
        let mut fds = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let tv_sec = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let timeout = rustix::event::Timespec { tv_sec, tv_nsec: i64::from(time.subsec_nanos()) };
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout))).map(|ready| ready > 0)
    }

    /// Opens an entry of the process's own `/proc` directory.
    pub(crate) fn open_entry(&self, name: &str, what: &'static str, flags: OFlags) -> Result<File, ReadError> {
        openat(&self.directory, name, flags | OFlags::CLOEXEC, Mode::empty())
            .map(File::from)
            .map_err(|errno| ReadError::of(what, errno))
    }

    pub(crate) fn read_entry(&self, name: &str, what: &'static str, limit: usize) -> Result<Vec<u8>, ReadError> {
        let file = self.open_entry(name, what, OFlags::RDONLY)?;
        let limit_bytes = u64::try_from(limit).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| ReadError::of_io(what, &e))?;
        if bytes.len() > limit { Err(ReadError::TooLarge { what, limit_bytes }) } else { Ok(bytes) }
    }

    /// Where a link in the process's own `/proc` directory leads.
    pub(crate) fn link(&self, name: &str) -> Result<OsString, ReadError> {
        rustix::fs::readlinkat(&self.directory, name, Vec::new())
            .map(|to| OsString::from_vec(to.into_bytes()))
            .map_err(|errno| ReadError::of("link", errno))
    }

    /// What an entry is or leads to.
    pub(crate) fn stat_entry(&self, name: &str) -> Result<rustix::fs::Stat, ReadError> {
        rustix::fs::statat(&self.directory, name, rustix::fs::AtFlags::empty())
            .map_err(|errno| ReadError::of("entry", errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_of_the_kernel_is_told_apart() {
        assert!(matches!(Process::open(2), Err(OpenError::KernelThread | OpenError::NoSuchProcess)));
        assert!(matches!(Process::open(0), Err(OpenError::NoSuchProcess)));
        assert!(matches!(Process::open(i32::MAX), Err(OpenError::NoSuchProcess)));
    }
}
