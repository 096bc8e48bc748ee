//! One process and what the kernel says about it.
//!
//! A [`Process`] pins its `/proc/PID` directory and a pidfd when it is opened,
//! so that every later read is of that very process or fails: a recycled pid
//! cannot be mistaken for it. The start time is kept as well, because a reader
//! of an event has nothing but numbers.

use crate::limits::Limits;
use crate::maps::{self, MalformedMaps, Mapping};
use crate::outcome::Errno;
use core::fmt;
use core::time::Duration;
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

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

/// Why a process cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no such process")]
    NoSuchProcess,
    #[error("process is a zombie")]
    Zombie,
    #[error("process is a thread of the kernel")]
    KernelThread,
    #[error("no permission")]
    NoPermission,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why something about a process could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("process exited")]
    Exited,
    /// It is there, and parts of it went each time while they were looked at.
    #[error("process changed each time while it was looked at")]
    Restless,
    #[error("no permission to read {what}")]
    NoPermission { what: &'static str },
    #[error("cannot read {what}: {errno}")]
    Failed { what: &'static str, errno: Errno },
    #[error("{what} is larger than {limit_bytes} bytes")]
    TooLarge { what: &'static str, limit_bytes: u64 },
    #[error("{what} is not what the kernel documents")]
    Malformed { what: &'static str },
    #[error(transparent)]
    Maps(#[from] MalformedMaps),
}

impl ReadError {
    pub(crate) fn of(what: &'static str, errno: rustix::io::Errno) -> Self {
        use rustix::io::Errno as E;
        match errno {
            // `/proc/PID/...` of a dead process: ESRCH on read, ENOENT on open.
            E::SRCH | E::NOENT => Self::Exited,
            E::ACCESS | E::PERM => Self::NoPermission { what },
            other => Self::Failed { what, errno: other.into() },
        }
    }

    pub(crate) fn of_io(what: &'static str, error: &std::io::Error) -> Self {
        match rustix::io::Errno::from_io_error(error) {
            Some(errno) => Self::of(what, errno),
            None => Self::Failed { what, errno: Errno::of(error) },
        }
    }
}

/// How a process is bound by `seccomp(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seccomp {
    Off,
    Strict,
    Filter,
}

/// The namespaces that decide what a path or a number means to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Namespaces {
    pub mount: u64,
    pub pid: u64,
    pub user: u64,
    pub network: u64,
}

/// What an operator wants to know of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub id: ProcessId,
    pub parent: i32,
    pub comm: String,
    /// As `/proc/PID/exe` shows it, less ` (deleted)`.
    pub exe: OsString,
    pub exe_deleted: bool,
    pub cmdline: Vec<String>,
    pub real_uid: u32,
    pub effective_uid: u32,
    /// Real, effective, saved and of the file system (`credentials(7)`).
    pub users: Vec<u32>,
    /// The same four, and the supplementary ones.
    pub groups: Vec<u32>,
    pub threads: usize,
    /// The process that traces it, or 0.
    pub tracer: i32,
    pub seccomp: Seccomp,
    pub namespaces: Namespaces,
}

/// A process that was there when it was opened.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    directory: OwnedFd,
    pidfd: OwnedFd,
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

pub(crate) struct Stat {
    state: u8,
    pub(crate) parent: i32,
    pub(crate) flags: u64,
    pub(crate) start_time: u64,
    heap_start: u64,
}

/// `PF_KTHREAD` of `include/linux/sched.h`, shown in `proc_pid_stat(5)` field 9.
const PF_KTHREAD: u64 = 0x0020_0000;

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
        let mut process = Self { id: ProcessId { pid, start_time: 0 }, directory, pidfd };
        let stat = process.stat().map_err(read)?;
        process.id.start_time = stat.start_time;
        // The directory was opened after the pidfd: if the pidfd's process still
        // lives, the number was not recycled in between.
        process.still_there().map_err(read)?;
        match stat {
            Stat { flags, .. } if flags & PF_KTHREAD != 0 => Err(OpenError::KernelThread),
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

    fn stat(&self) -> Result<Stat, ReadError> {
        let what = "stat";
        let bytes = self.read_entry("stat", what, 8192)?;
        parse_stat(&bytes).ok_or(ReadError::Malformed { what })
    }

    /// Where the heap begins, whether or not it holds anything yet (`brk(2)`).
    pub(crate) fn heap_start(&self) -> Result<u64, ReadError> {
        self.stat().map(|stat| stat.heap_start)
    }

    pub fn mappings(&self, limits: &Limits) -> Result<Vec<Mapping>, ReadError> {
        Ok(maps::parse(&self.read_entry("maps", "maps", limits.max_proc_bytes)?)?)
    }

    /// Opens the file behind a mapping, even if it was deleted or lies in another
    /// mount namespace. Regular files only: opening a device can have effects.
    pub fn open_mapped(&self, mapping: &Mapping) -> Result<File, ReadError> {
        // `proc_pid_map_files(5)`: whoever else may trace the process.
        let what = "what it has mapped, which takes root or CAP_CHECKPOINT_RESTORE";
        let name = mapping.map_files_name();
        // Looked at through O_PATH first: a plain open of a FIFO would block, of a device act.
        let path = self.open_entry(&name, what, OFlags::PATH)?;
        let kind = rustix::fs::fstat(&path).map_err(|errno| ReadError::of(what, errno))?.st_mode;
        if rustix::fs::FileType::from_raw_mode(kind) != rustix::fs::FileType::RegularFile {
            return Err(ReadError::Malformed { what: "kind of the mapped file" });
        }
        self.open_entry(&name, what, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    /// The numbers of its threads, sorted.
    pub fn threads(&self, limits: &Limits) -> Result<Vec<i32>, ReadError> {
        let what = "task";
        let directory =
            openat(&self.directory, "task", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| ReadError::of(what, errno))?;
        let mut tids = Vec::new();
        for entry in rustix::fs::Dir::new(directory).map_err(|errno| ReadError::of(what, errno))? {
            let entry = entry.map_err(|errno| ReadError::of(what, errno))?;
            let Some(tid) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else { continue };
            tids.push(tid);
            if tids.len() > limits.max_threads {
                let limit_bytes = u64::try_from(limits.max_threads).unwrap_or(u64::MAX);
                return Err(ReadError::TooLarge { what: "list of threads", limit_bytes });
            }
        }
        tids.sort_unstable();
        Ok(tids)
    }

    /// How many threads it has: links of the directory that lists them, besides its own two.
    pub(crate) fn thread_count(&self) -> Option<usize> {
        usize::try_from(self.stat_entry("task").ok()?.st_nlink.checked_sub(2)?).ok()
    }

    /// A thread's name; empty when it is gone.
    pub(crate) fn thread_name(&self, tid: i32) -> String {
        let bytes = self.read_entry(&format!("task/{tid}/comm"), "comm", 64).unwrap_or_default();
        String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned()
    }

    /// The lines of `status` of the process or of one of its threads.
    pub(crate) fn status(&self, tid: Option<i32>) -> Result<Status, ReadError> {
        let name = tid.map_or_else(|| "status".to_owned(), |tid| format!("task/{tid}/status"));
        Ok(Status(String::from_utf8_lossy(&self.read_entry(&name, "status", 1 << 16)?).into_owned()))
    }

    pub fn facts(&self, limits: &Limits) -> Result<Facts, ReadError> {
        let status = self.status(None)?;
        let malformed = ReadError::Malformed { what: "status" };
        let users = status.numbers("Uid")?;
        let [real_uid, effective_uid, ..] = *users.as_slice() else { return Err(malformed) };
        let mut groups = status.numbers("Gid")?;
        groups.extend(status.numbers("Groups")?);
        let (exe, exe_deleted) = self.exe()?;
        let cmdline = self.read_entry("cmdline", "cmdline", limits.max_proc_bytes)?;
        Ok(Facts {
            id: self.id,
            parent: self.stat()?.parent,
            comm: self.thread_name(self.id.pid),
            exe,
            exe_deleted,
            cmdline: cmdline
                .split(|&byte| byte == 0)
                .filter(|word| !word.is_empty())
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
            real_uid,
            effective_uid,
            users,
            groups,
            threads: self.threads(limits)?.len(),
            tracer: status.tracer(),
            seccomp: status.seccomp()?,
            namespaces: Namespaces {
                mount: self.namespace("ns/mnt")?,
                pid: self.namespace("ns/pid")?,
                user: self.namespace("ns/user")?,
                network: self.namespace("ns/net")?,
            },
        })
    }

    fn exe(&self) -> Result<(OsString, bool), ReadError> {
        let target = rustix::fs::readlinkat(&self.directory, "exe", Vec::new())
            .map_err(|errno| ReadError::of("exe", errno))?
            .into_bytes();
        Ok(match target.strip_suffix(b" (deleted)") {
            Some(stem) => (OsString::from_vec(stem.to_vec()), true),
            None => (OsString::from_vec(target), false),
        })
    }

    fn namespace(&self, name: &str) -> Result<u64, ReadError> {
        rustix::fs::statat(&self.directory, name, rustix::fs::AtFlags::empty())
            .map(|stat| stat.st_ino)
            .map_err(|errno| ReadError::of("ns", errno))
    }
}

/// `proc_pid_status(5)`: lines of `Name:\tvalue`.
pub(crate) struct Status(String);

impl Status {
    /// What `/proc/PID/status` said.
    pub(crate) fn of(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    }

    fn numbers(&self, name: &str) -> Result<Vec<u32>, ReadError> {
        let words = self.field(name).unwrap_or_default().split_ascii_whitespace();
        words.map(|word| word.parse().map_err(|_| ReadError::Malformed { what: "status" })).collect()
    }

    /// A size that is given in kB, in bytes.
    pub(crate) fn size_bytes(&self, name: &str) -> Option<u64> {
        self.field(name)?.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    }

    pub(crate) fn tracer(&self) -> i32 {
        self.field("TracerPid").and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn seccomp(&self) -> Result<Seccomp, ReadError> {
        match self.field("Seccomp") {
            // A kernel without seccomp shows no such line.
            None | Some("0") => Ok(Seccomp::Off),
            Some("1") => Ok(Seccomp::Strict),
            Some("2") => Ok(Seccomp::Filter),
            Some(_) => Err(ReadError::Malformed { what: "Seccomp line of status" }),
        }
    }
}

/// `proc_pid_stat(5)`. The name may hold anything, `)` included: the last one ends it.
pub(crate) fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let end = bytes.iter().rposition(|&byte| byte == b')')?;
    let rest = core::str::from_utf8(bytes.get(end.checked_add(1)?..)?).ok()?;
    // The first word here is field 3.
    let mut words = rest.split_ascii_whitespace();
    let state = *words.next()?.as_bytes().first()?;
    let parent = words.next()?.parse().ok()?;
    let flags = words.nth(4)?.parse().ok()?;
    let start_time = words.nth(12)?.parse().ok()?;
    // Field 47; kernels before 3.5 have none, and without permission it is 0.
    let heap_start = words.nth(24).and_then(|word| word.parse().ok()).unwrap_or(0);
    Some(Stat { state, parent, flags, start_time, heap_start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = b"42 (a) R 1 (b) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9911 12 13\n";
        let stat = parse_stat(line).expect("well formed");
        assert_eq!((stat.state, stat.parent, stat.flags, stat.start_time), (b'S', 7, 4_194_560, 9911));
    }

    #[test]
    fn this_process_tells_its_facts() {
        let own = i32::try_from(std::process::id()).expect("fits");
        let process = Process::open(own).expect("it runs");
        let facts = process.facts(&Limits::default()).expect("readable");
        assert_eq!(facts.id.pid, own);
        assert!(facts.threads >= 1 && !facts.cmdline.is_empty() && !facts.exe.is_empty());
        assert!(process.still_there().is_ok());
    }

    #[test]
    fn threads_are_counted_as_they_are_listed() {
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().expect("it starts");
        let process = Process::open(i32::try_from(sleeper.id()).expect("fits")).expect("it runs");
        assert_eq!(process.thread_count(), Some(1));
        sleeper.kill().and_then(|()| sleeper.wait()).expect("it ends");
        assert_ne!(process.thread_count(), Some(1));
        let own = Process::open(i32::try_from(std::process::id()).expect("fits")).expect("it runs");
        let others: Vec<_> = (0..3).map(|_| std::thread::spawn(std::thread::park)).collect();
        // Tests that run beside this one come and go.
        let agree = || own.thread_count() == own.threads(&Limits::default()).ok().map(|tids| tids.len());
        assert!((0..1000).any(|_| agree()));
        assert!(own.thread_count() > Some(3));
        for other in others {
            other.thread().unpark();
            other.join().expect("it ends");
        }
    }

    #[test]
    fn a_thread_of_the_kernel_is_told_apart() {
        assert!(matches!(Process::open(2), Err(OpenError::KernelThread | OpenError::NoSuchProcess)));
        assert!(matches!(Process::open(0), Err(OpenError::NoSuchProcess)));
        assert!(matches!(Process::open(i32::MAX), Err(OpenError::NoSuchProcess)));
    }
}
