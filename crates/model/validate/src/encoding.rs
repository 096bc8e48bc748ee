//! Where the parts of an instruction's encoding stand (SDM vol. 2 §2.1 and
//! appendix A): prefixes, opcode, `ModRM`, SIB, displacement, immediate.
//!
//! The length is given; what is left after the displacement is the immediate.
//! That needs one fact per opcode only, whether it has a `ModRM` byte.

use crate::decode::{Base, Field, Use};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoding {
    /// Has a memory operand relative to the following instruction.
    pub(crate) is_next_relative: bool,
    /// Is a direct branch; its immediate is the distance.
    pub(crate) is_branch: bool,
    pub(crate) displacement_at: usize,
    /// 0, 1, 4, or 8 for the `moffs` forms.
    pub(crate) displacement_width: usize,
    immediate_at: usize,
    pub(crate) immediate_width: usize,
}

/// An instruction that the decoder does not know, read without it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Undecoded {
    pub(crate) len: usize,
    pub(crate) has_memory: bool,
}

impl Undecoded {
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        Self::padlock(bytes).or_else(|| Self::vector(bytes))
    }

    /// VIA's ciphers, hashes and random numbers: the registers say where the memory is, and
    /// a `ModRM` byte which of them it is (VIA, "Programming Guide" to its ciphers).
    fn padlock(bytes: &[u8]) -> Option<Self> {
        let repeat = usize::from(bytes.first() == Some(&0xf3));
        match *bytes.get(repeat..)? {
            [0x0f, 0xa6 | 0xa7, modrm, ..] if modrm & 0xc7 == 0xc0 => {
                Some(Self { len: repeat.checked_add(3)?, has_memory: false })
            }
            _ => None,
        }
    }

    /// What VEX, EVEX and XOP prefixes start is regular: a `ModRM` byte, and an immediate
    /// that the map and for one map the opcode decide (SDM vol. 2 §2.3 and §2.7; AMD APM
    /// vol. 6 for XOP and FMA4). None of it branches. This reads the few that the
    /// decoder does not know.
    fn vector(bytes: &[u8]) -> Option<Self> {
        let legacy = bytes.iter().take_while(|b| matches!(b, 0x67 | 0x2e | 0x36 | 0x3e | 0x26)).count();
        let (opcode_at, immediate) = match *bytes.get(legacy..)? {
            [0xc5, _, opcode, ..] => (2_usize, vex_immediate(1, opcode)?),
            [0xc4, map, _, opcode, ..] => (3, vex_immediate(map & 0x1f, opcode)?),
            [0x62, map, _, _, opcode, ..] => (4, vex_immediate(map & 7, opcode)?),
            [0x8f, map, _, _, ..] => match map & 0x1f {
                8 => (3, 1),
                9 => (3, 0),
                10 => (3, 4),
                _ => return None,
            },
            _ => return None,
        };
        let after = legacy.checked_add(opcode_at)?.checked_add(1)?;
        let modrm = *bytes.get(after)?;
        let mut len = after.checked_add(1)?.checked_add(immediate)?;
        let (mode, rm) = (modrm >> 6, modrm & 7);
        let mut has_no_base = rm == 5;
        if mode != 3 && rm == 4 {
            has_no_base = *bytes.get(after.checked_add(1)?)? & 7 == 5;
            len = len.checked_add(1)?;
        }
        len = len.checked_add(match mode {
            0 if has_no_base => 4,
            1 => 1,
            2 => 4,
            _ => 0,
        })?;
        (len <= bytes.len()).then_some(Self { len, has_memory: mode != 3 })
    }
}

