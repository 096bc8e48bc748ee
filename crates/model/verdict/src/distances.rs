//! Tables of distances, which the payload, or functions that changed places, lead elsewhere.
//!
//! A table may hold how far functions lie from itself, or from something beside it, instead
//! of their addresses: no relocation says so. The payload has the new image's own layout, so
//! distances within it hold; but what it does not carry lies in the old image, as far away as
//! that laid it out. And equal distances lead to other functions where these changed places.
//!
//! Nothing marks a distance. What counts as one is a number that, added to its own address,
//! to that of its table, or to that of other data which the code using it takes, is where a
//! function begins; among many numbers only if several are, because one in a few hundred is
//! that by chance. Numbers that all lead into variables count as well, if half of them lead to what
//! something refers to.

use crate::carry::Carried;
use crate::registry;
use salve_code::ReferenceKind;
use salve_elf::{Function, SectionRole, Va, VaRange};
use salve_match::{ImageDiff, Side};
use salve_patch::{Evidence, Reason};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Of so many numbers at most one is where a function begins by chance.
const BY_CHANCE: usize = 16;
const WORD_BYTES: u64 = 4;

pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried, copied: Option<VaRange>) -> Option<Reason> {
    let mut evidence = out_of_payload(diff, carried, copied);
    evidence.extend(to_other_functions(diff));
    let summary = "distances in a table lead elsewhere than in the new program";
    (!evidence.is_empty()).then(|| registry::RELATIVE_DATA.because(summary, evidence))
}

/// Distances in the payload's constants to what the payload does not have.
fn out_of_payload(diff: &ImageDiff<'_, '_>, carried: &Carried, copied: Option<VaRange>) -> Vec<Evidence> {
    let new = &diff.new;
    let payload = carried.new_functions();
    let left = Left { side: new, entries: Entries::of(new, |index| !payload.contains(&index)), copied };
    let mut tables: BTreeMap<Va, Option<Table>> = BTreeMap::new();
    let mut found: BTreeMap<Va, Evidence> = BTreeMap::new();
    for index in payload {
        let Some(function) = new.image.functions().get(index) else { continue };
        let data = data_of(new, index);
        for start in data.iter().filter(|va| is_payload_data(new, **va, copied)) {
            let table = tables.entry(*start).or_insert_with(|| Table::at(new, *start));
            let Some(table) = table.as_ref() else { continue };
            // A switch has cases near whatever is near them.
            let cases = table.led(From::Start).filter(|(_, to, _)| function.range.contains(*to)).count();
            let others = data.iter().copied().filter(|va| !is_payload_data(new, *va, copied)).map(From::Data);
            let others = others.filter(|_| !table.is_no_chance(cases, 2));
            let mut from = [From::Start, From::Itself].into_iter().chain(others);
            let Some((from, at, to)) = from.find_map(|from| left.led_to(table, from)) else { continue };
            let from = from.of(table, at);
            let seen = format!("the number at {at} is how far {to}, which the payload does not have, is from {from}");
            let evidence = Evidence {
                function: Some(function.display_name()),
                old_va: None,
                new_va: Some(function.range.start()),
                seen,
            };
            found.entry(*start).or_insert(evidence);
        }
    }
    found.into_values().collect()
}

/// Numbers that are the same in both images, and lead to functions that are not.
fn to_other_functions(diff: &ImageDiff<'_, '_>) -> Vec<Evidence> {
    let (before, after) = (Entries::of(&diff.old, |_| true), Entries::of(&diff.new, |_| true));
    let switches: HashSet<Va> = diff.tables.iter().map(|table| table.new).collect();
    let mut looked_at = HashSet::new();
    let mut evidence = Vec::new();
    for (old, new) in &diff.identical {
        let (Some(a), Some(b)) = (diff.old.code.get(*old), diff.new.code.get(*new)) else { continue };
        for (x, y) in a.references.iter().zip(&b.references) {
            let constant = is_value(y.kind) && is_constant(&diff.old, x.target) && is_constant(&diff.new, y.target);
            if !constant || switches.contains(&y.target) || !looked_at.insert((x.target, y.target)) {
                continue;
            }
            let Some((here, there)) = Table::at(&diff.old, x.target).zip(Table::at(&diff.new, y.target)) else {
                continue;
            };
            for from in [From::Itself, From::Start] {
                let led = here.led(from).zip(there.led(from)).filter(|((.., m), (.., n))| m == n);
                let functions: Vec<(Va, Va, usize, usize)> =
                    led.filter_map(|((p, f, _), (q, g, _))| Some((p, q, before.get(f)?, after.get(g)?))).collect();
                let other = functions.iter().find(|(_, _, f, g)| diff.old_of(*g) != Some(*f));
                if let Some((old_va, new_va, f, g)) = other.filter(|_| there.is_no_chance(functions.len(), BY_CHANCE)) {
                    let names = name(&diff.new, *g).zip(name(&diff.old, *f)).unwrap_or_default();
                    evidence.push(Evidence {
                        function: name(&diff.new, *new),
                        old_va: Some(*old_va),
                        new_va: Some(*new_va),
                        seen: format!("the same number is how far {} is, and was how far {} was", names.0, names.1),
                    });
                    break;
                }
            }
        }
    }
    evidence
}

