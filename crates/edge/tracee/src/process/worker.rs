//! Threads that the kernel runs in a process's name: workers of `io_uring(7)` and of vhost.
//!
//! They share its memory and are listed among its threads, and never run its code. A call in
//! which one sleeps on the program's behalf ends with an error when it is interrupted, which
//! no other call's would; so they are left alone. That a thread is one of them is believed to
//! the kernel's own flags only, of kernels in which their meaning is known.

use super::{Process, parse_stat};
use crate::limits::Limits;
use std::sync::OnceLock;

/// `PF_USER_WORKER` of `include/linux/sched.h`, since Linux 6.4; those of `io_uring` have it as well.
const PF_USER_WORKER: u64 = 0x4000;
/// `PF_IO_WORKER`, since Linux 5.12.
const PF_IO_WORKER: u64 = 0x10;

impl Process {
    /// Whether a thread is proven to be a worker of the kernel.
    pub(crate) fn is_worker(&self, tid: i32) -> bool {
        let stat = || parse_stat(&self.read_entry(&format!("task/{tid}/stat"), "stat", 8192).ok()?);
        stat().is_some_and(|stat| stat.flags & flags_of_workers() != 0)
    }

    /// The threads that are none, sorted; none of them where they cannot be listed.
    pub(crate) fn ordinary_threads(&self, limits: &Limits) -> Vec<i32> {
        let mut tids = self.threads(limits).unwrap_or_default();
        tids.retain(|&tid| !self.is_worker(tid));
        tids
    }
}

/// What the running kernel marks its workers with.
fn flags_of_workers() -> u64 {
    static FLAGS: OnceLock<u64> = OnceLock::new();
    let release = || std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    *FLAGS.get_or_init(|| flags_in(&release()))
}

/// The same bits meant something else in kernels before, and something that programs have.
fn flags_in(release: &str) -> u64 {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 4) => PF_USER_WORKER,
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (5, 12) => PF_IO_WORKER,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_not_known_proves_nobody_to_be_its_worker() {
        assert_eq!(flags_in("6.18.44-fc-v657\n"), PF_USER_WORKER);
        assert_eq!(flags_in("6.4.0"), PF_USER_WORKER);
        assert_eq!(flags_in("6.1.0-18-amd64"), PF_IO_WORKER);
        assert_eq!(flags_in("5.12"), PF_IO_WORKER);
        for other in ["5.10.0-28-amd64", "4.19", "", "6", "x.y", "6.x"] {
            assert_eq!(flags_in(other), 0, "{other}");
        }
    }

    #[test]
    fn threads_of_a_program_are_no_workers() {
        let own = Process::open(std::process::id().cast_signed()).expect("it runs");
        assert!(!own.is_worker(own.pid()) && own.ordinary_threads(&Limits::default()).contains(&own.pid()));
    }
}
