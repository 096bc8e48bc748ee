//! The numbers that the kernel gives to processes, in the order of their making.

use crate::process::{ReadError, parse_stat};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

const NUMBERS: &str = "/proc/loadavg";
/// More numbers than this between two looks are looked through by way of the list of all.
const MANY: i32 = 4096;
/// None that is ever given out: with it everybody is looked at.
pub(super) const NO_MARK: i32 = -MANY - 1;

/// A moment in the life of the machine: the process number that was given out last, and
/// the time since boot in clock ticks, as `/proc/PID/stat` tells when a process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub(super) last: i32,
    pub(super) ticks: u64,
}

impl Mark {
    /// Take it before the processes are listed that are to change together.
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let per_second = rustix::param::clock_ticks_per_second();
        let part = u64::try_from(time.tv_nsec).unwrap_or(0).saturating_mul(per_second) / 1_000_000_000;
        let ticks = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(per_second).saturating_add(part);
        Self { last: open_numbers().and_then(|numbers| last_pid(&numbers)).unwrap_or(NO_MARK), ticks }
    }
}

/// The numbers that were given out since, unless they began anew or are too many.
pub(super) fn given_out(since: i32, last: i32) -> Option<std::ops::RangeInclusive<i32>> {
    (1..=MANY).contains(&last.saturating_sub(since)).then(|| since.saturating_add(1)..=last)
}

/// Whether a number is a process's and not only a thread's; `None` where it is nobody's.
pub(super) fn is_process(pid: i32) -> Result<Option<bool>, ReadError> {
    use rustix::io::Errno;
    let Some(number) = rustix::process::Pid::from_raw(pid) else { return Ok(None) };
    match rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) {
        Ok(_) => Ok(Some(true)),
        // Since Linux 6.9 the latter, before it the former.
        Err(Errno::INVAL | Errno::NOENT) => Ok(Some(false)),
        Err(Errno::SRCH) => Ok(None),
        Err(other) => Err(ReadError::of("pidfd", other)),
    }
}

/// When a process started, in clock ticks since boot; `None` where it is gone.
pub(super) fn started(pid: i32) -> Result<Option<u64>, ReadError> {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(bytes) => parse_stat(&bytes).map(|stat| Some(stat.start_time)).ok_or(ReadError::Malformed { what: "stat" }),
        Err(error) => match ReadError::of_io("stat", &error) {
            ReadError::Exited => Ok(None),
            error => Err(error),
        },
    }
}

pub(super) fn open_numbers() -> Result<File, ReadError> {
    File::open(NUMBERS).map_err(|error| ReadError::of_io(NUMBERS, &error))
}

/// The last word of `/proc/loadavg` (`proc_loadavg(5)`), as it is now.
pub(super) fn last_pid(numbers: &File) -> Result<i32, ReadError> {
    let mut text = [0; 128];
    let got = numbers.read_at(&mut text, 0).map_err(|error| ReadError::of_io(NUMBERS, &error))?;
    let text = core::str::from_utf8(text.get(..got).unwrap_or_default()).unwrap_or_default();
    let last = text.split_ascii_whitespace().last().and_then(|word| word.parse().ok());
    last.ok_or(ReadError::Malformed { what: NUMBERS })
}
