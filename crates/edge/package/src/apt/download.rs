//! Downloading a candidate without installing it.
//!
//! apt fetches as its sandbox user where there is one, into a directory that
//! only that user (and root) can enter. What arrives belongs to that user still
//! and could be written to, so it is copied, hashed on the way, into a file
//! without a name; only those bytes are looked at afterwards.

use super::{Apt, AptError, Candidate};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use salve_elf::ContentHash;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use tempfile::TempDir;

/// The user apt downloads as (`apt.conf(5)`, `APT::Sandbox::User`).
const SANDBOX_USER: &str = "_apt";
const MAX_PASSWD_BYTES: u64 = 16 << 20;

/// A package file as the archive has it.
#[derive(Debug)]
pub struct Downloaded {
    pub candidate: Candidate,
    /// At its start; has no name, and nobody else can write to it.
    pub file: File,
}

impl Candidate {
    /// Downloads the package and compares its hash with the verified lists'.
    /// `beneath` is where a private directory can be made, which is gone
    /// afterwards; the system's place for temporary files if it is `None`.
    pub fn download(self, apt: &Apt, beneath: Option<&Path>) -> Result<Downloaded, AptError> {
        if self.len_bytes > apt.max_package_bytes {
            return Err(AptError::TooLarge { len: self.len_bytes, limit: apt.max_package_bytes });
        }
        let dir = private_directory(beneath)?;
        let named = format!("{}={}", self.query, self.control.version);
        apt.get(&["download", "--", &named], dir.path())?;
        let file = copy_verified(dir.path(), &self)?;
        Ok(Downloaded { candidate: self, file })
    }
}

fn private_directory(beneath: Option<&Path>) -> Result<TempDir, AptError> {
    let beneath = beneath.map_or_else(std::env::temp_dir, Path::to_owned);
    let failed = |source| AptError::Directory { path: beneath.clone(), source };
    let mut builder = tempfile::Builder::new();
    builder.prefix("salve-apt-").permissions(std::fs::Permissions::from_mode(0o700));
    let dir = builder.tempdir_in(&beneath).map_err(failed)?;
    if rustix::process::geteuid().is_root()
        && let Some(user) = sandbox_user()
    {
        // Without it apt would warn, and download as root.
        let owner = rustix::fs::chownat(
            CWD,
            dir.path(),
            Some(Uid::from_raw(user)),
            None::<Gid>,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        );
        owner.map_err(|source| failed(source.into()))?;
    }
    Ok(dir)
}

/// From `/etc/passwd` alone: apt's user is a local one, and no name service is asked.
fn sandbox_user() -> Option<u32> {
    let mut text = String::new();
    File::open("/etc/passwd").ok()?.take(MAX_PASSWD_BYTES).read_to_string(&mut text).ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(SANDBOX_USER))?;
    line.split(':').nth(2)?.parse().ok()
}

fn copy_verified(dir: &Path, candidate: &Candidate) -> Result<File, AptError> {
    let read = |source: io::Error| AptError::Read { source };
    let mut found = None;
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.extension().is_some_and(|extension| extension == "deb") && found.replace(path).is_some() {
            return Err(AptError::NothingDownloaded);
        }
    }
    let path = found.ok_or(AptError::NothingDownloaded)?;
    // The directory is another user's: a link or a pipe in it is not followed or waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, &path, flags, Mode::empty()).map_err(|source| read(source.into()))?;
    let mut source = File::from(fd);
    if !source.metadata().map_err(read)?.is_file() {
        return Err(AptError::NothingDownloaded);
    }
    let mut copy = tempfile::tempfile_in(dir.parent().unwrap_or(dir)).map_err(read)?;
    let (mut hash, mut len, mut buffer) = (Sha256::new(), 0_u64, vec![0; 256 << 10]);
    loop {
        let count = source.read(&mut buffer).map_err(read)?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else { break };
        len = len.saturating_add(chunk.len() as u64);
        if len > candidate.len_bytes {
            return Err(AptError::TooLarge { len, limit: candidate.len_bytes });
        }
        hash.update(chunk);
        copy.write_all(chunk).map_err(read)?;
    }
    let found = ContentHash::from_bytes(hash.finalize().into());
    if found != candidate.sha256 {
        return Err(AptError::HashMismatch { expected: candidate.sha256.to_string(), found: found.to_string() });
    }
    copy.rewind().map_err(read)?;
    Ok(copy)
}
