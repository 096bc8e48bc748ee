//! The rules.

use crate::callers::Callers;
use crate::carry::{Carried, carried};
use crate::followed::{Followed, each_rewritten};
use crate::layout::Layout;
use crate::words::Words;
use crate::{
    columns, contracts, data, dependency, encoding, handed, identity, meaning, objects, once, order, registry,
    resources, tables, unreached, witness,
};
use salve_code::ReferenceKind;
use salve_elf::{Function, ImageKind, Reloc, SectionRole, VaRange};
use salve_match::{ContentDifference, ImageDiff, NoiseContext, Place, Side, compare_operands, noise};
use salve_patch::{Evidence, FunctionCounts, NoiseReport, Reason, Requirement, RevertPolicy, Verdict};
use std::collections::BTreeSet;

/// What was decided about one pair of images.
#[derive(Clone, Debug)]
pub struct Judgement {
    pub carried: Carried,
    /// Sorted by address.
    pub noise: Vec<NoiseReport>,
    /// Pairs that are noise: `(old, new)`.
    pub noise_pairs: Vec<(usize, usize)>,
    /// Pairs that differ and that nothing in either image leads to: `(old, new)`.
    pub unreached: Vec<(usize, usize)>,
    pub reasons: Vec<Reason>,
    pub requirements: Vec<Requirement>,
    pub revert: RevertPolicy,
    pub functions: FunctionCounts,
    /// The tables of pointers that the payload is to have a copy of.
    pub copied_tables: Option<VaRange>,
    /// What becomes another in the old image's tables.
    pub words: Words,
}

impl Judgement {
    /// The verdict, as far as the comparison alone decides it.
    pub fn verdict(&self) -> Verdict {
        let nothing_carried = self.carried.pairs.is_empty() && self.carried.added.is_empty();
        let base = if nothing_carried { Verdict::Unchanged } else { Verdict::Safe };
        let worst = self.reasons.iter().map(|r| r.verdict).filter(|v| *v > Verdict::Safe).max();
        worst.unwrap_or(base)
    }
}

/// Applies every rule.
pub fn judge(diff: &ImageDiff<'_, '_>, context: &NoiseContext) -> Judgement {
    let mut judgement = sort_out(diff, context);
    if let Some(reason) = rebuilt(diff, &judgement.functions) {
        judgement.reasons.push(reason);
        return judgement;
    }
    let unreached = unreached::reason(diff, &judgement.carried);
    if unreached.is_some() {
        let carried = core::mem::take(&mut judgement.carried);
        judgement.unreached = carried.pairs.iter().map(|p| (p.old, p.new)).collect();
    }
    judgement.copied_tables = tables::copied(diff, &judgement.carried);
    let (carried, copied) = (&judgement.carried, judgement.copied_tables);
    let nothing_carried = carried.pairs.is_empty() && carried.added.is_empty();
    let (mut reasons, words) = data::reasons(diff, carried, copied, context);
    let witnesses = witness::witnesses(diff, carried);
    reasons.extend(unreached);
    let mut requirements = Vec::new();
    if !nothing_carried {
        if diff.new.image.kind() == ImageKind::FixedAddress {
            let first = diff.new.image.sections().first().map(|section| section.range.start());
            let seen = format!(
                "an ELF file of type ET_EXEC, linked to begin at {}",
                first.map_or_else(|| "an unknown address".to_owned(), |at| at.to_string())
            );
            let evidence = Evidence { function: None, old_va: None, new_va: first, seen };
            reasons.push(
                registry::FIXED_ADDRESS.because("the program is no position-independent executable", vec![evidence]),
            );
        }
        reasons.extend(text_relocations(diff));
        let layout = Layout::of(diff, carried);
        reasons.extend(layout.reasons(diff, carried));
        let followed = Followed::new(&diff.new);
        reasons.extend(values(diff, carried, &followed));
        reasons.extend(order::reason(diff, carried));
        reasons.extend(resources::reasons(diff, carried));
        reasons.extend(contracts::reason(diff, carried, &followed));
        reasons.extend(identity::reason(diff, carried, copied, &followed));
        reasons.extend(witness::reasons(diff, carried, copied, &witnesses));
        let doubts = tables::doubts(diff, carried, copied, &witnesses);
        if !doubts.is_empty() {
            let summary = "where a table begins and another ends is not the same in both images";
            reasons.push(registry::DATA_RESIZED.because(summary, doubts));
        }
        reasons.extend(exceptions(diff, carried));
        reasons.extend(read_only(diff, carried));
        reasons.extend(columns::reason(diff, carried, &followed));
        let (old_callers, new_callers) = (Callers::of(&diff.old), Callers::of(&diff.new));
        reasons.extend(startup(diff, carried, &new_callers));
        reasons.extend(once::reason(diff, carried));
        reasons.extend(callbacks(diff, carried, &old_callers, &new_callers));
        reasons.extend(roles(diff, carried, &old_callers));
        reasons.extend(rewritten(diff, carried));
        reasons.extend(by_place_only(diff, carried, &old_callers));
        reasons.extend(dependencies(diff, carried, &mut requirements));
        judgement.revert = revert_policy(diff, carried, copied.is_some(), &new_callers);
    }
    if !words.is_empty() {
        // What the words lead to may be kept by whoever reads them.
        judgement.revert = judgement.revert.max(RevertPolicy::KeepMapped);
        judgement.words = words;
    }
    if !judgement.noise.is_empty() {
        let summary = format!("{} functions differ in build stamps only and stay", judgement.noise.len());
        reasons.push(registry::BUILD_STAMP.because(summary, Vec::new()));
    }
    if nothing_carried && judgement.noise.is_empty() && reasons.is_empty() {
        reasons.push(registry::NO_CODE_CHANGE.because("this update changes no code here", Vec::new()));
    }
    reasons.sort_by(|a, b| b.verdict.cmp(&a.verdict).then_with(|| a.code.cmp(&b.code)));
    judgement.reasons = reasons;
    judgement.requirements = requirements;
    judgement
}

