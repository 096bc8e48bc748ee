//! The images that are mapped in a process, by the content of their files.
//!
//! A file is read once and hashed; what later steps need of it (segments,
//! unwinding tables, dynamic symbols that matter) is taken in the same pass, so
//! that nothing has to be read while threads are stopped. A cache keeps that
//! for one run, by device, inode, size and both times.

use crate::limits::Limits;
use crate::maps::Mapping;
use crate::process::{Process, ReadError};
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{LittleEndian as Le, ReadRef};
use salve_consistency::UnwindTables;
use salve_elf::{ContentHash, LoadBias, RuntimeAddr, Va, VaRange};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

pub(crate) const PAGE_BYTES: u64 = 4096;

/// One file of which a process has executable code mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedImage {
    /// As the process sees it, less ` (deleted)`. Display only, never an identity.
    pub path: OsString,
    pub deleted: bool,
    pub sha256: ContentHash,
    pub len_bytes: u64,
    pub soname: Option<String>,
    /// Every mapping of the file, sorted by address.
    pub mappings: Vec<Mapping>,
}

/// A loadable segment (gABI, "Program Header").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) va: u64,
    pub(crate) offset: u64,
    pub(crate) file_bytes: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) executable: bool,
}

/// What is kept of one image's file.
#[derive(Clone, Debug)]
pub(crate) struct ImageFile {
    pub(crate) sha256: ContentHash,
    pub(crate) len_bytes: u64,
    /// `None` for a file that is no 64-bit little-endian x86-64 ELF file.
    pub(crate) elf: Option<ElfFacts>,
}

#[derive(Clone, Debug)]
pub(crate) struct ElfFacts {
    pub(crate) loads: Vec<Load>,
    pub(crate) interpreter: bool,
    pub(crate) soname: Option<String>,
    pub(crate) unwind: Option<Arc<UnwindTables>>,
    /// Undefined and defined dynamic symbols by which stacks are switched.
    pub(crate) switching: Switching,
}

/// Which signs of stack switching an image shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switching {
    /// The first import or export that makes or switches a stack.
    pub(crate) symbol: Option<String>,
    pub(crate) exports_async_pause: bool,
    pub(crate) imports_async_pause: bool,
}

/// Names by which a program makes or switches stacks: the C library's, and the
/// assembly of the libraries that bring their own.
const SWITCHING: [&[u8]; 10] = [
    b"makecontext",
    b"swapcontext",
    b"make_fcontext",
    b"jump_fcontext",
    b"ontop_fcontext",
    b"co_create",
    b"co_switch",
    b"coro_transfer",
    b"coroutine_switch",
    b"qemu_coroutine_switch",
];

impl ImageFile {
    fn of(bytes: &[u8]) -> Self {
        Self {
            sha256: ContentHash::of(bytes),
            len_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            elf: ElfFacts::of(bytes),
        }
    }
}

impl ElfFacts {
    fn of(bytes: &[u8]) -> Option<Self> {
        let header = FileHeader64::<Le>::parse(bytes).ok()?;
        (header.e_machine(Le) == elf::EM_X86_64 && header.is_little_endian()).then_some(())?;
        let segments = header.program_headers(Le, bytes).ok()?;
        let loads = segments
            .iter()
            .filter(|segment| segment.p_type(Le) == elf::PT_LOAD)
            .map(|segment| Load {
                va: segment.p_vaddr(Le),
                offset: segment.p_offset(Le),
                file_bytes: segment.p_filesz(Le),
                memory_bytes: segment.p_memsz(Le),
                executable: segment.p_flags(Le).0 & elf::PF_X.0 != 0,
            })
            .collect();
        let has = |kind| segments.iter().any(|segment| segment.p_type(Le) == kind);
        Some(Self {
            loads,
            interpreter: has(elf::PT_INTERP),
            soname: soname(header, bytes),
            unwind: unwind_tables(segments, bytes).map(Arc::new),
            switching: switching(header, bytes, has(elf::PT_DYNAMIC)),
        })
    }

    /// The bias that puts this file's segments where the mappings are; `None` when
    /// they contradict each other, which also is what an image mapped twice looks like.
    pub(crate) fn bias(&self, mappings: &[Mapping]) -> Option<LoadBias> {
        let mut found = None;
        for mapping in mappings.iter().filter(|mapping| mapping.perms.execute) {
            let bias = self.bias_of(mapping)?;
            if found.is_some_and(|known| known != bias) {
                return None;
            }
            found = Some(bias);
        }
        found
    }

    /// The loader maps whole pages: from `p_vaddr` rounded down, what lies at `p_offset` rounded down.
    fn bias_of(&self, mapping: &Mapping) -> Option<LoadBias> {
        let offset = mapping.offset.raw();
        self.loads.iter().filter(|load| load.executable).find_map(|load| {
            let from = page_floor(load.offset);
            let to = load.offset.checked_add(load.file_bytes)?;
            (from <= offset && offset < to).then_some(())?;
            let va = page_floor(load.va).checked_add(offset.checked_sub(from)?)?;
            Some(LoadBias::between(Va::new(va), mapping.start))
        })
    }

