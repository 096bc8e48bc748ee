use crate::detour::{BranchTargets, detour};
use crate::resolve::{Resolver, Target};
use crate::segments::segments;
use salve_elf::VaRange;
use salve_match::ImageDiff;
use salve_patch::{Evidence, Fixup, FixupKind, Livepatch, Reason, ReferenceCounts, ReplacedFunction};
use salve_verdict::{Judgement, registry};
use std::collections::{BTreeMap, BTreeSet};

/// A livepatch and where its references lead.
#[derive(Clone, Debug)]
pub struct Composed {
    pub livepatch: Livepatch,
    pub references: ReferenceCounts,
}

/// Composes the livepatch that `judgement` asks for. `Err` has every reason why not.
pub fn compose(diff: &ImageDiff<'_, '_>, judgement: &Judgement) -> Result<Composed, Vec<Reason>> {
    let carried = judgement.carried.new_functions();
    let mut reasons = Vec::new();
    let (detours, detoured) = detours(diff, judgement, &mut reasons);
    reasons.extend(unreachable(diff, judgement, &detours));
    let resolver = Resolver::new(diff, carried.clone(), detoured);
    let (fixups, references, with_data) = fixups(diff, &carried, &resolver, &mut reasons);
    let ranges: Vec<VaRange> =
        carried.iter().filter_map(|n| diff.new.image.functions().get(*n)).map(|f| f.range).collect();
    let segments = segments(diff.new.image, &ranges, with_data);
    if segments.is_none() {
        let summary = "code and read-only data share pages in the new image";
        reasons.push(registry::UNPROVEN_REFERENCE.because(summary, Vec::new()));
    }
    match segments {
        Some(segments) if reasons.is_empty() => Ok(Composed {
            livepatch: Livepatch {
                segments,
                fixups,
                detours,
                replaced: replaced(diff, judgement),
                requirements: judgement.requirements.clone(),
                revert: judgement.revert,
            },
            references,
        }),
        _ => Err(merged(reasons)),
    }
}

/// Detours for every changed function that anything outside could call.
fn detours(
    diff: &ImageDiff<'_, '_>,
    judgement: &Judgement,
    reasons: &mut Vec<Reason>,
) -> (Vec<salve_patch::Detour>, BTreeMap<usize, usize>) {
    let ranges: Vec<VaRange> =
        judgement.carried.pairs.iter().filter_map(|p| diff.old.image.functions().get(p.old)).map(|f| f.range).collect();
    let targets = BranchTargets::into(&diff.old, &ranges);
    let mut detours = Vec::new();
    let mut detoured = BTreeMap::new();
    for pair in judgement.carried.pairs.iter().filter(|p| p.evidence.proves_role()) {
        match detour(diff, &targets, pair.old, pair.new) {
            Ok(made) => {
                detours.push(made);
                detoured.insert(pair.new, pair.old);
            }
            Err(seen) => {
                let function = diff.new.image.functions().get(pair.new);
                reasons.push(registry::ENTRY_TOO_SMALL.because(
                    "a function cannot be detoured",
                    vec![Evidence {
                        function: function.map(salve_elf::Function::display_name),
                        old_va: diff.old.image.functions().get(pair.old).map(|f| f.range.start()),
                        new_va: function.map(|f| f.range.start()),
                        seen,
                    }],
                ));
            }
        }
    }
    detours.sort_by_key(|d| d.old_va);
    (detours, detoured)
}

/// Replaced code that nothing of the running process would ever reach: a detour is
/// made only where a role is proven, and without one the livepatch does nothing.
fn unreachable(
    diff: &ImageDiff<'_, '_>,
    judgement: &Judgement,
    detours: &[salve_patch::Detour],
) -> Option<salve_patch::Reason> {
    let carried = &judgement.carried;
    if !detours.is_empty() || (carried.pairs.is_empty() && carried.added.is_empty()) {
        return None;
    }
    let functions = carried.new_functions().into_iter().filter_map(|n| diff.new.image.functions().get(n));
    let evidence = functions.map(|f| Evidence {
        function: Some(f.display_name()),
        old_va: None,
        new_va: Some(f.range.start()),
        seen: "no code that stays calls it, and no slot holds its address".to_owned(),
    });
    Some(registry::ROLE_UNPROVEN.because("nothing shows how replaced code is reached", evidence.collect()))
}

