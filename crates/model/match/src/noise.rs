//! Differences that cannot matter, on proof.
//!
//! A function is noise if its code is the same, every reference leads to the
//! same thing, and the only texts that differ do so in a *build stamp*: a line
//! number behind a source file's name, the package's own version, the version
//! text of a library's headers, a date beside such a version. Looks alone prove
//! nothing: in addition the value has to leave the function unexamined
//! ([`crate::flow`]), and has to arrive where texts are only passed on:
//!
//! - a line number: at a parameter which the program feeds with source
//!   locations from at least three other places (so the parameter *is* a source
//!   location), or at an import that formats, writes or copies;
//! - a version: at imports that write text out and nowhere else, through
//!   however many functions of the image it is handed.
//!
//! What cannot be shown stays a change and is carried by the livepatch, which
//! is always right and only costs more.

use crate::content::{ContentDifference, text_around, text_at};
use crate::diff::{ChangedPair, ImageDiff, SiteDifference};
use crate::flow::{Destination, Flow, Handover, follow, follow_argument};
use crate::readers::COMPARING;
use crate::side::Side;
use crate::stamp::{Stamp, Stamps};
use salve_code::ReferenceKind;
use salve_elf::{Binding, SectionRole, Va, VaRange};
use salve_patch::{Evidence, NoiseReport};
use std::collections::{BTreeSet, HashMap};

/// Imports that only format, write, measure or copy text (ISO C, POSIX, LSB).
const PASS_ON: &[&str] = &[
    "printf",
    "fprintf",
    "dprintf",
    "sprintf",
    "snprintf",
    "asprintf",
    "vprintf",
    "vfprintf",
    "vsnprintf",
    "__printf_chk",
    "__fprintf_chk",
    "__dprintf_chk",
    "__sprintf_chk",
    "__snprintf_chk",
    "__asprintf_chk",
    "__vfprintf_chk",
    "__vsnprintf_chk",
    "puts",
    "fputs",
    "fwrite",
    "write",
    "syslog",
    "__syslog_chk",
    "perror",
    "strlen",
    "strdup",
    "__strdup",
    "strndup",
    "memcpy",
    "mempcpy",
    "memmove",
    "strcpy",
    "strcat",
    "stpcpy",
    "__memcpy_chk",
    "__strcpy_chk",
    "__strcat_chk",
    "setenv",
    "__assert_fail",
    "__assert",
    "__assert_perror_fail",
    "__stack_chk_fail",
    "abort",
    "err",
    "errx",
    "warn",
    "warnx",
    "error",
];

/// Imports that format text for people, write it out, or hand it to child
/// processes. Plain copies are not among them: who examines a copy of a version
/// decides something by it.
const WRITE_OUT: &[&str] = &[
    "setenv",
    "vsnprintf",
    "__vsnprintf_chk",
    "__stack_chk_fail",
    "abort",
    "printf",
    "fprintf",
    "dprintf",
    "vprintf",
    "vfprintf",
    "vdprintf",
    "__printf_chk",
    "__fprintf_chk",
    "__dprintf_chk",
    "__vprintf_chk",
    "__vfprintf_chk",
    "puts",
    "fputs",
    "fputs_unlocked",
    "fwrite",
    "write",
    "syslog",
    "vsyslog",
    "__syslog_chk",
    "__vsyslog_chk",
    "perror",
    "__assert_fail",
    "__assert",
    "__assert_perror_fail",
    "err",
    "errx",
    "warn",
    "warnx",
    "error",
];

/// What two builds call themselves, for telling stamps from other text.
#[derive(Clone, Debug, Default)]
pub struct NoiseContext {
    /// Package versions, where the pair comes from packages.
    pub versions: Option<(String, String)>,
}

