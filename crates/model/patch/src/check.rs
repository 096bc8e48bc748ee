//! What has to be true of a patch file's contents before anybody acts on them.
//!
//! One set of rules for the writer and the reader, so that what cannot be read
//! cannot be written. They are about shape and agreement only: that the
//! livepatch *means* what the new image means is the validator's to prove, and
//! that a process is the one it was made for is checked in the process.

use crate::{
    Access, Detour, FORMAT_VERSION, Fixup, FixupKind, ImageReport, Livepatch, MAX_NAMED, NotHealed,
    OLDEST_FORMAT_VERSION, Origin, OwnAddress, PatchFile, ReplacedFunction, Requirement, Segment, Verdict, layout,
    words,
};
use salve_elf::{ContentHash, Va, VaRange};
use std::collections::BTreeMap;

/// The jump that a detour writes: `e9 rel32`.
pub(crate) const JUMP_BYTES: u64 = 5;
/// `endbr64`, which a detour may leave standing.
const ENDBR_BYTES: u64 = 4;
/// The field of a `PcRel32`.
const FIELD_BYTES: u64 = 4;
/// A slot that the loader fills.
const SLOT_BYTES: u64 = 8;
/// What may stand between the field and the end of its instruction: an
/// immediate of at most four bytes (Intel SDM, volume 2, §2.1).
const MAX_IMMEDIATE_BYTES: u64 = 4;
/// A payload has to lie within a rel32 of the old image as a whole.
const MAX_SPAN_BYTES: u64 = 1 << 31;
/// Names are for people, symbol tables and log lines.
const MAX_NAME_BYTES: usize = 4096;
/// The first version with slots for imports.
const IMPORTS_SINCE: u32 = 3;
/// The first version with call frame information.
const UNWIND_SINCE: u32 = 4;
/// The first version with slots for what an image defines itself, and with pointers.
const OWN_SINCE: u32 = 5;
/// The first version whose livepatches change words of the old image's constants.
const WORDS_SINCE: u32 = 6;
/// The first version with a list of what is not healed.
const NOT_HEALED_SINCE: u32 = 2;

/// Contents that contradict themselves. `image` and `livepatch` count from zero.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("format version {found} is not in {OLDEST_FORMAT_VERSION}..={FORMAT_VERSION}")]
    Version { found: u32 },
    #[error("{what} is empty, too long or has control characters")]
    Name { what: &'static str },
    #[error("image {image} has slots for imports, which belong to a later version")]
    ImportsAgainstVersion { image: usize },
    #[error("image {image} has slots or pointers for addresses of its own, which belong to a later version")]
    OwnAgainstVersion { image: usize },
    #[error("image {image} has call frame information, which belongs to a later version")]
    UnwindAgainstVersion { image: usize },
    #[error("image {image} changes words of constants, which belongs to a later version")]
    WordsAgainstVersion { image: usize },
    #[error("the list of what is not healed is missing, or belongs to a later version")]
    NotHealedAgainstVersion,
    #[error("the list of what is not healed is not in order, counts less than it names, or names too much")]
    NotHealed,
    #[error("image {image} exists on neither side")]
    NoImage { image: usize },
    #[error("image {image} is {verdict:?} and has a livepatch, or lacks one")]
    LivepatchAgainstVerdict { image: usize, verdict: Verdict },
    #[error("image {image} has a livepatch and is the same on both sides, or lacks a side")]
    LivepatchWithoutPair { image: usize },
    #[error("verdict {verdict:?} on image {image} is milder than its reason {code} allows")]
    VerdictTooMild { image: usize, verdict: Verdict, code: String },
    #[error("verdict {verdict:?} on image {image} has no reason")]
    NoReason { image: usize, verdict: Verdict },
    #[error("image {image} has another livepatch for the content of image {earlier}")]
    AmbiguousImage { image: usize, earlier: usize },
    #[error("{count} livepatches or their segments are too many for one file")]
    TooMany { count: usize },
    #[error("livepatch {livepatch}: {fault}")]
    Livepatch {
        livepatch: usize,
        #[source]
        fault: Fault,
    },
}

