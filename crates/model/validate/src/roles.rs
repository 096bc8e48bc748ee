//! That a changed function and the one its detour leads to are versions of one.
//!
//! A claim of change says that two entries correspond, and nothing about why. Who calls
//! the old entry, or holds its address, gets the new function; so something besides the
//! claim has to say that this is what the new image would do:
//! * code that stays, a slot in a run, an export, or the loader leads to both in the
//!   same place;
//! * both are where the program starts, or have one name that no other function has;
//! * two versions of a changed function take both addresses in the same place: by two
//!   equal instructions in straight code that is equal around them, from the branch or
//!   call before to the one behind (jumps within the function are gone along), every
//!   reference of which corresponds; and, where that is claimed, neither version has a
//!   second such place, with which it might have been exchanged.
//!
//! What the payload refers to was resolved by means of the claims, so it is no witness.

use crate::correspond::Correspondence;
use crate::decode::{Base, Decoder, Field, Flow, Instr, Use};
use crate::image::{Binding, Image, Role, Section};
use crate::index::{Class, Pair};
use crate::invalid::{Invalid, Side};
use crate::lockstep::{code, decode};
use salve_elf::{Va, VaRange};
use salve_patch::{Claims, TakingSite};
use std::collections::BTreeMap;

/// Which pairs something has led to since this was last asked.
pub(crate) fn reached(map: &Correspondence<'_>) -> Vec<bool> {
    map.index.pairs.iter().map(|pair| pair.reached.replace(false)).collect()
}

/// Marks as reached what was reached before as well.
pub(crate) fn restore(map: &Correspondence<'_>, before: [&[bool]; 2]) {
    for reached in before {
        for (pair, _) in map.index.pairs.iter().zip(reached).filter(|(_, reached)| **reached) {
            pair.reached.set(true);
        }
    }
}

/// Every detour leads to a version of its function. `by_staying` and what is reached now
/// are what does not depend on the payload.
pub(crate) fn check(
    map: &Correspondence<'_>,
    decoder: &Decoder,
    claims: &Claims,
    by_staying: &[bool],
) -> Result<(), Invalid> {
    for (pair, reached) in map.index.pairs.iter().zip(by_staying) {
        pair.witnessed.set(*reached || pair.reached.get());
    }
    let mut takers = Takers { map, decoder, read: BTreeMap::new() };
    for site in &claims.takings {
        takers.check(site)?;
    }
    let unproven = |pair: &&Pair| pair.class == Class::Changed && pair.detoured && !pair.witnessed.get();
    match map.index.pairs.iter().filter(unproven).find(|pair| !is_named(map, pair)) {
        Some(pair) => Err(Invalid::RoleUnproven { old_entry: pair.old.start() }),
        None => Ok(()),
    }
}

/// One name, and no other function's, or the place where the program starts.
fn is_named(map: &Correspondence<'_>, pair: &Pair) -> bool {
    let (old, new) = (pair.old.start(), pair.new.start());
    let names = |image: &Image<'_>, entry: Va, name: &[u8]| {
        let mut bearers = image.static_names.iter().filter(|(_, n)| *n == name);
        bearers.next().is_some_and(|(at, _)| *at == entry) && bearers.all(|(at, _)| *at == entry)
    };
    let own = map.old.static_names.iter().filter(|(at, _)| *at == old);
    (old, new) == (map.old.entry, map.new.entry)
        || own.into_iter().any(|(_, name)| names(map.old, old, name) && names(map.new, new, name))
}

/// Nothing leads to a function that is claimed to be unreached: no slot and no export of
/// either image, nor the loader. (Code that stays was read, and leads to none.)
pub(crate) fn check_unreached(map: &Correspondence<'_>) -> Result<(), Invalid> {
    for pair in map.index.pairs.iter().filter(|pair| pair.class == Class::Unreached) {
        for (side, image, range) in [(Side::Old, map.old, pair.old), (Side::New, map.new, pair.new)] {
            let slot = image.slots.iter().any(|s| s.binding.target().is_some_and(|to| range.contains(to)));
            let export = image.symbols.iter().any(|s| s.defined.is_some_and(|d| range.contains(d.at)));
            let run = image.run_by_loader.iter().flatten().any(|at| range.contains(*at));
            if slot || export || run || range.contains(image.entry) {
                return Err(Invalid::Reached { side, entry: range.start() });
            }
        }
    }
    Ok(())
}

