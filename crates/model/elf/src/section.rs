//! Load segments and allocated sections.

use crate::error::ImageError;
use crate::image::ImageLimits;
use crate::{FileOffset, Va, VaRange};
use object::LittleEndian as LE;
use object::elf;
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};

type Header = elf::FileHeader64<LE>;

/// One `PT_LOAD` (gABI, "Program Header").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadSegment {
    /// `p_vaddr .. p_vaddr + p_memsz`
    pub range: VaRange,
    pub file_offset: FileOffset,
    pub file_len_bytes: u64,
    pub readable: bool,
    pub writable: bool,
    pub executable: bool,
}

/// What a section is for, as far as live patching cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SectionRole {
    /// Executable code of the program itself.
    Code,
    /// Stubs that the linker made for imports (`.plt`, `.plt.sec`, `.plt.got`).
    Plt,
    /// Never written after linking and never relocated: strings, constants, tables of distances.
    ReadOnlyData,
    /// Written by the dynamic linker, then protected (`PT_GNU_RELRO`), or a GOT.
    RelroData,
    /// Written by the program.
    WritableData,
    /// The initial image of thread-local storage.
    ThreadLocal,
    /// For the unwinder: `.eh_frame`, `.eh_frame_hdr`, `.gcc_except_table`.
    Unwind,
    /// For the dynamic linker: symbols, strings, hashes, relocations, notes.
    Linking,
}

/// An allocated section.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    pub name: &'a str,
    pub range: VaRange,
    pub role: SectionRole,
    pub writable: bool,
    pub executable: bool,
    /// `None` for `SHT_NOBITS`.
    pub bytes: Option<&'a [u8]>,
    pub(crate) sh_type: u32,
}

impl<'a> Section<'a> {
    /// The bytes of `range`, if all of it lies in this section and has contents.
    pub fn read(&self, range: VaRange) -> Option<&'a [u8]> {
        let from = range.start().raw().checked_sub(self.range.start().raw())?;
        let from = usize::try_from(from).ok()?;
        let len = usize::try_from(range.len_bytes()).ok()?;
        self.bytes?.get(from..from.checked_add(len)?)
    }

    /// The bytes from `va` to the end of the section.
    pub fn tail(&self, va: Va) -> Option<&'a [u8]> {
        let from = usize::try_from(va.raw().checked_sub(self.range.start().raw())?).ok()?;
        self.bytes?.get(from..)
    }

    pub fn is_bss(&self) -> bool {
        self.bytes.is_none()
    }
}

pub(crate) fn load_segments(header: &Header, bytes: &[u8]) -> Result<Vec<LoadSegment>, ImageError> {
    let malformed = ImageError::Malformed { what: "program headers" };
    let programs = header.program_headers(LE, bytes).map_err(|_| malformed.clone())?;
    let mut segments = Vec::new();
    for program in programs {
        if program.p_type(LE) != elf::PT_LOAD {
            continue;
        }
        let file_offset = program.p_offset(LE);
        let file_len_bytes = program.p_filesz(LE);
        let end = file_offset.checked_add(file_len_bytes);
        let have = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if end.is_none_or(|end| end > have) {
            return Err(ImageError::Truncated { what: "segment", at: file_offset, need: file_len_bytes, have });
        }
        let range = VaRange::new(Va::new(program.p_vaddr(LE)), program.p_memsz(LE)).ok_or(malformed.clone())?;
        if file_len_bytes > range.len_bytes() {
            return Err(malformed);
        }
        let flags = program.p_flags(LE).0;
        segments.push(LoadSegment {
            range,
            file_offset: FileOffset::new(file_offset),
            file_len_bytes,
            readable: flags & elf::PF_R.0 != 0,
            writable: flags & elf::PF_W.0 != 0,
            executable: flags & elf::PF_X.0 != 0,
        });
    }
    segments.sort_by_key(|s| s.range);
    if segments.is_empty() || segments.windows(2).any(|w| matches!(w, [a, b] if a.range.overlaps(b.range))) {
        return Err(malformed);
    }
    Ok(segments)
}

