//! Dynamic symbols with their versions (gABI "Symbol Table", LSB "Symbol Versioning").

use crate::Va;
use crate::error::ImageError;
use crate::image::ImageLimits;
use object::LittleEndian as LE;
use object::elf;
use object::read::elf::{FileHeader as _, Sym as _};
use std::collections::HashMap;

type Header = elf::FileHeader64<LE>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SymbolKind {
    Function,
    /// `STT_GNU_IFUNC`: the value is a resolver.
    IndirectFunction,
    Data,
    ThreadLocal,
    Other,
}

/// One entry of `.dynsym`, in the table's order (relocations index it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    pub name: &'a str,
    /// The version that the definition carries or the reference asks for.
    pub version: Option<&'a str>,
    pub kind: SymbolKind,
    /// Whether this image defines it.
    pub defined: bool,
    pub weak: bool,
    pub value: Va,
    pub len_bytes: u64,
}

impl Symbol<'_> {
    /// `name@version`, as `readelf` prints it.
    pub fn display_name(&self) -> String {
        match self.version {
            Some(version) => format!("{}@{version}", self.name),
            None => self.name.to_owned(),
        }
    }
}

pub(crate) fn dynamic_symbols<'a>(
    header: &Header,
    bytes: &'a [u8],
    limits: &ImageLimits,
) -> Result<Vec<Symbol<'a>>, ImageError> {
    let malformed = |what| ImageError::Malformed { what };
    let sections = header.sections(LE, bytes).map_err(|_| malformed("section headers"))?;
    let table = sections.symbols(LE, bytes, elf::SHT_DYNSYM).map_err(|_| malformed("dynamic symbol table"))?;
    if table.len() > limits.max_symbols {
        return Err(ImageError::TooLarge {
            what: "dynamic symbols",
            have: u64::try_from(table.len()).unwrap_or(u64::MAX),
            limit: u64::try_from(limits.max_symbols).unwrap_or(u64::MAX),
        });
    }
    let versions = sections.versions(LE, bytes).map_err(|_| malformed("symbol versions"))?;
    let mut symbols = Vec::with_capacity(table.len());
    for (index, symbol) in table.enumerate() {
        let name = table.symbol_name(LE, symbol).map_err(|_| malformed("symbol name"))?;
        let name = core::str::from_utf8(name).map_err(|_| malformed("symbol name"))?;
        let version = match &versions {
            Some(versions) => {
                let version_index = versions.version_index(LE, index);
                let version = versions.version(version_index.into()).map_err(|_| malformed("symbol version"))?;
                version.map(|v| core::str::from_utf8(v.name()).map_err(|_| malformed("symbol version"))).transpose()?
            }
            None => None,
        };
        let kind = match symbol.st_type() {
            elf::STT_FUNC => SymbolKind::Function,
            elf::STT_GNU_IFUNC => SymbolKind::IndirectFunction,
            elf::STT_OBJECT | elf::STT_COMMON => SymbolKind::Data,
            elf::STT_TLS => SymbolKind::ThreadLocal,
            _other_types_name_no_code_or_data => SymbolKind::Other,
        };
        symbols.push(Symbol {
            name,
            version,
            kind,
            defined: symbol.st_shndx(LE) != elf::SHN_UNDEF,
            weak: symbol.st_bind() == elf::STB_WEAK,
            value: Va::new(symbol.st_value(LE)),
            len_bytes: symbol.st_size(LE),
        });
    }
    Ok(symbols)
}

/// Names of functions from `.symtab`, where the image is not stripped. They
/// serve readers and ground-truth tests; no verdict depends on them, so a broken
/// table only means fewer names.
pub(crate) fn static_names<'a>(header: &Header, bytes: &'a [u8]) -> HashMap<Va, &'a str> {
    let mut names = HashMap::new();
    let Ok(sections) = header.sections(LE, bytes) else {
        return names;
    };
    let Ok(table) = sections.symbols(LE, bytes, elf::SHT_SYMTAB) else {
        return names;
    };
    for symbol in table.iter() {
        if symbol.st_type() != elf::STT_FUNC || symbol.st_shndx(LE) == elf::SHN_UNDEF {
            continue;
        }
        if let Some(name) = table.symbol_name(LE, symbol).ok().and_then(|name| core::str::from_utf8(name).ok()) {
            names.entry(Va::new(symbol.st_value(LE))).or_insert(name);
        }
    }
    names
}
