//! Reads what was handed over, by descriptor, with a limit.
//!
//! Files are read into memory, never mapped: somebody could truncate a mapped
//! file and kill the reader, or change it after it was hashed. A program's
//! image in memory is a fifth of what analysing it takes.

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::FileType;
use rustix::io::Errno;

#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot look at the file")]
    Stat {
        #[source]
        source: Errno,
    },
    #[error("not a regular file")]
    NotAFile,
    #[error("{have_bytes} bytes, the limit is {limit_bytes}")]
    TooLarge { have_bytes: u64, limit_bytes: u64 },
    #[error("no memory for {need_bytes} bytes")]
    OutOfMemory { need_bytes: u64 },
    #[error("cannot read at offset {at:#x}")]
    Read {
        at: u64,
        #[source]
        source: Errno,
    },
    #[error("the file changed its size while it was read")]
    Changed,
}

/// Length of a regular file, if it is within the limit.
pub(crate) fn checked_len(file: BorrowedFd<'_>, limit_bytes: u64) -> Result<u64, InputError> {
    let stat = rustix::fs::fstat(file).map_err(|source| InputError::Stat { source })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(InputError::NotAFile);
    }
    let have_bytes = u64::try_from(stat.st_size).map_err(|_| InputError::NotAFile)?;
    if have_bytes > limit_bytes { Err(InputError::TooLarge { have_bytes, limit_bytes }) } else { Ok(have_bytes) }
}

/// The whole file, at the size it had at the start.
pub(crate) fn read_whole(file: BorrowedFd<'_>, limit_bytes: u64) -> Result<Vec<u8>, InputError> {
    let len_bytes = checked_len(file, limit_bytes)?;
    let no_memory = InputError::OutOfMemory { need_bytes: len_bytes };
    let Ok(len) = usize::try_from(len_bytes) else { return Err(no_memory) };
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(len).is_err() {
        return Err(no_memory);
    }
    bytes.resize(len, 0);
    let mut at = 0_usize;
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        match read_at(file, rest, at)? {
            0 => return Err(InputError::Changed),
            read => at = at.saturating_add(read),
        }
    }
    // One byte past the end: a file that grew is not what was hashed and measured.
    if read_at(file, &mut [0], len)? == 0 { Ok(bytes) } else { Err(InputError::Changed) }
}

fn read_at(file: BorrowedFd<'_>, into: &mut [u8], at: usize) -> Result<usize, InputError> {
    let at = u64::try_from(at).unwrap_or(u64::MAX);
    loop {
        match rustix::io::pread(file.as_fd(), &mut *into, at) {
            Err(Errno::INTR) => {}
            other => return other.map_err(|source| InputError::Read { at, source }),
        }
    }
}

/// Reads a file from its start through a descriptor whose own offset is not touched.
#[derive(Debug)]
pub(crate) struct Reader<'fd> {
    file: BorrowedFd<'fd>,
    at: usize,
}

impl<'fd> Reader<'fd> {
    pub(crate) fn new(file: BorrowedFd<'fd>) -> Self {
        Self { file, at: 0 }
    }
}

impl std::io::Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = read_at(self.file, into, self.at).map_err(std::io::Error::other)?;
        self.at = self.at.saturating_add(read);
        Ok(read)
    }
}