pub(crate) fn sections<'a>(
    header: &Header,
    bytes: &'a [u8],
    limits: &ImageLimits,
) -> Result<Vec<Section<'a>>, ImageError> {
    let malformed = ImageError::Malformed { what: "section headers" };
    let table = header.sections(LE, bytes).map_err(|_| malformed.clone())?;
    if table.is_empty() {
        return Err(ImageError::NoSections);
    }
    if table.len() > limits.max_sections {
        return Err(ImageError::TooLarge {
            what: "sections",
            have: u64::try_from(table.len()).unwrap_or(u64::MAX),
            limit: u64::try_from(limits.max_sections).unwrap_or(u64::MAX),
        });
    }
    let relro = header
        .program_headers(LE, bytes)
        .map_err(|_| malformed.clone())?
        .iter()
        .find(|p| p.p_type(LE) == elf::PT_GNU_RELRO)
        .and_then(|p| VaRange::new(Va::new(p.p_vaddr(LE)), p.p_memsz(LE)));
    let mut sections = Vec::new();
    for section in table.iter() {
        let flags = section.sh_flags(LE).0;
        if flags & elf::SHF_ALLOC.0 == 0 {
            continue;
        }
        let name = table.section_name(LE, section).map_err(|_| malformed.clone())?;
        let name = core::str::from_utf8(name).map_err(|_| malformed.clone())?;
        let range = VaRange::new(Va::new(section.sh_addr(LE)), section.sh_size(LE)).ok_or(malformed.clone())?;
        let sh_type = section.sh_type(LE);
        let nobits = sh_type == elf::SHT_NOBITS;
        let thread_local = flags & elf::SHF_TLS.0 != 0;
        if thread_local && nobits {
            // `.tbss` takes no address space of its own; it overlaps what follows.
            continue;
        }
        let contents = if nobits {
            None
        } else {
            let at = section.sh_offset(LE);
            Some(section.data(LE, bytes).map_err(|_| ImageError::Truncated {
                what: "section",
                at,
                need: range.len_bytes(),
                have: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            })?)
        };
        if contents.is_some_and(|c| u64::try_from(c.len()).ok() != Some(range.len_bytes())) {
            return Err(malformed);
        }
        let writable = flags & elf::SHF_WRITE.0 != 0;
        let executable = flags & elf::SHF_EXECINSTR.0 != 0;
        let role = role(name, sh_type.0, range, writable, executable, thread_local, relro);
        sections.push(Section { name, range, role, writable, executable, bytes: contents, sh_type: sh_type.0 });
    }
    sections.sort_by_key(|s| s.range);
    let inside_out = |w: &[Section<'_>]| matches!(w, [a, b] if a.range.overlaps(b.range));
    if sections.windows(2).any(inside_out) {
        return Err(ImageError::Malformed { what: "section headers (sections overlap)" });
    }
    Ok(sections)
}

fn role(
    name: &str,
    sh_type: u32,
    range: VaRange,
    writable: bool,
    executable: bool,
    thread_local: bool,
    relro: Option<VaRange>,
) -> SectionRole {
    if executable {
        return if name == ".plt" || name.starts_with(".plt.") { SectionRole::Plt } else { SectionRole::Code };
    }
    if thread_local {
        return SectionRole::ThreadLocal;
    }
    if writable {
        let in_relro = relro.is_some_and(|r| r.start() <= range.start() && range.end() <= r.end());
        return if in_relro || name == ".got" || name == ".got.plt" {
            SectionRole::RelroData
        } else {
            SectionRole::WritableData
        };
    }
    if name.starts_with(".eh_frame") || name.starts_with(".gcc_except_table") {
        return SectionRole::Unwind;
    }
    let linking = [
        elf::SHT_NOTE,
        elf::SHT_HASH,
        elf::SHT_GNU_HASH,
        elf::SHT_DYNSYM,
        elf::SHT_STRTAB,
        elf::SHT_RELA,
        elf::SHT_REL,
        elf::SHT_RELR,
        elf::SHT_GNU_VERSYM,
        elf::SHT_GNU_VERNEED,
        elf::SHT_GNU_VERDEF,
    ];
    if linking.iter().any(|kind| kind.0 == sh_type) || name == ".interp" || name == ".gnu_debuglink" {
        SectionRole::Linking
    } else {
        SectionRole::ReadOnlyData
    }
}
