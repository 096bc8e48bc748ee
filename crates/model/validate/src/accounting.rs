//! Every byte of code belongs to exactly one claim, or is padding.

use crate::decode::Decoder;
use crate::image::{Image, Role};
use crate::invalid::{Invalid, Side};
use crate::lockstep::{code, nop_len};
use salve_elf::{Va, VaRange};

/// Checks one side; returns the bytes accounted for.
pub(crate) fn check(
    image: &Image<'_>,
    side: Side,
    decoder: &Decoder,
    functions: impl Iterator<Item = VaRange>,
    data: impl Iterator<Item = VaRange>,
) -> Result<u64, Invalid> {
    let mut claimed = Vec::new();
    for range in functions {
        code(image, side, range)?;
        claimed.push(range);
    }
    claimed.extend(data.filter(|r| image.section_at(r.start()).is_some_and(|s| s.role == Role::Code)));
    claimed.sort_unstable();
    for two in claimed.windows(2) {
        if let [a, b] = two
            && a.overlaps(*b)
        {
            return Err(Invalid::Overlap { side, range: *b });
        }
    }
    let mut bytes = 0_u64;
    for section in image.sections.iter().filter(|s| s.is_code()) {
        bytes = bytes.saturating_add(section.range.len_bytes());
        if section.role == Role::Stubs {
            continue;
        }
        let from = claimed.partition_point(|r| r.start() < section.range.start());
        let mut at = section.range.start();
        for range in claimed.iter().skip(from).take_while(|r| r.start() < section.range.end()) {
            check_padding(image, side, decoder, at, range.start())?;
            at = range.end();
        }
        check_padding(image, side, decoder, at, section.range.end())?;
    }
    Ok(bytes)
}

/// Bytes between functions: traps, zeros, or instructions that do nothing.
fn check_padding(image: &Image<'_>, side: Side, decoder: &Decoder, from: Va, to: Va) -> Result<(), Invalid> {
    let unaccounted = |at| Invalid::Unaccounted { side, at };
    let mut at = from;
    while at < to {
        let range = VaRange::try_from((at, to)).map_err(|_| unaccounted(at))?;
        let bytes = image.bytes(range).ok_or(unaccounted(at))?;
        let len = match bytes {
            [0 | 0xcc | 0x90, ..] => 1,
            _ => nop_len(decoder, bytes).ok_or(unaccounted(at))?,
        };
        at = at.checked_add(len).ok_or(unaccounted(at))?;
    }
    Ok(())
}