    /// Where in the file the byte at `va` is.
    pub(crate) fn file_offset(&self, va: Va) -> Option<u64> {
        self.loads.iter().find_map(|load| {
            let into = va.raw().checked_sub(load.va).filter(|&into| into < load.file_bytes)?;
            load.offset.checked_add(into)
        })
    }

    /// From the first to past the last page of the image in memory.
    pub(crate) fn span(&self) -> Option<VaRange> {
        let start = self.loads.iter().map(|load| page_floor(load.va)).min()?;
        let end = self.loads.iter().filter_map(|load| load.va.checked_add(load.memory_bytes)).max()?;
        VaRange::new(Va::new(start), end.checked_next_multiple_of(PAGE_BYTES)?.checked_sub(start)?)
    }
}

pub(crate) fn page_floor(address: u64) -> u64 {
    address & !PAGE_BYTES.wrapping_sub(1)
}

fn soname(header: &FileHeader64<Le>, bytes: &[u8]) -> Option<String> {
    let sections = header.sections(Le, bytes).ok()?;
    let (entries, strings) = sections.dynamic(Le, bytes).ok()??;
    let strings = sections.strings(Le, bytes, strings).ok()?;
    let entry = entries.iter().find(|entry| entry.d_tag(Le) == elf::DT_SONAME)?;
    let name = strings.get(u32::try_from(entry.d_val(Le)).ok()?).ok()?;
    String::from_utf8(name.to_vec()).ok()
}

fn switching(header: &FileHeader64<Le>, bytes: &[u8], dynamic: bool) -> Switching {
    let mut found = Switching::default();
    let table = header.sections(Le, bytes).and_then(|sections| sections.symbols(Le, bytes, elf::SHT_DYNSYM));
    let Some(table) = table.ok().filter(|table| !dynamic || !table.is_empty()) else {
        // What cannot be read may be anything.
        found.symbol = Some("dynamic symbols that cannot be read".to_owned());
        return found;
    };
    for symbol in table.iter() {
        let Ok(name) = table.symbol_name(Le, symbol) else { continue };
        let undefined = symbol.is_undefined(Le);
        // The C library defines both names itself and does not use them.
        let libc = !undefined && matches!(name, b"makecontext" | b"swapcontext");
        if found.symbol.is_none() && SWITCHING.contains(&name) && !libc {
            found.symbol = Some(String::from_utf8_lossy(name).into_owned());
        }
        if name == b"ASYNC_pause_job" {
            found.imports_async_pause |= undefined;
            found.exports_async_pause |= !undefined;
        }
    }
    found
}

/// `.eh_frame_hdr` by its segment, `.eh_frame` by its section or, in a file
/// without sections, to the end of the segment that holds it.
fn unwind_tables(segments: &[ProgramHeader64<Le>], bytes: &[u8]) -> Option<UnwindTables> {
    let header = segments.iter().find(|segment| segment.p_type(Le) == elf::PT_GNU_EH_FRAME)?;
    let header_bytes = header.data(Le, bytes).ok()?;
    let header_va = header.p_vaddr(Le);
    // DW_EH_PE_pcrel | DW_EH_PE_sdata4 at offset 4 is what every linker in use writes.
    let [1, 0x1b, _, _, a, b, c, d, ..] = *header_bytes else { return None };
    let distance = i64::from(i32::from_le_bytes([a, b, c, d]));
    let frames_va = header_va.checked_add(4)?.checked_add_signed(distance)?;
    let file = FileHeader64::<Le>::parse(bytes).ok()?;
    let by_section = file.sections(Le, bytes).ok().and_then(|sections| {
        let section = sections.iter().find(|section| section.sh_addr(Le) == frames_va)?;
        section.data(Le, bytes).ok()
    });
    let frames = by_section.or_else(|| {
        segments.iter().filter(|segment| segment.p_type(Le) == elf::PT_LOAD).find_map(|segment| {
            let into = frames_va.checked_sub(segment.p_vaddr(Le))?;
            let left = segment.p_filesz(Le).checked_sub(into)?;
            bytes.read_bytes_at(segment.p_offset(Le).checked_add(into)?, left).ok()
        })
    })?;
    Some(UnwindTables {
        header_va: Va::new(header_va),
        header: header_bytes.to_vec(),
        frames_va: Va::new(frames_va),
        frames: frames.to_vec(),
    })
}

/// What tells one state of a file from another within one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileKey {
    dev: u64,
    inode: u64,
    len_bytes: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Files seen in this run.
#[derive(Debug, Default)]
pub(crate) struct ImageCache {
    known: BTreeMap<FileKey, Arc<ImageFile>>,
}