fn name(side: &Side<'_, '_>, function: usize) -> Option<String> {
    side.image.functions().get(function).map(Function::display_name)
}

/// Whether both numbers lead to where functions begin, from themselves or their tables.
pub(crate) struct Words<'d, 'i, 'a> {
    sides: [&'d Side<'i, 'a>; 2],
    entries: [Entries; 2],
}

impl<'d, 'i, 'a> Words<'d, 'i, 'a> {
    pub(crate) fn of(diff: &'d ImageDiff<'i, 'a>) -> Self {
        let sides = [&diff.old, &diff.new];
        Self { sides, entries: sides.map(|side| Entries::of(side, |_| true)) }
    }

    /// Whether a word of eight bytes holds a distance in both images.
    pub(crate) fn hold_distance(&self, old: Va, new: Va) -> bool {
        [0, 4].into_iter().any(|half| {
            let leads = |(side, entries): (&&Side<'_, '_>, &Entries), va: Va| {
                let at = va.wrapping_offset(half);
                let table = side.anchor_up_to(at);
                let number = number_at(side, at).filter(|number| *number != 0);
                number.is_some_and(|number| {
                    [Some(at), table]
                        .into_iter()
                        .flatten()
                        .any(|from| entries.get(from.wrapping_offset(number)).is_some())
                })
            };
            self.sides.iter().zip(&self.entries).zip([old, new]).all(|(one, va)| leads(one, va))
        })
    }
}

/// From where a number counts.
#[derive(Clone, Copy)]
enum From {
    Itself,
    /// Where its table starts.
    Start,
    Data(Va),
}

impl From {
    fn of(self, table: &Table, number_at: Va) -> Va {
        match self {
            Self::Itself => number_at,
            Self::Start => table.start,
            Self::Data(va) => va,
        }
    }
}

/// The numbers up to the next thing that something refers to; zero leads nowhere.
struct Table {
    start: Va,
    words: Vec<(Va, i64)>,
}

impl Table {
    fn at(side: &Side<'_, '_>, start: Va) -> Option<Self> {
        let end = side.next_anchor(start)?;
        let mut at = start.wrapping_offset(3).page_floor(WORD_BYTES);
        let mut words = Vec::new();
        while at.checked_add(WORD_BYTES).is_some_and(|behind| behind <= end) {
            words.extend(number_at(side, at).filter(|number| *number != 0).map(|number| (at, number)));
            at = at.checked_add(WORD_BYTES)?;
        }
        (!words.is_empty()).then_some(Self { start, words })
    }

    /// Each number: where it is, where it leads, and itself.
    fn led(&self, from: From) -> impl Iterator<Item = (Va, Va, i64)> + '_ {
        self.words.iter().map(move |(at, number)| (*at, from.of(self, *at).wrapping_offset(*number), *number))
    }

    /// Whether so many of them do not lead to where something begins by chance.
    fn is_no_chance(&self, leading: usize, by_chance: usize) -> bool {
        leading > 0 && leading.saturating_mul(by_chance) >= self.words.len()
    }
}

/// What the payload leaves in the old image.
struct Left<'s, 'i, 'a> {
    side: &'s Side<'i, 'a>,
    entries: Entries,
    /// Tables that it brings.
    copied: Option<VaRange>,
}

