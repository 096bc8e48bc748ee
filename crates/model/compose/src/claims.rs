//! The comparison written down as claims for the validator.

use salve_code::ReferenceKind;
use salve_elf::{Binding, FunctionSource, SectionRole, Va, VaRange};
use salve_match::{ContentDifference, DataChange, DataChangeKind, ImageDiff, Place, Side, text_at};
use salve_patch::{Claims, DataRun, FunctionPair, JumpTable, NoiseClaim, NoiseKind, NoiseSite, TakingSite, TextPair};
use salve_verdict::Judgement;
use std::collections::BTreeSet;

/// All claims that `judgement` rests on.
pub fn claims(diff: &ImageDiff<'_, '_>, judgement: &Judgement) -> Claims {
    let range = |side: &Side<'_, '_>, index: usize| side.image.functions().get(index).map(|f| f.range);
    let pair = |o: usize, n: usize| Some(FunctionPair { old: range(&diff.old, o)?, new: range(&diff.new, n)? });
    let carried = judgement.carried.new_functions();
    let staying = diff.identical.iter().copied().filter(|(_, n)| !carried.contains(n));
    let branched = (branched_into(&diff.old), branched_into(&diff.new));
    let (data_in_code, code): (Vec<_>, Vec<_>) = staying.partition(|(o, n)| is_data_in_code(diff, &branched, (*o, *n)));
    let mut same: Vec<FunctionPair> = code.into_iter().filter_map(|(o, n)| pair(o, n)).collect();
    same.sort_by_key(|p| p.new);
    let data_in_code = data_in_code.into_iter().filter_map(|(o, n)| with_padding(diff, (o, n)).or_else(|| pair(o, n)));
    let data_in_code = data_in_code.map(|FunctionPair { old, new }| DataRun {
        new: new.start(),
        old: old.start(),
        len_bytes: new.len_bytes(),
    });
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
    let mut changed: Vec<FunctionPair> = judgement.carried.pairs.iter().filter_map(|p| pair(p.old, p.new)).collect();
    changed.sort_by_key(|p| p.new);
    let mut unreached: Vec<FunctionPair> = judgement.unreached.iter().filter_map(|(o, n)| pair(*o, *n)).collect();
    unreached.sort_by_key(|p| p.new);
    let mut tables: Vec<JumpTable> = diff.tables.clone();
    tables.sort_by_key(|t| (t.new, t.old));
    tables.dedup_by_key(|t| (t.new, t.old));
    let staying: BTreeSet<Va> =
        same.iter().map(|p| p.new.start()).chain(noise.iter().map(|c| c.pair.new.start())).collect();
    let (tables, carried_tables): (Vec<_>, Vec<_>) = tables.into_iter().partition(|t| staying.contains(&t.new_owner));
    let needed = |run| needed(diff, &carried, judgement.copied_tables, run);
    let in_place = judgement.words.runs.iter().copied();
    let (mut data, texts) = runs(diff, &carried, data_in_code.chain(in_place), needed);
    // A carried function brings its table along; the old one leads into the old function.
    for table in &carried_tables {
        data = data.into_iter().flat_map(|run| without_table(run, table)).collect();
    }
    Claims {
        same,
        noise,
        changed,
        unreached,
        takings: takings(diff, judgement),
        added: judgement.carried.added.iter().filter_map(|n| range(&diff.new, *n)).collect(),
        gone: diff.gone.iter().filter_map(|o| range(&diff.old, *o)).collect(),
        data,
        kept: diff.kept.clone(),
        texts,
        text_slots: text_slots(diff, judgement),
        jump_tables: tables,
    }
}

/// Functions into which code that is described and understood branches.
pub(crate) fn branched_into(side: &Side<'_, '_>) -> BTreeSet<usize> {
    let code = side.image.functions().iter().zip(&side.code).filter(|(f, code)| f.is_described() && code.decoded);
    let references = code.flat_map(|(_, code)| &code.references);
    let branches = references.filter(|r| matches!(r.kind, ReferenceKind::Call | ReferenceKind::Jump));
    branches.filter_map(|r| side.image.function_index_at(r.target)).collect()
}

