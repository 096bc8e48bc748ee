//! `/proc/PID/maps` as values (`proc_pid_maps(5)`).
//!
//! The text is the kernel's, but paths in it are the process's: nothing is
//! inferred from a path beyond its display, except that anonymous regions
//! carry names in brackets, which a file's path (it starts with `/`) cannot.

use salve_elf::{FileOffset, RuntimeAddr};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// What a mapping allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "the four letters of proc_pid_maps(5)")]
pub struct Perms {
    pub read: bool,
    pub write: bool,
    pub execute: bool,
    pub shared: bool,
}

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: RuntimeAddr,
    pub end: RuntimeAddr,
    pub perms: Perms,
    pub offset: FileOffset,
    /// Major and minor number of the device, as the kernel shows them.
    pub dev: (u32, u32),
    /// Zero for a mapping without a file.
    pub inode: u64,
    /// As shown, less ` (deleted)`; empty for an unnamed anonymous mapping.
    pub path: OsString,
    pub deleted: bool,
}

impl Mapping {
    pub fn contains(&self, at: RuntimeAddr) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether `len` bytes from `at` all lie in it.
    pub(crate) fn covers(&self, at: RuntimeAddr, len: usize) -> bool {
        let end = u64::try_from(len).ok().and_then(|len| at.checked_add(len));
        self.start <= at && end.is_some_and(|end| end <= self.end)
    }

    pub fn len_bytes(&self) -> u64 {
        self.end.raw().saturating_sub(self.start.raw())
    }

    /// Whether a file is behind it (a memfd counts).
    pub fn is_file(&self) -> bool {
        self.inode != 0 && self.path.as_encoded_bytes().starts_with(b"/")
    }

    /// Whether the file behind it is a payload that Salve delivered, going by its name only.
    pub fn is_payload(&self) -> bool {
        self.path.as_encoded_bytes().starts_with(crate::payload::MAPPED_NAME.as_bytes())
    }

    /// The same file, as far as the kernel's numbers tell.
    pub fn same_file(&self, other: &Self) -> bool {
        (self.dev, self.inode) == (other.dev, other.inode)
    }

    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.path == *name
    }

    /// The entry's name below `/proc/PID/map_files`.
    pub(crate) fn map_files_name(&self) -> String {
        format!("map_files/{:x}-{:x}", self.start.raw(), self.end.raw())
    }
}

/// A line that is not what the kernel writes.
#[derive(Debug, thiserror::Error)]
#[error("malformed line {line} of maps")]
pub struct MalformedMaps {
    pub line: usize,
}

/// Parses the whole file; lines come sorted by address and do not overlap.
pub fn parse(text: &[u8]) -> Result<Vec<Mapping>, MalformedMaps> {
    text.split(|&byte| byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| parse_line(line).ok_or(MalformedMaps { line: number }))
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let range = word(&mut rest)?;
    let perms = word(&mut rest)?;
    let offset = word(&mut rest)?;
    let dev = word(&mut rest)?;
    let inode = word(&mut rest)?;
    let (start, end) = range.split_once('-')?;
    let (major, minor) = dev.split_once(':')?;
    let &[read, write, execute, shared, ..] = perms.as_bytes() else { return None };
    let path = rest.trim_ascii_start();
    let (path, deleted) = match path.strip_suffix(b" (deleted)") {
        Some(stem) => (stem, true),
        None => (path, false),
    };
    let (start, end) = (hex(start)?, hex(end)?);
    (start < end).then_some(())?;
    Some(Mapping {
        start: RuntimeAddr::new(start),
        end: RuntimeAddr::new(end),
        perms: Perms { read: read == b'r', write: write == b'w', execute: execute == b'x', shared: shared == b's' },
        offset: FileOffset::new(hex(offset)?),
        dev: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode: inode.parse().ok()?,
        path: OsString::from_vec(path.to_vec()),
        deleted,
    })
}

/// Takes one word and the space behind it off the front.
fn word<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let at = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
    let (word, tail) = rest.split_at_checked(at)?;
    *rest = tail.strip_prefix(b" ").unwrap_or(tail);
    core::str::from_utf8(word).ok().filter(|word| !word.is_empty())
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// The mapping that holds `at`, by binary search.
pub fn find(mappings: &[Mapping], at: RuntimeAddr) -> Option<&Mapping> {
    let after = mappings.partition_point(|mapping| mapping.start <= at);
    mappings.get(after.checked_sub(1)?).filter(|mapping| mapping.contains(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] =
        b"55d0c0000000-55d0c0001000 r-xp 00001000 fe:01 1234                       /usr/bin/a b (deleted)\n\
        7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]\n\
        7ffd00030000-7ffd00031000 ---s 00000000 00:00 0 \n";

    #[test]
    fn every_field_of_a_line_is_told() {
        let maps = parse(TEXT).expect("well formed");
        let [file, stack, unnamed] = maps.as_slice() else { panic!("three lines") };
        assert_eq!(file.path, *"/usr/bin/a b");
        assert!(file.deleted && file.is_file() && file.perms.execute && !file.perms.write && !file.perms.shared);
        assert_eq!((file.dev, file.inode, file.offset.raw()), ((0xfe, 1), 1234, 0x1000));
        assert!(stack.is_named("[stack]") && !stack.is_file());
        assert!(unnamed.path.is_empty() && unnamed.perms.shared);
    }

    #[test]
    fn the_mapping_around_an_address_is_found_and_gaps_are_not() {
        let maps = parse(TEXT).expect("well formed");
        assert_eq!(find(&maps, RuntimeAddr::new(0x7ffd_0002_0fff)), maps.get(1));
        assert_eq!(find(&maps, RuntimeAddr::new(0x7ffd_0002_1000)), None);
        assert_eq!(find(&maps, RuntimeAddr::new(0)), None);
    }

    #[test]
    fn a_line_cut_at_any_byte_is_no_panic() {
        for end in 0..TEXT.len() {
            let _ = parse(&TEXT[..end]);
        }
    }
}
