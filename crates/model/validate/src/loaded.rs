//! Whether two images are the same to whoever runs them.
//!
//! Debug links and the like lie behind everything that is loaded, and the build id is a name.
//! Where nothing else differs, nothing has to be understood to know that nothing changed.

use object::elf::{ELF_NOTE_GNU, FileHeader64, NT_GNU_BUILD_ID, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, pod};

/// What the header says of section headers, which nobody loads by (`elf(5)`): `e_shoff`, and
/// `e_shentsize`, `e_shnum` and `e_shstrndx`.
const OF_SECTIONS: [core::ops::Range<usize>; 2] = [0x28..0x30, 0x3a..0x40];

/// Every byte that the kernel or the loader maps is the same, and mapped alike, but for the
/// build id.
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
    let mut names: Vec<core::ops::Range<usize>> = Vec::new();
    for program in programs {
        let Some(mut notes) = program.notes(endian, file).ok()? else { continue };
        while let Some(note) = notes.next().ok()? {
            if note.name() == ELF_NOTE_GNU && note.n_type(endian) == NT_GNU_BUILD_ID {
                names.extend(place_in(file, note.desc()));
            }
        }
    }
    for program in programs.iter().filter(|program| program.p_type(endian) == PT_LOAD) {
        let mut bytes = program.data(endian, file).ok()?.to_vec();
        let from = usize::try_from(program.p_offset(endian)).ok()?;
        for range in OF_SECTIONS.iter().chain(&names) {
            // Only one has the file's header in it, or a name.
            for at in range.clone().filter_map(|at| at.checked_sub(from)) {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = 0;
                }
            }
        }
        all.push(bytes);
    }
    Some(all)
}

/// Where in the file some of its bytes lie.
fn place_in(file: &[u8], bytes: &[u8]) -> Option<core::ops::Range<usize>> {
    let from = bytes.as_ptr().addr().checked_sub(file.as_ptr().addr())?;
    Some(from..from.checked_add(bytes.len())?)
}
