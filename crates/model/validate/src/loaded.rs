//! Whether two images are the same to whoever runs them.
//!
//! Debug links and the like lie behind everything that is loaded. Where nothing else differs,
//! nothing has to be understood to know that nothing changed.

use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, pod};

/// What the header says of section headers, which nobody loads by (`elf(5)`): `e_shoff`, and
/// `e_shentsize`, `e_shnum` and `e_shstrndx`.
const OF_SECTIONS: [core::ops::Range<usize>; 2] = [0x28..0x30, 0x3a..0x40];

/// Every byte that the kernel or the loader maps is the same, and mapped alike.
///
/// Program headers are compared as they stand; what lies in the file between and behind the
/// segments is not.
pub fn loads_the_same(old: &[u8], new: &[u8]) -> bool {
    matches!((segments(old), segments(new)), (Some(a), Some(b)) if a.len() > 1 && a == b)
}

/// Program headers as bytes, and the contents of what is loaded, without what it says of sections.
fn segments(file: &[u8]) -> Option<Vec<Vec<u8>>> {
    let header = FileHeader64::<Endianness>::parse(file).ok()?;
    let endian = header.endian().ok()?;
    let programs = header.program_headers(endian, file).ok()?;
    let mut all = vec![pod::bytes_of_slice(programs).to_vec()];
    for program in programs.iter().filter(|program| program.p_type(endian) == PT_LOAD) {
        let mut bytes = program.data(endian, file).ok()?.to_vec();
        let from = usize::try_from(program.p_offset(endian)).ok()?;
        for range in OF_SECTIONS {
            // Only the first one has the file's header in it.
            for at in range.filter_map(|at| at.checked_sub(from)) {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = 0;
                }
            }
        }
        all.push(bytes);
    }
    Some(all)
}