/// The rules that compare the values of both versions, each function followed once for all of them.
fn values(diff: &ImageDiff<'_, '_>, carried: &Carried, followed: &Followed<'_, '_, '_>) -> Vec<Reason> {
    let mut objects = objects::Objects::default();
    let mut encoding = encoding::Encoding::default();
    let mut meaning = meaning::Meaning::of(carried);
    let mut handed = handed::HandedOut::default();
    each_rewritten(diff, carried, followed, |versions| {
        objects.look(diff, followed, versions);
        encoding.look(diff, versions);
        meaning.look(diff, versions);
        handed.look(diff, versions);
    });
    let mut reasons = objects.reasons();
    reasons.extend(encoding.reason());
    reasons.extend(handed.reason());
    reasons.extend(meaning.reasons(diff, carried));
    reasons
}

/// Tells noise from change, and counts.
fn sort_out(diff: &ImageDiff<'_, '_>, context: &NoiseContext) -> Judgement {
    let found = noise(diff, context);
    let indices: BTreeSet<usize> = found.iter().map(|(index, _)| *index).collect();
    let carried = carried(diff, &indices);
    let new = carried.new_functions();
    let mut reports = Vec::new();
    let mut noise_pairs = Vec::new();
    for (index, report) in found {
        if let Some(pair) = diff.changed.get(index).filter(|p| !new.contains(&p.new)) {
            noise_pairs.push((pair.old, pair.new));
            reports.push(report);
        }
    }
    reports.sort_by_key(|r| r.new_va);
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let joined_identical = carried.joined.iter().filter(|n| diff.identical.iter().any(|(_, m)| m == *n)).count();
    let functions = FunctionCounts {
        old: count(diff.old.image.functions().len()),
        new: count(diff.new.image.functions().len()),
        identical: count(diff.identical.len().saturating_sub(joined_identical)),
        noise: count(noise_pairs.len()),
        changed: count(carried.pairs.len()),
        added: count(carried.added.len()),
        gone: count(diff.gone.len()),
    };
    Judgement {
        carried,
        noise: reports,
        noise_pairs,
        unreached: Vec::new(),
        reasons: Vec::new(),
        requirements: Vec::new(),
        revert: RevertPolicy::Unmap,
        functions,
        copied_tables: None,
        words: Words::default(),
    }
}

fn named(function: &Function) -> String {
    function.display_name()
}

/// Most of the code differs: nothing else that is found means anything.
fn rebuilt(diff: &ImageDiff<'_, '_>, counts: &FunctionCounts) -> Option<Reason> {
    const FEWEST: u64 = 16;
    let differing = counts.changed.saturating_add(counts.added);
    let share = differing.saturating_mul(100).checked_div(counts.new).unwrap_or(0);
    let _ = diff;
    (differing >= FEWEST && share >= 50).then(|| {
        let seen = format!("{differing} of {} functions differ ({share} %)", counts.new);
        registry::REBUILT.because(seen, Vec::new())
    })
}

