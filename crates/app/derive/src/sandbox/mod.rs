//! Gives up everything that parsing does not need, before the first foreign byte.
//!
//! Order matters: privilege goes first (root needs it to go), then landlock (it
//! binds the calling thread and the threads it starts), then the workers are
//! started, then the limits that would forbid to start them, and last the system
//! call filter over all threads. What is left can compute, read the files it
//! was handed, write its answer, and end.
//!
//! Invariants: a layer that is missing is named in the report
//! ([`Degradation`]); the filter is never missing; no step is retried or
//! passed over after an error.

mod descriptors;
mod filter;
mod privilege;
mod rlimits;
mod wall;

pub(crate) use descriptors::close_inherited;

use crate::pool::{Pool, PoolError};
use rustix::io::Errno;
use salve_protocol::{Degradation, Enforcement, ResourceLimits, SandboxReport};

/// Why the sandbox does not stand. Nothing foreign is looked at after it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("cannot list the open descriptors")]
    ListDescriptors {
        #[source]
        source: std::io::Error,
    },
    #[error("cannot {what}")]
    Step {
        what: &'static str,
        #[source]
        source: Errno,
    },
    #[error("still user {uid} after giving up root")]
    StillPrivileged { uid: u32 },
    #[error("capabilities are left")]
    CapabilitiesLeft,
    #[error("cannot restrict access to files with landlock")]
    Landlock {
        #[source]
        source: landlock::RulesetError,
    },
    #[error("cannot start the workers")]
    Workers {
        #[source]
        source: PoolError,
    },
    #[error("cannot build the system call filter")]
    BuildFilter {
        #[source]
        source: seccompiler::BackendError,
    },
    #[error("cannot install the system call filter")]
    InstallFilter {
        #[source]
        source: seccompiler::Error,
    },
}

/// Whether there is to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Sandboxed,
    /// For a debugger, on files that are trusted. Asked for with an option that says so.
    UnsafeUnsandboxed,
}

/// Everything is given up when this returns; the threads of the pool stand and are in it too.
pub(crate) fn enter(
    mode: Mode,
    limits: &ResourceLimits,
    descriptors_closed: u32,
    writable: &[i32],
) -> Result<(Pool, SandboxReport), SandboxError> {
    let threads = thread_count(limits);
    if mode == Mode::UnsafeUnsandboxed {
        let pool = Pool::start(threads).map_err(|source| SandboxError::Workers { source })?;
        return Ok((pool, unsandboxed(descriptors_closed, threads)));
    }
    let mut degraded = Vec::new();
    rlimits::bound_resources(limits, threads)?;
    if let Some(uid) = privilege::give_up()? {
        degraded.push(Degradation::UserId { uid });
    }
    let landlock = wall::close_off()?;
    if landlock != Enforcement::Full {
        degraded.push(Degradation::Landlock { enforcement: landlock });
    }
    let pool = Pool::start(threads).map_err(|source| SandboxError::Workers { source })?;
    rlimits::forbid_growth()?;
    // Asked before the filter stands: it does not let even this through.
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    filter::install(writable)?;
    let report = SandboxReport { seccomp: true, landlock, uid, gid, descriptors_closed, threads, degraded };
    Ok((pool, report))
}

fn unsandboxed(descriptors_closed: u32, threads: u32) -> SandboxReport {
    SandboxReport {
        seccomp: false,
        landlock: Enforcement::Missing,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        descriptors_closed,
        threads,
        degraded: vec![Degradation::Unsandboxed],
    }
}

fn thread_count(limits: &ResourceLimits) -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(processors).unwrap_or(1).min(limits.max_threads).max(1)
}