/// One instruction, where it is, and its bytes.
#[derive(Clone, Copy)]
struct Read<'a> {
    at: Va,
    instr: Instr,
    bytes: &'a [u8],
}

impl Read<'_> {
    fn next(&self) -> Va {
        self.at.wrapping_offset(i64::try_from(self.instr.len).unwrap_or(i64::MAX))
    }

    fn target(&self, field: Field) -> Option<Va> {
        let value = field.read(self.bytes)?;
        match field.base {
            Base::Next => Some(self.next().wrapping_offset(value)),
            Base::Absolute => None,
        }
    }
}

/// Changed functions as they were read, by where they start.
struct Takers<'c, 'a> {
    map: &'c Correspondence<'a>,
    decoder: &'c Decoder,
    read: BTreeMap<(bool, Va), Vec<Read<'a>>>,
}

impl Takers<'_, '_> {
    fn check(&mut self, site: &TakingSite) -> Result<(), Invalid> {
        let TakingSite { new_at, old_at, unique } = *site;
        let wrong = Invalid::Taking { old_at, new_at };
        let taker = self.map.index.pair_at(new_at).map(|p| (p.old, p.new, p.class));
        let Some((old, new, Class::Changed)) = taker else { return Err(wrong) };
        self.read(Side::Old, old)?;
        self.read(Side::New, new)?;
        let read = |side: bool, range: VaRange| self.read.get(&(side, range.start())).map(Vec::as_slice);
        let (Some(a), Some(b)) = (read(false, old), read(true, new)) else { return Err(wrong) };
        let find = |code: &[Read<'_>], at: Va| code.binary_search_by_key(&at, |r| r.at).ok();
        let (Some(i), Some(j)) = (find(a, old_at), find(b, new_at)) else { return Err(wrong) };
        let around = Around { map: self.map, ranges: (old, new), code: (a, b) };
        let taken = around.taken((i, j)).filter(|_| around.is_equal((i, j)) && (!unique || around.is_unique((i, j))));
        let pair = taken.and_then(|entry| self.map.index.pair_at(entry)).ok_or(wrong)?;
        pair.witnessed.set(true);
        Ok(())
    }

    fn read(&mut self, side: Side, range: VaRange) -> Result<(), Invalid> {
        let image = if side == Side::New { self.map.new } else { self.map.old };
        let key = (side == Side::New, range.start());
        if self.read.contains_key(&key) {
            return Ok(());
        }
        let bytes = code(image, side, range)?;
        let mut instructions = Vec::new();
        let mut offset = 0_usize;
        while offset < bytes.len() {
            let at = range.start().wrapping_offset(i64::try_from(offset).unwrap_or(i64::MAX));
            let instr = decode(self.decoder, bytes.get(offset..).unwrap_or_default(), at, image.fixed, side)?;
            let end = offset.saturating_add(instr.len);
            let own = bytes.get(offset..end).ok_or(Invalid::Straddles { side, at })?;
            instructions.push(Read { at, instr, bytes: own });
            offset = end;
        }
        self.read.insert(key, instructions);
        Ok(())
    }
}

/// Two places of two versions of a function.
struct Around<'t, 'c, 'a> {
    map: &'c Correspondence<'a>,
    ranges: (VaRange, VaRange),
    code: (&'t [Read<'a>], &'t [Read<'a>]),
}