/// `DT_TEXTREL` without trusting it: a relocation that lies in code.
fn text_relocations(diff: &ImageDiff<'_, '_>) -> Option<Reason> {
    let in_code = |reloc: &&Reloc| {
        let section = diff.old.image.section_at(reloc.at);
        section.is_some_and(|section| section.role == SectionRole::Code)
    };
    let evidence: Vec<Evidence> = diff
        .old
        .image
        .relocs()
        .iter()
        .filter(in_code)
        .take(64)
        .map(|reloc| Evidence {
            function: None,
            old_va: Some(reloc.at),
            new_va: None,
            seen: "a relocation lies in executable memory".to_owned(),
        })
        .collect();
    (!evidence.is_empty())
        .then(|| registry::TEXT_RELOCATIONS.because("its code is relocated when it is loaded", evidence))
}

fn exceptions(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    const RUNTIME: &[&str] =
        &["__cxa_throw", "__cxa_rethrow", "__cxa_begin_catch", "__gxx_personality_v0", "_Unwind_Resume"];
    let throws = diff.new.image.symbols().iter().find(|s| !s.defined && RUNTIME.contains(&s.name));
    let handlers: Vec<Evidence> = carried
        .new_functions()
        .into_iter()
        .filter_map(|n| diff.new.image.functions().get(n))
        .filter(|f| f.has_lsda)
        .map(|f| Evidence {
            function: Some(named(f)),
            old_va: None,
            new_va: Some(f.range.start()),
            seen: "its FDE has a language-specific data area".to_owned(),
        })
        .collect();
    // A runtime that is linked in has no name to be known by: what catches by type tells.
    let catches = |side: &Side<'_, '_>| side.image.functions().iter().find(|f| f.catches).map(named);
    let catcher = catches(&diff.old).or_else(|| catches(&diff.new));
    let summary = match (throws, catcher) {
        (Some(symbol), _) => format!("the image uses exceptions (it imports {})", symbol.name),
        (None, Some(function)) => format!("the image uses exceptions ({function} catches some by their types)"),
        (None, None) if handlers.is_empty() => return None,
        (None, None) => "replaced functions have exception handlers".to_owned(),
    };
    Some(registry::EXCEPTIONS.because(summary, handlers))
}

/// Equal code that refers to changed contents which are no text.
fn read_only(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    let new = carried.new_functions();
    let evidence: Vec<Evidence> = diff
        .changed
        .iter()
        .filter(|p| new.contains(&p.new))
        .flat_map(|p| p.sites.iter().map(move |s| (p, s)))
        .filter_map(|(pair, site)| match site.difference {
            ContentDifference::Bytes { old, new, offset } => Some(Evidence {
                function: diff.new.image.functions().get(pair.new).map(named),
                old_va: Some(site.old_at),
                new_va: Some(site.new_at),
                seen: format!("refers to {new} (before {old}), which differs from byte {offset:#x} on"),
            }),
            ContentDifference::Text { .. } => None,
        })
        .collect();
    (!evidence.is_empty()).then(|| registry::READ_ONLY_DATA_CHANGED.because("constants or tables changed", evidence))
}

fn startup(diff: &ImageDiff<'_, '_>, carried: &Carried, callers: &Callers) -> Option<Reason> {
    let evidence: Vec<Evidence> = carried
        .new_functions()
        .into_iter()
        .filter_map(|n| Some((n, diff.new.image.functions().get(n)?)))
        .filter(|(n, _)| callers.startup.contains(n) || callers.once.contains(n))
        .map(|(_, f)| Evidence {
            function: Some(named(f)),
            old_va: None,
            new_va: Some(f.range.start()),
            seen: "runs once, when the image is loaded or the program starts".to_owned(),
        })
        .collect();
    (!evidence.is_empty()).then(|| registry::STARTUP_CODE.because("code that runs at start-up changed", evidence))
}

fn callbacks(diff: &ImageDiff<'_, '_>, carried: &Carried, old: &Callers, new: &Callers) -> Vec<Reason> {
    let gone: Vec<Evidence> = diff
        .gone
        .iter()
        .filter(|o| old.is_held(**o))
        .filter_map(|o| diff.old.image.functions().get(*o))
        .map(|f| Evidence {
            function: Some(named(f)),
            old_va: Some(f.range.start()),
            new_va: None,
            seen: "its address was taken; it has no counterpart".to_owned(),
        })
        .collect();
    let added: Vec<Evidence> = carried
        .added
        .iter()
        .filter(|n| new.taken.contains(n))
        .filter_map(|n| diff.new.image.functions().get(*n))
        .map(|f| Evidence {
            function: Some(named(f)),
            old_va: None,
            new_va: Some(f.range.start()),
            seen: "its address is taken; it has no counterpart".to_owned(),
        })
        .collect();
    match (gone.is_empty(), added.is_empty()) {
        (true, true) => Vec::new(),
        (false, true) => vec![registry::CALLBACK_GONE.because("a callback is gone", gone)],
        (true, false) => vec![registry::NEW_CALLBACK.because("a callback is new", added)],
        (false, false) => {
            let evidence = gone.into_iter().chain(added).collect();
            vec![registry::CALLBACK_REPLACED.because("callbacks are gone and others are new", evidence)]
        }
    }
}

