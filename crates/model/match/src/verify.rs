//! Whether two functions with equal masked bytes really are the same.

use crate::content::{self, ContentDifference};
use crate::data::{Correspondence, DataMap, Votes, vote};
use crate::pair::Pairing;
use crate::side::{Place, Side};
use crate::words::WordRun;
use salve_code::{CodeSummary, LARGEST_UNCLEAR_BYTES, Reference};
use salve_elf::{Binding, SectionRole, Va, VaRange};
use salve_patch::{DataRun, JumpTable};

/// What the fixpoint knows about each function of the new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Equal code, every reference corresponds (as far as is known yet).
    Identical,
    /// Equal code, every reference corresponds, but read-only contents differ.
    Content,
    /// Something else, or unpaired.
    Changed,
}

/// One reference that keeps a pair from being identical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// It leads to something else.
    Target,
    /// It leads to the corresponding read-only object, whose contents differ.
    Content(usize, ContentDifference),
}

pub(crate) struct Verifier<'v, 'i, 'a> {
    pub(crate) old: &'v Side<'i, 'a>,
    pub(crate) new: &'v Side<'i, 'a>,
    pub(crate) pairing: &'v Pairing,
    pub(crate) classes: &'v [Class],
    pub(crate) data: &'v DataMap,
}

/// What a check learnt on the way, for the claims.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    pub(crate) runs: Vec<DataRun>,
    pub(crate) tables: Vec<JumpTable>,
    pub(crate) kept: Vec<DataRun>,
    pub(crate) words: Vec<WordRun>,
}