fn vex_immediate(map: u8, opcode: u8) -> Option<usize> {
    match map {
        // `vzeroupper` has no `ModRM` byte; the decoder knows it.
        1 if opcode == 0x77 => None,
        1 => Some(usize::from(matches!(opcode, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6))),
        2 => Some(0),
        3 => Some(1),
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Map {
    One,
    /// `0f`
    Two,
    /// Behind a two-byte VEX prefix.
    Vex,
    /// `0f 38`, `0f 3a`, and everything behind a longer VEX, EVEX or XOP prefix.
    Three,
}

impl Encoding {
    /// The parts of the one instruction that `bytes` are.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let (map, opcode_at) = opcode_place(bytes)?;
        let opcode = *bytes.get(opcode_at)?;
        let after = opcode_at.checked_add(1)?;
        let mut at = after;
        let mut displacement_width = 0;
        let mut is_next_relative = false;
        let mut is_xbegin = false;
        if has_modrm(map, opcode) {
            let modrm = *bytes.get(at)?;
            at = at.checked_add(1)?;
            let (mode, rm) = (modrm >> 6, modrm & 7);
            let mut has_no_base = rm == 5;
            if mode != 3 && rm == 4 {
                has_no_base = *bytes.get(at)? & 7 == 5;
                at = at.checked_add(1)?;
            }
            displacement_width = match mode {
                0 if has_no_base => 4,
                1 => 1,
                2 => 4,
                _ => 0,
            };
            is_next_relative = mode == 0 && rm == 5;
            is_xbegin = map == Map::One && opcode == 0xc7 && modrm == 0xf8;
        } else if map == Map::One && (0xa0..=0xa3).contains(&opcode) {
            displacement_width = bytes.len().checked_sub(at)?;
        }
        let immediate_at = at.checked_add(displacement_width)?;
        let immediate_width = bytes.len().checked_sub(immediate_at)?;
        let is_branch = is_xbegin
            || match map {
                Map::One => matches!(opcode, 0x70..=0x7f | 0xe0..=0xe3 | 0xe8 | 0xe9 | 0xeb),
                Map::Two => matches!(opcode, 0x80..=0x8f),
                Map::Vex | Map::Three => false,
            };
        Some(Self {
            is_next_relative,
            is_branch,
            displacement_at: at,
            displacement_width,
            immediate_at,
            immediate_width,
        })
    }

    /// The displacement as a field, if it has the value that the decoder saw.
    pub(crate) fn displacement(&self, bytes: &[u8], value: i64, base: Base, role: Use) -> Option<Field> {
        let field = Field { offset: self.displacement_at, width: self.displacement_width, base, role };
        (field.width >= 4 && agrees(&field, bytes, value)).then_some(field)
    }

    /// The immediate as a field, if it has the value that the decoder saw.
    pub(crate) fn immediate(&self, bytes: &[u8], value: i64, base: Base, role: Use) -> Option<Field> {
        let field = Field { offset: self.immediate_at, width: self.immediate_width, base, role };
        agrees(&field, bytes, value).then_some(field)
    }
}

fn agrees(field: &Field, bytes: &[u8], value: i64) -> bool {
    let Some(read) = field.read(bytes) else { return false };
    // The decoder reports some 32-bit numbers unsigned; a distance is signed.
    read == value || field.base == Base::Absolute && field.width == 4 && read & 0xffff_ffff == value & 0xffff_ffff
}

fn opcode_place(bytes: &[u8]) -> Option<(Map, usize)> {
    let is_legacy_prefix =
        |b: &&u8| matches!(b, 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65);
    let legacy = bytes.iter().take_while(is_legacy_prefix).count();
    let rex = bytes.iter().skip(legacy).take_while(|b| matches!(b, 0x40..=0x4f)).count();
    let at = legacy.checked_add(rex)?;
    let second = bytes.get(at.checked_add(1)?).copied();
    let (skip, map) = match (bytes.get(at)?, second) {
        (0x0f, Some(0x38 | 0x3a)) => (2, Map::Three),
        (0x0f, Some(_)) => (1, Map::Two),
        (0xc5, Some(_)) => (2, Map::Vex),
        (0xc4, Some(_)) => (3, Map::Three),
        (0x62, Some(_)) => (4, Map::Three),
        // AMD's XOP is told from `pop` by its map number.
        (0x8f, Some(second)) if second & 0x1f >= 8 => (3, Map::Three),
        _ => (0, Map::One),
    };
    Some((map, at.checked_add(skip)?))
}

fn has_modrm(map: Map, opcode: u8) -> bool {
    match map {
        Map::One => match opcode {
            0x00..=0x3f => opcode & 7 < 4,
            0x63
            | 0x69
            | 0x6b
            | 0x80..=0x8f
            | 0xc0
            | 0xc1
            | 0xc6
            | 0xc7
            | 0xd0..=0xd3
            | 0xd8..=0xdf
            | 0xf6
            | 0xf7
            | 0xfe
            | 0xff => true,
            _ => false,
        },
        Map::Two => !matches!(
            opcode,
            0x05..=0x09 | 0x0b | 0x0e | 0x30..=0x37 | 0x77 | 0x80..=0x8f | 0xa0..=0xa2 | 0xa8..=0xaa | 0xc8..=0xcf
        ),
        // `vzeroupper` and `vzeroall` are the only ones without.
        Map::Vex => opcode != 0x77,
        Map::Three => true,
    }
}
