//! What is mapped into a process, and how it is found again.
//!
//! A payload is a sealed memfd with one patch file in it: one image's report and
//! livepatch, its segments already bound to the place where they are mapped.
//! So debuggers and profilers read it as any ELF file, and `status` and `revert`
//! need nothing but the process. Binding changes bytes that the livepatch's name
//! covers; a trailer behind the ELF file keeps them, so that the livepatch as it
//! was derived, and its name, can be had back.
//!
//! Whatever is found in a process is foreign: [`Payload::parse`] checks all of it,
//! and that the segments are what the livepatch gives at that place.

use crate::Errno;
use object::LittleEndian as Le;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use rustix::fs::{MemfdFlags, SealFlags};
use salve_elf::{LoadBias, RuntimeAddr, Va};
use salve_patch::{
    Distance, EncodeError, Fixup, ImageReport, Livepatch, LivepatchId, NotHealed, PatchFile, PlaceError, PlacedSegment,
    Segment,
};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// How the path of a payload's mapping begins.
pub(crate) const MAPPED_NAME: &str = "/memfd:salve:";

const MAGIC: &[u8; 16] = b"salve payload 1\0";
/// Magic, length of the ELF file, distance, number of kept fields.
const FOOTER_BYTES: usize = 40;
const FIELD_BYTES: usize = 4;

/// The bytes of every fix-up's field as derived, in the order of the fix-ups.
type Kept = Vec<[u8; FIELD_BYTES]>;

/// One livepatch bound to a distance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) id: LivepatchId,
    pub(crate) distance: Distance,
    /// With the livepatch as it was derived.
    pub(crate) patch: PatchFile,
    pub(crate) segments: Vec<PlacedSegment>,
    /// Where each segment lies in the file.
    pub(crate) offsets: Vec<u64>,
    /// The address in each import's slot, in their order.
    pub(crate) imports: Vec<RuntimeAddr>,
    /// Five bytes for each detour.
    pub(crate) jumps: Vec<[u8; 5]>,
}

/// Why a payload cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("image has no livepatch")]
    NoLivepatch,
    #[error("encoded file lacks a segment")]
    Layout,
}

/// Why bytes found in a process are no payload of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("no payload trailer")]
    Trailer,
    #[error("no patch file: {0}")]
    Decode(#[from] salve_patch::DecodeError),
    #[error("not exactly one livepatch")]
    NotOneLivepatch,
    #[error("segments are not what the livepatch gives at that place")]
    WrongSegments,
}

impl Payload {
    pub(crate) fn livepatch(&self) -> Option<&Livepatch> {
        self.image()?.livepatch.as_ref()
    }

    pub(crate) fn image(&self) -> Option<&ImageReport> {
        self.patch.images.first()
    }

    pub(crate) fn bias(&self, old: LoadBias) -> LoadBias {
        self.distance.payload_bias(old)
    }