impl Verifier<'_, '_, '_> {
    /// Checks every reference of the pair; the functions have equal masked bytes.
    pub(crate) fn check(&self, old: usize, new: usize, learnt: &mut Learnt) -> Vec<Mismatch> {
        let (Some(a), Some(b)) = (self.old.code.get(old), self.new.code.get(new)) else {
            return vec![Mismatch::Target];
        };
        if !(a.decoded && b.decoded) {
            let range = self.new.image.functions().get(new).map(|f| f.range);
            if range.is_none_or(|range| range.len_bytes() > LARGEST_UNCLEAR_BYTES) {
                return vec![Mismatch::Target];
            }
            let same = self.check_all_ways((old, a), (new, b), learnt);
            return same.is_none().then_some(Mismatch::Target).into_iter().collect();
        }
        if a.references.len() != b.references.len() {
            return vec![Mismatch::Target];
        }
        let mut mismatches = Vec::new();
        for (index, (x, y)) in a.references.iter().zip(&b.references).enumerate() {
            let fields = |r: &Reference| (r.at, r.field, r.kind);
            if fields(x) != fields(y) {
                return vec![Mismatch::Target];
            }
            let indirect = a.indirect_jump && b.indirect_jump;
            match self.same_address(x.target, y.target, indirect.then_some(new), learnt) {
                Ok(true) => {}
                Ok(false) => mismatches.push(Mismatch::Target),
                Err(difference) => mismatches.push(Mismatch::Content(index, difference)),
            }
        }
        mismatches
    }

    /// Checks what equal bytes refer to of which nobody knows where instructions begin, nor
    /// whether they are distances.
    fn check_all_ways(
        &self,
        (old, a): (usize, &CodeSummary),
        (new, b): (usize, &CodeSummary),
        learnt: &mut Learnt,
    ) -> Option<()> {
        if a.decoded != b.decoded || a.references.len() != b.references.len() {
            return None;
        }
        for (x, y) in a.references.iter().zip(&b.references) {
            let same = (x.at, x.field, x.kind) == (y.at, y.field, y.kind);
            self.same_address(x.target, y.target, None, learnt).ok().filter(|target| *target && same)?;
        }
        let range = |side: &Side<'_, '_>, index: usize| side.image.functions().get(index).map(|f| f.range);
        let (here, there) = (range(self.old, old)?, range(self.new, new)?);
        let is_code = |side: &Side<'_, '_>, va| side.role_at(va) == Some(SectionRole::Code);
        let words = self.new.image.read(there)?.chunks_exact(4).zip((0_i64..).step_by(4));
        for (word, at) in words {
            let distance = i64::from(i32::from_le_bytes(*word.first_chunk::<4>()?));
            // From where the stretch begins, or from where the distance stands.
            for base in [0, at] {
                let from = base.wrapping_add(distance);
                let (x, y) = (here.start().wrapping_offset(from), there.start().wrapping_offset(from));
                let inside = here.contains(x) && there.contains(y);
                let leads_out = distance != 0 && !inside && (is_code(self.old, x) || is_code(self.new, y));
                if leads_out && self.same_address(x, y, None, learnt) != Ok(true) {
                    return None;
                }
            }
        }
        Some(())
    }

    /// Whether the two addresses are the same thing. `Err` for corresponding
    /// read-only objects with other contents.
    pub(crate) fn same_address(
        &self,
        old: Va,
        new: Va,
        switch_of: Option<usize>,
        learnt: &mut Learnt,
    ) -> Result<bool, ContentDifference> {
        match (self.old.place(old), self.new.place(new)) {
            (Place::Import(a), Place::Import(b)) => Ok(a == b),
            (Place::Code { function: f, offset: p }, Place::Code { function: g, offset: q }) => {
                Ok(self.same_code(f, p, g, q))
            }
            (Place::Slot(a), Place::Slot(b)) => self.same_binding(a, b, learnt),
            (Place::Data { .. }, Place::Data { .. }) => self.same_data(old, new, switch_of, learnt),
            (Place::SectionEnd { section: a }, Place::SectionEnd { section: b }) => {
                let name = |side: &Side<'_, '_>, i: usize| side.image.sections().get(i).map(|s| s.name.to_owned());
                Ok(name(self.old, a) == name(self.new, b))
            }
            (Place::Other, Place::Other) => Ok(self.same_linker_made(old, new) || self.same_padding(old, new)),
            _different_kinds => Ok(false),
        }
    }

    fn same_code(&self, f: usize, p: u64, g: usize, q: u64) -> bool {
        let stable = self.classes.get(g).is_some_and(|c| *c != Class::Changed);
        self.pairing.old_of(g) == Some(f) && p == q && (q == 0 || stable)
    }

    pub(crate) fn same_binding(&self, a: Binding, b: Binding, learnt: &mut Learnt) -> Result<bool, ContentDifference> {
        match (a, b) {
            (Binding::Relative { target: old }, Binding::Relative { target: new })
            | (Binding::Indirect { resolver: old }, Binding::Indirect { resolver: new }) => {
                self.same_address(old, new, None, learnt)
            }
            (Binding::Symbol { symbol: x, addend: m, kind: _ }, Binding::Symbol { symbol: y, addend: n, kind: _ }) => {
                Ok(m == n && self.same_symbol(x, y))
            }
            (
                Binding::ThreadLocal { symbol: x, addend: m, r_type: s },
                Binding::ThreadLocal { symbol: y, addend: n, r_type: t },
            ) => Ok(m == n
                && s == t
                && match (x, y) {
                    (None, None) => true,
                    (Some(x), Some(y)) => self.same_symbol(x, y),
                    _ => false,
                }),
            (Binding::Copy { symbol: x }, Binding::Copy { symbol: y }) => Ok(self.same_symbol(x, y)),
            _different_kinds => Ok(false),
        }
    }

    fn same_symbol(&self, old: usize, new: usize) -> bool {
        matches!((self.old.symbol_id(old), self.new.symbol_id(new)), (Some(a), Some(b)) if a == b)
    }

    fn same_data(
        &self,
        old: Va,
        new: Va,
        switch_of: Option<usize>,
        learnt: &mut Learnt,
    ) -> Result<bool, ContentDifference> {
        let (Some(s), Some(t)) = (self.old.image.section_at(old), self.new.image.section_at(new)) else {
            return Ok(false);
        };
        if s.name != t.name {
            return Ok(false);
        }
        match t.role {
            SectionRole::ReadOnlyData | SectionRole::Unwind => {
                if let Some(owner) = switch_of
                    && let Some((table, len_bytes)) = self.jump_table(old, new, owner)
                {
                    learnt.tables.push(table);
                    learnt.runs.push(DataRun { new, old, len_bytes });
                    return Ok(true);
                }
                let len_bytes = content::compare(self.old, old, self.new, new)?;
                learnt.runs.push(DataRun { new, old, len_bytes });
                Ok(true)
            }
            SectionRole::Linking => Ok(old.raw().wrapping_sub(s.range.start().raw())
                == new.raw().wrapping_sub(t.range.start().raw())
                && s.bytes == t.bytes),
            SectionRole::RelroData | SectionRole::WritableData | SectionRole::ThreadLocal => {
                Ok(self.data.agrees(new, old) || self.data.old_of(new, self.new) == Some(Correspondence::Between(old)))
            }
            SectionRole::Code | SectionRole::Plt => Ok(false),
        }
    }

    /// Addresses that no object has: file headers, the procedure linkage
    /// table's own first entry, the words that the dynamic linker reserves.
    fn same_linker_made(&self, old: Va, new: Va) -> bool {
        match (self.old.image.section_at(old), self.new.image.section_at(new)) {
            (None, None) => old == new,
            (Some(s), Some(t)) => {
                let offset = |va: Va, range: VaRange| va.raw().wrapping_sub(range.start().raw());
                let reserved = matches!(s.role, SectionRole::Plt | SectionRole::RelroData);
                s.name == t.name && reserved && offset(old, s.range) == offset(new, t.range)
            }
            _ => false,
        }
    }

    /// The same byte of equal padding between the same two functions: whoever is led there comes
    /// to the entry of the second, whoever reads there reads the same bytes, which may be the
    /// zeros at an end of a table.
    fn same_padding(&self, old: Va, new: Va) -> bool {
        let (Some(old), Some(new)) = (Padding::around(self.old, old), Padding::around(self.new, new)) else {
            return false;
        };
        let stays = |n: usize| self.classes.get(n).is_some_and(|class| *class != Class::Changed);
        let paired = |old: usize, new: usize| self.pairing.old_of(new) == Some(old);
        paired(old.before, new.before)
            && paired(old.behind, new.behind)
            && (stays(new.before) || stays(new.behind))
            && (old.at, old.bytes) == (new.at, new.bytes)
    }

    /// Reads distances from both tables while they lead to corresponding code;
    /// what follows to the next object has to be equal. The table, and the bytes compared.
    fn jump_table(&self, old: Va, new: Va, owner: usize) -> Option<(JumpTable, u64)> {
        let to_anchor = |side: &Side<'_, '_>, va: Va| side.next_anchor(va)?.raw().checked_sub(va.raw());
        let (old_len, new_len) = (to_anchor(self.old, old)?, to_anchor(self.new, new)?);
        let read =
            |side: &Side<'_, '_>, va, len| VaRange::new(va, len).and_then(|r| side.image.read(r)).map(<[u8]>::to_vec);
        let (a, b) = (read(self.old, old, old_len)?, read(self.new, new, new_len)?);
        let owner_function = self.new.image.functions().get(owner)?;
        let mut entries = 0_u32;
        for (x, y) in a.chunks_exact(4).zip(b.chunks_exact(4)) {
            let distance = |c: &[u8]| c.first_chunk::<4>().map(|c| i64::from(i32::from_le_bytes(*c)));
            let (to_old, to_new) = (old.wrapping_offset(distance(x)?), new.wrapping_offset(distance(y)?));
            let (Place::Code { function: f, offset: p }, Place::Code { function: g, offset: q }) =
                (self.old.place(to_old), self.new.place(to_new))
            else {
                break;
            };
            if !self.same_code(f, p, g, q) {
                break;
            }
            // The first entry has to lead into the function itself: constants do not.
            if entries == 0 && !owner_function.range.contains(to_new) {
                return None;
            }
            entries = entries.saturating_add(1);
        }
        let read_bytes = usize::try_from(entries).ok()?.checked_mul(4)?;
        let rest = |bytes: &[u8]| bytes.get(read_bytes..).map(<[u8]>::to_vec).unwrap_or_default();
        let (rest_a, rest_b) = (rest(&a), rest(&b));
        let same_rest = rest_a.iter().zip(&rest_b).all(|(x, y)| x == y);
        let table = JumpTable { new, old, entries, new_owner: owner_function.range.start() };
        (entries > 0 && same_rest).then_some((table, old_len.min(new_len)))
    }
}

