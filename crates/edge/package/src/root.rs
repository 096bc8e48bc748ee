//! A root directory beneath which files are read: the machine's own, or a
//! foreign one (a container's, a chroot's).
//!
//! Every path is resolved by the kernel inside the root (`openat2(2)`,
//! `RESOLVE_IN_ROOT`, no magic links), so an absolute symbolic link or `..`
//! leads nowhere else. Only regular files are read, and never more than a
//! limit: a pipe or a device cannot block or flood the reader.

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Why a file beneath a root cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("{path} does not exist")]
    Missing { path: PathBuf },
    #[error("cannot open {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: Errno,
    },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is no regular file")]
    NotAFile { path: PathBuf },
    #[error("{path} is larger than {limit} bytes")]
    TooLarge { path: PathBuf, limit: u64 },
}

/// An open root directory.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// The machine's own root.
    pub fn host() -> Result<Self, RootError> {
        Self::open(Path::new("/"))
    }

    /// A directory that is to be taken for a root. The path to it is trusted.
    pub fn open(path: &Path) -> Result<Self, RootError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, path, flags, Mode::empty());
        let dir = dir.map_err(|source| RootError::Open { path: path.to_owned(), source })?;
        Ok(Self { dir, path: path.to_owned() })
    }

    /// A root somebody else opened, e.g. `/proc/PID/root`; `path` is for messages.
    pub fn from_fd(dir: OwnedFd, path: &Path) -> Self {
        Self { dir, path: path.to_owned() }
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a regular file for reading.
    pub fn open_file(&self, path: &str) -> Result<File, RootError> {
        // Opening a pipe without O_NONBLOCK would wait for a writer.
        let fd = self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = rustix::fs::fstat(&fd).map_err(|source| RootError::Open { path: self.full(path), source })?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(RootError::NotAFile { path: self.full(path) });
        }
        Ok(File::from(fd))
    }

    /// The whole of a regular file.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, RootError> {
        let file = self.open_file(path)?;
        let mut bytes = Vec::new();
        let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|source| RootError::Read { path: self.full(path), source })?;
        if bytes.len() as u64 > limit { Err(RootError::TooLarge { path: self.full(path), limit }) } else { Ok(bytes) }
    }

    /// Like [`Self::read`], with what is no UTF-8 replaced; `None` where there is no such file.
    pub fn read_text(&self, path: &str, limit: u64) -> Result<Option<String>, RootError> {
        match self.read(path, limit) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(RootError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Names in a directory, sorted; empty where there is no such directory.
    pub fn list(&self, path: &str) -> Result<Vec<OsString>, RootError> {
        let dir = match self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(RootError::Missing { .. }) => return Ok(Vec::new()),
            other => other?,
        };
        let failed = |source| RootError::Open { path: self.full(path), source };
        let entries = rustix::fs::Dir::new(dir).map_err(failed)?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Where a symbolic link leads, as it is written; `None` for anything else.
    pub fn link_target(&self, path: &str) -> Option<String> {
        let fd = self.resolve(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        rustix::fs::readlinkat(&fd, "", Vec::new()).ok()?.into_string().ok()
    }

    fn resolve(&self, path: &str, flags: OFlags) -> Result<OwnedFd, RootError> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            // EAGAIN: something was renamed meanwhile; the kernel asks to try again.
            match rustix::fs::openat2(&self.dir, path, flags | OFlags::CLOEXEC, Mode::empty(), inside) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::NOENT | Errno::NOTDIR) => return Err(RootError::Missing { path: self.full(path) }),
                other => return other.map_err(|source| RootError::Open { path: self.full(path), source }),
            }
        }
    }

    fn full(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }
}
