//! System calls that are made in a target, by number and name.

/// A system call by number and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sys(pub(crate) i64, pub(crate) &'static str);

pub(crate) const MMAP: Sys = Sys(libc::SYS_mmap, "mmap");
pub(crate) const MUNMAP: Sys = Sys(libc::SYS_munmap, "munmap");
pub(crate) const SOCKETPAIR: Sys = Sys(libc::SYS_socketpair, "socketpair");
pub(crate) const RECVMSG: Sys = Sys(libc::SYS_recvmsg, "recvmsg");
pub(crate) const POLL: Sys = Sys(libc::SYS_poll, "poll");
pub(crate) const PPOLL: Sys = Sys(libc::SYS_ppoll, "ppoll");
pub(crate) const FCNTL: Sys = Sys(libc::SYS_fcntl, "fcntl");
pub(crate) const CLOSE: Sys = Sys(libc::SYS_close, "close");
pub(crate) const PWRITE: Sys = Sys(libc::SYS_pwrite64, "pwrite64");
pub(crate) const RT_SIGPROCMASK: Sys = Sys(libc::SYS_rt_sigprocmask, "rt_sigprocmask");
pub(super) const TKILL: Sys = Sys(libc::SYS_tkill, "tkill");
pub(super) const SCHED_YIELD: Sys = Sys(libc::SYS_sched_yield, "sched_yield");