/// What lies between two functions, and a place in it.
struct Padding<'a> {
    before: usize,
    behind: usize,
    at: i64,
    bytes: &'a [u8],
}

impl<'a> Padding<'a> {
    fn around(side: &Side<'_, 'a>, va: Va) -> Option<Self> {
        let section = side.image.section_at(va).filter(|section| section.role == SectionRole::Code)?;
        let functions = side.image.functions();
        let behind = functions.partition_point(|f| f.range.start() <= va);
        let before = behind.checked_sub(1)?;
        let padding = (functions.get(before)?.range.end(), functions.get(behind)?.range.start());
        let padding = VaRange::try_from(padding).ok().filter(|padding| padding.contains(va))?;
        let bytes = side.image.read(padding).filter(|_| section.range.contains(padding.end()))?;
        Some(Self { before, behind, at: va.wrapping_distance_from(padding.start()), bytes })
    }
}

/// Votes of every pair with equal code about data addresses.
pub(crate) fn code_votes(old: &Side<'_, '_>, new: &Side<'_, '_>, pairing: &Pairing, classes: &[Class]) -> Votes {
    let mut ballots: Vec<(usize, Va, Va)> = Vec::new();
    for (n, class) in classes.iter().enumerate() {
        if *class == Class::Changed {
            continue;
        }
        let Some((a, b)) = pairing.old_of(n).and_then(|o| Some((old.code.get(o)?, new.code.get(n)?))) else {
            continue;
        };
        // What data looks like refers to nothing.
        let references = a.references.iter().zip(&b.references).filter(|_| a.decoded && b.decoded);
        for (x, y) in references {
            match (old.place(x.target), new.place(y.target)) {
                (Place::Data { section: s }, Place::Data { section: t }) if same_section(old, s, new, t) => {
                    ballots.push((n, y.target, x.target));
                }
                (Place::Slot(Binding::Relative { target: p }), Place::Slot(Binding::Relative { target: q })) => {
                    if let (Place::Data { section: s }, Place::Data { section: t }) = (old.place(p), new.place(q))
                        && same_section(old, s, new, t)
                    {
                        ballots.push((n, q, p));
                    }
                }
                _no_data => {}
            }
        }
    }
    ballots.sort_unstable();
    ballots.dedup();
    let mut votes = Votes::new();
    for (_, x, y) in ballots {
        vote(&mut votes, x, y);
    }
    symbol_votes(old, new, &mut votes);
    votes
}

