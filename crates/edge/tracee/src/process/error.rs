//! Why a process cannot be opened, and why something about it cannot be read.

use crate::maps::MalformedMaps;
use crate::outcome::Errno;

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
    /// It is there, and the entries by which a process is looked at are its first thread's.
    #[error("its first thread has ended while others run on, and the kernel shows under its number what that one has")]
    FirstThreadEnded,
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
