//! What is handed over: descriptors, and the names that go with them.

use crate::error::{DeriverError, InputFault};
use rustix::fs::{Mode, OFlags};
use salve_elf::ContentHash;
use salve_patch::PackageId;
use salve_protocol::{Descriptor, InputFile, InspectSides, MAX_DESCRIPTORS, Side};
use sha2::{Digest as _, Sha256};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// One version of the software, by open files: the caller keeps them, from
/// derivation to apply.
#[derive(Clone, Debug)]
pub enum SideInput<'fd> {
    /// A Debian binary package.
    Deb { file: BorrowedFd<'fd>, label: String },
    /// Plain ELF files, a tree's, or images out of `/proc/PID/map_files`.
    Files {
        files: Vec<FileInput<'fd>>,
        /// The package that the caller knows them to be of.
        package: Option<PackageId>,
        /// Its Debian changelog, plain or gzip.
        changelog: Option<BorrowedFd<'fd>>,
        /// All its files with their checksums, as `salve_package::contents` writes them.
        contents: Option<BorrowedFd<'fd>>,
        label: String,
    },
}

#[derive(Clone, Debug)]
pub struct FileInput<'fd> {
    /// Path in the tree or on the system; a name for pairing, never opened.
    pub path: String,
    pub file: BorrowedFd<'fd>,
}

/// Where the code to be shown is found.
#[derive(Clone, Debug)]
pub enum InspectInput<'fd> {
    Images { old: SideInput<'fd>, new: SideInput<'fd> },
    Patch { patch: BorrowedFd<'fd>, old: Option<SideInput<'fd>> },
}

/// The descriptors of one request, in order.
#[derive(Debug)]
pub(crate) struct Handover<'fd> {
    handed: Vec<Handed<'fd>>,
}

#[derive(Debug)]
enum Handed<'fd> {
    Borrowed(BorrowedFd<'fd>),
    /// The caller's was writable: this is the same file, opened for reading.
    Reopened(OwnedFd),
}

impl Handed<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Borrowed(fd) => *fd,
            Self::Reopened(fd) => fd.as_fd(),
        }
    }
}

impl<'fd> Handover<'fd> {
    pub(crate) fn new() -> Self {
        Self { handed: Vec::new() }
    }

    pub(crate) fn count(&self) -> Result<u32, DeriverError> {
        let have = self.handed.len();
        match u32::try_from(have) {
            Ok(count) if have <= MAX_DESCRIPTORS => Ok(count),
            _ => Err(DeriverError::TooManyFiles { have, limit: MAX_DESCRIPTORS }),
        }
    }

    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.handed.iter().map(Handed::as_fd).collect()
    }

    pub(crate) fn side(&mut self, input: &SideInput<'fd>) -> Result<Side, DeriverError> {
        Ok(match input {
            SideInput::Deb { file, label } => Side::Deb { deb: self.file(label, *file)?, label: label.clone() },
            SideInput::Files { files, package, changelog, contents, label } => Side::Files {
                files: files
                    .iter()
                    .map(|f| Ok(InputFile { path: f.path.clone(), file: self.file(&f.path, f.file)? }))
                    .collect::<Result<_, DeriverError>>()?,
                package: package.clone(),
                changelog: changelog.map(|file| self.file("changelog", file)).transpose()?,
                contents: contents.map(|file| self.file("list of files", file)).transpose()?,
                label: label.clone(),
            },
        })
    }

    pub(crate) fn inspect(&mut self, input: &InspectInput<'fd>) -> Result<InspectSides, DeriverError> {
        Ok(match input {
            InspectInput::Images { old, new } => InspectSides::Images { old: self.side(old)?, new: self.side(new)? },
            InspectInput::Patch { patch, old } => InspectSides::Patch {
                patch: self.file("patch file", *patch)?,
                old: old.as_ref().map(|old| self.side(old)).transpose()?,
            },
        })
    }

    /// Hands a file over for reading only: a descriptor that can be written to is opened anew.
    pub(crate) fn file(&mut self, name: &str, file: BorrowedFd<'fd>) -> Result<Descriptor, DeriverError> {
        let failed = |source| DeriverError::Input { name: name.to_owned(), fault: InputFault::Reopen { source } };
        let flags = rustix::fs::fcntl_getfl(file).map_err(failed)?;
        let handed = if flags & OFlags::RWMODE == OFlags::RDONLY {
            Handed::Borrowed(file)
        } else {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
            Handed::Reopened(rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?)
        };
        Ok(self.push(handed))
    }

    /// Hands over the one file that is to be written.
    pub(crate) fn output(&mut self, file: BorrowedFd<'fd>) -> Descriptor {
        self.push(Handed::Borrowed(file))
    }

    fn push(&mut self, handed: Handed<'fd>) -> Descriptor {
        let index = u32::try_from(self.handed.len()).unwrap_or(u32::MAX);
        self.handed.push(handed);
        Descriptor(index)
    }

    /// Content identity and length of a file that was handed over.
    pub(crate) fn hash(&self, descriptor: Descriptor, name: &str) -> Result<(ContentHash, u64), DeriverError> {
        let file = usize::try_from(descriptor.0).ok().and_then(|index| self.handed.get(index));
        let failed = |fault| DeriverError::Input { name: name.to_owned(), fault };
        let file = file.ok_or_else(|| failed(InputFault::Missing))?;
        hash_file(file.as_fd()).map_err(|source| failed(InputFault::Hash { source }))
    }
}

fn hash_file(file: BorrowedFd<'_>) -> rustix::io::Result<(ContentHash, u64)> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 256 << 10];
    let mut at = 0_u64;
    loop {
        let read = match rustix::io::pread(file, &mut *piece, at) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        match piece.get(..read) {
            None | Some([]) => return Ok((ContentHash::from_bytes(hash.finalize().into()), at)),
            Some(bytes) => {
                hash.update(bytes);
                at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            }
        }
    }
}
