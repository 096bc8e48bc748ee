//! What the loader leaves in a word of a table, by the image's file alone.
//!
//! A payload in a process says what its words held before. That is about to be written back,
//! and a process is foreign; so it is compared with what the file and its relocations say
//! (`R_X86_64_RELATIVE`, psABI §4.4.1; `DT_RELR`, gABI).

use object::LittleEndian as Le;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use salve_elf::Va;
use salve_patch::WordValue;

const RELA_BYTES: usize = 24;
const WORD_BYTES: u64 = 8;

/// A number, or an address of the image; `None` for what the loader finds out otherwise,
/// and for what the file does not hold.
pub(crate) fn loaded(bytes: &[u8], va: Va) -> Option<WordValue> {
    let file = File::of(bytes)?;
    if let Some((kind, addend)) = file.relocation(va) {
        return (kind == elf::R_X86_64_RELATIVE.0).then_some(WordValue::Old(Va::new(addend)));
    }
    let held = file.word(file.offset(va.raw())?)?;
    Some(if file.is_packed_relative(va)? { WordValue::Old(Va::new(held)) } else { WordValue::Number(held) })
}

struct File<'d> {
    bytes: &'d [u8],
    /// Address, offset and length in the file of what is loaded.
    loads: Vec<(u64, u64, u64)>,
    dynamic: Vec<(i64, u64)>,
}

impl<'d> File<'d> {
    fn of(bytes: &'d [u8]) -> Option<Self> {
        let header = FileHeader64::<Le>::parse(bytes).ok()?;
        let segments = header.program_headers(Le, bytes).ok()?;
        let loads = segments.iter().filter(|segment| segment.p_type(Le) == elf::PT_LOAD);
        let loads = loads.map(|load| (load.p_vaddr(Le), load.p_offset(Le), load.p_filesz(Le))).collect();
        let dynamic = segments.iter().find(|segment| segment.p_type(Le) == elf::PT_DYNAMIC)?;
        let (words, _) = dynamic.data(Le, bytes).ok()?.as_chunks::<8>();
        let (pairs, _) = words.as_chunks::<2>();
        let pairs = pairs.iter().map(|[tag, value]| (i64::from_le_bytes(*tag), u64::from_le_bytes(*value)));
        Some(Self { bytes, loads, dynamic: pairs.take_while(|(tag, _)| *tag != 0).collect() })
    }

    fn offset(&self, va: u64) -> Option<u64> {
        self.loads.iter().find_map(|(start, offset, len)| {
            let into = va.checked_sub(*start).filter(|into| into < len)?;
            offset.checked_add(into)
        })
    }

    fn word(&self, offset: u64) -> Option<u64> {
        let at = usize::try_from(offset).ok()?;
        self.bytes.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
    }

    /// The bytes of a table that the dynamic section describes; none where it has none.
    fn table(&self, (at, len): (i64, i64)) -> &'d [u8] {
        let of = |wanted: i64| self.dynamic.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
        let range = of(at).and_then(|va| self.offset(va)).zip(of(len)).and_then(|(offset, len)| {
            let from = usize::try_from(offset).ok()?;
            Some(from..from.checked_add(usize::try_from(len).ok()?)?)
        });
        range.and_then(|range| self.bytes.get(range)).unwrap_or_default()
    }

    /// Kind and addend of the relocation at exactly `va`.
    fn relocation(&self, va: Va) -> Option<(u32, u64)> {
        let table = self.table((elf::DT_RELA.0, elf::DT_RELASZ.0));
        let (entries, _) = table.as_chunks::<RELA_BYTES>();
        entries.iter().find_map(|entry| {
            let (words, _) = entry.as_chunks::<8>();
            let [at, info, addend] = words else { return None };
            let kind = u32::try_from(u64::from_le_bytes(*info) & 0xffff_ffff).ok()?;
            (u64::from_le_bytes(*at) == va.raw()).then_some((kind, u64::from_le_bytes(*addend)))
        })
    }

    /// Whether the packed table of relative relocations names `va`; `None` if it is broken.
    fn is_packed_relative(&self, va: Va) -> Option<bool> {
        let (words, _) = self.table((elf::DT_RELR.0, elf::DT_RELRSZ.0)).as_chunks::<8>();
        let mut base = 0_u64;
        for word in words.iter().map(|word| u64::from_le_bytes(*word)) {
            if word & 1 == 0 {
                if word == va.raw() {
                    return Some(true);
                }
                base = word.checked_add(WORD_BYTES)?;
                continue;
            }
            let index = va.raw().checked_sub(base).filter(|into| into.is_multiple_of(WORD_BYTES));
            let index = index.and_then(|into| into.checked_div(WORD_BYTES)).filter(|index| *index < 63);
            if index
                .and_then(|index| word.checked_shr(u32::try_from(index).ok()?.checked_add(1)?))
                .is_some_and(|rest| rest & 1 == 1)
            {
                return Some(true);
            }
            base = base.checked_add(63_u64.checked_mul(WORD_BYTES)?)?;
        }
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::process::Process;
    use salve_elf::{LoadBias, RuntimeAddr};

    struct Row {
        name: &'static str,
        number: u64,
    }

    static ROWS: [Row; 2] = [Row { name: "first", number: 0x1234_5678 }, Row { name: "second", number: 7 }];

    fn address<T>(of: &T) -> u64 {
        u64::try_from(core::ptr::from_ref(of).addr()).unwrap()
    }

    /// This very program, as the loader made it.
    #[test]
    fn a_table_holds_what_its_file_says() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let own = Process::open(std::process::id().cast_signed()).unwrap();
        let memory = Memory::open_to_read(&own).unwrap();
        let mappings = own.mappings(&crate::Limits::default()).unwrap();
        let here = crate::maps::find(&mappings, RuntimeAddr::new(address(&ROWS))).unwrap();
        let program = mappings.iter().find(|mapping| mapping.same_file(here)).unwrap();
        let bias = LoadBias::between(Va::new(0), program.start);
        let (mut addresses, mut numbers) = (0, 0);
        for at in (address(&ROWS)..).step_by(8).take(size_of_val(&ROWS) / 8).map(RuntimeAddr::new) {
            let value = loaded(&bytes, at.in_file(bias)).unwrap();
            let now = memory.word(at).unwrap();
            assert_eq!(u64::from_le_bytes(value.bytes(bias, salve_patch::Distance::new(0))), now, "{value:?}");
            match value {
                WordValue::Old(_) => addresses += 1,
                WordValue::Number(_) => numbers += 1,
                WordValue::Payload(_) => panic!("{value:?}"),
            }
        }
        // Each row has an address, a length and a number.
        assert_eq!((addresses, numbers), (ROWS.len(), 2 * ROWS.len()));
        assert_eq!(
            ROWS.iter().map(|row| row.number + u64::try_from(row.name.len()).unwrap()).sum::<u64>(),
            0x1234_568a
        );
    }

    #[test]
    fn what_is_cut_off_or_lies_nowhere_says_nothing() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(loaded(&bytes, Va::new(u64::MAX - 3)), None);
        for len in [0, 16, 64, 100, 1000] {
            assert_eq!(loaded(&bytes[..len], Va::new(0x1000)), None, "{len}");
        }
    }
}