    pub(crate) fn len_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| u64::try_from(segment.bytes.len()).unwrap_or(0)).sum()
    }

    /// Binds a livepatch and lays out its file.
    pub(crate) fn build(
        patch: &PatchFile,
        image: &ImageReport,
        distance: Distance,
        imports: &[RuntimeAddr],
    ) -> Result<(Self, Vec<u8>), BuildError> {
        let id = image.livepatch_id().ok_or(BuildError::NoLivepatch)?;
        let livepatch = image.livepatch.as_ref().ok_or(BuildError::NoLivepatch)?;
        let segments = livepatch.place_bound(distance, imports)?;
        let jumps = livepatch.jumps(distance)?;
        let mut kept = fields(livepatch).ok_or(BuildError::Layout)?;
        kept.extend(imports.iter().flat_map(|at| halves(*at)));
        let mut one = PatchFile { images: vec![image.clone()], ..patch_without_images(patch) };
        let mut bytes = salve_patch::encode(&with_segments(&one, &segments))?;
        let offsets = segment_offsets(&bytes, &segments).ok_or(BuildError::Layout)?;
        let elf_bytes = u64::try_from(bytes.len()).map_err(|_| BuildError::Layout)?;
        bytes.extend_from_slice(kept.as_flattened());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&elf_bytes.to_le_bytes());
        bytes.extend_from_slice(&distance.bytes().to_le_bytes());
        bytes.extend_from_slice(&u64::try_from(kept.len()).map_err(|_| BuildError::Layout)?.to_le_bytes());
        one.images.truncate(1);
        Ok((Self { id, distance, patch: one, segments, offsets, imports: imports.to_vec(), jumps }, bytes))
    }

    /// Reads back what [`Self::build`] laid out. Foreign input.
    pub(crate) fn parse(bytes: &[u8], limits: &salve_patch::Limits) -> Result<Self, ParseError> {
        let (elf, distance, kept) = split(bytes).ok_or(ParseError::Trailer)?;
        let placed = salve_patch::decode(elf, limits)?;
        let [image] = placed.images.as_slice() else { return Err(ParseError::NotOneLivepatch) };
        let bound = image.livepatch.as_ref().ok_or(ParseError::NotOneLivepatch)?;
        let mut patch = placed.clone();
        let original = patch.images.first_mut().and_then(|image| image.livepatch.as_mut());
        let original = original.ok_or(ParseError::NotOneLivepatch)?;
        let imports = restore_fields(original, &kept).ok_or(ParseError::Trailer)?;
        let image = patch.images.first().ok_or(ParseError::NotOneLivepatch)?;
        let id = image.livepatch_id().ok_or(ParseError::NotOneLivepatch)?;
        let livepatch = image.livepatch.as_ref().ok_or(ParseError::NotOneLivepatch)?;
        let segments = livepatch.place_bound(distance, &imports).map_err(|_| ParseError::WrongSegments)?;
        let jumps = livepatch.jumps(distance).map_err(|_| ParseError::WrongSegments)?;
        let same = segments.len() == bound.segments.len()
            && segments.iter().zip(&bound.segments).all(|(ours, found)| ours.bytes == found.bytes);
        if !same {
            return Err(ParseError::WrongSegments);
        }
        let offsets = segment_offsets(elf, &segments).ok_or(ParseError::WrongSegments)?;
        Ok(Self { id, distance, patch, segments, offsets, imports, jumps })
    }
}

fn patch_without_images(patch: &PatchFile) -> PatchFile {
    PatchFile {
        format_version: patch.format_version,
        created_by: patch.created_by.clone(),
        origin: patch.origin.clone(),
        // A process has no use for the list, and every payload would carry it.
        not_healed: patch.not_healed.as_ref().map(|_| NotHealed::Unknown { present: Vec::new() }),
        images: Vec::new(),
    }
}

/// The same file with the bound bytes in its segments.
fn with_segments(one: &PatchFile, segments: &[PlacedSegment]) -> PatchFile {
    let mut bound = one.clone();
    for livepatch in bound.images.iter_mut().filter_map(|image| image.livepatch.as_mut()) {
        for (segment, placed) in livepatch.segments.iter_mut().zip(segments) {
            segment.bytes.clone_from(&placed.bytes);
        }
    }
    bound
}

fn fields(livepatch: &Livepatch) -> Option<Kept> {
    livepatch.fixups.iter().map(|fixup| field_of(livepatch, fixup)?.try_into().ok()).collect()
}

fn field_of<'a>(livepatch: &'a Livepatch, fixup: &Fixup) -> Option<&'a [u8]> {
    livepatch.segments.iter().find_map(|segment| {
        let at = usize::try_from(fixup.new_va.raw().checked_sub(segment.new_va.raw())?).ok()?;
        segment.bytes.get(at..at.checked_add(FIELD_BYTES)?)
    })
}

