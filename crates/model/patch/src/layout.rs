//! Where everything in a patch file lies.
//!
//! A patch file is an ELF64 little-endian x86-64 `ET_DYN` file (gABI, "Object
//! Files"), so that the tools everybody has can open it, and it has exactly one
//! layout for given contents: header, program headers, payload segments on page
//! boundaries, manifest, digest, symbols, strings, section headers, end of file.
//! The ELF structures are laid out here rather than by a library's writer,
//! because these bytes are the format: they may not change when a library does.
//! For the same reason strings stand in their tables one after the other, in
//! the order of use, never merged.

use crate::{Access, EncodeError, Livepatch, PatchFile, Segment};
use object::elf;
use object::pod::bytes_of;
use object::{LittleEndian as Le, U16, U32, U64};
use salve_elf::Va;
use sha2::{Digest, Sha256};

/// The page of x86-64; what `mmap` and the payload's addresses are aligned to.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// The `k`-th livepatch's payload has the address `k << LANE_BITS | new_va` in
/// the file, so that the payloads of several images do not overlap.
pub(crate) const LANE_BITS: u32 = 36;

/// Lanes that fit below the end of user space (2^47).
pub(crate) const MAX_LANES: usize = 1 << 11;

/// Sections that an ELF header can count without its extension (`SHN_LORESERVE`),
/// less the seven that a file has besides.
pub(crate) const MAX_SEGMENTS: usize = 0xff00 - 7;

pub(crate) const MANIFEST: &str = ".salve.manifest";
pub(crate) const DIGEST: &str = ".salve.digest";
/// Only where there is something in it; not loaded.
const DEBUG_FRAME: &str = ".debug_frame";
pub(crate) const DIGEST_BYTES: u64 = 32;

const EHDR_BYTES: u64 = 64;
const PHDR_BYTES: u64 = 56;
const SHDR_BYTES: u64 = 64;
const SYM_BYTES: u64 = 24;

/// The address of a segment of the `lane`-th livepatch in the file.
pub(crate) fn address_in_file(lane: usize, new_va: u64) -> Option<u64> {
    if lane >= MAX_LANES || new_va >> LANE_BITS != 0 {
        return None;
    }
    Some(u64::try_from(lane).ok()?.checked_shl(LANE_BITS)? | new_va)
}

/// The names of a livepatch's sections in the order of its segments:
/// `.text.<lane>`, `.text.<lane>.1`, … and `.rodata.<lane>`, `.rodata.<lane>.1`, …
pub(crate) fn section_names(lane: usize, segments: &[Segment]) -> Vec<String> {
    let (mut texts, mut rodatas) = (0_usize, 0_usize);
    segments
        .iter()
        .map(|segment| {
            let (stem, count) = match segment.access {
                Access::ReadExecute => (".text", &mut texts),
                Access::Read => (".rodata", &mut rodatas),
            };
            let number = *count;
            *count = count.saturating_add(1);
            if number == 0 { format!("{stem}.{lane}") } else { format!("{stem}.{lane}.{number}") }
        })
        .collect()
}

/// The segment of a sorted payload that holds an address, and its index.
pub(crate) fn segment_of(segments: &[Segment], new_va: Va) -> Option<(usize, &Segment)> {
    let index = segments.partition_point(|segment| segment.new_va <= new_va).checked_sub(1)?;
    let segment = segments.get(index)?;
    segment.range()?.contains(new_va).then_some((index, segment))
}

/// SHA-256 over a whole file with the bytes of the digest itself taken as zero.
/// `None` when the digest would not lie inside the file.
pub(crate) fn digest(file: &[u8], digest_at: usize) -> Option<[u8; 32]> {
    let end = digest_at.checked_add(usize::try_from(DIGEST_BYTES).ok()?)?;
    let mut hash = Sha256::new();
    hash.update(file.get(..digest_at)?);
    hash.update([0; 32]);
    hash.update(file.get(end..)?);
    Some(hash.finalize().into())
}