/// Finds the noise among the changed pairs; indices into `diff.changed`.
pub fn noise(diff: &ImageDiff<'_, '_>, context: &NoiseContext) -> Vec<(usize, NoiseReport)> {
    let stamps = Stamps::new(context.versions.as_ref());
    let mut locations = LocationParameters::default();
    let mut found = Vec::new();
    for (index, pair) in diff.changed.iter().enumerate() {
        if pair.sites.is_empty() {
            continue;
        }
        if let Some(proof) = prove(diff, pair, &stamps, &mut locations)
            && let (Some(f), Some(g)) =
                (diff.old.image.functions().get(pair.old), diff.new.image.functions().get(pair.new))
        {
            let report =
                NoiseReport { function: g.display_name(), old_va: f.range.start(), new_va: g.range.start(), proof };
            found.push((index, report));
        }
    }
    found
}

fn prove(
    diff: &ImageDiff<'_, '_>,
    pair: &ChangedPair,
    stamps: &Stamps,
    locations: &mut LocationParameters,
) -> Option<Vec<Evidence>> {
    let range = diff.old.image.functions().get(pair.old)?.range;
    let name = diff.new.image.functions().get(pair.new)?.display_name();
    let mut proof = Vec::new();
    for site in &pair.sites {
        let (stamp, texts) = stamp_of(diff, site, stamps)?;
        let Flow::Calls(destinations) = follow(&diff.old, range, site.old_at) else { return None };
        let mut arrivals = BTreeSet::new();
        for destination in &destinations {
            arrivals.insert(arrives(diff, *destination, stamp, locations)?);
        }
        let arrivals: Vec<String> = arrivals.into_iter().collect();
        let flow = if arrivals.is_empty() { "is never used".to_owned() } else { arrivals.join("; ") };
        proof.push(Evidence {
            function: Some(name.clone()),
            old_va: Some(site.old_at),
            new_va: Some(site.new_at),
            seen: format!("{stamp}: {:?} was {:?}; its address is not examined here and {flow}", texts.1, texts.0),
        });
    }
    Some(proof)
}

/// Whether the two versions have the same instructions and refer to the same
/// things but for texts that differ in build stamps.
pub fn only_stamps(diff: &ImageDiff<'_, '_>, pair: &ChangedPair, context: &NoiseContext) -> bool {
    let stamps = Stamps::new(context.versions.as_ref());
    !pair.sites.is_empty() && pair.sites.iter().all(|site| stamp_of(diff, site, &stamps).is_some())
}

fn stamp_of(diff: &ImageDiff<'_, '_>, site: &SiteDifference, stamps: &Stamps) -> Option<(Stamp, (String, String))> {
    let ContentDifference::Text { old, new } = site.difference else { return None };
    let a = core::str::from_utf8(text_at(&diff.old, old, 1)?).ok()?;
    let b = core::str::from_utf8(text_at(&diff.new, new, 1)?).ok()?;
    Some((stamps.difference(a, b)?, (a.to_owned(), b.to_owned())))
}

/// Says where the value arrives, if that is harmless for such a stamp.
fn arrives(
    diff: &ImageDiff<'_, '_>,
    destination: Destination,
    stamp: Stamp,
    locations: &mut LocationParameters,
) -> Option<String> {
    if stamp != Stamp::Line {
        return written_out(&diff.old, destination, 0);
    }
    if destination.by == Handover::Lingering {
        // An argument's slot that was left behind; who gets it as an argument is checked.
        return Some("lies unused in the frame".to_owned());
    }
    if let Some(import) = import_name(&diff.old, destination.target) {
        return PASS_ON.contains(&import).then(|| format!("goes to {import}, which passes text on"));
    }
    let others = locations.sources(diff, destination)?;
    if locations.is_compared(diff, destination) {
        return None;
    }
    (others >= 3).then(|| match destination.target {
        Some(target) => format!(
            "goes to {} at {target}, which gets source locations from {others} places",
            name_at(&diff.old, target)
        ),
        None => format!("goes to a callback, which gets source locations from {others} places"),
    })
}

