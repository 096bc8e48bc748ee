//! The symbol table of an unstripped image or of its debug file.

use anyhow::{Context as _, Result, bail};
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};
use std::collections::{BTreeMap, BTreeSet};

/// Names of functions and objects, by where they start.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    starts: BTreeMap<u64, Vec<Symbol>>,
}

#[derive(Debug)]
struct Symbol {
    name: String,
    len: u64,
    function: bool,
}

impl Symbols {
    pub(crate) fn of(bytes: &[u8]) -> Result<Self> {
        let file = ElfFile64::<object::LittleEndian>::parse(bytes).context("no ELF file")?;
        let mut symbols = Self::default();
        for symbol in file.symbols().filter(object::ObjectSymbol::is_definition) {
            let function = symbol.kind() == SymbolKind::Text;
            if let (true, Ok(name)) = (function || symbol.kind() == SymbolKind::Data, symbol.name()) {
                let entry = Symbol { name: plain(name), len: symbol.size(), function };
                symbols.starts.entry(symbol.address()).or_default().push(entry);
            }
        }
        if symbols.starts.is_empty() {
            bail!("no symbols");
        }
        Ok(symbols)
    }

    /// Names of functions that start exactly here.
    pub(crate) fn functions_at(&self, va: u64) -> BTreeSet<&str> {
        let here = self.starts.get(&va).into_iter().flatten();
        here.filter(|symbol| symbol.function).map(|symbol| symbol.name.as_str()).collect()
    }

    /// Every name for this address, with its distance from the start of what it names.
    pub(crate) fn names(&self, va: u64) -> BTreeSet<(String, u64)> {
        const BACK: usize = 4;
        let near = self.starts.range(..=va).rev().take(BACK);
        near.flat_map(|(start, symbols)| symbols.iter().map(move |symbol| (va.wrapping_sub(*start), symbol)))
            .filter(|(inside, symbol)| *inside < symbol.len.max(1))
            .map(|(inside, symbol)| (symbol.name.clone(), inside))
            .collect()
    }

    /// Functions whose name is on nothing else, by name.
    pub(crate) fn unique_functions(&self) -> BTreeMap<&str, u64> {
        let mut found: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (start, symbols) in &self.starts {
            for symbol in symbols.iter().filter(|symbol| symbol.function) {
                found.entry(&symbol.name).or_default().insert(*start);
            }
        }
        let one = |starts: &BTreeSet<u64>| if starts.len() == 1 { starts.first().copied() } else { None };
        found.into_iter().filter_map(|(name, starts)| Some((name, one(&starts)?))).collect()
    }
}

/// What the compiler numbers as it goes (`name.constprop.0`, `name.lto_priv.12`) loses its number.
fn plain(name: &str) -> String {
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = name.split('.');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.filter(|part| !is_number(part) && *part != "lto_priv").fold(first, |name, part| name + "." + part)
}

/// Address, size and, of code, the contents.
type Loaded = (u64, u64, Vec<u8>);

/// Whether a rebuilt image is the shipped one but for what stripping takes: every
/// loaded section at the same place with the same size, and the same code.
pub(crate) fn same_but_stripped(shipped: &[u8], rebuilt: &[u8]) -> Result<()> {
    let sections = |bytes| -> Result<BTreeMap<String, Loaded>> {
        let file = ElfFile64::<object::LittleEndian>::parse(bytes).context("no ELF file")?;
        let loaded = file.sections().filter(|section| section.address() != 0);
        loaded
            .map(|section| {
                let code = section.kind() == SectionKind::Text;
                let bytes = if code { section.data().context("no contents")?.to_vec() } else { Vec::new() };
                Ok((section.name().unwrap_or_default().to_owned(), (section.address(), section.size(), bytes)))
            })
            .collect()
    };
    let (a, b) = (sections(shipped)?, sections(rebuilt)?);
    for (name, (address, size, bytes)) in &a {
        match b.get(name) {
            None => bail!("the rebuilt image has no {name}"),
            Some((other, len, _)) if (other, len) != (address, size) => {
                bail!(
                    "{name} is at {other:#x} with {len:#x} bytes in the rebuilt image, not at {address:#x} with {size:#x}"
                )
            }
            Some((_, _, code)) if code != bytes => bail!("{name} has other contents in the rebuilt image"),
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_compiler_counts_is_no_part_of_a_name() {
        assert_eq!(plain("parse.constprop.0"), "parse.constprop");
        assert_eq!(plain("table.lto_priv.12"), "table");
        assert_eq!(plain("main"), "main");
        assert_eq!(plain("parse.cold"), "parse.cold");
    }

    #[test]
    fn an_address_has_the_names_of_what_it_lies_in() {
        let symbol = |name: &str, len| Symbol { name: name.to_owned(), len, function: true };
        let mut symbols = Symbols::default();
        symbols.starts.insert(0x1000, vec![symbol("a", 0x20), symbol("alias", 0x20)]);
        symbols.starts.insert(0x1010, vec![symbol("label", 0)]);
        let named = |va| symbols.names(va).into_iter().map(|(name, at)| format!("{name}+{at}")).collect::<Vec<_>>();
        assert_eq!(named(0x1004), ["a+4", "alias+4"]);
        assert_eq!(named(0x1010), ["a+16", "alias+16", "label+0"]);
        assert!(named(0x1020).is_empty());
    }
}
