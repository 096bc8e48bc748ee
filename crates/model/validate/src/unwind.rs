//! Unwind information of functions that stay as they are: an exception that
//! passes through the old function has to do what it would do in the new one.
//!
//! Call frame instructions are compared as bytes. Exception tables (Itanium C++
//! ABI, "Exception Handling Tables") are compared as bytes but for their type
//! entries, which are references.

use crate::correspond::Correspondence;
use crate::decode::Use;
use crate::image::{Frame, Image, Place};
use crate::index::Pair;
use crate::invalid::Invalid;
use salve_elf::Va;

pub(crate) struct Unwind<'c, 'a> {
    map: &'c Correspondence<'a>,
    /// Pairs of CIEs (old, new) that were found to be the same.
    same: Vec<(usize, usize)>,
}

impl<'c, 'a> Unwind<'c, 'a> {
    pub(crate) fn new(map: &'c Correspondence<'a>) -> Self {
        Self { map, same: Vec::new() }
    }

    pub(crate) fn check(&mut self, pair: &Pair) -> Result<(), Invalid> {
        let (old, new) = (frames(self.map.old, pair.old), frames(self.map.new, pair.new));
        let same = old.len() == new.len() && old.iter().zip(new).all(|(a, b)| self.is_same(pair, a, b));
        if same { Ok(()) } else { Err(Invalid::Unwind { old: pair.old, new: pair.new }) }
    }

    fn is_same(&mut self, pair: &Pair, old: &Frame<'_>, new: &Frame<'_>) -> bool {
        let inside = |range: salve_elf::VaRange, from: Va| range.start().wrapping_distance_from(from);
        inside(old.range, pair.old.start()) == inside(new.range, pair.new.start())
            && old.range.len_bytes() == new.range.len_bytes()
            && same_instructions(old.instructions, new.instructions)
            && self.is_same_common(old.common, new.common)
            && match (old.handlers, new.handlers) {
                (None, None) => true,
                (Some(a), Some(b)) => self.is_same_table(a, b).is_some_and(|same| same),
                _ => false,
            }
    }

    fn is_same_common(&mut self, old: usize, new: usize) -> bool {
        if self.same.contains(&(old, new)) {
            return true;
        }
        let (Some(a), Some(b)) = (self.map.old.common.get(old), self.map.new.common.get(new)) else { return false };
        let personality = match (a.personality, b.personality) {
            (None, None) => true,
            (Some(Place::Direct(a)), Some(Place::Direct(b))) => self.map.check(a, b, Use::Call).is_ok(),
            (Some(Place::Indirect(a)), Some(Place::Indirect(b))) => self.map.check_slot(a, b).is_ok(),
            _ => false,
        };
        let same = personality && a.rules == b.rules;
        if same {
            self.same.push((old, new));
        }
        same
    }

    fn is_same_table(&self, old: Va, new: Va) -> Option<bool> {
        let (a, b) = (Table::read(self.map.old, old)?, Table::read(self.map.new, new)?);
        if a.head != b.head || a.tail != b.tail || a.types != b.types || a.encoding != b.encoding {
            return Some(false);
        }
        for index in 1..=a.types {
            let (to, tn) = (a.type_entry(self.map.old, index)?, b.type_entry(self.map.new, index)?);
            let same = match (to, tn) {
                (None, None) => true,
                (Some(to), Some(tn)) if a.encoding & 0x80 != 0 => self.map.check_slot(to, tn).is_ok(),
                (Some(to), Some(tn)) => self.map.check(to, tn, Use::Pointer).is_ok(),
                _ => false,
            };
            if !same {
                return Some(false);
            }
        }
        Some(true)
    }
}

/// Equal but for the `DW_CFA_nop`s (zero bytes) that pad an entry to its
/// alignment (DWARF 5 §6.4.1), which depends on where the entry lies.
fn same_instructions(old: &[u8], new: &[u8]) -> bool {
    let common = old.len().min(new.len());
    let padding = |bytes: &[u8]| bytes.get(common..).is_some_and(|rest| rest.iter().all(|b| *b == 0));
    old.get(..common) == new.get(..common) && padding(old) && padding(new)
}

fn frames<'i, 'a>(image: &'i Image<'a>, range: salve_elf::VaRange) -> &'i [Frame<'a>] {
    let from = image.frames.partition_point(|f| f.range.end() <= range.start());
    let to = image.frames.partition_point(|f| f.range.start() < range.end());
    image.frames.get(from..to).unwrap_or_default()
}