/// What is wrong with one livepatch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("no payload or no detour")]
    Nothing,
    #[error("segment at {new_va} is empty or not whole pages")]
    SegmentUnaligned { new_va: Va },
    #[error("segment at {new_va} is too high or too far from the first")]
    SegmentOutOfReach { new_va: Va },
    #[error("segment at {new_va} overlaps the one before or is out of order")]
    SegmentOrder { new_va: Va },
    #[error("fix-up at {new_va} overlaps the one before or is out of order")]
    FixupOrder { new_va: Va },
    #[error("fix-up at {new_va} lies outside the payload")]
    FixupOutside { new_va: Va },
    #[error("fix-up at {new_va} belongs to an instruction that ends at {new_next}")]
    FixupInstruction { new_va: Va, new_next: Va },
    #[error("slot at {new_va} is no aligned slot of read-only payload, or overlaps a fix-up")]
    ImportPlace { new_va: Va },
    #[error("slot at {new_va} overlaps the one before or is out of order")]
    ImportOrder { new_va: Va },
    #[error("pointer at {new_va} is out of order, no word of read-only payload, or leads nowhere")]
    PointerPlace { new_va: Va },
    #[error("detour at {old_va} overlaps the one before or is out of order")]
    DetourOrder { old_va: Va },
    #[error("detour at {old_va} expects {len} bytes, not {JUMP_BYTES}")]
    DetourLength { old_va: Va, len: usize },
    #[error("detour at {old_va} does not begin at its function's entry {old_entry} or after endbr64")]
    DetourEntry { old_va: Va, old_entry: Va },
    #[error("detour at {old_va} overwrites bytes of no replaced function")]
    DetourOutsideFunction { old_va: Va },
    #[error("detour at {old_va} leads to {new_target}, which is in no new function")]
    DetourTarget { old_va: Va, new_target: Va },
    #[error("{count} words are too many to be written in one go")]
    TooManyWords { count: usize },
    #[error("word at {old_va} is out of order, not aligned, or overlaps the one before")]
    WordPlace { old_va: Va },
    #[error("word at {old_va} does not change, lies in a detour, or leads nowhere")]
    WordValue { old_va: Va },
    #[error("function {range} that reads words is empty, out of order, or reads none")]
    ReaderPlace { range: VaRange },
    #[error("function {name} has neither an old nor a new part")]
    FunctionNowhere { name: String },
    #[error("function {name} has the empty part {range}")]
    FunctionEmpty { name: String, range: VaRange },
    #[error("function {name} has a part at {range} outside the executable payload")]
    FunctionOutside { name: String, range: VaRange },
    #[error("part {range} of a function overlaps another function's")]
    FunctionOverlap { range: VaRange },
    #[error("call frame information of {new_range} is empty, out of order, outside the code or names no entry")]
    UnwindPlace { new_range: VaRange },
    #[error("call frame information has an entry that nothing uses, or one that is too long")]
    UnwindEntry,
    #[error("requirement on {symbol} tests no bit")]
    RequirementEmpty { symbol: String },
    #[error("{what} is empty, too long or has control characters")]
    Name { what: &'static str },
}

/// Checks all that one file says.
pub(crate) fn patch_file(patch: &PatchFile) -> Result<(), Invalid> {
    if !(OLDEST_FORMAT_VERSION..=FORMAT_VERSION).contains(&patch.format_version) {
        return Err(Invalid::Version { found: patch.format_version });
    }
    name("created_by", &patch.created_by)?;
    origin(&patch.origin)?;
    if (patch.format_version >= NOT_HEALED_SINCE) != patch.not_healed.is_some() {
        return Err(Invalid::NotHealedAgainstVersion);
    }
    patch.not_healed.as_ref().map_or(Ok(()), not_healed)?;
    let mut seen: BTreeMap<ContentHash, (usize, &ImageReport)> = BTreeMap::new();
    let (mut livepatches, mut segments) = (0_usize, 0_usize);
    for (image, report) in patch.images.iter().enumerate() {
        self::image(image, report)?;
        let (Some(found), Some(old)) = (&report.livepatch, &report.old) else { continue };
        if !found.imports.is_empty() && patch.format_version < IMPORTS_SINCE {
            return Err(Invalid::ImportsAgainstVersion { image });
        }
        let own = found.imports.iter().any(|import| import.own.is_some()) || !found.pointers.is_empty();
        if own && patch.format_version < OWN_SINCE {
            return Err(Invalid::OwnAgainstVersion { image });
        }
        if !found.unwind.is_empty() && patch.format_version < UNWIND_SINCE {
            return Err(Invalid::UnwindAgainstVersion { image });
        }
        if !(found.words.is_empty() && found.readers.is_empty()) && patch.format_version < WORDS_SINCE {
            return Err(Invalid::WordsAgainstVersion { image });
        }
        livepatch(found).map_err(|fault| Invalid::Livepatch { livepatch: livepatches, fault })?;
        if let Some((earlier, other)) = seen.insert(old.sha256, (image, report))
            && (&other.livepatch, &other.new) != (&report.livepatch, &report.new)
        {
            return Err(Invalid::AmbiguousImage { image, earlier });
        }
        livepatches = livepatches.saturating_add(1);
        segments = segments.saturating_add(found.segments.len());
    }
    if livepatches > layout::MAX_LANES {
        return Err(Invalid::TooMany { count: livepatches });
    }
    if segments > layout::MAX_SEGMENTS {
        return Err(Invalid::TooMany { count: segments });
    }
    Ok(())
}