/// Tables between functions, which nothing describes; and parts beside them that might be
/// some, because they are equal and nobody branches there.
fn is_data_in_code(
    diff: &ImageDiff<'_, '_>,
    branched: &(BTreeSet<usize>, BTreeSet<usize>),
    (old, new): (usize, usize),
) -> bool {
    let of = |side: &Side<'_, '_>, index: usize| {
        let source = side.image.functions().get(index)?.source;
        Some((source, side.code.get(index)?.decoded))
    };
    match (of(&diff.old, old), of(&diff.new, new)) {
        (
            Some((FunctionSource::Gap | FunctionSource::Piece, false)),
            Some((FunctionSource::Gap | FunctionSource::Piece, false)),
        ) => true,
        (Some((FunctionSource::Piece, true)), Some((FunctionSource::Piece, true))) => {
            !branched.0.contains(&old)
                && !branched.1.contains(&new)
                && bytes_of(&diff.old, old) == bytes_of(&diff.new, new)
        }
        _ => false,
    }
}

fn bytes_of<'a>(side: &Side<'_, 'a>, function: usize) -> Option<&'a [u8]> {
    side.image.read(side.image.functions().get(function)?.range)
}

/// With the padding around it, where that is equal: a table may begin or end with zeros.
fn with_padding(diff: &ImageDiff<'_, '_>, (old, new): (usize, usize)) -> Option<FunctionPair> {
    let ((old, from, bytes), (new, new_from, new_bytes)) = (padded(&diff.old, old)?, padded(&diff.new, new)?);
    (from == new_from && bytes == new_bytes).then_some(FunctionPair { old, new })
}

/// A function and the padding around it: where that lies, how far in the function, the bytes.
fn padded<'a>(side: &Side<'_, 'a>, function: usize) -> Option<(VaRange, i64, &'a [u8])> {
    let functions = side.image.functions();
    let own = functions.get(function)?.range;
    let section = side.image.section_at(own.start())?.range;
    let before = function.checked_sub(1).and_then(|before| functions.get(before)).map(|f| f.range.end());
    let behind = function.checked_add(1).and_then(|behind| functions.get(behind)).map(|f| f.range.start());
    let from = before.map_or(section.start(), |end| end.max(section.start()));
    let until = behind.map_or(section.end(), |start| start.min(section.end()));
    let range = VaRange::try_from((from, until)).ok()?;
    Some((range, own.start().wrapping_distance_from(from), side.image.read(range)?))
}

/// Where changed functions show which one has the role of which, as far as nothing else does.
fn takings(diff: &ImageDiff<'_, '_>, judgement: &Judgement) -> Vec<TakingSite> {
    let pairs = &judgement.carried.pairs;
    let carried: BTreeSet<(usize, usize)> = pairs.iter().map(|p| (p.old, p.new)).collect();
    let mut sites: Vec<TakingSite> = diff
        .takings
        .iter()
        .filter(|t| t.surrounded && carried.contains(&t.taker) && carried.contains(&t.taken))
        .map(|t| TakingSite { new_at: t.new_at, old_at: t.old_at, unique: t.unique })
        .collect();
    sites.sort_unstable();
    sites
}

/// What is left of a run before and behind a table.
fn without_table(run: DataRun, table: &JumpTable) -> impl Iterator<Item = DataRun> {
    let (from, to) = (table.new, end(table.new, u64::from(table.entries).saturating_mul(4)));
    let run_end = end(run.new, run.len_bytes);
    let apart = to <= run.new || run_end <= from;
    let part = move |start: Va, until: Va| {
        let len_bytes = until.wrapping_distance_from(start).max(0).cast_unsigned();
        let old = run.old.wrapping_offset(start.wrapping_distance_from(run.new));
        DataRun { new: start, old, len_bytes }
    };
    let parts = if apart { [Some(run), None] } else { [Some(part(run.new, from)), Some(part(to, run_end))] };
    parts.into_iter().flatten().filter(|part| part.len_bytes > 0)
}

/// Slots that point to another text and stay. Those that are no build stamp are changed in
/// place or a reason to refuse, so whatever is validated has none of them.
fn text_slots(diff: &ImageDiff<'_, '_>, judgement: &Judgement) -> Vec<TextPair> {
    let slot = |change: &DataChange| match &change.kind {
        DataChangeKind::Text { offset, difference: ContentDifference::Text { .. } } => {
            Some(TextPair { new: change.new.checked_add(*offset)?, old: change.old.checked_add(*offset)? })
        }
        DataChangeKind::Text { .. }
        | DataChangeKind::Bytes { .. }
        | DataChangeKind::Slot { .. }
        | DataChangeKind::Resized { .. } => None,
    };
    let staying = |slot: &TextPair| !judgement.words.writes(slot.new);
    let mut slots: Vec<TextPair> = diff.data_changes.iter().filter_map(slot).filter(staying).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}

