//! What replaced code takes a field, an argument or a word for.
//!
//! [`crate::encoding`] looks at what is stored, instruction by instruction. Here the
//! two versions of a function are compared field by field, wherever their
//! instructions went: with which numbers a field is compared for equality (what
//! marks "none", what a state is called), whether it is calculated with as an
//! integer or as a floating-point number, whether an argument is an address or the
//! number of an element, and whether bytes are swapped on the way in and out. And
//! all replaced functions together: a field that none of them knew before and that
//! some now write and others read is a new one, which objects that exist lack.
//!
//! A field is an offset from the start of an object of unknown type, or a variable.
//! Signs of a change, never proofs that there is none.

use crate::carry::Carried;
use crate::followed::Versions;
use crate::layout::import_at;
use crate::registry;
use crate::uses::Place;
use iced_x86::{ConditionCode, FlowControl, Instruction, Mnemonic, OpKind};
use salve_code::affine::{Access, Forms, Origin, argument};
use salve_elf::{Va, VaRange};
use salve_match::{ImageDiff, Side};
use salve_patch::{Evidence, Reason};
use std::collections::{BTreeMap, BTreeSet};

/// Offsets from the start of objects, with widths in bytes.
type Places = BTreeSet<(i64, usize)>;

/// A function whose versions were looked at: what is compared with all others.
struct Seen {
    name: String,
    old_at: Va,
    new_at: Va,
    /// Where objects are accessed.
    old: Places,
    written: Places,
    read: Places,
    /// Instructions that swap bytes, in either version.
    swaps: (usize, usize),
    /// Calls that make letters small or capital, in either version.
    folds: (usize, usize),
}

/// Replaced functions that are followed for one image; with more of them every question is
/// answered with a doubt, which asks for review.
pub(crate) const MOST_FOLLOWED: usize = 400;

/// What was found so far.
pub(crate) struct Meaning {
    replaced: usize,
    all: Vec<Seen>,
    evidence: Vec<Evidence>,
}

impl Meaning {
    pub(crate) fn of(carried: &Carried) -> Self {
        Self { replaced: carried.pairs.len(), all: Vec::new(), evidence: Vec::new() }
    }

    pub(crate) fn look(&mut self, diff: &ImageDiff<'_, '_>, versions: &Versions<'_>) {
        if self.replaced > MOST_FOLLOWED {
            return;
        }
        let Versions { f, g, before, after, .. } = *versions;
        let seen = Seen {
            name: g.display_name(),
            old_at: f.range.start(),
            new_at: g.range.start(),
            old: accessed(before, |_| true),
            written: accessed(after, |a| a.writes),
            read: accessed(after, |a| !a.writes),
            swaps: (swaps(&diff.old, f.range), swaps(&diff.new, g.range)),
            folds: (folds(&diff.old, f.range), folds(&diff.new, g.range)),
        };
        if before.too_large || after.too_large {
            self.evidence.push(seen.evidence("is too large to be followed".to_owned()));
        } else {
            let old = Known::of(&diff.old, before, &|va| Some(va));
            let new = Known::of(&diff.new, after, &|va| Some(diff.data.old_of(va, &diff.new)?.old()));
            let said = old.marks_changed(&new).into_iter();
            let said = said.chain(old.kinds_changed(&new)).chain(arguments_changed(before, after));
            self.evidence.extend(said.map(|how| seen.evidence(how)));
        }
        self.all.push(seen);
    }

    pub(crate) fn reasons(self, diff: &ImageDiff<'_, '_>, carried: &Carried) -> Vec<Reason> {
        if self.replaced > MOST_FOLLOWED {
            let summary = format!("{} functions are replaced, more than are followed", self.replaced);
            return vec![registry::FIELD_MEANING.because(summary, Vec::new())];
        }
        let Self { all, evidence: mut meaning, .. } = self;
        meaning.extend(begun_or_ceased(&all, "swaps bytes", |v| v.swaps));
        meaning.extend(begun_or_ceased(&all, "folds letters", |v| v.folds));
        let mut reasons = Vec::new();
        if !meaning.is_empty() {
            let summary = "replaced code takes what is kept for something else";
            reasons.push(registry::FIELD_MEANING.because(summary, meaning));
        }
        let added = added(diff, carried, &all);
        if !added.is_empty() {
            let summary = "replaced code writes and reads a field that old code does not know";
            reasons.push(registry::FIELD_ADDED.because(summary, added));
        }
        reasons
    }
}

impl Seen {
    fn evidence(&self, seen: String) -> Evidence {
        Evidence { function: Some(self.name.clone()), old_va: Some(self.old_at), new_va: Some(self.new_at), seen }
    }
}

