//! The rules, in the order in which they are asked, and what they come to.

use crate::callers::Callers;
use crate::carry::{Carried, carried};
use crate::followed::{Followed, each_rewritten};
use crate::layout::Layout;
use crate::words::Words;
use crate::{
    among_code, calculated, callbacks, columns, contracts, data, dependency, distances, encoding, exceptions, handed,
    identity, image, kept, labels, loader, meaning, objects, once, order, read_only, registry, resources, revert,
    shared, tables, unreached, whence, witness,
};
use salve_elf::VaRange;
use salve_match::{ImageDiff, NoiseContext, noise};
use salve_patch::{FunctionCounts, NoiseReport, Reason, Requirement, RevertPolicy, Verdict};
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
        let base = if self.carried.is_empty() { Verdict::Unchanged } else { Verdict::Safe };
        let worst = self.reasons.iter().map(|r| r.verdict).filter(|v| *v > Verdict::Safe).max();
        worst.unwrap_or(base)
    }
}

/// Applies every rule.
pub fn judge(diff: &ImageDiff<'_, '_>, context: &NoiseContext) -> Judgement {
    let mut judgement = sort_out(diff, context);
    if let Some(reason) = image::rebuilt(&judgement.functions) {
        judgement.reasons.push(reason);
        return judgement;
    }
    let unreached = unreached::reason(diff, &judgement.carried);
    if unreached.is_some() {
        let carried = core::mem::take(&mut judgement.carried);
        judgement.unreached = carried.pairs.iter().map(|p| (p.old, p.new)).collect();
    }
    let copied = tables::copied(diff, &judgement.carried);
    let carried = &judgement.carried;
    let ((mut reasons, words), payload) = rayon::join(
        || of_what_stays(diff, carried, copied, context),
        || (!carried.is_empty()).then(|| of_payload(diff, carried, copied)),
    );
    reasons.extend(unreached);
    if let Some(payload) = payload {
        reasons.extend(payload.reasons);
        judgement.requirements = payload.requirements;
        judgement.revert = payload.revert;
    }
    judgement.copied_tables = copied;
    if !words.is_empty() {
        // What the words lead to may be kept by whoever reads them.
        judgement.revert = judgement.revert.max(RevertPolicy::KeepMapped);
        judgement.words = words;
    }
    reasons.extend(kept::mixed(diff, &judgement.carried, &reasons, !judgement.noise.is_empty(), context));
    if !judgement.noise.is_empty() {
        let summary = format!("{} functions differ in build stamps only and stay", judgement.noise.len());
        reasons.push(registry::BUILD_STAMP.because(summary, Vec::new()));
    }
    if judgement.carried.is_empty() && judgement.noise.is_empty() && reasons.is_empty() {
        reasons.push(registry::NO_CODE_CHANGE.because("this update changes no code here", Vec::new()));
    }
    reasons.sort_by(|a, b| b.verdict.cmp(&a.verdict).then_with(|| a.code.cmp(&b.code)));
    judgement.reasons = reasons;
    judgement
}

/// The rules that ask what differs besides functions, and what becomes of it.
fn of_what_stays(
    diff: &ImageDiff<'_, '_>,
    carried: &Carried,
    copied: Option<VaRange>,
    context: &NoiseContext,
) -> (Vec<Reason>, Words) {
    let (mut reasons, words) = data::reasons(diff, carried, copied, context);
    reasons.extend(among_code::reason(diff, carried));
    reasons.extend(distances::reason(diff, carried, copied));
    reasons.extend(calculated::reasons(diff, carried));
    (reasons, words)
}

/// What the rules say of a payload that carries something.
struct OfPayload {
    reasons: Vec<Reason>,
    requirements: Vec<Requirement>,
    revert: RevertPolicy,
}

