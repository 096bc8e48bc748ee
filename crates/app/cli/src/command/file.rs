//! Files that the operator names: regular, bounded, and their problems said
//! in the same words by every command.

use crate::host::Actor;
use crate::plan::{FileOwner, may_hand_over};
use crate::problem::Problem;
use rustix::fs::{Mode, OFlags};
use salve_elf::ContentHash;
use salve_patch::{PatchFile, decode};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// No patch file and no image is larger; beyond it a file is refused unread.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 30;

/// Opens a regular file for reading. A FIFO, a device or a socket is refused
/// without waiting for its other end.
pub(crate) fn open_regular(path: &Path) -> Result<File, Problem> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| cannot_open(path, errno))?);
    let metadata = file.metadata().map_err(|error| cannot_read(path, error))?;
    if !metadata.is_file() {
        return Err(Problem::failed("not-a-file", format!("{} is not a regular file", path.display())));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(Problem::refused(
            "too-large",
            format!("{} has {} bytes; the limit is {MAX_FILE_BYTES}", path.display(), metadata.len()),
        ));
    }
    Ok(file)
}

fn cannot_open(path: &Path, errno: rustix::io::Errno) -> Problem {
    let problem = Problem::failed("cannot-open", format!("cannot open {}", path.display()));
    let problem = problem.because(std::io::Error::from(errno));
    match errno {
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => problem.hint("run it as a user who may read the file"),
        rustix::io::Errno::NOENT => problem.hint("is the path right?"),
        _other => problem,
    }
}

pub(crate) fn cannot_read(path: &Path, error: std::io::Error) -> Problem {
    Problem::failed("cannot-read", format!("cannot read {}", path.display())).because(error)
}

/// All of a file, up to [`MAX_FILE_BYTES`].
pub(crate) fn read_all(file: &File, path: &Path) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES.saturating_add(1)).read_to_end(&mut bytes);
    let read = read.map_err(|error| cannot_read(path, error))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(Problem::refused("too-large", format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display())));
    }
    Ok(bytes)
}

/// A patch file and the hash of its bytes.
pub(crate) fn read_patch(path: &Path) -> Result<(PatchFile, ContentHash), Problem> {
    let bytes = read_all(&open_regular(path)?, path)?;
    let patch = decode(&bytes, &salve_patch::Limits::default()).map_err(|error| {
        Problem::failed("not-a-patch", format!("{} is not a patch file that can be used", path.display()))
            .because(error)
            .hint("`salve derive OLD NEW` makes one")
    })?;
    Ok((patch, ContentHash::of(&bytes)))
}

/// Writes a whole file or none: beside its place first, then into it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    let cannot = |error: std::io::Error| {
        let problem = Problem::failed("cannot-write", format!("cannot write {}", path.display()));
        match error.kind() {
            std::io::ErrorKind::NotFound => problem.because(error).hint("the directory has to exist"),
            std::io::ErrorKind::IsADirectory => problem.because(error).hint("name a file in it"),
            _other => problem.because(error),
        }
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    let mut file = tempfile::Builder::new().prefix(".salve-").permissions(mode).tempfile_in(dir).map_err(cannot)?;
    file.write_all(bytes).map_err(cannot)?;
    file.persist(path).map_err(|error| cannot(error.error))?;
    Ok(())
}

/// Whether a file was the caller's to hand over ([`may_hand_over`]).
pub(crate) fn check_handed_over(path: &Path, actor: &Actor) -> Result<(), Problem> {
    let file = open_regular(path)?;
    let metadata = file.metadata().map_err(|error| cannot_read(path, error))?;
    let owner = FileOwner { uid: metadata.uid(), mode: metadata.mode() & 0o7777 };
    let operators: Vec<u32> =
        [Some(actor.euid), Some(actor.uid), actor.sudo_uid, actor.login_uid].into_iter().flatten().collect();
    may_hand_over(owner, &operators).map_err(|why| {
        Problem::refused("not-yours", format!("{} is not yours to hand over", path.display()))
            .because(why)
            .hint("whoever can write the file decides what the processes run: copy it to where only you can write")
    })
}