fn origin(origin: &Origin) -> Result<(), Invalid> {
    match origin {
        Origin::Packages { old, new, .. } => [old, new].into_iter().try_for_each(|package| {
            name("package name", &package.name)?;
            name("source name", &package.source)?;
            name("package version", &package.version)?;
            name("package architecture", &package.architecture)
        }),
        Origin::Files { old, new } => {
            name("old file", old)?;
            name("new file", new)
        }
    }
}

/// Each class once, in order; no group names more than it counts.
fn not_healed(list: &NotHealed) -> Result<(), Invalid> {
    let ordered = match list {
        NotHealed::Unknown { present } => present.is_sorted_by(|a, b| a.class < b.class),
        NotHealed::Known { groups } => {
            for group in groups {
                let named = group.named.len();
                let counted = u64::try_from(named).is_ok_and(|named| named <= group.files);
                if !counted || named > MAX_NAMED || !group.named.is_sorted_by(|a, b| a.path < b.path) {
                    return Err(Invalid::NotHealed);
                }
                group.named.iter().try_for_each(|file| name("path of what is not healed", &file.path))?;
            }
            groups.is_sorted_by(|a, b| a.class < b.class)
        }
    };
    if ordered { Ok(()) } else { Err(Invalid::NotHealed) }
}

fn image(image: usize, report: &ImageReport) -> Result<(), Invalid> {
    let verdict = report.verdict;
    name("image path", &report.path)?;
    for id in [&report.old, &report.new].into_iter().flatten() {
        id.soname.as_deref().map_or(Ok(()), |soname| name("soname", soname))?;
    }
    if report.old.is_none() && report.new.is_none() {
        return Err(Invalid::NoImage { image });
    }
    let wants_livepatch = match verdict {
        Verdict::Unchanged | Verdict::Refused => false,
        Verdict::Safe | Verdict::Review => true,
    };
    if wants_livepatch != report.livepatch.is_some() {
        return Err(Invalid::LivepatchAgainstVerdict { image, verdict });
    }
    if wants_livepatch {
        match (&report.old, &report.new) {
            (Some(old), Some(new)) if old.sha256 != new.sha256 => {}
            _ => return Err(Invalid::LivepatchWithoutPair { image }),
        }
    }
    reasons(image, report)
}

/// A reason may not be graver than the verdict, and a grave verdict has a reason.
fn reasons(image: usize, report: &ImageReport) -> Result<(), Invalid> {
    let verdict = report.verdict;
    for reason in &report.reasons {
        name("reason code", &reason.code)?;
        if reason.verdict >= Verdict::Review && reason.verdict > verdict {
            return Err(Invalid::VerdictTooMild { image, verdict, code: reason.code.clone() });
        }
    }
    let explained = report.reasons.iter().any(|reason| reason.verdict == verdict);
    if verdict >= Verdict::Review && !explained { Err(Invalid::NoReason { image, verdict }) } else { Ok(()) }
}

impl Livepatch {
    /// Whether its parts agree with each other, as a patch file demands of each
    /// livepatch it holds. Asked before one is put into a file with others, so that
    /// a bad one is refused alone.
    pub fn check(&self) -> Result<(), Fault> {
        livepatch(self)
    }
}

fn livepatch(livepatch: &Livepatch) -> Result<(), Fault> {
    if livepatch.segments.is_empty() || livepatch.detours.is_empty() && livepatch.words.is_empty() {
        return Err(Fault::Nothing);
    }
    segments(&livepatch.segments)?;
    fixups(&livepatch.fixups, &livepatch.segments)?;
    imports(livepatch)?;
    pointers(livepatch)?;
    functions(&livepatch.replaced, &livepatch.segments)?;
    detours(&livepatch.detours, &livepatch.replaced)?;
    words::check(livepatch)?;
    livepatch.unwind.check(&livepatch.segments)?;
    livepatch.requirements.iter().try_for_each(requirement)
}