fn of_payload(diff: &ImageDiff<'_, '_>, carried: &Carried, copied: Option<VaRange>) -> OfPayload {
    let mut reasons = Vec::new();
    reasons.extend(image::fixed_address(diff));
    reasons.extend(image::text_relocations(diff));
    let ((of_references, requirements, revert), of_values) =
        rayon::join(|| of_references(diff, carried, copied), || of_values(diff, carried, copied));
    reasons.extend(of_references);
    reasons.extend(of_values);
    OfPayload { reasons, requirements, revert }
}

/// The rules that ask what functions calculate, store and hand on.
fn of_values(diff: &ImageDiff<'_, '_>, carried: &Carried, copied: Option<VaRange>) -> Vec<Reason> {
    let followed = Followed::new(&diff.new);
    let mut reasons = Vec::new();
    reasons.extend(values(diff, carried, &followed));
    reasons.extend(order::reason(diff, carried, &followed));
    reasons.extend(contracts::reason(diff, carried, &followed));
    reasons.extend(identity::reason(diff, carried, copied, &followed));
    reasons.extend(columns::reason(diff, carried, &followed));
    reasons
}

/// The rules that ask what refers to what, and what instructions became of others.
fn of_references(
    diff: &ImageDiff<'_, '_>,
    carried: &Carried,
    copied: Option<VaRange>,
) -> (Vec<Reason>, Vec<Requirement>, RevertPolicy) {
    let (old_callers, new_callers) = (Callers::of(&diff.old), Callers::of(&diff.new));
    let witnesses = witness::witnesses(diff, carried);
    let mut reasons = Vec::new();
    reasons.extend(Layout::of(diff, carried).reasons(diff, carried));
    reasons.extend(resources::reasons(diff, carried));
    reasons.extend(witness::reasons(diff, carried, copied, &witnesses));
    let doubts = tables::doubts(diff, carried, copied, &witnesses);
    if !doubts.is_empty() {
        let summary = "where a table begins and another ends is not the same in both images";
        reasons.push(registry::DATA_RESIZED.because(summary, doubts));
    }
    reasons.extend(labels::reason(diff, carried));
    reasons.extend(loader::reasons(diff, carried));
    reasons.extend(whence::reason(diff, carried));
    reasons.extend(exceptions::reason(diff, carried));
    reasons.extend(read_only::reason(diff, carried));
    reasons.extend(once::at_startup(diff, carried, &new_callers));
    reasons.extend(once::reason(diff, carried));
    reasons.extend(callbacks::unpaired(diff, carried, &old_callers, &new_callers));
    reasons.extend(callbacks::roles(diff, carried, &old_callers));
    reasons.extend(callbacks::rewritten(diff, carried));
    reasons.extend(callbacks::by_place_only(diff, carried, &old_callers));
    let (dependencies, requirements) = dependency::reason(diff, carried);
    reasons.extend(dependencies);
    let revert = revert::policy(diff, carried, copied.is_some(), &new_callers);
    (reasons, requirements, revert)
}

/// The rules that compare the values of both versions, each function followed once for all of them.
fn values(diff: &ImageDiff<'_, '_>, carried: &Carried, followed: &Followed<'_, '_, '_>) -> Vec<Reason> {
    let mut objects = objects::Objects::default();
    let mut encoding = encoding::Encoding::default();
    let mut meaning = meaning::Meaning::of(carried);
    let mut handed = handed::HandedOut::default();
    let mut shared = shared::Shared::of(carried);
    let mut stored = identity::Stored::default();
    each_rewritten(diff, carried, followed, |versions| {
        objects.look(diff, followed, versions);
        encoding.look(diff, versions);
        meaning.look(diff, versions);
        handed.look(diff, versions);
        shared.look(diff, versions);
        stored.look(diff, versions);
    });
    let mut reasons = objects.reasons();
    reasons.extend(encoding.reason());
    reasons.extend(handed.reason());
    reasons.extend(meaning.reasons(diff, carried));
    reasons.extend(shared.reason(diff, carried));
    reasons.extend(stored.reason());
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