/// Runs sorted by new address and overlapping on neither side, and the texts
/// for which no run fits.
///
/// Linkers store a text that is the tail of another inside it, and choose
/// differently in two builds. Of two runs that disagree about a byte, the longer
/// one keeps it and the other becomes a claim about its text alone; what is no
/// text is dropped, and the validator then refuses whatever needed it.
fn runs(
    diff: &ImageDiff<'_, '_>,
    carried: &BTreeSet<usize>,
    further: impl Iterator<Item = DataRun>,
    needed: impl Fn(DataRun) -> DataRun,
) -> (Vec<DataRun>, Vec<TextPair>) {
    let found = diff.runs.iter().copied().chain(further).chain(single_objects(diff, carried));
    let mut all: Vec<DataRun> = found.map(needed).filter(|run| run.len_bytes > 0).collect();
    all.sort_unstable();
    all.dedup();
    let mut texts = BTreeSet::new();
    let kept = without_conflicts(diff, all, |r| r.new, &mut texts);
    let mut kept = without_conflicts(diff, kept, |r| r.old, &mut texts);
    kept.sort_unstable();
    let mut runs: Vec<DataRun> = Vec::new();
    for run in kept {
        let joins = runs.last().is_some_and(|last| {
            run.new <= end(last.new, last.len_bytes)
                && distance(&run) == distance(last)
                && diff.new.image.section_index_at(run.new) == diff.new.image.section_index_at(last.new)
        });
        match runs.last_mut().filter(|_| joins) {
            Some(last) => {
                let until = end(run.new, run.len_bytes).max(end(last.new, last.len_bytes));
                last.len_bytes = until.wrapping_distance_from(last.new).cast_unsigned();
            }
            None => runs.push(run),
        }
    }
    (runs, texts.into_iter().collect())
}

fn end(start: Va, len_bytes: u64) -> Va {
    start.wrapping_offset(len_bytes.cast_signed())
}

fn distance(run: &DataRun) -> i64 {
    run.new.wrapping_distance_from(run.old)
}

/// Resolves overlaps on one side between runs of different distances.
fn without_conflicts(
    diff: &ImageDiff<'_, '_>,
    mut runs: Vec<DataRun>,
    side: impl Fn(&DataRun) -> Va,
    texts: &mut BTreeSet<TextPair>,
) -> Vec<DataRun> {
    runs.sort_unstable_by_key(|r| (side(r), core::cmp::Reverse(r.len_bytes), r.new, r.old));
    let mut kept: Vec<DataRun> = Vec::new();
    for run in runs {
        let mut wins = true;
        while let Some(last) = kept.last() {
            let conflict = side(&run) < end(side(last), last.len_bytes) && distance(&run) != distance(last);
            if !conflict {
                break;
            }
            if last.len_bytes >= run.len_bytes {
                wins = false;
                break;
            }
            let loser = *last;
            kept.pop();
            as_text(diff, loser, texts);
        }
        if wins {
            kept.push(run);
        } else {
            as_text(diff, run, texts);
        }
    }
    kept
}

fn as_text(diff: &ImageDiff<'_, '_>, run: DataRun, texts: &mut BTreeSet<TextPair>) {
    let (a, b) = (text_at(&diff.old, run.old, 0), text_at(&diff.new, run.new, 0));
    let constant = diff.new.image.section_at(run.new).is_some_and(|s| s.role == SectionRole::ReadOnlyData);
    if constant && a.is_some() && a == b {
        texts.insert(TextPair { new: run.new, old: run.old });
    }
}

/// What of a run has to be the same, where the payload brings tables and the run lies where
/// sizes differ: as much as code that stays and data refer to.
fn needed(diff: &ImageDiff<'_, '_>, carried: &BTreeSet<usize>, tables: Option<VaRange>, run: DataRun) -> DataRun {
    let differs = tables.is_some_and(|tables| tables.contains(run.new)) && diff.is_resized(run.new);
    let Some(range) = VaRange::new(run.new, run.len_bytes).filter(|_| differs) else { return run };
    let staying = diff.new.code.iter().enumerate().filter(|(n, _)| !carried.contains(n));
    let by_code = staying.flat_map(|(_, code)| &code.references).map(|reference| reference.target);
    let by_data = diff.new.image.relocs().iter().filter_map(|reloc| match reloc.binding {
        Binding::Relative { target } => Some(target),
        _ => None,
    });
    let last = by_code.chain(by_data).filter(|target| range.contains(*target)).max();
    let until = last.map_or(run.new, |last| diff.new.next_anchor(last).unwrap_or(range.end()).min(range.end()));
    DataRun { len_bytes: until.wrapping_distance_from(run.new).max(0).cast_unsigned(), ..run }
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
