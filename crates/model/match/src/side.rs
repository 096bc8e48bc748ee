//! One image prepared for matching, and what its addresses stand for.

use foldhash::HashMap;
use rayon::prelude::*;
use salve_code::{CodeSummary, Plt, summarize};
use salve_elf::{Binding, Image, SectionRole, Symbol, Va};

/// Names of symbols, shared by both sides so that equal names are equal numbers.
#[derive(Debug, Default)]
struct Names {
    ids: HashMap<String, u32>,
}

impl Names {
    fn intern(&mut self, name: String) -> u32 {
        let next = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        *self.ids.entry(name).or_insert(next)
    }

    fn of(&mut self, image: &Image<'_>) -> Vec<u32> {
        image.symbols().iter().map(|s| self.intern(s.display_name())).collect()
    }
}

/// An image with its functions summarised.
#[derive(Debug)]
pub struct Side<'i, 'a> {
    pub image: &'i Image<'a>,
    /// In the order of `image.functions()`.
    pub code: Vec<CodeSummary>,
    pub plt: Plt,
    /// Every data address that code or a relocation refers to, sorted: where objects may begin.
    anchors: Vec<Va>,
    /// For each dynamic symbol, the number of its name and version.
    symbol_ids: Vec<u32>,
}

/// What an address of an image stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A PLT stub: the import of this name and version.
    Import(u32),
    /// Inside a function.
    Code { function: usize, offset: u64 },
    /// A GOT slot, relocated.
    Slot(Binding),
    /// Data; index of the section.
    Data { section: usize },
    /// One past the last byte of a section and inside no other.
    SectionEnd { section: usize },
    /// None of these: padding, headers, an unrelocated GOT word.
    Other,
}

impl<'i, 'a> Side<'i, 'a> {
    /// Prepares both images, at the same time.
    pub(crate) fn both(old: &'i Image<'a>, new: &'i Image<'a>) -> (Self, Self) {
        let mut names = Names::default();
        let (olds, news) = (names.of(old), names.of(new));
        rayon::join(|| Self::new(old, olds), || Self::new(new, news))
    }

    fn new(image: &'i Image<'a>, symbol_ids: Vec<u32>) -> Self {
        let code: Vec<CodeSummary> = image
            .functions()
            .par_iter()
            .map(|function| {
                summarize(image, function.range).unwrap_or(CodeSummary {
                    hash: 0,
                    references: Vec::new(),
                    decoded: false,
                    indirect_jump: false,
                })
            })
            .collect();
        let mut side = Self { image, code, plt: Plt::of(image), anchors: Vec::new(), symbol_ids };
        side.anchors = side.find_anchors();
        side
    }

    fn find_anchors(&self) -> Vec<Va> {
        let from_code = self.code.iter().flat_map(|c| c.references.iter().map(|r| r.target));
        let from_relocs = self.image.relocs().iter().filter_map(|r| match r.binding {
            Binding::Relative { target } => Some(target),
            Binding::Symbol { .. } | Binding::Indirect { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. } => {
                None
            }
        });
        let from_symbols = self.image.symbols().iter().filter(|s| s.defined).map(|s| s.value);
        let mut anchors: Vec<Va> = from_code
            .chain(from_relocs)
            .chain(from_symbols)
            .filter(|va| matches!(self.place(*va), Place::Data { .. }))
            .collect();
        anchors.sort_unstable();
        anchors.dedup();
        anchors
    }

    /// The next address after `va` that something refers to, or the end of its section.
    pub fn next_anchor(&self, va: Va) -> Option<Va> {
        let end = self.image.section_at(va)?.range.end();
        let index = self.anchors.partition_point(|a| *a <= va);
        Some(self.anchors.get(index).copied().map_or(end, |next| next.min(end)))
    }

    /// The last address up to `va`, in its section, that something refers to.
    pub fn anchor_up_to(&self, va: Va) -> Option<Va> {
        let section = self.image.section_at(va)?.range;
        let before = self.anchors.partition_point(|a| *a <= va).checked_sub(1)?;
        self.anchors.get(before).copied().filter(|a| section.contains(*a))
    }

    pub fn place(&self, va: Va) -> Place {
        let Some(section_index) = self.image.section_index_at(va) else {
            let ends = self.image.sections().iter().position(|s| s.range.end() == va);
            return ends.map_or(Place::Other, |section| Place::SectionEnd { section });
        };
        let Some(section) = self.image.sections().get(section_index) else {
            return Place::Other;
        };
        match section.role {
            SectionRole::Plt => self
                .plt
                .slot_of(va)
                .and_then(|slot| self.image.reloc_at(slot))
                .and_then(|reloc| match reloc.binding {
                    Binding::Symbol { symbol, .. } => self.symbol_ids.get(symbol).map(|id| Place::Import(*id)),
                    binding => Some(Place::Slot(binding)),
                })
                .unwrap_or(Place::Other),
            SectionRole::Code => match self.image.function_index_at(va) {
                Some(function) => {
                    let start = self.image.functions().get(function).map_or(va, |f| f.range.start());
                    Place::Code { function, offset: va.raw().wrapping_sub(start.raw()) }
                }
                None => Place::Other,
            },
            SectionRole::RelroData if section.name.starts_with(".got") => match self.image.reloc_at(va) {
                Some(reloc) => Place::Slot(reloc.binding),
                None if va == section.range.start() => Place::Data { section: section_index },
                None => Place::Other,
            },
            SectionRole::ReadOnlyData
            | SectionRole::RelroData
            | SectionRole::WritableData
            | SectionRole::ThreadLocal
            | SectionRole::Unwind
            | SectionRole::Linking => Place::Data { section: section_index },
        }
    }

    pub(crate) fn symbol_id(&self, symbol: usize) -> Option<u32> {
        self.symbol_ids.get(symbol).copied()
    }

    pub(crate) fn role_at(&self, va: Va) -> Option<SectionRole> {
        self.image.section_at(va).map(|s| s.role)
    }
}

/// Where each image has what both give one name and version, of the symbols that are `wanted`: `(old, new)`.
pub(crate) fn namesakes(
    old: &Side<'_, '_>,
    new: &Side<'_, '_>,
    wanted: impl Fn(&Side<'_, '_>, &Symbol<'_>) -> bool,
) -> Vec<(Va, Va)> {
    let named = |side: &Side<'_, '_>| {
        let symbols = side.image.symbols().iter().enumerate().filter(|(_, symbol)| wanted(side, symbol));
        let mut found: Vec<(u32, Va)> =
            symbols.filter_map(|(index, symbol)| Some((side.symbol_id(index)?, symbol.value))).collect();
        found.sort_unstable();
        found
    };
    let olds = named(old);
    let of_old = |id: u32| olds.binary_search_by_key(&id, |(id, _)| *id).ok().and_then(|index| olds.get(index));
    named(new).into_iter().filter_map(|(id, after)| of_old(id).map(|(_, before)| (*before, after))).collect()
}