/// Lays out a patch file whose contents have been found valid.
pub(crate) fn write(patch: &PatchFile, manifest: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let livepatches: Vec<&Livepatch> = patch.livepatches().map(|(_, livepatch)| livepatch).collect();
    let mut file = Writer::default();
    let segment_count: u64 = livepatches.iter().map(|livepatch| count(&livepatch.segments)).sum();

    file.zeros(EHDR_BYTES);
    let program_headers_at = file.len();
    file.zeros(segment_count.saturating_mul(PHDR_BYTES));
    for (lane, livepatch) in livepatches.iter().enumerate() {
        file.payload(lane, livepatch)?;
    }
    file.section(MANIFEST, elf::SHT_PROGBITS, manifest, Shape { align: 1, ..Shape::default() });
    file.align(8);
    let digest_at = file.len();
    file.section(DIGEST, elf::SHT_PROGBITS, &[0; 32], Shape { align: 8, ..Shape::default() });
    let frames = file.debug_frame(&livepatches)?;
    file.symbols(&livepatches, usize::from(frames))?;
    file.finish(program_headers_at, segment_count, digest_at)
}

fn count<T>(items: &[T]) -> u64 {
    items.len() as u64
}

/// What a section header says besides name, type, place and size.
#[derive(Clone, Copy, Default)]
struct Shape {
    flags: u64,
    addr: u64,
    link: u32,
    info: u32,
    align: u64,
    entry_bytes: u64,
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    program_headers: Vec<u8>,
    section_headers: Vec<u8>,
    section_names: Strings,
}

impl Writer {
    fn len(&self) -> u64 {
        count(&self.bytes)
    }

    fn zeros(&mut self, len_bytes: u64) {
        let len = self.bytes.len().saturating_add(usize::try_from(len_bytes).unwrap_or(usize::MAX));
        self.bytes.resize(len, 0);
    }

    fn align(&mut self, to: u64) {
        self.zeros(self.len().next_multiple_of(to).saturating_sub(self.len()));
    }

    /// Appends the contents, and a header for them.
    fn section(&mut self, name: &str, kind: elf::SectionType, contents: &[u8], shape: Shape) {
        let header = elf::SectionHeader64 {
            sh_name: U32::new(Le, self.section_names.add(name)),
            sh_type: U32::new(Le, kind),
            sh_flags: U64::new(Le, elf::SectionFlags(shape.flags)),
            sh_addr: U64::new(Le, shape.addr),
            sh_offset: U64::new(Le, self.len()),
            sh_size: U64::new(Le, count(contents)),
            sh_link: U32::new(Le, shape.link),
            sh_info: U32::new(Le, shape.info),
            sh_addralign: U64::new(Le, shape.align),
            sh_entsize: U64::new(Le, shape.entry_bytes),
        };
        self.section_headers.extend_from_slice(bytes_of(&header));
        self.bytes.extend_from_slice(contents);
    }

    /// One section and one `PT_LOAD` for every segment, at the same address.
    fn payload(&mut self, lane: usize, livepatch: &Livepatch) -> Result<(), EncodeError> {
        for (segment, name) in livepatch.segments.iter().zip(section_names(lane, &livepatch.segments)) {
            let addr = address_in_file(lane, segment.new_va.raw())
                .ok_or(EncodeError::AddressTooHigh { livepatch: lane, new_va: segment.new_va })?;
            let (section_flags, program_flags) = match segment.access {
                Access::Read => (elf::SHF_ALLOC, elf::PF_R),
                Access::ReadExecute => (elf::SHF_ALLOC | elf::SHF_EXECINSTR, elf::PF_R | elf::PF_X),
            };
            self.align(PAGE_BYTES);
            let len_bytes = count(&segment.bytes);
            let header = elf::ProgramHeader64 {
                p_type: U32::new(Le, elf::PT_LOAD),
                p_flags: U32::new(Le, program_flags),
                p_offset: U64::new(Le, self.len()),
                p_vaddr: U64::new(Le, addr),
                p_paddr: U64::new(Le, addr),
                p_filesz: U64::new(Le, len_bytes),
                p_memsz: U64::new(Le, len_bytes),
                p_align: U64::new(Le, PAGE_BYTES),
            };
            self.program_headers.extend_from_slice(bytes_of(&header));
            let shape = Shape { flags: section_flags.0, addr, align: PAGE_BYTES, ..Shape::default() };
            self.section(&name, elf::SHT_PROGBITS, &segment.bytes, shape);
        }
        Ok(())
    }

