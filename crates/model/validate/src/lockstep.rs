//! Functions said to be the same, read side by side.
//!
//! Only the new function is decoded. The old one has the same length and the same
//! bytes but for displacements and immediates, on whose values decoding does not
//! depend, so it decodes alike. A byte that differs outside a reference, or a
//! reference that does not correspond, is a difference.

use crate::correspond::{Correspondence, Where};
use crate::decode::{Base, Decoder, Field, Flow, Instr, Use};
use crate::image::{Image, Role, Section};
use crate::index::Pair;
use crate::invalid::{Invalid, Side};
use salve_elf::{Va, VaRange};
use salve_patch::{NoiseKind, NoiseSite};

/// What reading all code yields for later checks.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) references: u64,
    /// Places in data that something refers to, on either side.
    pub(crate) old_data: Vec<Va>,
    pub(crate) new_data: Vec<Va>,
    /// Places whose address is taken and that look like jump tables.
    pub(crate) tables: Vec<TableUse>,
    /// The same for old code that does not stay.
    pub(crate) old_tables: Vec<Va>,
    /// The payload refers to tables of pointers that it brings.
    pub(crate) brought: bool,
}

/// A jump table as its user sees it. `old` is `None` for a carried function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableUse {
    pub(crate) new: Va,
    pub(crate) old: Option<Va>,
}

pub(crate) struct Lockstep<'c, 'a> {
    pub(crate) map: &'c Correspondence<'a>,
    pub(crate) decoder: &'c Decoder,
    pub(crate) seen: &'c mut Seen,
}

/// One instruction of the new image and the old bytes that stand for it.
struct Step<'b> {
    instr: Instr,
    new_at: Va,
    old_at: Va,
    new: &'b [u8],
    old: &'b [u8],
    site: Option<NoiseKind>,
}

impl Lockstep<'_, '_> {
    /// Proves one pair that stays as it is. `sites` are sorted by `new_at`.
    pub(crate) fn check(&mut self, pair: &Pair, sites: &[NoiseSite]) -> Result<(), Invalid> {
        let (old, new) = (code(self.map.old, Side::Old, pair.old)?, code(self.map.new, Side::New, pair.new)?);
        if old.len() != new.len() {
            return Err(Invalid::LengthDiffers { old: pair.old, new: pair.new });
        }
        let mut offset = 0_usize;
        let mut last = Flow::Next;
        let mut sites = sites.iter();
        let mut next_site = sites.next();
        while offset < new.len() {
            let at = u64::try_from(offset).unwrap_or(u64::MAX);
            let new_at = pair.new.start().wrapping_offset(at.cast_signed());
            let old_at = pair.old.start().wrapping_offset(at.cast_signed());
            let site = next_site.filter(|site| site.new_at <= new_at);
            if let Some(site) = site {
                if (site.new_at, site.old_at) != (new_at, old_at) {
                    return Err(Invalid::NoiseSite { new_at: site.new_at });
                }
                next_site = sites.next();
            }
            let rest = new.get(offset..).unwrap_or_default();
            let instr = decode(self.decoder, rest, new_at, self.map.new.fixed, Side::New)?;
            let end = offset.saturating_add(instr.len);
            let bytes = new.get(offset..end).zip(old.get(offset..end));
            let (new, old) = bytes.ok_or(Invalid::Straddles { side: Side::New, at: new_at })?;
            self.map.marks.starts(new_at);
            if !instr.is_nop {
                last = instr.flow;
            }
            self.step(&Step { instr, new_at, old_at, new, old, site: site.map(|s| s.kind) })?;
            offset = end;
        }
        if let Some(site) = next_site {
            return Err(Invalid::NoiseSite { new_at: site.new_at });
        }
        match last {
            Flow::Next | Flow::Branch => self.check_continues(pair),
            // What follows a call of a function that does not return is nobody's.
            Flow::Jump | Flow::Call | Flow::IndirectJump | Flow::IndirectCall | Flow::Stop | Flow::SystemCall => Ok(()),
        }
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), Invalid> {
        if step.instr.thread_relative && !self.map.tls_same {
            return Err(Invalid::TlsLayout { new_at: step.new_at });
        }
        if step.new != step.old {
            Self::check_bytes(step)?;
        }
        for field in step.instr.fields() {
            let (Some(new), Some(old)) = (field.read(step.new), field.read(step.old)) else {
                return Err(Invalid::Undecodable { side: Side::New, at: step.new_at });
            };
            self.check_field(step, field, old, new)?;
        }
        Ok(())
    }

    /// Bytes may differ in references, and at a site of noise in its immediate.
    fn check_bytes(step: &Step<'_>) -> Result<(), Invalid> {
        let immediate = step.instr.len.saturating_sub(step.instr.immediate);
        for (offset, _) in step.new.iter().zip(step.old).enumerate().filter(|(_, (new, old))| new != old) {
            let referred = step.instr.fields().any(|f| f.covers(offset));
            let noise = step.site == Some(NoiseKind::Immediate) && offset >= immediate;
            if !referred && !noise {
                return Err(Invalid::BytesDiffer { old_at: step.old_at, new_at: step.new_at });
            }
        }
        Ok(())
    }