fn segments(segments: &[Segment]) -> Result<(), Fault> {
    let mut span: Option<(Va, Va)> = None;
    for segment in segments {
        let new_va = segment.new_va;
        let range = segment.range().ok_or(Fault::SegmentOutOfReach { new_va })?;
        let page = |value: u64| value.is_multiple_of(layout::PAGE_BYTES);
        if range.is_empty() || !page(new_va.raw()) || !page(range.len_bytes()) {
            return Err(Fault::SegmentUnaligned { new_va });
        }
        let (first, end) = span.unwrap_or((new_va, new_va));
        if new_va < end {
            return Err(Fault::SegmentOrder { new_va });
        }
        let far = range.end().raw().saturating_sub(first.raw()) >= MAX_SPAN_BYTES;
        if far || range.end().raw() > 1 << layout::LANE_BITS {
            return Err(Fault::SegmentOutOfReach { new_va });
        }
        span = Some((first, range.end()));
    }
    Ok(())
}

fn fixups(fixups: &[Fixup], segments: &[Segment]) -> Result<(), Fault> {
    let mut end = Va::new(0);
    for fixup in fixups {
        let new_va = fixup.new_va;
        let field = VaRange::new(new_va, FIELD_BYTES).ok_or(Fault::FixupOutside { new_va })?;
        if new_va < end {
            return Err(Fault::FixupOrder { new_va });
        }
        end = field.end();
        if !layout::segment_of(segments, new_va).is_some_and(|(_, segment)| contains(segment, field)) {
            return Err(Fault::FixupOutside { new_va });
        }
        let FixupKind::PcRel32 { new_next, .. } = fixup.kind;
        let after = new_next.raw().checked_sub(field.end().raw());
        if after.is_none_or(|bytes| bytes > MAX_IMMEDIATE_BYTES) {
            return Err(Fault::FixupInstruction { new_va, new_next });
        }
    }
    Ok(())
}

fn imports(livepatch: &Livepatch) -> Result<(), Fault> {
    let mut end = Va::new(0);
    for import in &livepatch.imports {
        let new_va = import.new_va;
        if new_va < end {
            return Err(Fault::ImportOrder { new_va });
        }
        end = bound_word(livepatch, new_va).ok_or(Fault::ImportPlace { new_va })?;
        if let Some(OwnAddress::Payload(at)) = import.own
            && !layout::segment_of(&livepatch.segments, at).is_some_and(|(_, s)| s.access == Access::ReadExecute)
        {
            return Err(Fault::ImportPlace { new_va });
        }
        if !is_name(&import.symbol) || !import.version.as_deref().is_none_or(is_name) {
            return Err(Fault::Name { what: "symbol or version of an import" });
        }
    }
    Ok(())
}

fn pointers(livepatch: &Livepatch) -> Result<(), Fault> {
    let mut end = Va::new(0);
    for pointer in &livepatch.pointers {
        let new_va = pointer.new_va;
        let is_import = livepatch.imports.binary_search_by_key(&new_va, |import| import.new_va).is_ok();
        let leads_nowhere = match pointer.to {
            OwnAddress::Payload(at) => layout::segment_of(&livepatch.segments, at).is_none(),
            OwnAddress::Old(_) => false,
        };
        let word = bound_word(livepatch, new_va).filter(|_| new_va >= end && !is_import && !leads_nowhere);
        end = word.ok_or(Fault::PointerPlace { new_va })?;
    }
    Ok(())
}

/// The end of an aligned word of read-only payload, apart from every fix-up.
fn bound_word(livepatch: &Livepatch, new_va: Va) -> Option<Va> {
    let word = VaRange::new(new_va, SLOT_BYTES).filter(|_| new_va.raw().is_multiple_of(SLOT_BYTES))?;
    let (_, segment) = layout::segment_of(&livepatch.segments, new_va)?;
    let inside = segment.access == Access::Read && contains(segment, word);
    let fixed = |fixup: &Fixup| {
        fixup.new_va < word.end() && fixup.new_va.checked_add(FIELD_BYTES).is_none_or(|field| field > new_va)
    };
    (inside && !livepatch.fixups.iter().any(fixed)).then_some(word.end())
}