/// An exception table, with its type entries set apart.
struct Table<'a> {
    /// Header, call sites and action records.
    head: &'a [u8],
    /// Exception specifications, after the type entries.
    tail: &'a [u8],
    encoding: u8,
    /// Past the last type entry; entry `i` lies `i` entries before it.
    base: Va,
    types: u64,
}

const OMIT: u8 = 0xff;

impl<'a> Table<'a> {
    fn read(image: &Image<'a>, at: Va) -> Option<Self> {
        let bytes = image.section_at(at).filter(|s| s.is_constant())?.from(at)?;
        let mut cursor = Cursor { bytes, at: 0 };
        // A landing pad base other than the function's start is not written by compilers for x86-64.
        if cursor.byte()? != OMIT {
            return None;
        }
        let encoding = cursor.byte()?;
        let base = if encoding == OMIT {
            None
        } else {
            let distance = usize::try_from(cursor.uleb()?).ok()?;
            Some(cursor.at.checked_add(distance)?)
        };
        // Call sites as ULEB128.
        if cursor.byte()? != 1 {
            return None;
        }
        let sites_len = usize::try_from(cursor.uleb()?).ok()?;
        let actions_at = cursor.at.checked_add(sites_len)?;
        let mut sites = Cursor { bytes: bytes.get(..actions_at)?, at: cursor.at };
        let mut scan =
            Scan { actions: bytes, actions_at, base, end: actions_at, types: 0, specs_end: base.unwrap_or(0) };
        while sites.at < actions_at {
            let (_start, _len, _pad, action) = (sites.uleb()?, sites.uleb()?, sites.uleb()?, sites.uleb()?);
            if action != 0 {
                scan.actions_from(action)?;
            }
        }
        let head = bytes.get(..scan.end)?;
        let tail = base.map_or(Some(&[][..]), |base| bytes.get(base..scan.specs_end))?;
        let base = at.checked_add(u64::try_from(base.unwrap_or(0)).ok()?)?;
        Some(Self { head, tail, encoding, base, types: scan.types })
    }

    /// Where type entry `index` leads; inner `None` is "catch everything".
    #[expect(clippy::option_option, reason = "not readable, and catching everything, are different answers")]
    fn type_entry(&self, image: &Image<'_>, index: u64) -> Option<Option<Va>> {
        // Only distances of 32 bits from the entry itself, direct or through a slot.
        if self.encoding & 0x7f != 0x1b {
            return None;
        }
        let at = self.base.checked_sub(index.checked_mul(4)?)?;
        let distance = image.array(at).map(i32::from_le_bytes)?;
        Some((distance != 0).then(|| at.wrapping_offset(i64::from(distance))))
    }
}

/// Follows the action records that call sites name.
struct Scan<'a> {
    actions: &'a [u8],
    actions_at: usize,
    base: Option<usize>,
    /// Past the last byte of any record seen.
    end: usize,
    specs_end: usize,
    types: u64,
}

impl Scan<'_> {
    fn actions_from(&mut self, action: u64) -> Option<()> {
        let mut at = self.actions_at.checked_add(usize::try_from(action.checked_sub(1)?).ok()?)?;
        // Chains are short; a longer one is malformed and perhaps a loop.
        for _ in 0..4096 {
            let mut cursor = Cursor { bytes: self.actions, at };
            let filter = cursor.sleb()?;
            let link_at = cursor.at;
            let link = cursor.sleb()?;
            self.end = self.end.max(cursor.at);
            match filter {
                0 => {}
                1.. => self.types = self.types.max(filter.unsigned_abs()),
                _ => self.specification(filter.unsigned_abs())?,
            }
            if link == 0 {
                return Some(());
            }
            at = link_at.checked_add_signed(isize::try_from(link).ok()?)?;
        }
        None
    }

    fn specification(&mut self, filter: u64) -> Option<()> {
        let at = self.base?.checked_add(usize::try_from(filter.checked_sub(1)?).ok()?)?;
        let mut cursor = Cursor { bytes: self.actions, at };
        loop {
            let index = cursor.uleb()?;
            self.types = self.types.max(index);
            if index == 0 {
                self.specs_end = self.specs_end.max(cursor.at);
                return Some(());
            }
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at = self.at.checked_add(1)?;
        Some(byte)
    }

    fn uleb(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..63_u32).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn sleb(&mut self) -> Option<i64> {
        let mut value = 0_i64;
        for shift in (0..56_u32).step_by(7) {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let sign = byte & 0x40 != 0;
                return Some(if sign { value | -1_i64 << shift.saturating_add(7) } else { value });
            }
        }
        None
    }
}