/// Where two functions at least begin or cease to do something to values, those that pass
/// between them are in another form.
fn begun_or_ceased(all: &[Seen], what: &str, times: impl Fn(&Seen) -> (usize, usize)) -> Vec<Evidence> {
    let changed: Vec<(&Seen, (usize, usize))> = all.iter().map(|v| (v, times(v))).collect();
    let changed = changed.into_iter().filter(|(_, (before, after))| (*before == 0) != (*after == 0));
    let how = |(v, (before, after)): (&Seen, (usize, usize))| {
        v.evidence(format!("{what} in {after} places, before in {before}"))
    };
    let evidence: Vec<Evidence> = changed.map(how).collect();
    if evidence.len() >= 2 { evidence } else { Vec::new() }
}

/// What one version of a function shows about fields.
#[derive(Default)]
struct Known {
    /// Numbers that a field is compared with for equality.
    marks: BTreeMap<(Place, usize), BTreeSet<u64>>,
    integers: BTreeSet<(Place, usize)>,
    floats: BTreeSet<(Place, usize)>,
}

impl Known {
    fn of(side: &Side<'_, '_>, forms: &Forms, old_of: &dyn Fn(Va) -> Option<Va>) -> Self {
        let field = |access: &Access| match access.address.terms.as_slice() {
            [(Origin::Static(at), 1)] => {
                old_of(Va::new(*at).wrapping_offset(access.address.constant)).map(Place::Variable)
            }
            [(_, 1)] => Some(Place::Field(access.address.constant)),
            _ => None,
        };
        let mut known = Self::default();
        let loads: BTreeMap<u64, &Access> = forms.accesses.iter().map(|a| (a.at.raw(), a)).collect();
        for tested in &forms.tested {
            // Bytes are text to parse more often than states.
            let loaded = match tested.value.terms.as_slice() {
                [(Origin::Made(at, _), 1)] if tested.value.constant == 0 => loads.get(at),
                _ => None,
            };
            let Some(access) = loaded.filter(|a| a.len_bytes >= 2 && a.len_bytes == tested.len_bytes) else { continue };
            if let Some(field) = field(access).filter(|_| for_equality(side, tested.at)) {
                known.marks.entry((field, access.len_bytes)).or_default().insert(tested.with);
            }
        }
        for access in forms.accesses.iter().filter(|a| matches!(a.len_bytes, 4 | 8)) {
            let Some(field) = field(access) else { continue };
            if access.is_float {
                known.floats.insert((field, access.len_bytes));
            } else if access.is_integer {
                known.integers.insert((field, access.len_bytes));
            }
        }
        known
    }

    /// A number that a field was compared with gave way to another one.
    fn marks_changed(&self, new: &Self) -> Vec<String> {
        let mut said = Vec::new();
        for ((field, len_bytes), before) in &self.marks {
            let Some(after) = new.marks.get(&(*field, *len_bytes)) else { continue };
            let gone: Vec<u64> = before.difference(after).copied().collect();
            let appeared: Vec<u64> = after.difference(before).copied().collect();
            if let (Some(from), Some(to)) = (gone.first(), appeared.first()) {
                said.push(format!("{field} is compared with {to:#x}, before with {from:#x}"));
            }
        }
        said
    }

    fn kinds_changed(&self, new: &Self) -> Vec<String> {
        let only = |known: &Self, key: &(Place, usize)| match (known.integers.contains(key), known.floats.contains(key))
        {
            (true, false) => Some("an integer"),
            (false, true) => Some("a floating-point number"),
            _ => None,
        };
        let keys: BTreeSet<_> = self.integers.union(&self.floats).copied().collect();
        keys.iter()
            .filter_map(|key| {
                let (from, to) = (only(self, key)?, only(new, key)?);
                (from != to).then(|| format!("{} is {to}, before {from}", key.0))
            })
            .collect()
    }
}

/// Arguments that were numbers of elements and are addresses, or the other way round.
fn arguments_changed(old: &Forms, new: &Forms) -> Vec<String> {
    const INTEGERS: usize = 6;
    /// What an argument is where memory is accessed through it.
    fn uses(forms: &Forms, n: usize) -> (bool, bool) {
        let mut uses = (false, false);
        for access in &forms.accesses {
            let terms = access.address.terms.as_slice();
            uses.0 |= terms == [(argument(n), 1)];
            let in_table = terms.len() == 2
                && terms.iter().any(|(o, _)| matches!(o, Origin::Static(_)))
                && terms.iter().any(|(o, _)| *o == argument(n));
            uses.1 |= in_table;
        }
        uses
    }
    let mut said = Vec::new();
    for n in 0..INTEGERS {
        let (from, to) = match (uses(old, n), uses(new, n)) {
            ((true, false), (false, true)) => ("an address", "the number of an element"),
            ((false, true), (true, false)) => ("the number of an element", "an address"),
            _ => continue,
        };
        said.push(format!("argument {} is {to}, before {from}", n.saturating_add(1)));
    }
    said
}