/// A changed function whose address is held somewhere needs a proven role.
fn roles(diff: &ImageDiff<'_, '_>, carried: &Carried, old: &Callers) -> Option<Reason> {
    let evidence: Vec<Evidence> = carried
        .pairs
        .iter()
        .filter(|p| old.is_held(p.old) && !p.evidence.proves_role())
        .filter_map(|p| Some((diff.old.image.functions().get(p.old)?, diff.new.image.functions().get(p.new)?)))
        .map(|(f, g)| Evidence {
            function: Some(named(g)),
            old_va: Some(f.range.start()),
            new_va: Some(g.range.start()),
            seen: "its address is taken; no caller, slot or name says which new function has its role".to_owned(),
        })
        .collect();
    (!evidence.is_empty())
        .then(|| registry::ROLE_UNPROVEN.because("the role of a changed function is not proven", evidence))
}

/// Functions that only the places which take their addresses call two versions of one.
fn rewritten(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    let evidence: Vec<Evidence> = carried
        .pairs
        .iter()
        .filter(|p| p.evidence.unlike && p.evidence.proves_role())
        .filter_map(|p| Some((p, diff.old.image.functions().get(p.old)?, diff.new.image.functions().get(p.new)?)))
        .map(|(p, f, g)| Evidence {
            function: Some(named(g)),
            old_va: Some(f.range.start()),
            new_va: Some(g.range.start()),
            seen: format!(
                "{} places take its address where the old one's was taken; its code is another",
                p.evidence.takers
            ),
        })
        .collect();
    (!evidence.is_empty())
        .then(|| registry::CALLBACK_REWRITTEN.because("a function whose address is held was rewritten", evidence))
}

/// Functions whose address changed code takes where the old one's was taken, or also takes
/// where another's was: with what and when it is handed over was not followed.
fn by_place_only(diff: &ImageDiff<'_, '_>, carried: &Carried, old: &Callers) -> Option<Reason> {
    let evidence: Vec<Evidence> = carried
        .pairs
        .iter()
        .filter(|p| old.is_held(p.old) && !p.evidence.unlike && p.evidence.is_by_place_only())
        .filter_map(|p| Some((diff.old.image.functions().get(p.old)?, diff.new.image.functions().get(p.new)?)))
        .map(|(f, g)| Evidence {
            function: Some(named(g)),
            old_va: Some(f.range.start()),
            new_va: Some(g.range.start()),
            seen: "changed code takes its address; when, and what else is handed over with it, was not followed"
                .to_owned(),
        })
        .collect();
    (!evidence.is_empty())
        .then(|| registry::CALLBACK_BY_PLACE.because("who gets a function's address when was not followed", evidence))
}

fn dependencies(diff: &ImageDiff<'_, '_>, carried: &Carried, requirements: &mut Vec<Requirement>) -> Option<Reason> {
    let mut evidence = Vec::new();
    for pair in &carried.pairs {
        let functions = (diff.old.image.functions().get(pair.old), diff.new.image.functions().get(pair.new));
        let (Some(f), Some(g)) = functions else { continue };
        for aligned in &diff.difference(pair.old, pair.new).aligned {
            for change in compare_operands(aligned, f.range, g.range) {
                let Some(requirement) = dependency::explain(diff.new.image.needed(), &change) else { continue };
                evidence.push(dependency::evidence(&named(g), aligned, &requirement));
                if !requirements.contains(&requirement) {
                    requirements.push(requirement);
                }
            }
        }
    }
    (!evidence.is_empty()).then(|| {
        registry::DEPENDENCY_CONSTANT.because("a version of a library's headers is baked in and changed", evidence)
    })
}

/// What of the payload could be remembered by the process.
fn revert_policy(diff: &ImageDiff<'_, '_>, carried: &Carried, copies_tables: bool, callers: &Callers) -> RevertPolicy {
    if carried.added.iter().any(|n| callers.taken.contains(n)) {
        return RevertPolicy::Refuse;
    }
    let takes_data_address = carried.new_functions().into_iter().filter_map(|n| diff.new.code.get(n)).any(|code| {
        code.references
            .iter()
            .any(|r| r.kind == ReferenceKind::Address && matches!(diff.new.place(r.target), Place::Data { .. }))
    });
    if copies_tables || takes_data_address { RevertPolicy::KeepMapped } else { RevertPolicy::Unmap }
}