impl Around<'_, '_, '_> {
    fn at(&self, (i, j): (usize, usize)) -> Option<(&Read<'_>, &Read<'_>)> {
        self.code.0.get(i).zip(self.code.1.get(j))
    }

    /// The entry, in the new image, of the changed pair whose addresses both make or load.
    fn taken(&self, at: (usize, usize)) -> Option<Va> {
        let (a, b) = self.at(at)?;
        let mut fields = b.instr.fields();
        let (field, None) = (fields.next()?, fields.next()) else { return None };
        let value = matches!(field.role, Use::Address | Use::Access(Some(8)));
        let alike = a.instr.fields().eq(b.instr.fields()) && a.instr.len == b.instr.len && same_bytes(a, b, |_| false);
        let entries = held(self.map.old, a.target(field)?).zip(held(self.map.new, b.target(field)?));
        let (old, new) = entries.filter(|_| value && alike)?;
        let pair = self.map.index.pair_at(new).filter(|p| p.class == Class::Changed)?;
        ((old, new) == (pair.old.start(), pair.new.start())).then_some(new)
    }

    /// From the branch or call before, or the start, through the one behind.
    fn is_equal(&self, at: (usize, usize)) -> bool {
        let begins = |code: &[Read<'_>], index: usize| {
            let before = index.checked_sub(1).and_then(|before| code.get(before));
            before.is_none_or(|before| before.instr.flow != Flow::Next)
        };
        let mut before = at;
        loop {
            match (begins(self.code.0, before.0), begins(self.code.1, before.1)) {
                (true, true) => break,
                (false, false) => before = (before.0.saturating_sub(1), before.1.saturating_sub(1)),
                _ => return false,
            }
            if !self.at(before).is_some_and(|(a, b)| self.same(a, b)) {
                return false;
            }
        }
        let (Some(old), Some(new)) = (path(self.code.0, at.0), path(self.code.1, at.1)) else { return false };
        let mut behind = old.iter().zip(&new).skip(1).map(|(i, j)| self.at((*i, *j)));
        old.len() == new.len() && behind.all(|pair| pair.is_some_and(|(a, b)| self.same(a, b)))
    }

    /// Nowhere else does either version take an address together with the same.
    fn is_unique(&self, at: (usize, usize)) -> bool {
        let like = |image: &Image<'_>, code: &[Read<'_>], index: usize| {
            let telling = |index: usize| -> Option<Vec<usize>> {
                let mut whole: Vec<usize> = (begin(code, index)..index).collect();
                whole.extend(path(code, index)?);
                whole.retain(|index| code.get(*index).is_some_and(|read| tells(read, code)));
                Some(whole)
            };
            let Some(own) = telling(index) else { return 0 };
            let others = (0..code.len()).filter(|other| code.get(*other).is_some_and(|read| may_take(image, read)));
            // One that cannot be followed may be like any other.
            let alike = |other: &usize| telling(*other).is_none_or(|all| is_alike((&own, index), (&all, *other), code));
            others.filter(alike).count()
        };
        like(self.map.old, self.code.0, at.0) == 1 && like(self.map.new, self.code.1, at.1) == 1
    }

    /// The same instruction, and every reference of it corresponds. Where in its frame a
    /// function keeps something is its own business.
    fn same(&self, a: &Read<'_>, b: &Read<'_>) -> bool {
        let framed = |offset: usize| a.instr.in_frame == b.instr.in_frame && b.instr.is_in_frame(offset);
        same_but_for_targets(a, b, framed)
            && b.instr.fields().all(|field| match a.target(field).zip(b.target(field)) {
                Some((old, new)) => self.corresponds(old, new, field.role),
                // In a fixed image a number that may be an address proves nothing.
                None => false,
            })
    }

    fn corresponds(&self, old: Va, new: Va, role: Use) -> bool {
        if self.ranges.0.contains(old) && self.ranges.1.contains(new) {
            return matches!(role, Use::Jump | Use::Call);
        }
        let (a, b) = (self.map.old.section_at(old), self.map.new.section_at(new));
        match (a, b) {
            // Asking the map would count as a reference that somebody makes.
            (Some(a), Some(b)) if a.role == Role::Code && b.role == Role::Code => {
                self.map.index.pair_at(new).is_some_and(|pair| {
                    let offset = new.wrapping_distance_from(pair.new.start());
                    let inside = offset == 0 || pair.stays();
                    inside && pair.class != Class::Unreached && pair.old.start().wrapping_offset(offset) == old
                })
            }
            (Some(a), Some(b)) if a.is_constant() && b.is_constant() => {
                let constants = match role {
                    Use::Access(Some(len)) => (value(a, old, len), value(b, new, len)),
                    Use::Address => (telling(a, old), telling(b, new)),
                    // How much of it is used is not known.
                    _ => return false,
                };
                constants.0.is_some() && constants.0 == constants.1
            }
            _ => self.map.check(old, new, role).is_ok(),
        }
    }
}

/// Whether it makes or loads the address of code of this image.
fn may_take(image: &Image<'_>, read: &Read<'_>) -> bool {
    let mut values = read.instr.fields().filter(|field| matches!(field.role, Use::Address | Use::Access(Some(8))));
    values.any(|field| read.target(field).is_some_and(|target| held(image, target).is_some()))
}

/// Whether it holds something that another place might have in its stead. What is in
/// registers is not compared, so moving it about tells nothing; nor do jumps that are gone along.
fn tells(read: &Read<'_>, code: &[Read<'_>]) -> bool {
    match read.instr.flow {
        Flow::Next => read.instr.immediate > 0 || read.instr.fields().next().is_some(),
        Flow::Jump => landing(read, code).is_none(),
        Flow::Branch | Flow::Call | Flow::IndirectJump | Flow::IndirectCall | Flow::Stop | Flow::SystemCall => true,
    }
}