/// Whether the next instruction that asks for the flags asks for equality.
fn for_equality(side: &Side<'_, '_>, at: Va) -> bool {
    const FURTHEST: usize = 4;
    let mut at = at;
    for _ in 0..FURTHEST {
        let Some(instruction) = salve_code::decode_at(side.image, at) else { return false };
        at = Va::new(instruction.next_ip());
        let Some(next) = salve_code::decode_at(side.image, at) else { return false };
        match next.condition_code() {
            ConditionCode::e | ConditionCode::ne => return true,
            ConditionCode::None if next.flow_control() == FlowControl::Next => {}
            _ => return false,
        }
    }
    false
}

/// Instructions that bring bytes into the other order.
fn swaps(side: &Side<'_, '_>, range: VaRange) -> usize {
    let half_word = |i: &Instruction| {
        matches!(i.mnemonic(), Mnemonic::Rol | Mnemonic::Ror)
            && i.op0_kind() == OpKind::Register
            && i.op0_register().size() == 2
            && i.op1_kind() == OpKind::Immediate8
            && i.immediate(1) == 8
    };
    let swap = |i: &Instruction| matches!(i.mnemonic(), Mnemonic::Bswap | Mnemonic::Movbe) || half_word(i);
    salve_code::decode(side.image, range).into_iter().flatten().filter(swap).count()
}

/// Calls of what brings letters into one case, or finds the table for it.
fn folds(side: &Side<'_, '_>, range: VaRange) -> usize {
    const FOLDING: [&str; 6] =
        ["__ctype_tolower_loc", "__ctype_toupper_loc", "tolower", "toupper", "towlower", "towupper"];
    let calls = |i: &Instruction| import_at(side, i).is_some_and(|name| FOLDING.contains(&name));
    salve_code::decode(side.image, range).into_iter().flatten().filter(calls).count()
}

/// Offsets and widths at which objects are accessed.
fn accessed(forms: &Forms, which: impl Fn(&Access) -> bool) -> Places {
    let object = |a: &&Access| {
        matches!(a.address.terms.as_slice(), [(origin, 1)] if !matches!(origin, Origin::Static(_))) && a.len_bytes <= 8
    };
    forms.accesses.iter().filter(object).filter(|a| which(a)).map(|a| (a.address.constant, a.len_bytes)).collect()
}

/// Fields that replaced code writes and reads, each in a function of its own, while
/// no old version of replaced code and no code that stays accesses an object there.
fn added(diff: &ImageDiff<'_, '_>, carried: &Carried, all: &[Seen]) -> Vec<Evidence> {
    let overlaps = |(at, len): (i64, usize), known: &Places| {
        let end = |at: i64, len: usize| at.saturating_add(i64::try_from(len).unwrap_or(i64::MAX));
        let widest = 8;
        known.range((at.saturating_sub(widest), 0)..(end(at, len), 0)).any(|(a, l)| end(*a, *l) > at)
    };
    let old: Places = all.iter().flat_map(|v| v.old.iter().copied()).collect();
    let fresh = |places: &Places| -> Places { places.iter().copied().filter(|f| !overlaps(*f, &old)).collect() };
    let new_code: Vec<(&Seen, Places, Places)> = all.iter().map(|v| (v, fresh(&v.written), fresh(&v.read))).collect();
    let written: BTreeSet<_> = new_code.iter().flat_map(|(_, written, _)| written.iter().copied()).collect();
    let read: BTreeSet<_> = new_code.iter().flat_map(|(.., read)| read.iter().copied()).collect();
    let both: BTreeSet<_> = written.intersection(&read).copied().collect();
    if both.is_empty() {
        return Vec::new();
    }
    let known = staying(diff, carried);
    let fresh: BTreeSet<_> = both.into_iter().filter(|field| !known.contains(field)).collect();
    let mut evidence = Vec::new();
    for (seen, written, read) in &new_code {
        for (at, len) in fresh.iter().filter(|f| written.contains(f) || read.contains(f)) {
            let does = if written.contains(&(*at, *len)) { "writes" } else { "reads" };
            evidence.push(seen.evidence(format!("{does} {len} bytes at offset {at:#x}, where nothing was known")));
        }
    }
    evidence
}

/// Offsets and widths at which code that stays accesses memory through a register.
fn staying(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Places {
    use iced_x86::Register;
    let new = carried.new_functions();
    let mut known = BTreeSet::new();
    for (_, n) in diff.identical.iter().filter(|(_, n)| !new.contains(n)) {
        let Some(function) = diff.new.image.functions().get(*n) else { continue };
        for instruction in salve_code::decode(diff.new.image, function.range).into_iter().flatten() {
            let base = instruction.memory_base();
            let frame = matches!(base, Register::None | Register::RSP | Register::RIP | Register::EIP);
            if !frame && instruction.mnemonic() != Mnemonic::Nop {
                known.insert((instruction.memory_displacement64().cast_signed(), instruction.memory_size().size()));
            }
        }
    }
    known
}