impl Verifier<'_, '_, '_> {
    /// Exported read-only objects, which other images may refer to.
    pub(crate) fn learn_exports(&self, learnt: &mut Learnt) {
        let read_only = |side: &Side<'_, '_>| -> Vec<(u32, Va)> {
            let symbols = side.image.symbols().iter().enumerate();
            let mut found: Vec<(u32, Va)> = symbols
                .filter(|(_, s)| s.defined && side.role_at(s.value) == Some(SectionRole::ReadOnlyData))
                .filter_map(|(i, s)| Some((side.symbol_id(i)?, s.value)))
                .collect();
            found.sort_unstable();
            found
        };
        let olds = read_only(self.old);
        for (id, new) in read_only(self.new) {
            if let Ok(index) = olds.binary_search_by_key(&id, |(id, _)| *id)
                && let Some((_, old)) = olds.get(index)
            {
                // A difference is no mismatch of code; the validator finds what needs it.
                let _same = self.same_data(*old, new, None, learnt);
            }
        }
    }
}

/// Exported data has names.
fn symbol_votes(old: &Side<'_, '_>, new: &Side<'_, '_>, votes: &mut Votes) {
    let exported = |side: &Side<'_, '_>| {
        let mut found: Vec<(u32, Va)> = side
            .image
            .symbols()
            .iter()
            .enumerate()
            .filter(|(_, s)| s.defined && s.kind == salve_elf::SymbolKind::Data)
            .filter_map(|(i, s)| Some((side.symbol_id(i)?, s.value)))
            .collect();
        found.sort_unstable();
        found
    };
    let olds = exported(old);
    for (id, x) in exported(new) {
        if let Ok(index) = olds.binary_search_by_key(&id, |(id, _)| *id)
            && let Some((_, y)) = olds.get(index)
        {
            for _ in 0..2 {
                vote(votes, x, *y);
            }
        }
    }
}

/// Slots of mapped data that hold addresses of data vote for what they point to.
pub(crate) fn slot_votes(old: &Side<'_, '_>, new: &Side<'_, '_>, data: &DataMap, votes: &mut Votes) {
    for reloc in new.image.relocs() {
        let Binding::Relative { target } = reloc.binding else { continue };
        let Place::Data { section: t } = new.place(target) else { continue };
        let Some(y) = data.old_of(reloc.at, new) else { continue };
        let Some(Binding::Relative { target: p }) = old.image.reloc_at(y.old()).map(|r| r.binding) else { continue };
        if let Place::Data { section: s } = old.place(p)
            && same_section(old, s, new, t)
        {
            vote(votes, target, p);
        }
    }
}

fn same_section(old: &Side<'_, '_>, s: usize, new: &Side<'_, '_>, t: usize) -> bool {
    matches!(
        (old.image.sections().get(s), new.image.sections().get(t)),
        (Some(a), Some(b)) if a.name == b.name
    )
}