/// Puts back what binding changed, and gives the addresses of imports and pointers: kept
/// behind the fields, in two halves each.
fn restore_fields(livepatch: &mut Livepatch, kept: &[[u8; FIELD_BYTES]]) -> Option<Vec<RuntimeAddr>> {
    let (fields, imports) = kept.split_at_checked(livepatch.fixups.len())?;
    let (imports, rest) = imports.as_chunks::<2>();
    let words: Vec<Va> = livepatch.bound_words().map(|(at, _)| at).collect();
    (rest.is_empty() && imports.len() == words.len()).then_some(())?;
    for (fixup, field) in livepatch.fixups.iter().zip(fields) {
        bytes_at(&mut livepatch.segments, fixup.new_va, FIELD_BYTES)?.copy_from_slice(field);
    }
    for at in words {
        bytes_at(&mut livepatch.segments, at, 8)?.fill(0);
    }
    let whole = |[[a, b, c, d], [e, f, g, h]]: &[[u8; FIELD_BYTES]; 2]| {
        RuntimeAddr::new(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
    };
    Some(imports.iter().map(whole).collect())
}

fn halves(at: RuntimeAddr) -> [[u8; FIELD_BYTES]; 2] {
    let [a, b, c, d, e, f, g, h] = at.raw().to_le_bytes();
    [[a, b, c, d], [e, f, g, h]]
}

fn bytes_at(segments: &mut [Segment], at: Va, len: usize) -> Option<&mut [u8]> {
    segments.iter_mut().find_map(|segment| {
        let at = usize::try_from(at.raw().checked_sub(segment.new_va.raw())?).ok()?;
        segment.bytes.get_mut(at..at.checked_add(len)?)
    })
}

/// ELF file, distance, kept fields.
fn split(bytes: &[u8]) -> Option<(&[u8], Distance, Kept)> {
    let (body, footer) = bytes.split_at_checked(bytes.len().checked_sub(FOOTER_BYTES)?)?;
    let (magic, numbers) = footer.split_at_checked(MAGIC.len())?;
    (magic == MAGIC).then_some(())?;
    let (&[elf_bytes, distance, count], _) = numbers.as_chunks::<8>() else { return None };
    let (elf, kept) = body.split_at_checked(usize::try_from(u64::from_le_bytes(elf_bytes)).ok()?)?;
    let (kept, rest) = kept.as_chunks::<FIELD_BYTES>();
    let counted = usize::try_from(u64::from_le_bytes(count)) == Ok(kept.len());
    (rest.is_empty() && counted).then(|| (elf, Distance::new(i64::from_le_bytes(distance)), kept.to_vec()))
}

/// Where in the file each segment's pages are, by the program headers.
fn segment_offsets(bytes: &[u8], segments: &[PlacedSegment]) -> Option<Vec<u64>> {
    let header = FileHeader64::<Le>::parse(bytes).ok()?;
    let loads = header.program_headers(Le, bytes).ok()?;
    segments
        .iter()
        .map(|segment| {
            let load = loads
                .iter()
                .find(|load| load.p_type(Le) == elf::PT_LOAD && load.p_vaddr(Le) == segment.new_va.raw())?;
            let same_size = usize::try_from(load.p_filesz(Le)) == Ok(segment.bytes.len());
            let offset = load.p_offset(Le);
            // Page zero of the file is mapped on its own; nothing else may need it.
            (same_size && offset.is_multiple_of(4096) && offset >= 4096).then_some(offset)
        })
        .collect()
}

/// A sealed file in memory that nobody can change any more.
pub(crate) fn sealed_file(id: LivepatchId, bytes: &[u8]) -> Result<File, std::io::Error> {
    let name = format!("salve:{}", id.0.short());
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Before Linux 6.3 the flag is unknown; where vm.memfd_noexec is 2 it is required.
    let fd = rustix::fs::memfd_create(&name, flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create(&name, flags))?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    // Sealed now: what is read from here on is what every target will map.
    let mut check = vec![0; bytes.len()];
    file.read_exact_at(&mut check, 0)?;
    if check == bytes { Ok(file) } else { Err(std::io::Error::from_raw_os_error(Errno::EIO.0)) }
}
