//! Files on disk that may replace code: opened once, hashed once, held open
//! from derivation to apply, and looked at again before they are used.

use crate::command::file::{MAX_FILE_BYTES, open_regular};
use crate::plan::FileOwner;
use crate::problem::Problem;
use salve_elf::ContentHash;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One file as it was when it was hashed. The descriptor stays open.
#[derive(Debug)]
pub(crate) struct HeldFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) sha256: ContentHash,
    pub(crate) owner: FileOwner,
    stamp: Stamp,
}

/// What changes when a file is replaced or written to (`inode(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl HeldFile {
    pub(crate) fn open(path: &Path) -> Result<Self, Problem> {
        let file = open_regular(path)?;
        let unreadable = |error| crate::command::file::cannot_read(path, error);
        let before = file.metadata().map_err(unreadable)?;
        let bytes = read_at_start(&file, path)?;
        let after = file.metadata().map_err(unreadable)?;
        if Stamp::of(&before) != Stamp::of(&after) {
            return Err(Problem::failed("changing", format!("{} changes while it is read", path.display()))
                .hint("try again when whatever writes it is done"));
        }
        Ok(Self {
            path: path.to_path_buf(),
            file,
            sha256: ContentHash::of(&bytes),
            owner: FileOwner { uid: after.uid(), mode: after.mode() & 0o7777 },
            stamp: Stamp::of(&after),
        })
    }

    /// Whether the path still leads to this very file, unwritten since.
    pub(crate) fn is_current(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|now| Stamp::of(&now) == self.stamp)
    }

    /// The content again, from the descriptor that is held; an error if it is
    /// no longer what was hashed.
    pub(crate) fn read(&self) -> Result<Vec<u8>, Problem> {
        let bytes = read_at_start(&self.file, &self.path)?;
        if ContentHash::of(&bytes) == self.sha256 {
            Ok(bytes)
        } else {
            Err(Problem::failed("changed", format!("{} was written to meanwhile", self.path.display())))
        }
    }

    /// A second descriptor of the same open file, for a process that reads it
    /// by offset.
    pub(crate) fn duplicate(&self) -> Result<File, Problem> {
        self.file.try_clone().map_err(|error| crate::command::file::cannot_read(&self.path, error))
    }
}

/// Whatever the descriptor's position is: others may share it.
fn read_at_start(file: &File, path: &Path) -> Result<Vec<u8>, Problem> {
    let unreadable = |error| crate::command::file::cannot_read(path, error);
    let len = file.metadata().map_err(unreadable)?.len().min(MAX_FILE_BYTES);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0).map_err(unreadable)?;
    Ok(bytes)
}

/// Every path that was asked about in this run, once.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    seen: BTreeMap<PathBuf, Option<Arc<HeldFile>>>,
}

impl Disk {
    /// `None` where there is no such regular file that can be read.
    pub(crate) fn look(&mut self, path: &Path) -> Option<Arc<HeldFile>> {
        if let Some(known) = self.seen.get(path) {
            return known.clone();
        }
        let found = HeldFile::open(path).ok().map(Arc::new);
        self.seen.insert(path.to_path_buf(), found.clone());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_or_written_is_no_longer_the_one_held() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let path = dir.path().join("image");
        std::fs::write(&path, b"one").expect("written");
        let held = HeldFile::open(&path).expect("readable");
        assert_eq!(held.sha256, ContentHash::of(b"one"));
        assert!(held.is_current());
        std::fs::write(dir.path().join("next"), b"one").expect("written");
        std::fs::rename(dir.path().join("next"), &path).expect("renamed");
        assert!(!held.is_current(), "same content, another file");
        std::fs::remove_file(&path).expect("removed");
        assert!(!held.is_current());
    }

    #[test]
    fn only_regular_files_are_looked_at() {
        let mut disk = Disk::default();
        assert!(disk.look(Path::new("/dev/null")).is_none());
        assert!(disk.look(Path::new("/")).is_none());
        assert!(disk.look(Path::new("/nowhere/at/all")).is_none());
    }
}