/// Where in the function a direct jump leads.
fn landing(jump: &Read<'_>, code: &[Read<'_>]) -> Option<usize> {
    let target = jump.instr.fields().find_map(|field| jump.target(field))?;
    code.binary_search_by_key(&target, |read| read.at).ok()
}

/// Two places of one image that differ in nothing that tells one from another, but for
/// what is taken.
fn is_alike(one: (&[usize], usize), other: (&[usize], usize), code: &[Read<'_>]) -> bool {
    let same = |i: usize, j: usize| {
        let (Some(a), Some(b)) = (code.get(i), code.get(j)) else { return false };
        same_but_for_targets(a, b, |_| false) && b.instr.fields().all(|field| a.target(field) == b.target(field))
    };
    let both = one.0.iter().zip(other.0);
    one.0.len() == other.0.len()
        && both.into_iter().all(|(i, j)| (*i == one.1) == (*j == other.1) && (*i == one.1 || same(*i, *j)))
}

/// `but` tells bytes that may differ.
fn same_but_for_targets(a: &Read<'_>, b: &Read<'_>, but: impl Fn(usize) -> bool) -> bool {
    a.instr.len == b.instr.len
        && a.instr.flow == b.instr.flow
        && a.instr.fields().eq(b.instr.fields())
        && same_bytes(a, b, but)
}

/// Equal but for references, and what else is excepted.
fn same_bytes(a: &Read<'_>, b: &Read<'_>, but: impl Fn(usize) -> bool) -> bool {
    let differs = a.bytes.iter().zip(b.bytes).enumerate().filter(|(_, (x, y))| x != y);
    differs.into_iter().all(|(offset, _)| but(offset) || b.instr.fields().any(|field| field.covers(offset)))
}

/// Where the straight code before an instruction begins.
fn begin(code: &[Read<'_>], index: usize) -> usize {
    let before = code.get(..index).and_then(|before| before.iter().rposition(|read| read.instr.flow != Flow::Next));
    before.map_or(0, |before| before.saturating_add(1))
}

/// What is run from an instruction on, through the next branch or call or out of the
/// function; `None` where that goes on for long.
fn path(code: &[Read<'_>], from: usize) -> Option<Vec<usize>> {
    const LONGEST: usize = 256;
    let mut path = Vec::new();
    let mut at = from;
    while path.len() < LONGEST {
        let read = code.get(at)?;
        path.push(at);
        at = match read.instr.flow {
            Flow::Next => at.checked_add(1)?,
            Flow::Jump => match landing(read, code) {
                Some(next) => next,
                None => return Some(path),
            },
            Flow::Branch | Flow::Call | Flow::IndirectJump | Flow::IndirectCall | Flow::Stop | Flow::SystemCall => {
                return Some(path);
            }
        };
    }
    None
}

/// The function at this address, or the one that the loader's slot there leads to.
fn held(image: &Image<'_>, at: Va) -> Option<Va> {
    match image.section_at(at)?.role {
        Role::Code => Some(at),
        Role::Got => match image.slot(at)?.binding {
            Binding::Relative(target) => Some(target),
            _ => None,
        },
        Role::Stubs | Role::Data => None,
    }
}

/// What an instruction reads that uses so many bytes.
fn value<'a>(section: &Section<'a>, at: Va, len: u8) -> Option<&'a [u8]> {
    section.from(at)?.get(..usize::from(len))
}

/// A zero-terminated text that is one: of eight bytes, or with more of its kind behind it.
/// The first bytes of a number or a structure may look like a short one.
fn telling<'a>(section: &Section<'a>, at: Va) -> Option<&'a [u8]> {
    const LONG: usize = 8;
    const TELLING: usize = 16;
    let bytes = section.from(at)?;
    let text = bytes.get(..bytes.iter().position(|b| *b == 0)?)?;
    let printable = |b: &u8| matches!(b, b'\t'..=b'\r' | 0x1b | b' '..=b'~' | 0x80..);
    if text.is_empty() || !text.iter().all(printable) {
        return None;
    }
    if text.len() >= LONG {
        return Some(text);
    }
    let bytes = bytes.get(..TELLING)?;
    let empty = bytes.windows(2).any(|two| two == [0, 0]);
    (!empty && bytes.iter().all(|b| *b == 0 || printable(b))).then_some(bytes)
}
