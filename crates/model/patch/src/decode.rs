//! Reading a patch file.
//!
//! A patch file has exactly one encoding. After every check that can say what
//! is wrong, the reader writes what it read again and compares: whatever a
//! check does not look at (a symbol that names another function, a field this
//! version does not know, bytes between the parts) makes a difference there.
//! So nothing in the file can say something else to `objdump` than it says here.

use crate::check::{self, Invalid};
use crate::layout::{self, DIGEST, DIGEST_BYTES, MANIFEST};
use crate::{Access, EncodeError, FORMAT_VERSION, OLDEST_FORMAT_VERSION, PatchFile, Segment, encode};
use object::elf;
use salve_elf::Va;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Longer than any name a patch file has.
const MAX_SECTION_NAME_BYTES: usize = 64;

/// Bounds on what a patch file may ask a reader to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_file_bytes: u64,
    /// The manifest alone: its records take several times its size in memory.
    pub max_manifest_bytes: u64,
    pub max_images: usize,
}

impl Default for Limits {
    /// Ample for a package of some thousand images and payloads of many megabytes.
    fn default() -> Self {
        Self { max_file_bytes: 256 << 20, max_manifest_bytes: 64 << 20, max_images: 16_384 }
    }
}

/// Why bytes are no patch file, or none that this version may act on.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("file of {len} bytes exceeds the limit of {limit}")]
    FileTooLarge { len: u64, limit: u64 },
    #[error("not an ELF file")]
    NotElf,
    #[error("ELF file, but no 64-bit little-endian x86-64 shared object")]
    WrongElf,
    #[error("file ends at {have:#x}, before the end of its {what} at {need:#x}")]
    Truncated { what: &'static str, need: u64, have: u64 },
    #[error("ELF file without the section {name}: no patch file")]
    NotAPatch { name: &'static str },
    #[error("section {name} has {len} bytes, not {DIGEST_BYTES}")]
    DigestSize { name: &'static str, len: u64 },
    #[error("content does not match its digest")]
    DigestMismatch,
    #[error("manifest of {len} bytes exceeds the limit of {limit}")]
    ManifestTooLarge { len: u64, limit: u64 },
    #[error("format version {found} is unknown, this program reads {OLDEST_FORMAT_VERSION} to {FORMAT_VERSION}")]
    UnknownVersion { found: u32 },
    #[error("manifest is invalid")]
    Manifest(#[source] serde_json::Error),
    #[error("{count} images exceed the limit of {limit}")]
    TooManyImages { count: usize, limit: usize },
    #[error("payload section {name} is missing")]
    MissingSegment { name: String },
    #[error("payload section {name} has another address, size or access than the manifest says")]
    WrongSegment { name: String },
    #[error("payload sections claim more bytes than the file has")]
    OverlappingSections,
    #[error("contents of the patch are invalid")]
    Invalid(#[from] Invalid),
    #[error("contents of the patch cannot be written again")]
    Unwritable(#[source] EncodeError),
    #[error("file differs at {at:#x} from the one way to write what it says")]
    NotCanonical { at: usize },
}

/// Reads and checks a whole patch file. What comes back satisfies every rule of
/// `docs/format.md`, and `encode` gives the same bytes for it.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<PatchFile, DecodeError> {
    let len = bytes.len() as u64;
    if len > limits.max_file_bytes {
        return Err(DecodeError::FileTooLarge { len, limit: limits.max_file_bytes });
    }
    let sections = Sections::parse(bytes)?;
    check_digest(bytes, &sections)?;
    let mut patch = manifest(bytes, &sections, limits)?;
    attach_payload(&mut patch, bytes, &sections)?;
    check::patch_file(&patch)?;
    let written = encode(&patch).map_err(DecodeError::Unwritable)?;
    if written != bytes {
        let same = written.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        return Err(DecodeError::NotCanonical { at: same });
    }
    Ok(patch)
}

fn check_digest(bytes: &[u8], sections: &Sections<'_>) -> Result<(), DecodeError> {
    let section = sections.named(DIGEST).ok_or(DecodeError::NotAPatch { name: DIGEST })?;
    if section.len != DIGEST_BYTES {
        return Err(DecodeError::DigestSize { name: DIGEST, len: section.len });
    }
    let found = section.contents(bytes, DIGEST)?;
    let expected = usize::try_from(section.offset).ok().and_then(|at| layout::digest(bytes, at));
    if expected.is_some_and(|expected| expected == found) { Ok(()) } else { Err(DecodeError::DigestMismatch) }
}

/// The version is looked at before anything else in the manifest is believed.
#[derive(Deserialize)]
struct Versioned {
    format_version: u32,
}

fn manifest(bytes: &[u8], sections: &Sections<'_>, limits: &Limits) -> Result<PatchFile, DecodeError> {
    let section = sections.named(MANIFEST).ok_or(DecodeError::NotAPatch { name: MANIFEST })?;
    if section.len > limits.max_manifest_bytes {
        return Err(DecodeError::ManifestTooLarge { len: section.len, limit: limits.max_manifest_bytes });
    }
    let json = section.contents(bytes, MANIFEST)?;
    let Versioned { format_version: found } = serde_json::from_slice(json).map_err(DecodeError::Manifest)?;
    if !(OLDEST_FORMAT_VERSION..=FORMAT_VERSION).contains(&found) {
        return Err(DecodeError::UnknownVersion { found });
    }
    let patch: PatchFile = serde_json::from_slice(json).map_err(DecodeError::Manifest)?;
    if patch.images.len() > limits.max_images {
        return Err(DecodeError::TooManyImages { count: patch.images.len(), limit: limits.max_images });
    }
    Ok(patch)
}

/// Puts the sections' contents into the segments that the manifest names. Many
/// sections may claim the same bytes, so what is copied is bounded by the file.
fn attach_payload(patch: &mut PatchFile, bytes: &[u8], sections: &Sections<'_>) -> Result<(), DecodeError> {
    let mut left = bytes.len();
    let livepatches = patch.images.iter_mut().filter_map(|image| image.livepatch.as_mut());
    for (lane, livepatch) in livepatches.enumerate() {
        let names = layout::section_names(lane, &livepatch.segments);
        for (segment, name) in livepatch.segments.iter_mut().zip(names) {
            let Some(section) = sections.named(&name) else { return Err(DecodeError::MissingSegment { name }) };
            if !matches(section, lane, segment) {
                return Err(DecodeError::WrongSegment { name });
            }
            let contents = section.contents(bytes, "payload section")?;
            left = left.checked_sub(contents.len()).ok_or(DecodeError::OverlappingSections)?;
            segment.bytes = contents.to_vec();
        }
    }
    Ok(())
}

fn matches(section: Section, lane: usize, segment: &Segment) -> bool {
    let flags = match segment.access {
        Access::Read => elf::SHF_ALLOC,
        Access::ReadExecute => elf::SHF_ALLOC | elf::SHF_EXECINSTR,
    };
    let fits = section.len != 0 && section.len.is_multiple_of(layout::PAGE_BYTES);
    let addr = layout::address_in_file(lane, segment.new_va.raw());
    fits && section.flags == flags.0 && addr == Some(section.addr.raw())
}

/// One section header's fields that are looked at here.
#[derive(Clone, Copy)]
struct Section {
    name: u32,
    flags: u64,
    addr: Va,
    offset: u64,
    len: u64,
}

impl Section {
    fn contents<'d>(&self, bytes: &'d [u8], what: &'static str) -> Result<&'d [u8], DecodeError> {
        slice(bytes, self.offset, self.len, what)
    }
}

/// The section headers, read field by field: the file's bytes may lie at any
/// alignment in memory.
struct Sections<'d> {
    by_name: BTreeMap<&'d [u8], Section>,
}

impl<'d> Sections<'d> {
    fn parse(bytes: &'d [u8]) -> Result<Self, DecodeError> {
        let header = bytes.get(..64).ok_or_else(|| match bytes.get(..4) {
            Some(magic) if magic == elf::ELFMAG => {
                DecodeError::Truncated { what: "ELF header", need: 64, have: bytes.len() as u64 }
            }
            _ => DecodeError::NotElf,
        })?;
        if !header.starts_with(&elf::ELFMAG) {
            return Err(DecodeError::NotElf);
        }
        let kind = (header.get(4).copied(), header.get(5).copied(), half(header, 16), half(header, 18));
        let wanted = (elf::ELFCLASS64.0, elf::ELFDATA2LSB.0, elf::ET_DYN.0, elf::EM_X86_64.0);
        if kind != (Some(wanted.0), Some(wanted.1), Some(wanted.2), Some(wanted.3)) || half(header, 58) != Some(64) {
            return Err(DecodeError::WrongElf);
        }
        let (at, count) = (xword(header, 40).unwrap_or(0), half(header, 60).unwrap_or(0));
        let table = slice(bytes, at, u64::from(count).saturating_mul(64), "section headers")?;
        let all: Vec<Section> = table.chunks_exact(64).filter_map(section).collect();
        let names = half(header, 62).and_then(|index| all.get(usize::from(index)));
        let names = names.ok_or(DecodeError::NotAPatch { name: MANIFEST })?.contents(bytes, "section names")?;
        let mut by_name = BTreeMap::new();
        for &section in &all {
            if let Some(name) = name(names, section.name) {
                // Of two with one name the first counts; the comparison at the end finds the other.
                by_name.entry(name).or_insert(section);
            }
        }
        Ok(Self { by_name })
    }

    fn named(&self, name: &str) -> Option<Section> {
        self.by_name.get(name.as_bytes()).copied()
    }
}

/// A section's name, if it is one that could be of interest here.
fn name(names: &[u8], at: u32) -> Option<&[u8]> {
    let rest = names.get(usize::try_from(at).ok()?..)?;
    let len = rest.iter().take(MAX_SECTION_NAME_BYTES).position(|&byte| byte == 0)?;
    rest.get(..len)
}

fn section(header: &[u8]) -> Option<Section> {
    Some(Section {
        name: u32::from_le_bytes(field(header, 0)?),
        flags: xword(header, 8)?,
        addr: Va::new(xword(header, 16)?),
        offset: xword(header, 24)?,
        len: xword(header, 32)?,
    })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    field(bytes, at).map(u16::from_le_bytes)
}

fn xword(bytes: &[u8], at: usize) -> Option<u64> {
    field(bytes, at).map(u64::from_le_bytes)
}

fn slice<'d>(bytes: &'d [u8], at: u64, len: u64, what: &'static str) -> Result<&'d [u8], DecodeError> {
    let need = at.saturating_add(len);
    let range = usize::try_from(at).ok().zip(usize::try_from(need).ok());
    range.and_then(|(from, to)| bytes.get(from..to)).ok_or(DecodeError::Truncated {
        what,
        need,
        have: bytes.len() as u64,
    })
}
