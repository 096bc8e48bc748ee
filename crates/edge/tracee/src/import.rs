//! Symbols that a livepatch needs and its image does not import: what the loader
//! would bind them to in this process.
//!
//! The loader searches the images of its scopes in an order that is not in any file.
//! So an answer is taken only where the order does not matter: exactly one image
//! that is mapped defines the name, whatever the version; its definition has the
//! version that is asked for; and it is in the scope for certain, and stays as long
//! as the patched image does, because the program or the patched image needs it,
//! directly or through others (`DT_NEEDED`), or because the loader has bound something of the
//! patched image to it before: a plug-in's host, or another plug-in. Anything else is no answer. A symbol that the
//! image defines itself is its own where nobody else defines it: then no order matters, either.
//!
//! An indirect function is never resolved by calling it. Where another image has a
//! slot for the same symbol and version that the loader has bound already, that
//! slot's value is the answer.

use crate::image::{Found, read_image};
use crate::limits::Limits;
use crate::maps::Mapping;
use crate::memory::Memory;
use crate::outcome::NotApplied;
use crate::process::Process;
use object::LittleEndian as Le;
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _, Rela as _, SectionHeader as _, Sym as _};
use salve_elf::{ContentHash, RuntimeAddr, Va};
use salve_patch::{ImportSlot, Livepatch, OwnAddress};
use std::collections::BTreeSet;

/// Where symbols are looked for.
pub(crate) struct Scope<'a> {
    pub(crate) process: &'a Process,
    pub(crate) memory: &'a Memory,
    pub(crate) mappings: &'a [Mapping],
    pub(crate) images: &'a [Found],
    /// Content of the program's own file.
    pub(crate) program: ContentHash,
    pub(crate) limits: &'a Limits,
}

/// The address of each import of `livepatch` and then of what each of its pointers leads to,
/// in their order.
pub(crate) fn resolve(
    scope: &Scope<'_>,
    image: &Found,
    path: &str,
    livepatch: &Livepatch,
) -> Result<Vec<RuntimeAddr>, NotApplied> {
    let pointed: Option<Vec<RuntimeAddr>> = livepatch.pointers.iter().map(|pointer| own(image, pointer.to)).collect();
    let pointed = pointed.ok_or_else(|| NotApplied::MappedTwice { path: path.to_owned() })?;
    if livepatch.imports.is_empty() {
        return Ok(pointed);
    }
    let unresolved =
        |symbol: &str, why| NotApplied::ImportUnresolved { path: path.to_owned(), symbol: symbol.to_owned(), why };
    let first = livepatch.imports.first().map_or("", |import| import.symbol.as_str());
    let modules = modules(scope, &livepatch.imports).map_err(|why| unresolved(first, why))?;
    let certain = certain(&modules, scope.program, image.image.sha256);
    let resolve = |import: &ImportSlot| {
        one(scope, &modules, &certain, image, import).map_err(|why| unresolved(&import.symbol, why))
    };
    livepatch.imports.iter().map(resolve).chain(pointed.into_iter().map(Ok)).collect()
}

/// Where an address of the image is in the process; for one in the payload, as if it were in
/// the old image.
fn own(image: &Found, own: OwnAddress) -> Option<RuntimeAddr> {
    let (OwnAddress::Old(at) | OwnAddress::Payload(at)) = own;
    Some(at.in_process(image.bias()?))
}

/// What is needed of one mapped file.
struct Module<'a> {
    /// `None` for a file without code.
    found: Option<&'a Found>,
    sha256: ContentHash,
    soname: Option<String>,
    needed: Vec<String>,
    definitions: Vec<Definition>,
    /// Slots that the loader fills with one of the wanted symbols.
    slots: Vec<(String, Option<String>, Va)>,
    /// Slots that it fills with something of another image.
    foreign: Vec<Va>,
    /// Wanted symbols of which a stub here is the address for everybody.
    stubs: Vec<String>,
}

struct Definition {
    symbol: String,
    version: Option<String>,
    hidden: bool,
    value: Va,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Indirect,
    /// Thread-local, absolute, unique: nothing that a plain address stands for.
    Other,
}

const UNREADABLE: &str = "a mapped file cannot be read";

