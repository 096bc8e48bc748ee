//! The comparison written down as claims for the validator.

use salve_elf::{Va, VaRange};
use salve_match::{ImageDiff, Place, Side};
use salve_patch::{Claims, DataRun, FunctionPair, NoiseClaim, NoiseKind, NoiseSite};
use salve_verdict::Judgement;
use std::collections::BTreeSet;

/// All claims that `judgement` rests on.
pub fn claims(diff: &ImageDiff<'_, '_>, judgement: &Judgement) -> Claims {
    let range = |side: &Side<'_, '_>, index: usize| side.image.functions().get(index).map(|f| f.range);
    let pair = |o: usize, n: usize| Some(FunctionPair { old: range(&diff.old, o)?, new: range(&diff.new, n)? });
    let carried = judgement.carried.new_functions();
    let mut same: Vec<FunctionPair> =
        diff.identical.iter().filter(|(_, n)| !carried.contains(n)).filter_map(|(o, n)| pair(*o, *n)).collect();
    same.sort_by_key(|p| p.new);
    let mut noise: Vec<NoiseClaim> = judgement
        .noise_pairs
        .iter()
        .filter_map(|(o, n)| {
            let changed = diff.changed.iter().find(|p| p.new == *n)?;
            let sites = changed
                .sites
                .iter()
                .map(|s| NoiseSite { old_at: s.old_at, new_at: s.new_at, kind: NoiseKind::String })
                .collect();
            Some(NoiseClaim { pair: pair(*o, *n)?, sites })
        })
        .collect();
    noise.sort_by_key(|c| c.pair.new);
    let mut changed: Vec<FunctionPair> =
        judgement.carried.pairs.iter().filter_map(|p| pair(p.old, p.new)).collect();
    changed.sort_by_key(|p| p.new);
    let mut tables: Vec<_> = diff.tables.clone();
    tables.sort_by_key(|t| (t.new, t.old));
    tables.dedup_by_key(|t| (t.new, t.old));
    let staying: BTreeSet<Va> = same.iter().map(|p| p.new.start()).chain(noise.iter().map(|c| c.pair.new.start())).collect();
    tables.retain(|t| staying.contains(&t.new_owner));
    Claims {
        same,
        noise,
        changed,
        added: judgement.carried.added.iter().filter_map(|n| range(&diff.new, *n)).collect(),
        gone: diff.gone.iter().filter_map(|o| range(&diff.old, *o)).collect(),
        data: runs(diff, &carried),
        jump_tables: tables,
    }
}

/// Runs sorted by new address, not overlapping: overlapping ones that agree are
/// joined, of ones that disagree the later keeps its start.
fn runs(diff: &ImageDiff<'_, '_>, carried: &BTreeSet<usize>) -> Vec<DataRun> {
    let mut all: Vec<DataRun> = diff.runs.iter().copied().filter(|r| r.len_bytes > 0).collect();
    all.extend(single_objects(diff, carried));
    all.sort_unstable();
    let mut runs: Vec<DataRun> = Vec::new();
    for run in all {
        let Some(last) = runs.last_mut() else {
            runs.push(run);
            continue;
        };
        let end = last.new.wrapping_offset(last.len_bytes.cast_signed());
        if run.new >= end {
            let joins = run.new == end
                && run.new.wrapping_distance_from(run.old) == last.new.wrapping_distance_from(last.old)
                && diff.new.image.section_index_at(run.new) == diff.new.image.section_index_at(last.new);
            if joins {
                last.len_bytes = last.len_bytes.saturating_add(run.len_bytes);
            } else {
                runs.push(run);
            }
            continue;
        }
        let run_end = run.new.wrapping_offset(run.len_bytes.cast_signed());
        if run.new.wrapping_distance_from(run.old) == last.new.wrapping_distance_from(last.old) {
            let len = run_end.max(end).wrapping_distance_from(last.new);
            last.len_bytes = len.cast_unsigned();
        } else {
            last.len_bytes = run.new.wrapping_distance_from(last.new).cast_unsigned();
            if last.len_bytes == 0 {
                runs.pop();
            }
            runs.push(run);
        }
    }
    runs
}

/// Data that only carried functions refer to, in sections without a longer run.
fn single_objects(diff: &ImageDiff<'_, '_>, carried: &BTreeSet<usize>) -> Vec<DataRun> {
    let mut found = Vec::new();
    for reference in carried.iter().filter_map(|n| diff.new.code.get(*n)).flat_map(|c| &c.references) {
        let Place::Data { section } = diff.new.place(reference.target) else { continue };
        let writable = diff.new.image.sections().get(section).is_some_and(|s| s.writable);
        if !writable {
            continue;
        }
        let Some(old) = diff.data.old_of(reference.target, &diff.new).map(salve_match::Correspondence::old) else {
            continue;
        };
        let len = |side: &Side<'_, '_>, va: Va| {
            side.next_anchor(va).and_then(|next| VaRange::try_from((va, next)).ok()).map(VaRange::len_bytes)
        };
        if let (Some(a), Some(b)) = (len(&diff.old, old), len(&diff.new, reference.target)) {
            found.push(DataRun { new: reference.target, old, len_bytes: a.min(b) });
        }
    }
    found
}
