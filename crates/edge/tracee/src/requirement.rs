//! What a livepatch requires of a library that is mapped beside its image.
//!
//! The only kind is a constant that a dependency's headers baked into the code:
//! the library's own function that returns it is read, not run. Accepted are
//! exactly the shapes `[endbr64] mov eax, imm32; ret`, `[endbr64] mov rax, simm32;
//! ret` and `[endbr64] mov rax, imm64; ret` (Intel SDM, volume 2, MOV).

use crate::image::{Found, read_image};
use crate::limits::Limits;
use crate::outcome::{NotApplied, RequirementFinding};
use crate::process::Process;
use object::LittleEndian as Le;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, Sym};
use salve_elf::Va;
use salve_patch::Requirement;

/// Checks one requirement; unknown means not met.
pub(crate) fn check(
    process: &Process,
    images: &[Found],
    path: &str,
    requirement: &Requirement,
    limits: &Limits,
) -> Result<(), NotApplied> {
    let Requirement::DependencyConstant { soname, symbol, value, mask, why } = requirement;
    let not_met = |found| NotApplied::RequirementNotMet {
        path: path.to_owned(),
        soname: soname.clone(),
        why: why.clone(),
        found,
    };
    let mut named = images.iter().filter(|image| image.image.soname.as_ref() == Some(soname));
    let library = match (named.next(), named.next()) {
        (Some(one), None) => one,
        (None, _) => return Err(not_met(RequirementFinding::NotMapped)),
        (Some(_), Some(_)) => return Err(not_met(RequirementFinding::Ambiguous)),
    };
    let bytes = library
        .any_mapping()
        .and_then(|mapping| process.open_mapped(mapping).ok())
        .and_then(|file| read_image(&file, limits).ok())
        .ok_or_else(|| not_met(RequirementFinding::Unreadable))?;
    // Read again, so compared again: it has to be the file that was hashed.
    if salve_elf::ContentHash::of(&bytes) != library.image.sha256 {
        return Err(not_met(RequirementFinding::Unreadable));
    }
    let code = exported(&bytes, library, symbol)
        .ok_or_else(|| not_met(RequirementFinding::NoSymbol { symbol: symbol.clone() }))?;
    let found = constant(code).ok_or_else(|| not_met(RequirementFinding::NotConstant { symbol: symbol.clone() }))?;
    if (found ^ value) & mask == 0 {
        Ok(())
    } else {
        Err(not_met(RequirementFinding::Differs { symbol: symbol.clone(), value: found }))
    }
}

/// The code of an exported function: all of its stated size.
fn exported<'a>(bytes: &'a [u8], library: &Found, name: &str) -> Option<&'a [u8]> {
    let header = FileHeader64::<Le>::parse(bytes).ok()?;
    let table = header.sections(Le, bytes).ok()?.symbols(Le, bytes, elf::SHT_DYNSYM).ok()?;
    let symbol = table.iter().find(|symbol| {
        !symbol.is_undefined(Le)
            && symbol.st_type() == elf::STT_FUNC
            && table.symbol_name(Le, symbol).is_ok_and(|found| found == name.as_bytes())
    })?;
    let offset = library.file.elf.as_ref()?.file_offset(Va::new(symbol.st_value(Le)))?;
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(symbol.st_size(Le)).ok()?)?)
}

/// The constant that a function returns, if that is all it does.
fn constant(code: &[u8]) -> Option<u64> {
    let body = code.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(code);
    match *body {
        [0xb8, a, b, c, d, 0xc3] => Some(u64::from(u32::from_le_bytes([a, b, c, d]))),
        [0x48, 0xc7, 0xc0, a, b, c, d, 0xc3] => Some(i64::from(i32::from_le_bytes([a, b, c, d])).cast_unsigned()),
        [0x48, 0xb8, a, b, c, d, e, f, g, h, 0xc3] => Some(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_functions_that_do_nothing_but_return_a_constant_are_read() {
        assert_eq!(constant(&[0xb8, 0x20, 0x01, 0x00, 0x30, 0xc3]), Some(0x3000_0120));
        assert_eq!(constant(&[0xf3, 0x0f, 0x1e, 0xfa, 0xb8, 1, 0, 0, 0x80, 0xc3]), Some(0x8000_0001));
        assert_eq!(constant(&[0x48, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xc3]), Some(u64::MAX));
        assert_eq!(constant(&[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0xc3]), Some(0x0807_0605_0403_0201));
        // A load, another instruction before the return, nothing at all.
        assert_eq!(constant(&[0x8b, 0x05, 0, 0, 0, 0, 0xc3]), None);
        assert_eq!(constant(&[0xb8, 1, 0, 0, 0, 0x90, 0xc3]), None);
        assert_eq!(constant(&[]), None);
    }
}
