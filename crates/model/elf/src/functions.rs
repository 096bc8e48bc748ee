//! Where code begins and ends, without symbols.
//!
//! Stripped programs keep `.eh_frame` because unwinding needs it, and its FDEs
//! (DWARF 5 §6.4, LSB "Exception Frames") name the start and length of every
//! compiled function, `.cold` parts included. Sized function symbols add
//! hand-written assembly. What lies between and is not padding becomes a
//! function of its own with [`FunctionSource::Gap`], so that no byte of an
//! executable section goes unaccounted for.

use crate::error::ImageError;
use crate::image::ImageLimits;
use crate::padding::{leading_padding, trailing_padding};
use crate::section::{Section, SectionRole};
use crate::symbol::{Symbol, SymbolKind};
use crate::{Va, VaRange};
use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection as _};
use std::collections::HashMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FunctionSource {
    /// An FDE states it.
    Fde,
    /// A sized symbol states it and no FDE does.
    Symbol,
    /// Code that nothing describes.
    Gap,
    /// A part of such a stretch, in which not everything is an instruction.
    Piece,
}

/// A stretch of code that is entered at its start, and perhaps elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub range: VaRange,
    pub source: FunctionSource,
    /// The FDE points to a language-specific data area: exceptions are caught or
    /// cleaned up here.
    pub has_lsda: bool,
    /// That area has a table of types: exceptions of a language are told apart here,
    /// where C's cleanups only pass on.
    pub catches: bool,
    /// A name, where a symbol gives one.
    pub name: Option<Box<str>>,
}

impl Function {
    /// Whether the image itself says that this is a function: what else lies among code may be data.
    pub fn is_described(&self) -> bool {
        matches!(self.source, FunctionSource::Fde | FunctionSource::Symbol)
    }

    /// Its name, or `fn_<address>`.
    pub fn display_name(&self) -> String {
        match &self.name {
            Some(name) => name.to_string(),
            None => format!("fn_{:x}", self.range.start()),
        }
    }
}

