//! What a package has besides ELF images, and how two versions of it differ.
//!
//! A [`Contents`] is a list of files with checksums: of a `.deb` as it is read,
//! or of an installed package as its database remembers it ([`Contents::parse`]
//! reads what [`Contents::text`] writes, so that the list can be handed to the
//! process that derives). [`not_healed`] compares two of them. Nothing is
//! decided by the outcome: it tells a reader what a livepatch leaves as it is.
//!
//! Rejected: comparing what is on the disk. That tells what the administrator
//! changed, not what the update changes.

mod class;
mod compare;

pub use compare::not_healed;

use md5::Md5;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Files that one list may have; dpkg's largest packages have a tenth.
pub const MAX_LISTED: usize = 400_000;

/// Every file of a package, by its path; maintainer scripts by their bare names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub(super) files: BTreeMap<String, Listed>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub what: What,
    /// Starts with `#!`, where somebody looked.
    pub script: bool,
    pub md5: Option<[u8; 16]>,
    /// Stronger than `md5`, which is all that a package database keeps.
    pub sha256: Option<[u8; 32]>,
    /// Mode, owner and group, where they are known.
    pub permissions: Option<(u32, u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A livepatch's business; it is not compared here.
    Elf,
    File,
    Conffile,
    MaintainerScript,
    /// Its checksums are of the target's text.
    Link,
}

/// A list that [`Contents::text`] did not write.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    #[error("line {line} of the list of files is not understood")]
    Line { line: usize },
    #[error("the list has more than {limit} files")]
    TooMany { limit: usize },
}

/// Sums of a file, made while it goes by.
#[derive(Default)]
pub struct Sums {
    md5: Md5,
    sha256: Sha256,
    head: [u8; 2],
    len: u64,
}

impl Sums {
    pub fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match usize::try_from(self.len).ok().and_then(|at| self.head.get_mut(at)) {
                Some(place) => *place = *byte,
                None => break,
            }
            self.len = self.len.saturating_add(1);
        }
        self.md5.update(bytes);
        self.sha256.update(bytes);
    }

    /// The file whose bytes these were.
    pub fn listed(self, what: What, permissions: Option<(u32, u64, u64)>) -> Listed {
        Listed {
            what,
            script: self.head == *b"#!",
            md5: Some(self.md5.finalize().into()),
            sha256: Some(self.sha256.finalize().into()),
            permissions,
        }
    }
}

impl Listed {
    /// A file of which only the checksum that a database keeps is known.
    pub fn of_md5(what: What, md5: Option<[u8; 16]>, script: bool) -> Self {
        Self { what, script, md5, sha256: None, permissions: None }
    }

    /// A link with this target.
    pub fn link(target: &str) -> Self {
        let mut sums = Sums::default();
        sums.update(target.as_bytes());
        Self { script: false, ..sums.listed(What::Link, None) }
    }
}

impl Contents {
    pub fn add(&mut self, path: impl Into<String>, listed: Listed) {
        self.files.insert(path.into(), listed);
    }

    /// Another name of a file that was added before; a link where there is none.
    pub fn add_again(&mut self, path: &str, same_as: &str) {
        let listed = self.files.get(same_as).cloned().unwrap_or_else(|| Listed::link(same_as));
        self.add(path, listed);
    }

    /// Marks the files that the administrator owns.
    pub fn mark_conffiles<'p>(&mut self, paths: impl IntoIterator<Item = &'p str>) {
        for path in paths {
            if let Some(file) = self.files.get_mut(path).filter(|file| file.what == What::File) {
                file.what = What::Conffile;
            }
        }
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// One line for each file: kind, checksum, path. Permissions and the
    /// stronger checksum do not travel: no database has them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // A path with a line break would be another line.
        for (path, file) in self.files.iter().filter(|(path, _)| !path.contains('\n')) {
            text.push(match (file.what, file.script) {
                (What::Elf, _) => 'e',
                (What::File, false) => 'f',
                (What::File, true) => 's',
                (What::Conffile, _) => 'c',
                (What::MaintainerScript, _) => 'm',
                (What::Link, _) => 'l',
            });
            text.push(' ');
            match file.md5 {
                Some(md5) => text.extend(md5.iter().map(|byte| format!("{byte:02x}"))),
                None => text.push('-'),
            }
            text.push(' ');
            text.push_str(path);
            text.push('\n');
        }
        text
    }

    /// Reads what [`Self::text`] wrote.
    pub fn parse(text: &str) -> Result<Self, ContentsError> {
        let mut contents = Self::default();
        for (index, line) in text.lines().enumerate() {
            if index >= MAX_LISTED {
                return Err(ContentsError::TooMany { limit: MAX_LISTED });
            }
            let (path, listed) = parse_line(line).ok_or(ContentsError::Line { line: index.saturating_add(1) })?;
            contents.add(path, listed);
        }
        Ok(contents)
    }
}

fn parse_line(line: &str) -> Option<(&str, Listed)> {
    let mut words = line.splitn(3, ' ');
    let (kind, sum, path) = (words.next()?, words.next()?, words.next()?);
    let (what, script) = match kind {
        "e" => (What::Elf, false),
        "f" => (What::File, false),
        "s" => (What::File, true),
        "c" => (What::Conffile, false),
        "m" => (What::MaintainerScript, false),
        "l" => (What::Link, false),
        _unknown => return None,
    };
    let md5 = match sum {
        "-" => None,
        sum => Some(crate::dpkg::parse_md5(sum)?),
    };
    (!path.is_empty()).then(|| (path, Listed::of_md5(what, md5, script)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_written_is_read_again() {
        let mut contents = Contents::default();
        let mut sums = Sums::default();
        sums.update(b"#");
        sums.update(b"!/bin/sh\n");
        let script = sums.listed(What::File, Some((0o755, 0, 0)));
        assert!(script.script);
        contents.add("/usr/bin/a tool", script);
        contents.add("postinst", Listed::of_md5(What::MaintainerScript, Some([7; 16]), false));
        contents.add("/etc/x", Listed::of_md5(What::File, None, false));
        contents.add("/usr/lib/l", Listed::link("../m"));
        contents.mark_conffiles(["/etc/x", "/nowhere"]);
        let read = Contents::parse(&contents.text());
        let bare = |listed: &Listed| (listed.what, listed.script, listed.md5);
        let all = |contents: &Contents| {
            contents.files.iter().map(|(path, listed)| (path.clone(), bare(listed))).collect::<Vec<_>>()
        };
        assert_eq!(read.as_ref().map(all), Ok(all(&contents)));
    }

    #[test]
    fn what_is_no_list_is_said_by_its_line() {
        for wrong in ["x - /a", "f - ", "f", "f 12 /a", "f zz /a", ""] {
            let text = format!("f - /first\n{wrong}\n");
            assert_eq!(Contents::parse(&text), Err(ContentsError::Line { line: 2 }), "{wrong:?}");
        }
        assert_eq!(Contents::parse(""), Ok(Contents::default()));
    }
}