fn modules<'a>(scope: &Scope<'a>, wanted: &[ImportSlot]) -> Result<Vec<Module<'a>>, &'static str> {
    let mut modules = Vec::new();
    for found in scope.images {
        let mapping = found.any_mapping().ok_or(UNREADABLE)?;
        let file = scope.process.open_mapped(mapping).map_err(|_| UNREADABLE)?;
        let bytes = read_image(&file, scope.limits).map_err(|_| UNREADABLE)?;
        // Read again, so compared again: it has to be the file that was hashed.
        if ContentHash::of(&bytes) != found.image.sha256 {
            return Err(UNREADABLE);
        }
        if found.file.elf.is_some() {
            modules.push(module(&bytes, Some(found), wanted).ok_or("a mapped image is malformed")?);
        }
    }
    // A library without code has symbols too.
    let mut seen: Vec<&Mapping> = Vec::new();
    let known = |mapping: &Mapping| scope.images.iter().any(|i| i.any_mapping().is_some_and(|m| m.same_file(mapping)));
    for mapping in scope.mappings.iter().filter(|m| m.is_file() && !m.is_payload() && !m.perms.shared && !known(m)) {
        if seen.iter().any(|other| other.same_file(mapping)) {
            continue;
        }
        seen.push(mapping);
        let file = scope.process.open_mapped(mapping).map_err(|_| UNREADABLE)?;
        let mut magic = [0; 4];
        let is_elf = std::os::unix::fs::FileExt::read_exact_at(&file, &mut magic, 0).is_ok() && magic == elf::ELFMAG;
        if is_elf {
            let bytes = read_image(&file, scope.limits).map_err(|_| UNREADABLE)?;
            modules.push(module(&bytes, None, wanted).ok_or("a mapped image is malformed")?);
        }
    }
    Ok(modules)
}

fn module<'a>(bytes: &[u8], found: Option<&'a Found>, wanted: &[ImportSlot]) -> Option<Module<'a>> {
    let header = FileHeader64::<Le>::parse(bytes).ok()?;
    let sections = header.sections(Le, bytes).ok()?;
    let mut module = Module {
        found,
        sha256: found.map_or_else(|| ContentHash::of(bytes), |found| found.image.sha256),
        soname: None,
        needed: Vec::new(),
        definitions: Vec::new(),
        slots: Vec::new(),
        foreign: Vec::new(),
        stubs: Vec::new(),
    };
    if let Some((entries, strings)) = sections.dynamic(Le, bytes).ok()? {
        let strings = sections.strings(Le, bytes, strings).ok()?;
        for entry in entries {
            let text = || {
                let name = strings.get(u32::try_from(entry.d_val(Le)).ok()?).ok()?;
                String::from_utf8(name.to_vec()).ok()
            };
            match entry.d_tag(Le) {
                elf::DT_SONAME => module.soname = Some(text()?),
                elf::DT_NEEDED => module.needed.push(text()?),
                _ => {}
            }
        }
    }
    let table = sections.symbols(Le, bytes, elf::SHT_DYNSYM).ok()?;
    let versions = sections.versions(Le, bytes).ok()?;
    let version = |index| -> Option<(Option<String>, bool)> {
        let Some(versions) = &versions else { return Some((None, false)) };
        let at = versions.version_index(Le, index);
        let name = versions.version(at.into()).ok()?.map(|version| String::from_utf8(version.name().to_vec()));
        Some((name.transpose().ok()?, at.is_hidden()))
    };
    let mut named = std::collections::BTreeMap::new();
    let mut undefined = BTreeSet::new();
    for (index, symbol) in table.enumerate() {
        let Ok(name) = table.symbol_name(Le, symbol) else { return None };
        if symbol.is_undefined(Le) {
            undefined.insert(index.0);
        }
        let Some(import) = wanted.iter().find(|import| import.symbol.as_bytes() == name) else { continue };
        let (version, hidden) = version(index)?;
        if symbol.is_undefined(Le) {
            named.insert(index.0, (import.symbol.clone(), version));
            // A program at fixed addresses uses its own stub as the function's address, and so
            // does the loader for everybody who asks for that.
            if symbol.st_value(Le) != 0 {
                module.stubs.push(import.symbol.clone());
            }
            continue;
        }
        if symbol.st_bind() == elf::STB_LOCAL {
            continue;
        }
        module.definitions.push(Definition {
            symbol: import.symbol.clone(),
            version,
            hidden,
            value: Va::new(symbol.st_value(Le)),
            kind: kind(symbol),
        });
    }
    for section in sections.iter() {
        let Ok(Some((relocations, _))) = section.rela(Le, bytes) else { continue };
        for relocation in relocations {
            let bound = matches!(relocation.r_type(Le, false), elf::R_X86_64_GLOB_DAT | elf::R_X86_64_JUMP_SLOT);
            let index = usize::try_from(relocation.r_sym(Le, false)).ok()?;
            if bound && undefined.contains(&index) {
                module.foreign.push(Va::new(relocation.r_offset(Le)));
            }
            if let Some((symbol, version)) = named.get(&index).filter(|_| bound) {
                module.slots.push((symbol.clone(), version.clone(), Va::new(relocation.r_offset(Le))));
            }
        }
    }
    Some(module)
}

