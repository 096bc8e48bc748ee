//! What the program has to know about the machine and the person who called it.

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::fs;

/// Who asked: as the kernel and `sudo` tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Actor {
    pub(crate) pid: u32,
    /// Real and effective user of the program.
    pub(crate) uid: u32,
    pub(crate) euid: u32,
    /// The user who logged in, as the audit subsystem remembers it across `sudo` and `su`.
    pub(crate) login_uid: Option<u32>,
    /// As `sudo` says in the environment; root can say anything there.
    pub(crate) sudo_uid: Option<u32>,
    pub(crate) sudo_user: Option<String>,
}

impl Actor {
    pub(crate) fn current() -> Self {
        let sudo_uid = std::env::var("SUDO_UID").ok().and_then(|text| text.parse().ok());
        let sudo_user = std::env::var("SUDO_USER").ok().filter(|name| name.len() <= 256);
        Self {
            pid: std::process::id(),
            uid: rustix::process::getuid().as_raw(),
            euid: rustix::process::geteuid().as_raw(),
            login_uid: fs::read_to_string("/proc/self/loginuid")
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .filter(|uid| *uid != u32::MAX),
            sudo_uid,
            sudo_user,
        }
    }
}

/// Makes a file that may not grow any more (`RLIMIT_FSIZE`) an error that can be told, not
/// the end of the program.
pub(crate) fn survive_file_limits() {
    let unread = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let _without_it_a_signal_ends_us = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, unread);
}

/// One descriptor for each image that is compared or derived from: as many as
/// the system lets us have. What it does not let us have is missed where it is needed.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _kept_as_it_is = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The kernel's name for this boot: with it, a pid and a start time name a
/// process once and for all.
pub(crate) fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|text| text.trim().to_owned())
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which no one sets back.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// RFC 3339 with milliseconds, in UTC.
pub(crate) fn wall_clock() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