/// Whether somebody who gets the text hands it to an import that compares texts.
fn is_compared(side: &Side<'_, '_>, destination: Destination, depth: u8) -> bool {
    const DEEPEST: u8 = 3;
    if let Some(import) = import_name(side, destination.target) {
        return COMPARING.contains(&import);
    }
    let (Some(target), Handover::Register(argument)) = (destination.target, destination.by) else { return false };
    let target = through_stub(side, target);
    let function = side.image.function_index_at(target).and_then(|index| side.image.functions().get(index));
    let Some(function) = function.filter(|f| f.range.start() == target && depth < DEEPEST) else { return false };
    let onward = match follow_argument(side, function.range, argument) {
        Flow::Calls(onward) => onward,
        // It is kept, or looked at: whoever compares it whole does so here, or is not found.
        Flow::Examined { .. } => return hands_to_comparison(side, function.range, argument),
    };
    onward.into_iter().any(|next| is_compared(side, next, depth.saturating_add(1)))
}

/// The image's own function behind a stub, where the loader takes no other.
fn through_stub(side: &Side<'_, '_>, target: Va) -> Va {
    let Some(slot) = side.plt.slot_of(target) else { return target };
    match side.image.reloc_at(slot).map(|reloc| reloc.binding) {
        Some(Binding::Relative { target }) => target,
        Some(Binding::Symbol { symbol, .. }) => {
            let own = side.image.symbols().get(symbol).filter(|symbol| symbol.defined);
            own.map_or(target, |symbol| symbol.value)
        }
        _ => target,
    }
}

/// Whether the function itself hands this argument to an import that compares texts.
fn hands_to_comparison(side: &Side<'_, '_>, range: VaRange, argument: u8) -> bool {
    let value = salve_code::affine::argument(usize::from(argument));
    salve_code::affine::forms(side.image, range).calls.iter().any(|call| {
        let target = salve_code::decode_at(side.image, call.at).map(|i| Va::new(i.near_branch_target()));
        import_name(side, target).is_some_and(|import| COMPARING.contains(&import))
            && call.arguments.iter().any(|form| form.terms.as_slice() == [(value, 1)] && form.constant == 0)
    })
}

/// Where functions of the new image compare something with the new build's name.
pub fn new_names(
    diff: &ImageDiff<'_, '_>,
    functions: impl IntoIterator<Item = usize>,
    context: &NoiseContext,
) -> Vec<Evidence> {
    let stamps = Stamps::new(context.versions.as_ref());
    let side = &diff.new;
    let mut evidence = Vec::new();
    for (function, code) in functions.into_iter().filter_map(|n| side.image.functions().get(n).zip(side.code.get(n))) {
        for reference in code.references.iter().filter(|reference| reference.kind == ReferenceKind::Address) {
            let text = text_at(side, reference.target, 1).and_then(|text| core::str::from_utf8(text).ok());
            let Some(text) = text.filter(|text| stamps.names_the_new(text)) else { continue };
            let at = function.range.start().wrapping_offset(i64::from(reference.at));
            let compared = match follow(side, function.range, at) {
                Flow::Calls(destinations) => destinations.into_iter().any(|to| is_compared(side, to, 0)),
                Flow::Examined { .. } => false,
            };
            if compared {
                evidence.push(Evidence {
                    function: Some(function.display_name()),
                    old_va: None,
                    new_va: Some(at),
                    seen: format!("{text:?} names the new build and is compared with something"),
                });
            }
        }
    }
    evidence
}

/// Says where a text arrives, if everything it reaches only writes it out.
pub(crate) fn written_out(side: &Side<'_, '_>, destination: Destination, depth: u8) -> Option<String> {
    const DEEPEST: u8 = 6;
    if destination.by == Handover::Lingering {
        return None;
    }
    if let Some(import) = import_name(side, destination.target) {
        return WRITE_OUT.contains(&import).then(|| format!("goes to {import}, which writes it out"));
    }
    let target = destination.target?;
    let Handover::Register(argument) = destination.by else {
        // In memory that the callee reaches by calculation: not followed, so not proven.
        return None;
    };
    let index = side.image.function_index_at(target)?;
    let function = side.image.functions().get(index).filter(|f| f.range.start() == target)?;
    if depth >= DEEPEST {
        return None;
    }
    let Flow::Calls(onward) = follow_argument(side, function.range, argument) else { return None };
    for next in onward {
        written_out(side, next, depth.saturating_add(1))?;
    }
    Some(format!("goes to {} at {target}, which does no more than write it out", name_at(side, target)))
}

