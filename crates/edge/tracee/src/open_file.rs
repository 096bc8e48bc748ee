//! What an open file of a thread is.

use crate::process::Process;
use crate::sys;
use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, statx};
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use std::os::fd::OwnedFd;

/// `SKB_MAX_ALLOC` and what goes with it: a unix socket takes so much at once.
const UNIX_BYTES: u64 = 32 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pipe,
    Socket,
    /// `/dev/zero` and its like, which give as much as anybody wants.
    Endless,
    /// Another character device; a terminal is one.
    Device,
    Other,
}

/// What of a socket tells how it can be interrupted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Socket {
    pub(crate) stream: bool,
    /// So many bytes go into it at once, or none.
    pub(crate) whole_bytes: u64,
    /// `SO_RCVLOWAT`.
    pub(crate) low_water: u64,
}

/// Of a thread's descriptor, which a system call got in a register; `None` where there is none.
pub(crate) fn kind(tid: i32, number: u64) -> Option<Kind> {
    let found = look(tid, number)?;
    Some(match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::Fifo => Kind::Pipe,
        FileType::Socket => Kind::Socket,
        // zero, full, random and urandom.
        FileType::CharacterDevice if found.stx_rdev_major == 1 && matches!(found.stx_rdev_minor, 5 | 7 | 8 | 9) => {
            Kind::Endless
        }
        FileType::CharacterDevice => Kind::Device,
        _other => Kind::Other,
    })
}

/// Asks nobody but the kernel: a file system that somebody serves may be the very one that
/// does not answer.
fn look(tid: i32, number: u64) -> Option<Statx> {
    let path = format!("/proc/{tid}/fd/{}", of_register(number));
    statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE | StatxFlags::INO).ok()
}

/// The kernel looks at as many bits.
fn of_register(number: u64) -> i64 {
    i64::try_from(number & u64::from(u32::MAX)).unwrap_or(-1)
}

/// Whether it was opened so (`O_NONBLOCK`).
pub(crate) fn never_waits(tid: i32, number: u64) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{tid}/fdinfo/{}", of_register(number))).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim);
    let flags = flags.and_then(|flags| u32::from_str_radix(flags, 8).ok());
    flags.is_some_and(|flags| flags & libc::O_NONBLOCK.cast_unsigned() != 0)
}

/// Of a socket, which is ours as well for that moment; `None` where it cannot be looked at.
pub(crate) fn socket(process: &Process, tid: i32, number: u64) -> Option<Socket> {
    let socket = take(process, tid, number)?;
    let stream = sockopt::socket_type(&socket).ok()? == SocketType::STREAM;
    let whole_bytes = if sockopt::socket_domain(&socket).ok()? == AddressFamily::UNIX {
        let buffer = u64::try_from(sockopt::socket_send_buffer_size(&socket).ok()?).ok()?;
        (buffer / 2).saturating_sub(64).clamp(1, UNIX_BYTES)
    } else {
        1
    };
    let low_water = sys::low_water(&socket).ok().and_then(|bytes| u64::try_from(bytes).ok())?;
    Some(Socket { stream, whole_bytes, low_water })
}

/// A thread may have a table of its own: that it is the same file is looked at.
fn take(process: &Process, tid: i32, number: u64) -> Option<OwnedFd> {
    let here = i32::try_from(of_register(number)).ok()?;
    let taken = pidfd_getfd(process.pidfd(), here, PidfdGetfdFlags::empty()).ok()?;
    let there = look(tid, number)?;
    let (found, wanted) = (rustix::fs::fstat(&taken).ok()?, there.stx_ino);
    let kind = FileType::from_raw_mode(found.st_mode);
    (found.st_ino == wanted && kind == FileType::Socket).then_some(taken)
}

/// A `recvmmsg` that was interrupted after its first message leaves the kernel's own code for
/// that as an error of its socket, and the next call would return it to the program.
pub(crate) fn forget_interruption(process: &Process, tid: i32, number: u64) {
    if let Some(socket) = take(process, tid, number) {
        let _taken = sockopt::socket_error(&socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_sockets_devices_and_files_are_told_apart() {
        let of = |file: &dyn std::os::fd::AsRawFd| {
            // SAFETY: a system call without arguments.
            let tid = unsafe { libc::gettid() };
            kind(tid, u64::try_from(file.as_raw_fd()).unwrap() | 1 << 32)
        };
        let (reader, _writer) = std::io::pipe().unwrap();
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(of(&reader), Some(Kind::Pipe));
        assert_eq!(of(&socket), Some(Kind::Socket));
        assert_eq!(of(&std::fs::File::open("/dev/null").unwrap()), Some(Kind::Device));
        assert_eq!(of(&std::fs::File::open("/dev/zero").unwrap()), Some(Kind::Endless));
        assert_eq!(of(&std::fs::File::open("/proc/self/exe").unwrap()), Some(Kind::Other));
        assert_eq!(kind(std::process::id().cast_signed(), u64::MAX), None);
    }
}
