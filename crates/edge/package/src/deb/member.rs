//! The members of `data.tar`.
//!
//! Extended names are read here rather than by the tar library, because their
//! size has to be bounded, and because dpkg knows GNU's only: what it would not
//! unpack, this does not show.

use super::unpack::Unpacked;
use super::{DebError, Limits, path};
use crate::contents::Sums;
use core::ops::ControlFlow;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read};
use tar::EntryType;

/// One member, without its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Absolute, without `.` and `..`: `/usr/sbin/haproxy`.
    pub path: String,
    pub kind: Kind,
    /// Permission bits, set-user-id and the like included.
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub len_bytes: u64,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// The target as it is written.
    Symlink {
        target: String,
    },
    /// Another member of the same package, made absolute.
    HardLink {
        target: String,
    },
    /// A device or a pipe.
    Special,
}

/// The contents of the member at hand.
pub struct Contents<'a> {
    source: &'a mut dyn Read,
    name: &'a str,
    limits: &'a Limits,
    meter: &'a super::ar::Meter,
    len_bytes: u64,
    /// Bytes that were looked at and belong to the contents.
    head: Vec<u8>,
}

impl Contents<'_> {
    /// Whether the contents start like an ELF file. Reads no further than that.
    pub fn is_elf(&mut self) -> Result<bool, DebError> {
        const MAGIC: &[u8] = b"\x7fELF";
        if self.head.len() < MAGIC.len() {
            let want = (MAGIC.len() as u64).saturating_sub(self.head.len() as u64);
            let read = self.source.take(want).read_to_end(&mut self.head);
            read.map_err(|error| self.meter.explain(self.name, error))?;
        }
        Ok(self.head.starts_with(MAGIC))
    }

    /// All of it. A second call gives nothing.
    pub fn read(&mut self) -> Result<Vec<u8>, DebError> {
        if self.len_bytes > self.limits.max_file_bytes {
            return Err(DebError::TooLarge { what: "file", limit: self.limits.max_file_bytes });
        }
        let mut bytes = std::mem::take(&mut self.head);
        // The size is what a header says; memory is taken for what is there.
        let room = usize::try_from(self.len_bytes.min(64 << 20)).unwrap_or(0).saturating_sub(bytes.len());
        bytes.reserve_exact(room);
        self.source.read_to_end(&mut bytes).map_err(|error| self.meter.explain(self.name, error))?;
        Ok(bytes)
    }
}

impl Contents<'_> {
    /// Checksums of all of it; nothing is held. A second call sees an empty file.
    pub(crate) fn sums(&mut self) -> Result<Sums, DebError> {
        let mut sums = Sums::default();
        sums.update(&std::mem::take(&mut self.head));
        let mut piece = vec![0; 64 << 10];
        loop {
            let read = self.source.read(&mut piece).map_err(|error| self.meter.explain(self.name, error))?;
            match piece.get(..read) {
                None | Some([]) => return Ok(sums),
                Some(bytes) => sums.update(bytes),
            }
        }
    }
}

type OnEntry<'v> = dyn FnMut(&Member, &mut Contents<'_>) -> Result<ControlFlow<()>, DebError> + 'v;

/// Shows every member of a tar archive, in order; reads the archive to its end.
pub(super) fn visit(
    unpacked: Unpacked<'_>,
    name: &str,
    limits: &Limits,
    on_member: &mut OnEntry<'_>,
) -> Result<(), DebError> {
    let meter = std::rc::Rc::clone(&unpacked.meter);
    let explain = |error| meter.explain(name, error);
    let mut archive = tar::Archive::new(unpacked);
    let (mut long_path, mut long_target) = (None, None);
    let mut seen = Seen::default();
    let mut count = 0_u64;
    for entry in archive.entries().map_err(explain)?.raw(true) {
        let mut entry = entry.map_err(explain)?;
        count = count.saturating_add(1);
        if count > limits.max_entries {
            return Err(DebError::TooLarge { what: "number of files", limit: limits.max_entries });
        }
        match entry.header().entry_type() {
            EntryType::GNULongName => long_path = Some(long_name(&mut entry, &explain)?),
            EntryType::GNULongLink => long_target = Some(long_name(&mut entry, &explain)?),
            _member => {
                let member = describe(&entry, long_path.take(), long_target.take(), &explain)?;
                seen.add(&member)?;
                let mut contents = Contents {
                    len_bytes: member.len_bytes,
                    source: &mut entry,
                    name,
                    limits,
                    meter: &meter,
                    head: Vec::new(),
                };
                if on_member(&member, &mut contents)?.is_break() {
                    return Ok(());
                }
            }
        }
    }
    // The compressed stream's own checksums come last.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(explain)?;
    if count == 0 {
        Err(DebError::Damaged { member: name.to_owned(), source: io::ErrorKind::UnexpectedEof.into() })
    } else {
        Ok(())
    }
}

fn long_name<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    explain: &impl Fn(io::Error) -> DebError,
) -> Result<Vec<u8>, DebError> {
    if entry.size() > Limits::MAX_PATH_BYTES {
        return Err(DebError::TooLarge { what: "path", limit: Limits::MAX_PATH_BYTES });
    }
    let mut name = Vec::new();
    entry.read_to_end(&mut name).map_err(explain)?;
    // NUL-terminated, and perhaps padded.
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    name.truncate(end);
    Ok(name)
}

fn describe<R: Read>(
    entry: &tar::Entry<'_, R>,
    long_path: Option<Vec<u8>>,
    long_target: Option<Vec<u8>>,
    explain: &impl Fn(io::Error) -> DebError,
) -> Result<Member, DebError> {
    let header = entry.header();
    let path = path::normalise(&long_path.unwrap_or_else(|| header.path_bytes().into_owned()))?;
    let target =
        || long_target.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned)).unwrap_or_default();
    let kind = match header.entry_type() {
        // Old archives mark a directory by its slash alone.
        EntryType::Regular if header.path_bytes().ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink { target: path::printable(&target()) },
        EntryType::Link => Kind::HardLink { target: path::normalise(&target())? },
        EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Special,
        other => return Err(DebError::EntryKind { path, kind: other.as_byte() }),
    };
    let len_bytes = if kind == Kind::File { entry.size() } else { 0 };
    Ok(Member {
        path,
        kind,
        mode: header.mode().map_err(explain)? & 0o7777,
        uid: header.uid().map_err(explain)?,
        gid: header.gid().map_err(explain)?,
        len_bytes,
    })
}

/// Paths that were seen, by keyed hash: eight bytes each, however long they are.
#[derive(Default)]
struct Seen {
    key: RandomState,
    hashes: HashSet<u64>,
}

impl Seen {
    /// Which of two files of one name counts would be a matter of opinion.
    fn add(&mut self, member: &Member) -> Result<(), DebError> {
        if member.kind == Kind::Directory || self.hashes.insert(self.key.hash_one(&member.path)) {
            Ok(())
        } else {
            Err(DebError::Twice { path: member.path.clone() })
        }
    }
}