pub(crate) fn name_at(side: &Side<'_, '_>, va: Va) -> String {
    side.image
        .function_index_at(va)
        .and_then(|i| side.image.functions().get(i))
        .map_or_else(|| format!("code at {va}"), salve_elf::Function::display_name)
}

pub(crate) fn import_name<'a>(side: &Side<'_, 'a>, target: Option<Va>) -> Option<&'a str> {
    let target = target?;
    let slot = side.plt.slot_of(target).unwrap_or(target);
    match side.image.reloc_at(slot)?.binding {
        Binding::Symbol { symbol, .. } => side.image.symbols().get(symbol).filter(|s| !s.defined).map(|s| s.name),
        Binding::Relative { .. } | Binding::Indirect { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. } => {
            None
        }
    }
}

/// Places that feed a parameter, by function and position.
type Sources = HashMap<(Option<Va>, Handover), BTreeSet<Va>>;

/// Which parameters the program feeds with source locations, and how often.
/// Found once, by following every source location in the old image.
#[derive(Default)]
struct LocationParameters {
    sources: Option<Sources>,
    /// Whether they are compared with others.
    compared: HashMap<(Option<Va>, Handover), bool>,
}

impl LocationParameters {
    fn is_compared(&mut self, diff: &ImageDiff<'_, '_>, destination: Destination) -> bool {
        let parameter = (destination.target, destination.by);
        *self.compared.entry(parameter).or_insert_with(|| is_compared(&diff.old, destination, 0))
    }

    /// From how many places this parameter gets a source location.
    fn sources(&mut self, diff: &ImageDiff<'_, '_>, destination: Destination) -> Option<usize> {
        let sources = self.sources.get_or_insert_with(|| find_locations(&diff.old));
        sources.get(&(destination.target, destination.by)).map(BTreeSet::len)
    }
}

fn find_locations(side: &Side<'_, '_>) -> Sources {
    let mut found = Sources::new();
    for (function, code) in side.image.functions().iter().zip(&side.code) {
        for reference in &code.references {
            let location = reference.kind == ReferenceKind::Address
                && side.role_at(reference.target) == Some(SectionRole::ReadOnlyData)
                && text_at(side, reference.target, 4)
                    .and_then(|t| core::str::from_utf8(t).ok())
                    .is_some_and(crate::stamp::names_a_source_line);
            if !location {
                continue;
            }
            let at = function.range.start().wrapping_offset(i64::from(reference.at));
            if let Flow::Calls(destinations) = follow(side, function.range, at) {
                for d in destinations {
                    found.entry((d.target, d.by)).or_default().insert(at);
                }
            }
        }
    }
    found
}

/// A text in data that differs in a build stamp only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataStamp {
    pub old: String,
    pub new: String,
    /// Where the whole texts lie.
    pub old_range: VaRange,
    pub new_range: VaRange,
}

/// Whether a difference of data *looks* like a build stamp: the whole text
/// around the first differing byte, in both images. Who reads it is another
/// question (module `readers`).
pub fn data_stamp(diff: &ImageDiff<'_, '_>, old: Va, new: Va, context: &NoiseContext) -> Option<DataStamp> {
    let around = |side: &Side<'_, '_>, va: Va| -> Option<(String, VaRange)> {
        let range = text_around(side, va)?;
        Some((core::str::from_utf8(side.image.read(range)?).ok()?.to_owned(), range))
    };
    let ((a, old_range), (b, new_range)) = (around(&diff.old, old)?, around(&diff.new, new)?);
    Stamps::new(context.versions.as_ref()).difference(&a, &b)?;
    Some(DataStamp { old: a, new: b, old_range, new_range })
}