fn fixups(
    diff: &ImageDiff<'_, '_>,
    carried: &BTreeSet<usize>,
    resolver: &Resolver<'_, '_, '_>,
    reasons: &mut Vec<Reason>,
) -> (Vec<Fixup>, ReferenceCounts, bool) {
    let mut fixups = Vec::new();
    let mut counts = ReferenceCounts::default();
    let mut with_data = false;
    for n in carried {
        let (Some(code), Some(f)) = (diff.new.code.get(*n), diff.new.image.functions().get(*n)) else { continue };
        let evidence = |at: u32, seen: String| Evidence {
            function: Some(f.display_name()),
            old_va: None,
            new_va: Some(f.range.start().wrapping_offset(i64::from(at))),
            seen,
        };
        if !code.decoded {
            let seen = "not every byte is an instruction".to_owned();
            reasons
                .push(registry::UNPROVEN_REFERENCE.because("replaced code is not understood", vec![evidence(0, seen)]));
        }
        for reference in &code.references {
            let target = match resolver.resolve(reference) {
                Ok(target) => target,
                Err(unresolved) => {
                    let evidence = vec![evidence(reference.at, unresolved.seen)];
                    reasons.push(unresolved.code.because(unresolved.code.meaning, evidence));
                    continue;
                }
            };
            let (old_target, count) = match target {
                Target::Payload(va) => {
                    with_data |= diff.new.image.section_at(va).is_some_and(|s| !s.executable);
                    counts.payload = counts.payload.saturating_add(1);
                    continue;
                }
                Target::OldCode(va) => (va, &mut counts.old_code),
                Target::OldData(va) => (va, &mut counts.old_data),
                Target::Import(va) => (va, &mut counts.imports),
            };
            *count = count.saturating_add(1);
            if reference.field_len_bytes != 4 {
                let seen = format!("a field of {} bytes leads out of the payload", reference.field_len_bytes);
                reasons.push(
                    registry::UNPROVEN_REFERENCE
                        .because("a short branch leaves the payload", vec![evidence(reference.at, seen)]),
                );
                continue;
            }
            let start = f.range.start().wrapping_offset(i64::from(reference.at));
            fixups.push(Fixup {
                new_va: start.wrapping_offset(i64::from(reference.field)),
                kind: FixupKind::PcRel32 {
                    new_next: start.wrapping_offset(i64::from(reference.instruction_len_bytes)),
                    old_target,
                },
            });
        }
    }
    fixups.sort_by_key(|f| f.new_va);
    (fixups, counts, with_data)
}

fn replaced(diff: &ImageDiff<'_, '_>, judgement: &Judgement) -> Vec<ReplacedFunction> {
    let old_range = |o: usize| diff.old.image.functions().get(o).map(|f| f.range);
    let new_function = |n: usize| diff.new.image.functions().get(n);
    let pairs = judgement.carried.pairs.iter().filter_map(|p| {
        let g = new_function(p.new)?;
        Some(ReplacedFunction {
            name: g.display_name(),
            old_ranges: vec![old_range(p.old)?],
            new_ranges: vec![g.range],
            may_overlap: false,
        })
    });
    let added = judgement.carried.added.iter().filter_map(|n| {
        let g = new_function(*n)?;
        Some(ReplacedFunction {
            name: g.display_name(),
            old_ranges: Vec::new(),
            new_ranges: vec![g.range],
            may_overlap: false,
        })
    });
    let gone = diff.gone.iter().filter_map(|o| {
        let f = diff.old.image.functions().get(*o)?;
        Some(ReplacedFunction {
            name: f.display_name(),
            old_ranges: vec![f.range],
            new_ranges: Vec::new(),
            may_overlap: false,
        })
    });
    pairs.chain(added).chain(gone).collect()
}

/// One reason a code, with all its evidence.
fn merged(reasons: Vec<Reason>) -> Vec<Reason> {
    let mut merged: Vec<Reason> = Vec::new();
    for reason in reasons {
        match merged.iter_mut().find(|r| r.code == reason.code && r.summary == reason.summary) {
            Some(first) => first.evidence.extend(reason.evidence),
            None => merged.push(reason),
        }
    }
    merged
}