    fn check_field(&mut self, step: &Step<'_>, field: Field, old: i64, new: i64) -> Result<(), Invalid> {
        let len = i64::try_from(step.instr.len).unwrap_or(i64::MAX);
        let (old_target, new_target) = match field.base {
            Base::Next => (
                step.old_at.wrapping_offset(len).wrapping_offset(old),
                step.new_at.wrapping_offset(len).wrapping_offset(new),
            ),
            Base::Absolute => (Va::new(old.cast_unsigned()), Va::new(new.cast_unsigned())),
        };
        let found = match field.base {
            Base::Next => self.map.check(old_target, new_target, field.role),
            Base::Absolute => self.map.check_number(old, new, field.role),
        };
        match found {
            Ok(Where::Number) => return Ok(()),
            Ok(Where::Code | Where::Data | Where::Import) => {}
            Err(why) => match step.site {
                Some(NoiseKind::String) if self.is_string_pair(old_target, new_target) => {}
                // A number that differs in an immediate that is noise, in an image where it might be an address.
                Some(NoiseKind::Immediate) if field.base == Base::Absolute && !self.is_address(old, new) => {}
                Some(_) | None => {
                    let (old_at, new_at) = (step.old_at, step.new_at);
                    return Err(Invalid::Reference { old_at, new_at, old_target, new_target, why });
                }
            },
        }
        self.seen.references = self.seen.references.saturating_add(1);
        self.note_data(old_target, new_target, field.role);
        Ok(())
    }

    fn is_address(&self, old: i64, new: i64) -> bool {
        let within = |image: &Image<'_>, value: i64| image.span.contains(Va::new(value.cast_unsigned()));
        within(self.map.old, old) || within(self.map.new, new)
    }

    fn is_string_pair(&self, old: Va, new: Va) -> bool {
        is_string(self.map.old, old) && is_string(self.map.new, new)
    }

    fn note_data(&mut self, old: Va, new: Va, role: Use) {
        if self.map.new.section_at(new).is_none_or(Section::is_code) {
            return;
        }
        self.seen.old_data.push(old);
        self.seen.new_data.push(new);
        if matches!(role, Use::Address) && looks_like_table(self.map.new, new) {
            self.seen.tables.push(TableUse { new, old: Some(old) });
        }
    }

    /// Control runs past the last instruction: into the same thing on both sides, or it is a difference.
    fn check_continues(&self, pair: &Pair) -> Result<(), Invalid> {
        let old = skip_nops(self.map.old, self.decoder, pair.old.end());
        let new = skip_nops(self.map.new, self.decoder, pair.new.end());
        let traps = |image: &Image<'_>, at: Va| image.array::<1>(at) == Some([0xcc]);
        if traps(self.map.old, old) && traps(self.map.new, new) {
            return Ok(());
        }
        let continues = self.map.check(old, new, Use::Jump).is_ok();
        if continues { Ok(()) } else { Err(Invalid::FallsThrough { old: pair.old, new: pair.new }) }
    }
}

/// Bytes of a claimed range, which has to be in one section of ordinary code.
pub(crate) fn code<'a>(image: &Image<'a>, side: Side, range: VaRange) -> Result<&'a [u8], Invalid> {
    let section = image.section_at(range.start()).filter(|s| s.role == Role::Code && !range.is_empty());
    section.and_then(|_| image.bytes(range)).ok_or(Invalid::OutsideCode { side, range })
}

pub(crate) fn decode(decoder: &Decoder, bytes: &[u8], at: Va, absolute: bool, side: Side) -> Result<Instr, Invalid> {
    decoder.decode(bytes, absolute).ok_or(Invalid::Undecodable { side, at })
}

pub(crate) fn is_string(image: &Image<'_>, at: Va) -> bool {
    let Some(section) = image.section_at(at).filter(|s| s.is_constant()) else { return false };
    section.from(at).is_some_and(|bytes| bytes.contains(&0))
}

/// Whether the first entry of a table of distances at `at` would lead into code.
pub(crate) fn looks_like_table(image: &Image<'_>, at: Va) -> bool {
    let constant = image.section_at(at).is_some_and(Section::is_constant);
    constant && at.raw().is_multiple_of(4) && table_entry(image, at, at).is_some()
}

/// Where the entry at `at` of the table at `table` leads, if into code.
pub(crate) fn table_entry(image: &Image<'_>, table: Va, at: Va) -> Option<Va> {
    let distance = image.array(at).map(i32::from_le_bytes)?;
    let target = table.wrapping_offset(i64::from(distance));
    image.section_at(target).filter(|s| s.role == Role::Code).map(|_| target)
}

pub(crate) fn skip_nops(image: &Image<'_>, decoder: &Decoder, mut at: Va) -> Va {
    while let Some(rest) = image.section_at(at).and_then(|s| s.from(at))
        && let Some(len) = nop_len(decoder, rest)
        && let Some(next) = at.checked_add(len)
    {
        at = next;
    }
    at
}

/// Length of the no-operation at the start of `bytes`.
pub(crate) fn nop_len(decoder: &Decoder, bytes: &[u8]) -> Option<u64> {
    // `xchg %ax,%ax` is not called a no-operation by every decoder.
    if bytes.starts_with(&[0x66, 0x90]) {
        return Some(2);
    }
    let instr = decoder.decode(bytes, false)?;
    if instr.is_nop { u64::try_from(instr.len).ok() } else { None }
}
