//! What an open file of a thread is.

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pipe,
    Socket,
    /// A character device; a terminal is one.
    Device,
    Other,
}

/// Of a thread's descriptor, which a system call got in a register; `None` where there is none.
///
/// Asks nobody but the kernel: a file system that somebody serves may be the very one that
/// does not answer.
pub(crate) fn kind(tid: i32, number: u64) -> Option<Kind> {
    // The kernel looks at as many bits.
    let number = u32::try_from(number & u64::from(u32::MAX)).ok()?;
    let path = format!("/proc/{tid}/fd/{number}");
    let found = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE).ok()?;
    Some(match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::Fifo => Kind::Pipe,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::Device,
        _other => Kind::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

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
        assert_eq!(of(&std::fs::File::open("/proc/self/exe").unwrap()), Some(Kind::Other));
        assert_eq!(kind(std::process::id().cast_signed(), u64::MAX), None);
    }
}
