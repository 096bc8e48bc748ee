//! One parsed ELF image.
//!
//! Only what Salve can prove things about is accepted: little-endian ELF64 for
//! x86-64, `ET_DYN` or `ET_EXEC`, with section headers (distributors keep them
//! when they strip). Everything else is a typed error, never a guess.

use crate::error::ImageError;
use crate::functions::{self, Function};
use crate::index::AddressIndex;
use crate::reloc::{self, Reloc};
use crate::section::{self, LoadSegment, Section};
use crate::symbol::{self, Symbol};
use crate::{BuildId, Va, VaRange};
use object::LittleEndian as LE;
use object::elf;
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};

type Header = elf::FileHeader64<LE>;

/// Bounds on what one image may make a reader hold.
#[derive(Clone, Copy, Debug)]
pub struct ImageLimits {
    pub max_image_bytes: u64,
    pub max_sections: usize,
    pub max_symbols: usize,
    pub max_relocations: usize,
    pub max_functions: usize,
}

impl Default for ImageLimits {
    /// Generous for every program a distributor ships (the largest known has
    /// 150 MB of text), small enough to bound memory.
    fn default() -> Self {
        Self {
            max_image_bytes: 512 << 20,
            max_sections: 4096,
            max_symbols: 2_000_000,
            max_relocations: 8_000_000,
            max_functions: 2_000_000,
        }
    }
}

/// How the image is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// `ET_DYN`: a shared object or a position-independent program.
    PositionIndependent,
    /// `ET_EXEC`: linked to fixed addresses; the load bias is zero.
    FixedAddress,
}

/// A parsed image; borrows the file's bytes.
#[derive(Debug)]
pub struct Image<'a> {
    bytes: &'a [u8],
    kind: ImageKind,
    entry: Va,
    segments: Vec<LoadSegment>,
    sections: Vec<Section<'a>>,
    /// Where each of them begins: what is asked most often, close together.
    starts: Vec<Va>,
    symbols: Vec<Symbol<'a>>,
    relocs: Vec<Reloc>,
    functions: Vec<Function>,
    reloc_index: AddressIndex,
    function_index: AddressIndex,
    soname: Option<String>,
    needed: Vec<String>,
    build_id: Option<BuildId>,
    dynamic: bool,
    program: bool,
}

impl<'a> Image<'a> {
    pub fn parse(bytes: &'a [u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let len_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if len_bytes > limits.max_image_bytes {
            return Err(ImageError::TooLarge { what: "image", have: len_bytes, limit: limits.max_image_bytes });
        }
        let header = parse_header(bytes)?;
        let kind = match header.e_type(LE) {
            elf::ET_DYN => ImageKind::PositionIndependent,
            elf::ET_EXEC => ImageKind::FixedAddress,
            other => return Err(ImageError::NotLoadable { e_type: other.0 }),
        };
        let segments = section::load_segments(header, bytes)?;
        let sections = section::sections(header, bytes, limits)?;
        let symbols = symbol::dynamic_symbols(header, bytes, limits)?;
        let relocs = reloc::relocations(&sections, &symbols, limits)?;
        let names = symbol::static_names(header, bytes);
        let functions = functions::functions(&sections, &symbols, &names, limits)?;
        let facts = dynamic_facts(header, bytes)?;
        Ok(Self {
            bytes,
            kind,
            entry: Va::new(header.e_entry(LE)),
            segments,
            starts: sections.iter().map(|section| section.range.start()).collect(),
            sections,
            symbols,
            reloc_index: AddressIndex::new(relocs.iter().map(|reloc| reloc.at)),
            function_index: AddressIndex::new(functions.iter().map(|function| function.range.start())),
            relocs,
            functions,
            soname: facts.soname,
            needed: facts.needed,
            build_id: build_id(header, bytes)?,
            dynamic: facts.dynamic,
            program: facts.program || kind == ImageKind::FixedAddress,
        })
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn kind(&self) -> ImageKind {
        self.kind
    }

    pub fn entry(&self) -> Va {
        self.entry
    }

    pub fn segments(&self) -> &[LoadSegment] {
        &self.segments
    }

    /// Allocated sections, sorted by address.
    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    pub fn symbols(&self) -> &[Symbol<'a>] {
        &self.symbols
    }

    /// Dynamic relocations, sorted by place.
    pub fn relocs(&self) -> &[Reloc] {
        &self.relocs
    }

    /// Functions and stretches of code without unwind information, sorted by
    /// address, not overlapping.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// Divides stretches without unwind information at those of the places, sorted, that lie
    /// inside of one.
    pub fn divide_gaps(&mut self, places: &[Va]) {
        let functions = core::mem::take(&mut self.functions);
        self.functions = functions::divide_gaps(&self.sections, functions, places);
        self.function_index = AddressIndex::new(self.functions.iter().map(|function| function.range.start()));
    }