    /// How to get out of the new functions' frames; whether there is such a section.
    fn debug_frame(&mut self, livepatches: &[&Livepatch]) -> Result<bool, EncodeError> {
        let mut frames = Vec::new();
        for (lane, livepatch) in livepatches.iter().enumerate() {
            let written = livepatch.unwind.write(&mut frames, |new_va| address_in_file(lane, new_va));
            written.ok_or(EncodeError::TooLarge)?;
        }
        if frames.is_empty() {
            return Ok(false);
        }
        self.align(8);
        self.section(DEBUG_FRAME, elf::SHT_PROGBITS, &frames, Shape { align: 8, ..Shape::default() });
        Ok(true)
    }

    /// `.symtab` and `.strtab`: the replaced functions at their new places. All
    /// are local, because two images may both have a function of one name.
    /// `others` sections stand between the digest and these.
    fn symbols(&mut self, livepatches: &[&Livepatch], others: usize) -> Result<(), EncodeError> {
        let mut names = Strings::default();
        let mut symbols = bytes_of(&elf::Sym64::<Le>::default()).to_vec();
        let mut first_section = 1_usize;
        for (lane, livepatch) in livepatches.iter().enumerate() {
            for function in &livepatch.replaced {
                for (part, range) in function.new_ranges.iter().enumerate() {
                    let section = segment_of(&livepatch.segments, range.start())
                        .and_then(|(index, _)| u16::try_from(first_section.checked_add(index)?).ok())
                        .ok_or(EncodeError::FunctionOutsidePayload { livepatch: lane, at: range.start() })?;
                    let value = address_in_file(lane, range.start().raw())
                        .ok_or(EncodeError::AddressTooHigh { livepatch: lane, new_va: range.start() })?;
                    let symbol = elf::Sym64 {
                        st_name: U32::new(Le, names.add(&symbol_name(&function.name, part))),
                        st_info: elf::SymbolInfo::new(elf::STB_LOCAL, elf::STT_FUNC),
                        st_other: elf::SymbolOther(0),
                        st_shndx: U16::new(Le, elf::SymbolSection(section)),
                        st_value: U64::new(Le, value),
                        st_size: U64::new(Le, range.len_bytes()),
                    };
                    symbols.extend_from_slice(bytes_of(&symbol));
                }
            }
            first_section = first_section.saturating_add(livepatch.segments.len());
        }
        // Null, the payload, manifest, digest, the others, `.symtab`; `.strtab` follows.
        let strtab =
            u32::try_from(first_section.saturating_add(3).saturating_add(others)).map_err(|_| EncodeError::TooLarge)?;
        let symbol_count = u32::try_from(count(&symbols).checked_div(SYM_BYTES).unwrap_or(0));
        let info = symbol_count.map_err(|_| EncodeError::TooLarge)?;
        self.align(8);
        let shape = Shape { link: strtab, info, align: 8, entry_bytes: SYM_BYTES, ..Shape::default() };
        self.section(".symtab", elf::SHT_SYMTAB, &symbols, shape);
        self.section(".strtab", elf::SHT_STRTAB, &names.finish()?, Shape { align: 1, ..Shape::default() });
        Ok(())
    }