fn functions(replaced: &[ReplacedFunction], segments: &[Segment]) -> Result<(), Fault> {
    let executable = |range: VaRange| {
        layout::segment_of(segments, range.start())
            .is_some_and(|(_, segment)| segment.access == Access::ReadExecute && contains(segment, range))
    };
    for function in replaced {
        if !is_name(&function.name) {
            return Err(Fault::Name { what: "function name" });
        }
        if function.old_ranges.is_empty() && function.new_ranges.is_empty() {
            return Err(Fault::FunctionNowhere { name: function.name.clone() });
        }
        if let Some(&range) = function.old_ranges.iter().chain(&function.new_ranges).find(|range| range.is_empty()) {
            return Err(Fault::FunctionEmpty { name: function.name.clone(), range });
        }
        if let Some(&range) = function.new_ranges.iter().find(|range| !executable(**range)) {
            return Err(Fault::FunctionOutside { name: function.name.clone(), range });
        }
    }
    disjoint(&sorted(replaced, |function| &function.old_ranges))?;
    disjoint(&sorted(replaced, |function| &function.new_ranges))
}

/// The ranges of all functions, sorted by address.
fn sorted(replaced: &[ReplacedFunction], side: impl Fn(&ReplacedFunction) -> &Vec<VaRange>) -> Vec<VaRange> {
    let mut ranges: Vec<VaRange> = replaced.iter().flat_map(|function| side(function).iter().copied()).collect();
    ranges.sort_unstable();
    ranges
}

fn disjoint(sorted: &[VaRange]) -> Result<(), Fault> {
    let mut end = Va::new(0);
    for &range in sorted {
        if range.start() < end {
            return Err(Fault::FunctionOverlap { range });
        }
        end = range.end();
    }
    Ok(())
}

/// The one of sorted, disjoint ranges that holds `va`.
fn holding(sorted: &[VaRange], va: Va) -> Option<VaRange> {
    let after = sorted.partition_point(|range| range.start() <= va);
    sorted.get(after.checked_sub(1)?).copied().filter(|range| range.contains(va))
}

/// A detour begins in a replaced function's old code and overwrites no other replaced
/// function. It may reach beyond a function that is shorter than the jump: the transition
/// looks for instruction pointers in whatever is overwritten, and that what lies behind is
/// padding is proven against the image before a patch is written.
fn detours(detours: &[Detour], replaced: &[ReplacedFunction]) -> Result<(), Fault> {
    let old = sorted(replaced, |function| &function.old_ranges);
    let new = sorted(replaced, |function| &function.new_ranges);
    let mut end = Va::new(0);
    for detour in detours {
        let old_va = detour.old_va;
        if !is_name(&detour.function) {
            return Err(Fault::Name { what: "function name of a detour" });
        }
        let jump = VaRange::new(old_va, JUMP_BYTES).ok_or(Fault::DetourOutsideFunction { old_va })?;
        if old_va < end {
            return Err(Fault::DetourOrder { old_va });
        }
        end = jump.end();
        if detour.expected.len() as u64 != JUMP_BYTES {
            return Err(Fault::DetourLength { old_va, len: detour.expected.len() });
        }
        let skipped = old_va.raw().checked_sub(detour.old_entry.raw());
        if !matches!(skipped, Some(0 | ENDBR_BYTES)) {
            return Err(Fault::DetourEntry { old_va, old_entry: detour.old_entry });
        }
        let next = old.get(old.partition_point(|range| range.start() <= old_va));
        if holding(&old, old_va).is_none() || next.is_some_and(|next| next.start() < jump.end()) {
            return Err(Fault::DetourOutsideFunction { old_va });
        }
        let new_target = detour.new_target;
        if holding(&new, new_target).is_none() {
            return Err(Fault::DetourTarget { old_va, new_target });
        }
    }
    Ok(())
}

fn requirement(requirement: &Requirement) -> Result<(), Fault> {
    let Requirement::DependencyConstant { soname, symbol, mask, .. } = requirement;
    if !is_name(soname) || !is_name(symbol) {
        return Err(Fault::Name { what: "library or symbol of a requirement" });
    }
    if *mask == 0 { Err(Fault::RequirementEmpty { symbol: symbol.clone() }) } else { Ok(()) }
}

pub(crate) fn contains(segment: &Segment, inner: VaRange) -> bool {
    segment.range().is_some_and(|outer| outer.start() <= inner.start() && inner.end() <= outer.end())
}

fn name(what: &'static str, text: &str) -> Result<(), Invalid> {
    if is_name(text) { Ok(()) } else { Err(Invalid::Name { what }) }
}

/// No control characters: names reach terminals, logs and symbol tables.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control)
}