    /// Call frame information of those of `wanted` that have some of exactly that extent.
    pub fn frames(&self, wanted: &[VaRange]) -> Vec<crate::Frame<'a>> {
        crate::unwind::frames(&self.sections, wanted)
    }

    pub fn soname(&self) -> Option<&str> {
        self.soname.as_deref()
    }

    pub fn needed(&self) -> &[String] {
        &self.needed
    }

    pub fn build_id(&self) -> Option<&BuildId> {
        self.build_id.as_ref()
    }

    /// Whether a dynamic linker binds this image (`PT_DYNAMIC` is there).
    pub fn is_dynamic(&self) -> bool {
        self.dynamic
    }

    /// Whether a dynamic linker binds this image to others.
    ///
    /// A static position-independent program has a dynamic section too, for
    /// relocating itself; but it names no interpreter, no library and no soname.
    /// A library that is only ever loaded by name (a plug-in) may name none of
    /// them either; it is marked as no program (`DF_1_PIE`), and has symbols.
    pub fn is_bound(&self) -> bool {
        let named = self.section_named(".interp").is_some() || self.soname.is_some() || !self.needed.is_empty();
        let plug_in = !self.program && self.symbols.iter().any(|s| !s.name.is_empty());
        self.dynamic && (named || plug_in)
    }

    /// Index of the section that holds `va`.
    pub fn section_index_at(&self, va: Va) -> Option<usize> {
        let after = self.starts.partition_point(|start| *start <= va);
        let index = after.checked_sub(1)?;
        self.sections.get(index).filter(|s| s.range.contains(va)).map(|_| index)
    }

    pub fn section_at(&self, va: Va) -> Option<&Section<'a>> {
        self.section_index_at(va).and_then(|index| self.sections.get(index))
    }

    pub fn section_named(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// Index of the function that holds `va`.
    pub fn function_index_at(&self, va: Va) -> Option<usize> {
        let around = self.function_index.around(va);
        let before = around.start;
        let part = self.functions.get(around).unwrap_or_default();
        let index = before.saturating_add(part.partition_point(|f| f.range.start() <= va)).checked_sub(1)?;
        self.functions.get(index).filter(|f| f.range.contains(va)).map(|_| index)
    }

    /// The relocation whose place is exactly `va`.
    pub fn reloc_at(&self, va: Va) -> Option<&Reloc> {
        let part = self.relocs.get(self.reloc_index.around(va)).unwrap_or_default();
        part.binary_search_by_key(&va, |r| r.at).ok().and_then(|index| part.get(index))
    }

    /// The relocations whose places lie in `range`.
    pub fn relocs_in(&self, range: VaRange) -> &[Reloc] {
        let from = self.relocs.partition_point(|r| r.at < range.start());
        let to = self.relocs.partition_point(|r| r.at < range.end());
        self.relocs.get(from..to).unwrap_or_default()
    }

    /// The file's bytes of `range`; `None` where it leaves one section or has no bytes.
    pub fn read(&self, range: VaRange) -> Option<&'a [u8]> {
        let section = self.section_at(range.start())?;
        section.read(range)
    }

    /// From the first to past the last loaded byte.
    pub fn span(&self) -> Option<VaRange> {
        let start = self.segments.iter().map(|s| s.range.start()).min()?;
        let end = self.segments.iter().map(|s| s.range.end()).max()?;
        VaRange::try_from((start, end)).ok()
    }
}

fn parse_header(bytes: &[u8]) -> Result<&Header, ImageError> {
    let Some(magic) = bytes.get(..6) else {
        return Err(ImageError::NotElf);
    };
    let [0x7f, b'E', b'L', b'F', class, data] = *magic else {
        return Err(ImageError::NotElf);
    };
    if class != elf::ELFCLASS64.0 {
        return Err(ImageError::NotElf64 { class });
    }
    if data != elf::ELFDATA2LSB.0 {
        return Err(ImageError::NotLittleEndian { data });
    }
    let header = Header::parse(bytes).map_err(|_| ImageError::Truncated {
        what: "ELF header",
        at: 0,
        need: 64,
        have: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
    })?;
    let machine = header.e_machine(LE);
    if machine != elf::EM_X86_64 {
        return Err(ImageError::OtherMachine { e_machine: machine.0 });
    }
    Ok(header)
}

#[derive(Default)]
struct DynamicFacts {
    soname: Option<String>,
    needed: Vec<String>,
    dynamic: bool,
    /// It says of itself that it is a position-independent program.
    program: bool,
}

fn dynamic_facts(header: &Header, bytes: &[u8]) -> Result<DynamicFacts, ImageError> {
    let sections = header.sections(LE, bytes).map_err(|_| ImageError::Malformed { what: "section headers" })?;
    let mut facts = DynamicFacts::default();
    let programs = header.program_headers(LE, bytes).map_err(|_| ImageError::Malformed { what: "program headers" })?;
    facts.dynamic = programs.iter().any(|p| p.p_type(LE) == elf::PT_DYNAMIC);
    let Some((entries, strings)) =
        sections.dynamic(LE, bytes).map_err(|_| ImageError::Malformed { what: "dynamic section" })?
    else {
        return Ok(facts);
    };
    let strings =
        sections.strings(LE, bytes, strings).map_err(|_| ImageError::Malformed { what: "dynamic string table" })?;
    for entry in entries {
        let tag = entry.d_tag(LE);
        if tag == elf::DT_FLAGS_1 {
            facts.program |= entry.d_val(LE) & elf::DF_1_PIE.0 != 0;
        }
        if tag != elf::DT_SONAME && tag != elf::DT_NEEDED {
            continue;
        }
        let text = u32::try_from(entry.d_val(LE))
            .ok()
            .and_then(|offset| strings.get(offset).ok())
            .ok_or(ImageError::Malformed { what: "dynamic string" })?;
        let text = String::from_utf8_lossy(text).into_owned();
        if tag == elf::DT_SONAME {
            facts.soname = Some(text);
        } else {
            facts.needed.push(text);
        }
    }
    Ok(facts)
}

fn build_id(header: &Header, bytes: &[u8]) -> Result<Option<BuildId>, ImageError> {
    let programs = header.program_headers(LE, bytes).map_err(|_| ImageError::Malformed { what: "program headers" })?;
    for program in programs {
        let Ok(Some(mut notes)) = program.notes(LE, bytes) else {
            continue;
        };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID {
                return Ok(BuildId::parse(note.desc()).ok());
            }
        }
    }
    Ok(None)
}