pub(crate) fn functions(
    sections: &[Section<'_>],
    symbols: &[Symbol<'_>],
    extra_names: &HashMap<Va, &str>,
    limits: &ImageLimits,
) -> Result<Vec<Function>, ImageError> {
    let mut found = from_fdes(sections, limits)?;
    from_symbols(sections, symbols, &mut found);
    found.retain(|f| !f.range.is_empty());
    found.sort_by_key(|f| (f.range.start(), core::cmp::Reverse(f.range.end())));
    separate(&mut found);
    let mut all = Vec::with_capacity(found.len().saturating_add(64));
    for section in sections.iter().filter(|s| s.role == SectionRole::Code) {
        fill_gaps(section, &found, &mut all);
    }
    name_functions(symbols, extra_names, &mut all);
    if all.len() > limits.max_functions {
        return Err(ImageError::TooLarge {
            what: "functions",
            have: u64::try_from(all.len()).unwrap_or(u64::MAX),
            limit: u64::try_from(limits.max_functions).unwrap_or(u64::MAX),
        });
    }
    Ok(all)
}

fn from_fdes(sections: &[Section<'_>], limits: &ImageLimits) -> Result<Vec<Function>, ImageError> {
    let mut found = Vec::new();
    let Some(section) = sections.iter().find(|s| s.name == ".eh_frame") else {
        return Ok(found);
    };
    let Some(bytes) = section.bytes else {
        return Ok(found);
    };
    let eh_frame = EhFrame::new(bytes, LittleEndian);
    let mut bases = BaseAddresses::default().set_eh_frame(section.range.start().raw());
    if let Some(text) = sections.iter().find(|s| s.name == ".text") {
        bases = bases.set_text(text.range.start().raw());
    }
    let malformed = |_| ImageError::Malformed { what: ".eh_frame" };
    let mut cies = HashMap::new();
    let mut entries = eh_frame.entries(&bases);
    while let Some(entry) = entries.next().map_err(malformed)? {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial
            .parse(|section, bases, offset| match cies.entry(offset.0) {
                std::collections::hash_map::Entry::Occupied(cie) => {
                    let cie: &gimli::CommonInformationEntry<_> = cie.get();
                    Ok(cie.clone())
                }
                std::collections::hash_map::Entry::Vacant(slot) => {
                    Ok(slot.insert(section.cie_from_offset(bases, offset)?).clone())
                }
            })
            .map_err(malformed)?;
        let Some(range) = VaRange::new(Va::new(fde.initial_address()), fde.len()) else {
            return Err(ImageError::MalformedAt { what: "FDE", at: fde.initial_address() });
        };
        let lsda = fde.lsda().map(|pointer| match pointer {
            gimli::Pointer::Direct(at) => has_types(sections, Va::new(at)),
            // What cannot be read counts as found.
            gimli::Pointer::Indirect(_) => true,
        });
        let (has_lsda, catches) = (lsda.is_some(), lsda.unwrap_or(false));
        found.push(Function { range, source: FunctionSource::Fde, has_lsda, catches, name: None });
        if found.len() > limits.max_functions {
            return Err(ImageError::TooLarge {
                what: "FDEs",
                have: u64::try_from(found.len()).unwrap_or(u64::MAX),
                limit: u64::try_from(limits.max_functions).unwrap_or(u64::MAX),
            });
        }
    }
    Ok(found)
}

/// Whether the language-specific data area at `at` has a table of types: its second
/// encoding, behind the start of landing pads if that is stated, is not "omitted"
/// (Itanium C++ ABI, "Exception Handling Tables").
fn has_types(sections: &[Section<'_>], at: Va) -> bool {
    const OMITTED: u8 = 0xff;
    let area = sections.iter().find(|s| s.range.contains(at)).and_then(|s| s.tail(at));
    match area {
        // A stated start is of a length of its own; compilers state none.
        Some([OMITTED, types, ..]) => *types != OMITTED,
        _ => true,
    }
}

fn from_symbols(sections: &[Section<'_>], symbols: &[Symbol<'_>], found: &mut Vec<Function>) {
    for symbol in symbols {
        let code = matches!(symbol.kind, SymbolKind::Function | SymbolKind::IndirectFunction);
        if !symbol.defined || !code || symbol.len_bytes == 0 {
            continue;
        }
        let Some(range) = VaRange::new(symbol.value, symbol.len_bytes) else { continue };
        let inside = sections
            .iter()
            .any(|s| s.role == SectionRole::Code && s.range.contains(range.start()) && range.end() <= s.range.end());
        if inside {
            found.push(Function { range, source: FunctionSource::Symbol, has_lsda: false, catches: false, name: None });
        }
    }
}

/// Makes sorted, possibly overlapping ranges disjoint. FDEs win over symbols;
/// an FDE that starts inside another one (hand-written assembly describes
/// its signal frame one byte early) ends the former.
fn separate(found: &mut Vec<Function>) {
    let mut kept: Vec<Function> = Vec::with_capacity(found.len());
    for function in found.drain(..) {
        let Some(last) = kept.last_mut() else {
            kept.push(function);
            continue;
        };
        if last.range.end() <= function.range.start() {
            kept.push(function);
        } else if function.source == FunctionSource::Symbol {
            // Described already, at least in part; the rest becomes a gap.
        } else if last.source == FunctionSource::Symbol && last.range.start() == function.range.start() {
            *last = function;
        } else if last.range.start() < function.range.start() {
            if let Ok(range) = VaRange::try_from((last.range.start(), function.range.start())) {
                last.range = range;
            }
            kept.push(function);
        }
    }
    *found = kept;
}

fn fill_gaps(section: &Section<'_>, found: &[Function], all: &mut Vec<Function>) {
    let from = found.partition_point(|f| f.range.start() < section.range.start());
    let to = found.partition_point(|f| f.range.start() < section.range.end());
    let mut at = section.range.start();
    for function in found.get(from..to).unwrap_or_default() {
        push_gap(section, at, function.range.start(), FunctionSource::Gap, all);
        let end = function.range.end().min(section.range.end());
        if let Ok(range) = VaRange::try_from((function.range.start(), end)) {
            all.push(Function { range, ..function.clone() });
        }
        at = at.max(end);
    }
    push_gap(section, at, section.range.end(), FunctionSource::Gap, all);
}

/// Divides gaps at those of the places, sorted, that lie inside of one.
pub(crate) fn divide_gaps(sections: &[Section<'_>], functions: Vec<Function>, places: &[Va]) -> Vec<Function> {
    let mut all = Vec::with_capacity(functions.len().saturating_add(places.len()));
    for function in functions {
        let (start, end) = (function.range.start(), function.range.end());
        let from = places.partition_point(|place| *place <= start);
        let inside = places.get(from..).unwrap_or_default().iter().copied().take_while(|place| *place < end);
        let inside: Vec<Va> = inside.collect();
        let section = sections.iter().find(|section| section.range.contains(start));
        let (Some(section), false) = (section, inside.is_empty()) else {
            all.push(function);
            continue;
        };
        let mut at = start;
        let first = all.len();
        for until in inside.into_iter().chain([end]) {
            push_gap(section, at, until, FunctionSource::Piece, &mut all);
            at = until;
        }
        if let Some(named) = all.get_mut(first).filter(|piece| piece.range.start() == start) {
            named.name = function.name;
        }
    }
    all
}

fn push_gap(section: &Section<'_>, start: Va, end: Va, source: FunctionSource, all: &mut Vec<Function>) {
    let Some(bytes) = VaRange::try_from((start, end)).ok().and_then(|range| section.read(range)) else {
        return;
    };
    let lead = leading_padding(bytes);
    let Some(rest) = bytes.get(lead..).filter(|rest| !rest.is_empty()) else {
        return;
    };
    let len = rest.len().saturating_sub(trailing_padding(rest));
    let (Ok(lead), Ok(len)) = (u64::try_from(lead), u64::try_from(len)) else {
        return;
    };
    let range = start.checked_add(lead).and_then(|start| VaRange::new(start, len));
    if let Some(range) = range {
        all.push(Function { range, source, has_lsda: false, catches: false, name: None });
    }
}

fn name_functions(symbols: &[Symbol<'_>], extra_names: &HashMap<Va, &str>, all: &mut [Function]) {
    let mut names: HashMap<Va, &str> = extra_names.clone();
    for symbol in symbols {
        let code = matches!(symbol.kind, SymbolKind::Function | SymbolKind::IndirectFunction);
        if symbol.defined && code {
            // Several names for one function: the alphabetically first, so that both images agree.
            names
                .entry(symbol.value)
                .and_modify(|name| {
                    if symbol.name < *name {
                        *name = symbol.name;
                    }
                })
                .or_insert(symbol.name);
        }
    }
    for function in all {
        function.name = names.get(&function.range.start()).map(|name| (*name).into());
    }
}
