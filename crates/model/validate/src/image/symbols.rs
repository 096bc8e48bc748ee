//! The dynamic symbol table with versions: names by which images bind to each other.

use super::layout::Header;
use crate::invalid::ImageFault;
use object::read::elf::{SectionTable, Sym as _};
use object::{Endianness, elf};
use salve_elf::Va;

/// One entry of `.dynsym`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol<'a> {
    pub(crate) name: &'a [u8],
    /// Empty where the symbol has none.
    pub(crate) version: &'a [u8],
    /// `None` where another image defines it.
    pub(crate) defined: Option<Definition>,
    pub(crate) local: bool,
    /// The loader does without it where it finds none.
    pub(crate) weak: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) at: Va,
    pub(crate) len_bytes: u64,
    pub(crate) is_tls: bool,
    /// A resolver: what others are bound to is what it returns.
    pub(crate) is_indirect: bool,
    pub(crate) is_absolute: bool,
}

impl Symbol<'_> {
    /// Whether both names lead the loader to the same definition.
    pub(crate) fn binds_like(&self, other: &Symbol<'_>) -> bool {
        self.name == other.name && self.version == other.version && !self.local && !other.local
    }
}

/// Functions by their names in `.symtab`, which a stripped file lacks.
pub(super) fn static_names<'a>(
    table: &SectionTable<'a, Header>,
    endian: Endianness,
    bytes: &'a [u8],
) -> Result<Vec<(Va, &'a [u8])>, ImageFault> {
    let symbols = table.symbols(endian, bytes, elf::SHT_SYMTAB).map_err(ImageFault::Malformed)?;
    let functions = symbols.iter().filter(|s| s.st_type() == elf::STT_FUNC && s.st_shndx(endian) != elf::SHN_UNDEF);
    functions
        .map(|symbol| {
            let name = symbol.name(endian, symbols.strings()).map_err(ImageFault::Malformed)?;
            Ok((Va::new(symbol.st_value(endian)), name))
        })
        .collect()
}

pub(super) fn read<'a>(
    table: &SectionTable<'a, Header>,
    endian: Endianness,
    bytes: &'a [u8],
) -> Result<Vec<Symbol<'a>>, ImageFault> {
    let symbols = table.symbols(endian, bytes, elf::SHT_DYNSYM).map_err(ImageFault::Malformed)?;
    let versions = table.versions(endian, bytes).map_err(ImageFault::Malformed)?;
    let mut read = Vec::with_capacity(symbols.len());
    for (index, symbol) in symbols.iter().enumerate() {
        let fault = ImageFault::Symbol(index);
        let name = symbol.name(endian, symbols.strings()).map_err(|_| fault.clone())?;
        let version = match &versions {
            Some(versions) if index != 0 => {
                let version = versions.version_index(endian, object::SymbolIndex(index));
                versions.version(version.into()).map_err(|_| fault.clone())?
            }
            Some(_) | None => None,
        };
        let section = symbol.st_shndx(endian);
        let defined = (section != elf::SHN_UNDEF).then(|| Definition {
            at: Va::new(symbol.st_value(endian)),
            len_bytes: symbol.st_size(endian),
            is_tls: symbol.st_type() == elf::STT_TLS,
            is_indirect: symbol.st_type() == elf::STT_GNU_IFUNC,
            is_absolute: section == elf::SHN_ABS,
        });
        let local = symbol.st_bind() == elf::STB_LOCAL;
        read.push(Symbol {
            name,
            version: version.map_or(b"".as_slice(), object::read::elf::Version::name),
            defined,
            local,
            weak: symbol.st_bind() == elf::STB_WEAK,
        });
    }
    Ok(read)
}