/// An image in a process, with what is kept of its file.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) image: MappedImage,
    pub(crate) file: Arc<ImageFile>,
}

impl Found {
    /// The path for a reader.
    pub(crate) fn display(&self) -> String {
        self.image.path.to_string_lossy().into_owned()
    }

    /// A mapping through which the file can be opened.
    pub(crate) fn any_mapping(&self) -> Option<&Mapping> {
        self.image.mappings.first()
    }

    pub(crate) fn bias(&self) -> Option<LoadBias> {
        self.file.elf.as_ref()?.bias(&self.image.mappings)
    }

    /// Executable mappings: where its code lies.
    pub(crate) fn text(&self) -> impl Iterator<Item = &Mapping> {
        self.image.mappings.iter().filter(|mapping| mapping.perms.execute)
    }

    /// Whether that is a constant, as a table that the loader made read-only.
    pub(crate) fn constants_hold(&self, at: RuntimeAddr) -> bool {
        let constant = |mapping: &&Mapping| !mapping.perms.shared && !mapping.perms.write && !mapping.perms.execute;
        self.image.mappings.iter().filter(constant).any(|mapping| mapping.contains(at))
    }

    pub(crate) fn text_holds(&self, at: RuntimeAddr) -> bool {
        self.text().any(|mapping| mapping.contains(at) && !mapping.perms.shared && !mapping.perms.write)
    }
}

impl ImageCache {
    /// Every file of which private executable code is mapped, payloads aside. Shared
    /// executable mappings are what just-in-time compilers make; they hold no image.
    pub(crate) fn images(
        &mut self,
        process: &Process,
        mappings: &[Mapping],
        limits: &Limits,
    ) -> Result<Vec<Found>, ReadError> {
        let mut found: Vec<Found> = Vec::new();
        for code in mappings.iter().filter(|m| m.is_file() && m.perms.execute && !m.perms.shared && !m.is_payload()) {
            if found.iter().any(|known| known.any_mapping().is_some_and(|mapping| mapping.same_file(code))) {
                continue;
            }
            let file = self.file(&process.open_mapped(code)?, limits)?;
            found.push(Found {
                image: MappedImage {
                    path: code.path.clone(),
                    deleted: code.deleted,
                    sha256: file.sha256,
                    len_bytes: file.len_bytes,
                    soname: file.elf.as_ref().and_then(|elf| elf.soname.clone()),
                    mappings: mappings.iter().filter(|mapping| mapping.same_file(code)).cloned().collect(),
                },
                file,
            });
        }
        Ok(found)
    }

    /// What is known of a file, read and hashed at most once in a run.
    pub(crate) fn file(&mut self, file: &File, limits: &Limits) -> Result<Arc<ImageFile>, ReadError> {
        let key = key(file)?;
        if let Some(known) = self.known.get(&key) {
            return Ok(Arc::clone(known));
        }
        let image = Arc::new(ImageFile::of(&read_image(file, limits)?));
        self.known.insert(key, Arc::clone(&image));
        Ok(image)
    }
}

/// The whole file, within the limit.
pub(crate) fn read_image(file: &File, limits: &Limits) -> Result<Vec<u8>, ReadError> {
    let what = "mapped file";
    let mut bytes = Vec::new();
    file.take(limits.max_image_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| ReadError::Failed { what, errno: crate::Errno::of(&error) })?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limits.max_image_bytes {
        return Err(ReadError::TooLarge { what, limit_bytes: limits.max_image_bytes });
    }
    Ok(bytes)
}

fn key(file: &File) -> Result<FileKey, ReadError> {
    let stat = rustix::fs::fstat(file).map_err(|errno| ReadError::of("mapped file", errno))?;
    Ok(FileKey {
        dev: stat.st_dev,
        inode: stat.st_ino,
        len_bytes: stat.st_size,
        modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        changed: (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::list_pids;

    #[test]
    fn this_programs_own_images_are_found_with_bias_and_tables() {
        let own = i32::try_from(std::process::id()).unwrap();
        let process = Process::open(own).unwrap();
        let limits = Limits::default();
        let found = ImageCache::default().images(&process, &process.mappings(&limits).unwrap(), &limits).unwrap();
        let here = RuntimeAddr::new(list_pids as *const () as u64);
        let program = found.iter().find(|image| image.text_holds(here)).unwrap();
        assert_eq!(program.image.sha256, ContentHash::of(&std::fs::read("/proc/self/exe").unwrap()));
        assert!(program.bias().is_some());
        let elf = program.file.elf.as_ref().unwrap();
        assert!(elf.interpreter && elf.unwind.is_some());
        let libc = found.iter().find(|image| image.image.soname.as_deref() == Some("libc.so.6")).unwrap();
        assert_eq!(libc.file.elf.as_ref().unwrap().switching.symbol, None);
    }
}