fn kind(symbol: &elf::Sym64<Le>) -> Kind {
    let bound = matches!(symbol.st_bind(), elf::STB_GLOBAL | elf::STB_WEAK);
    let visible = matches!(symbol.st_visibility(), elf::STV_DEFAULT | elf::STV_PROTECTED);
    let placed = symbol.st_shndx(Le).0 < elf::SHN_LORESERVE;
    match symbol.st_type() {
        elf::STT_FUNC | elf::STT_OBJECT | elf::STT_NOTYPE if bound && visible && placed => Kind::Plain,
        elf::STT_GNU_IFUNC if bound && visible && placed => Kind::Indirect,
        _ => Kind::Other,
    }
}

/// Indices of the images that the program or the patched image needs, these included.
fn certain(modules: &[Module<'_>], program: ContentHash, image: ContentHash) -> BTreeSet<usize> {
    let roots = modules.iter().enumerate().filter(|(_, module)| [program, image].contains(&module.sha256));
    let mut waiting: Vec<usize> = roots.map(|(index, _)| index).collect();
    let mut certain = BTreeSet::new();
    while let Some(index) = waiting.pop() {
        if !certain.insert(index) {
            continue;
        }
        let needed = modules.get(index).map(|module| module.needed.as_slice()).unwrap_or_default();
        let named = |module: &Module<'_>| module.soname.as_ref().is_some_and(|soname| needed.contains(soname));
        waiting.extend(modules.iter().enumerate().filter(|(_, module)| named(module)).map(|(index, _)| index));
    }
    certain
}

fn one(
    scope: &Scope<'_>,
    modules: &[Module<'_>],
    certain: &BTreeSet<usize>,
    image: &Found,
    import: &ImportSlot,
) -> Result<RuntimeAddr, &'static str> {
    let defines = |module: &Module<'_>| module.definitions.iter().any(|found| found.symbol == import.symbol);
    let mut all = modules.iter().enumerate().filter(|(_, module)| defines(module));
    if modules.iter().any(|module| module.stubs.contains(&import.symbol)) {
        return Err("a stub of the program is its address for everybody");
    }
    if let Some(own) = import.own {
        if all.any(|(_, module)| module.sha256 != image.image.sha256) {
            return Err("the image defines it, and so does another one that is mapped");
        }
        return self::own(image, own).ok_or("the patched image is mapped more than once");
    }
    let (index, module) = all.next().ok_or("no mapped image defines it")?;
    if all.next().is_some() {
        return Err("more than one mapped image defines it");
    }
    let provider = module.found.ok_or("the image that defines it has no code")?;
    if provider.image.sha256 == image.image.sha256 {
        return Err("the patched image itself defines it");
    }
    if !certain.contains(&index) && !is_bound_to(scope, modules, image, provider) {
        return Err("neither the program nor the patched image needs or uses the image that defines it");
    }
    let mut named = module.definitions.iter().filter(|found| found.symbol == import.symbol);
    let found = match &import.version {
        Some(version) => named.find(|found| found.version.as_ref() == Some(version)).ok_or("it has another version")?,
        // A reference without a version may bind to any that is not hidden: there has to be one.
        None => match (named.next(), named.next()) {
            (Some(only), None) if !only.hidden => only,
            _ => return Err("it has more than one version"),
        },
    };
    let bias = provider.bias().ok_or("the image that defines it is mapped more than once")?;
    match found.kind {
        Kind::Plain => Ok(found.value.in_process(bias)),
        Kind::Indirect => bound_already(scope, modules, provider, import),
        Kind::Other => Err("it is no plain function or object"),
    }
}

/// Whether the loader has bound anything of `image` to code of `provider`: then it finds
/// `provider` when it searches for `image`, and keeps it as long.
fn is_bound_to(scope: &Scope<'_>, modules: &[Module<'_>], image: &Found, provider: &Found) -> bool {
    let Some(bias) = image.bias() else { return false };
    let own = modules.iter().filter(|module| module.sha256 == image.image.sha256);
    own.flat_map(|module| &module.foreign).any(|slot| {
        let mut value = [0; 8];
        let read = scope.memory.read_exact(slot.in_process(bias), &mut value).is_ok();
        read && provider.text_holds(RuntimeAddr::new(u64::from_le_bytes(value)))
    })
}

/// What the loader has put into another image's slot for the same indirect function.
fn bound_already(
    scope: &Scope<'_>,
    modules: &[Module<'_>],
    provider: &Found,
    import: &ImportSlot,
) -> Result<RuntimeAddr, &'static str> {
    for module in modules {
        let Some(bias) = module.found.and_then(Found::bias) else { continue };
        let same = |slot: &&(String, Option<String>, Va)| slot.0 == import.symbol && slot.1 == import.version;
        for (_, _, at) in module.slots.iter().filter(same) {
            let mut value = [0; 8];
            if scope.memory.read_exact(at.in_process(bias), &mut value).is_err() {
                continue;
            }
            // A slot that is not bound yet leads into the stubs of its own image.
            let value = RuntimeAddr::new(u64::from_le_bytes(value));
            if provider.text_holds(value) {
                return Ok(value);
            }
        }
    }
    Err("it is an indirect function, and no image has bound it yet")
}