impl Left<'_, '_, '_> {
    /// The first number of the table that leads there, if enough of them do.
    fn led_to(&self, table: &Table, from: From) -> Option<(From, Va, Va)> {
        let leads = |to: &Va| self.entries.get(*to).is_some();
        let code: Vec<(Va, Va)> = table.led(from).filter(|(_, to, _)| leads(to)).map(|(at, to, _)| (at, to)).collect();
        // A switch leads to code all the same, from its start, and from elsewhere near it; and
        // of many data some are as far from a function as any number says.
        let cases = table.led(From::Start).filter(|(_, to, _)| role_at(self.side, *to) == Some(SectionRole::Code));
        let enough = match from {
            From::Start => table.is_no_chance(code.len(), BY_CHANCE),
            From::Itself if !table.is_no_chance(cases.count(), 2) => table.is_no_chance(code.len(), BY_CHANCE),
            From::Itself => table.is_no_chance(code.len(), 2),
            From::Data(_) => is_several(&code) && table.is_no_chance(code.len(), 2),
        };
        if enough {
            return code.first().map(|(at, to)| (from, *at, *to));
        }
        // Small numbers lead from one variable to another.
        if matches!(from, From::Data(_)) || table.words.len() < 2 {
            return None;
        }
        let mut known = 0_usize;
        for (_, to, _) in table.led(from) {
            let variable = self.variable(to)?;
            known = known.saturating_add(usize::from(variable == to));
        }
        let first = table.led(from).next().filter(|_| table.is_no_chance(known, 2));
        first.map(|(at, to, _)| (from, at, to))
    }

    /// What something refers to up to there, in data that the payload does not bring.
    fn variable(&self, va: Va) -> Option<Va> {
        let left = matches!(role_at(self.side, va), Some(SectionRole::WritableData | SectionRole::RelroData));
        let brought = self.copied.is_some_and(|copied| copied.contains(va));
        if left && !brought { Some(self.side.anchor_up_to(va).unwrap_or(va)) } else { None }
    }
}

/// Whether they lead to several things.
fn is_several(led: &[(Va, Va)]) -> bool {
    led.iter().any(|(_, to)| led.first().is_some_and(|(_, first)| first != to))
}

/// Where functions begin that the image itself describes.
struct Entries {
    functions: HashMap<Va, usize>,
    /// The first and the last.
    span: Option<(Va, Va)>,
}

impl Entries {
    fn of(side: &Side<'_, '_>, wanted: impl Fn(usize) -> bool) -> Self {
        let functions = side.image.functions().iter().enumerate();
        let wanted = functions.filter(|(index, f)| f.is_described() && wanted(*index));
        let functions: HashMap<Va, usize> = wanted.map(|(index, f)| (f.range.start(), index)).collect();
        let span = functions.keys().min().copied().zip(functions.keys().max().copied());
        Self { functions, span }
    }

    /// The function that begins there. Most numbers lead nowhere near.
    fn get(&self, va: Va) -> Option<usize> {
        let near = self.span.is_some_and(|(first, last)| first <= va && va <= last);
        if near { self.functions.get(&va).copied() } else { None }
    }
}

/// Data that the function refers to.
fn data_of(side: &Side<'_, '_>, function: usize) -> BTreeSet<Va> {
    let references = side.code.get(function).into_iter().flat_map(|code| &code.references);
    let targets = references.filter(|r| is_value(r.kind)).map(|r| r.target);
    targets.filter(|va| !matches!(role_at(side, *va), Some(SectionRole::Code | SectionRole::Plt))).collect()
}

fn is_payload_data(side: &Side<'_, '_>, va: Va, copied: Option<VaRange>) -> bool {
    is_constant(side, va) || copied.is_some_and(|copied| copied.contains(va))
}

fn is_constant(side: &Side<'_, '_>, va: Va) -> bool {
    role_at(side, va) == Some(SectionRole::ReadOnlyData)
}

fn role_at(side: &Side<'_, '_>, va: Va) -> Option<SectionRole> {
    side.image.section_at(va).map(|section| section.role)
}

fn is_value(kind: ReferenceKind) -> bool {
    matches!(kind, ReferenceKind::Address | ReferenceKind::Memory)
}

/// What the file has there; what the loader fills in is no number.
fn number_at(side: &Side<'_, '_>, at: Va) -> Option<i64> {
    let range = VaRange::new(at, WORD_BYTES)?;
    let around = VaRange::try_from((at.wrapping_offset(-7), range.end())).ok()?;
    if !side.image.relocs_in(around).is_empty() {
        return None;
    }
    side.image.read(range)?.first_chunk().map(|bytes| i64::from(i32::from_le_bytes(*bytes)))
}