    /// Section names and headers at the end; then what stands at the front and
    /// the digest, which depend on all the rest.
    fn finish(mut self, program_headers_at: u64, segments: u64, digest_at: u64) -> Result<Vec<u8>, EncodeError> {
        let own = self.section_names.add(".shstrtab");
        let names = std::mem::take(&mut self.section_names).finish()?;
        self.section("", elf::SHT_STRTAB, &names, Shape { align: 1, ..Shape::default() });
        let own_header = self.section_headers.len().saturating_sub(to_usize(SHDR_BYTES)?);
        patch_in(&mut self.section_headers, own_header, &own.to_le_bytes())?;

        self.align(8);
        let section_headers_at = self.len();
        self.zeros(SHDR_BYTES);
        let headers = std::mem::take(&mut self.section_headers);
        self.bytes.extend_from_slice(&headers);
        let section_count =
            self.len().saturating_sub(section_headers_at).checked_div(SHDR_BYTES).ok_or(EncodeError::TooLarge)?;

        let program_headers = std::mem::take(&mut self.program_headers);
        patch_in(&mut self.bytes, to_usize(program_headers_at)?, &program_headers)?;
        let header = file_header(
            if segments == 0 { 0 } else { program_headers_at },
            u16::try_from(segments).map_err(|_| EncodeError::TooLarge)?,
            section_headers_at,
            u16::try_from(section_count).map_err(|_| EncodeError::TooLarge)?,
        );
        patch_in(&mut self.bytes, 0, bytes_of(&header))?;
        let digest_at = to_usize(digest_at)?;
        let hash = digest(&self.bytes, digest_at).ok_or(EncodeError::TooLarge)?;
        patch_in(&mut self.bytes, digest_at, &hash)?;
        Ok(self.bytes)
    }
}

fn file_header(phoff: u64, phnum: u16, shoff: u64, shnum: u16) -> elf::FileHeader64<Le> {
    elf::FileHeader64 {
        e_ident: elf::Ident {
            magic: elf::ELFMAG,
            class: elf::ELFCLASS64,
            data: elf::ELFDATA2LSB,
            version: elf::EV_CURRENT,
            os_abi: elf::ELFOSABI_SYSV,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(Le, elf::ET_DYN),
        e_machine: U16::new(Le, elf::EM_X86_64),
        e_version: U32::new(Le, u32::from(elf::EV_CURRENT.0)),
        e_entry: U64::new(Le, 0),
        e_phoff: U64::new(Le, phoff),
        e_shoff: U64::new(Le, shoff),
        e_flags: U32::new(Le, elf::FileFlags(0)),
        e_ehsize: U16::new(Le, 64),
        e_phentsize: U16::new(Le, 56),
        e_phnum: U16::new(Le, phnum),
        e_shentsize: U16::new(Le, 64),
        e_shnum: U16::new(Le, shnum),
        // The names are always the last section.
        e_shstrndx: U16::new(Le, elf::SymbolSection(shnum.saturating_sub(1))),
    }
}

/// The name itself for a function's first part, `NAME.part<n>` for the others.
fn symbol_name(function: &str, part: usize) -> String {
    if part == 0 { function.to_owned() } else { format!("{function}.part{part}") }
}

fn to_usize(value: u64) -> Result<usize, EncodeError> {
    usize::try_from(value).map_err(|_| EncodeError::TooLarge)
}

fn patch_in(bytes: &mut [u8], at: usize, contents: &[u8]) -> Result<(), EncodeError> {
    let field = at.checked_add(contents.len()).and_then(|end| bytes.get_mut(at..end)).ok_or(EncodeError::TooLarge)?;
    field.copy_from_slice(contents);
    Ok(())
}

/// A string table (gABI, "String Table") in the order of use.
struct Strings(Vec<u8>);

impl Default for Strings {
    fn default() -> Self {
        Self(vec![0])
    }
}

impl Strings {
    /// The offset that the string has, saturated; [`Self::finish`] reports that.
    fn add(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        at
    }

    fn finish(self) -> Result<Vec<u8>, EncodeError> {
        if u32::try_from(self.0.len()).is_err() { Err(EncodeError::TooLarge) } else { Ok(self.0) }
    }
}
