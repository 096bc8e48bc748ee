use crate::claims::branched_into;
use crate::detour::{BranchTargets, detour};
use crate::resolve::{Resolver, Target, Word};
use crate::segments::segments;
use crate::unwind::unwind;
use crate::words::words;
use salve_elf::{Image, Va, VaRange};
use salve_match::ImageDiff;
use salve_patch::{
    Evidence, Fixup, FixupKind, ImportSlot, Livepatch, OwnAddress, Pointer, Reason, ReferenceCounts, ReplacedFunction,
};
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
    let resolver = Resolver::new(diff, carried.clone(), detoured, judgement.copied_tables);
    let mut all = references(diff, &carried, &resolver, &mut reasons);
    all.add_tables(diff.new.image, judgement.copied_tables, &resolver, &mut reasons);
    let (words, readers) = words(diff, &judgement.words, &resolver, &mut reasons);
    let References { fixups, counts, with_data, slots, stubs, pointers } = all;
    // The constants carry what words lead to; and without any code they are the payload.
    let with_data = with_data || !words.is_empty();
    let functions = carried.iter().filter_map(|n| diff.new.image.functions().get(*n)).map(|f| f.range);
    let code: Vec<VaRange> = functions.chain(stubs).collect();
    let segments = segments(diff.new.image, &code, &slots, (&pointers, judgement.copied_tables), with_data);
    if segments.is_none() {
        let summary = "code and read-only data share pages in the new image";
        reasons.push(registry::UNPROVEN_REFERENCE.because(summary, Vec::new()));
    }
    if segments.as_ref().is_some_and(Vec::is_empty) && !words.is_empty() {
        let summary = "there is neither code nor a constant to make a payload of";
        reasons.push(registry::DATA_CHANGED.because(summary, Vec::new()));
    }
    let unwind = unwind(diff.new.image, &code);
    match segments {
        Some(segments) if reasons.is_empty() => Ok(Composed {
            livepatch: Livepatch {
                segments,
                fixups,
                imports: slots.into_values().collect(),
                pointers: pointers.into_iter().map(|(new_va, to)| Pointer { new_va, to }).collect(),
                detours,
                words,
                readers,
                replaced: replaced(diff, judgement),
                requirements: judgement.requirements.clone(),
                revert: judgement.revert,
                unwind,
            },
            references: counts,
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

/// What the references of carried functions ask for.
#[derive(Default)]
struct References {
    fixups: Vec<Fixup>,
    counts: ReferenceCounts,
    /// Something refers to the payload's constants.
    with_data: bool,
    /// Slots that the process fills, by place, and the stubs that go through them.
    slots: BTreeMap<Va, ImportSlot>,
    stubs: BTreeSet<VaRange>,
    /// Words of tables, by place.
    pointers: BTreeMap<Va, OwnAddress>,
}

impl References {
    /// `None` if the symbol or the stub is not what it was taken for.
    fn add_private(
        &mut self,
        image: &Image<'_>,
        slot: Va,
        stub: Option<Va>,
        (symbol, own): (usize, Option<OwnAddress>),
    ) -> Option<()> {
        let symbol = image.symbols().get(symbol)?;
        if let Some(stub) = stub {
            self.stubs.insert(stub_jump(image, stub)?);
        }
        let (name, version) = (symbol.name.to_owned(), symbol.version.map(str::to_owned));
        self.slots.insert(slot, ImportSlot { new_va: slot, symbol: name, version, own });
        Some(())
    }

    /// All words that the loader would make addresses in tables that the payload brings.
    fn add_tables(
        &mut self,
        image: &Image<'_>,
        copied: Option<VaRange>,
        resolver: &Resolver<'_, '_, '_>,
        reasons: &mut Vec<Reason>,
    ) {
        let Some(tables) = copied else { return };
        for reloc in image.relocs().iter().filter(|reloc| tables.contains(reloc.at)) {
            let added = resolver.word(reloc).map(|word| match word {
                Word::Pointer(to) => {
                    self.pointers.insert(reloc.at, to);
                    let in_data = |to| !image.section_at(to).is_some_and(|section| section.executable);
                    self.with_data |= matches!(to, OwnAddress::Payload(to) if in_data(to));
                    Some(())
                }
                Word::Import(symbol, own) => self.add_private(image, reloc.at, None, (symbol, own)),
            });
            let unresolved = match added {
                Ok(Some(())) => continue,
                Ok(None) => (registry::NEW_DATA, format!("{} in a table of pointers is not understood", reloc.at)),
                Err(unresolved) => (unresolved.code, unresolved.seen),
            };
            let (code, seen) = unresolved;
            let evidence = Evidence { function: None, old_va: None, new_va: Some(reloc.at), seen };
            reasons.push(code.because(code.meaning, vec![evidence]));
        }
    }
}

/// `[endbr64] [bnd] jmp *slot(%rip)`: what of a stub runs when its slot is filled.
fn stub_jump(image: &Image<'_>, stub: Va) -> Option<VaRange> {
    const LONGEST: u64 = 11;
    let rest_of_section = image.section_at(stub)?.range.end().wrapping_distance_from(stub);
    let longest = LONGEST.min(u64::try_from(rest_of_section).ok()?);
    let code = image.read(VaRange::new(stub, longest)?)?;
    let rest = code.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(code);
    let rest = rest.strip_prefix(&[0xf2]).unwrap_or(rest);
    let before = u64::try_from(code.len().checked_sub(rest.len())?).ok()?;
    VaRange::new(stub, before.checked_add(6)?).filter(|_| rest.starts_with(&[0xff, 0x25]))
}

fn references(
    diff: &ImageDiff<'_, '_>,
    carried: &BTreeSet<usize>,
    resolver: &Resolver<'_, '_, '_>,
    reasons: &mut Vec<Reason>,
) -> References {
    let mut all = References::default();
    let branched = branched_into(&diff.new);
    for n in carried {
        let (Some(code), Some(f)) = (diff.new.code.get(*n), diff.new.image.functions().get(*n)) else { continue };
        let evidence = |at: u32, seen: String| Evidence {
            function: Some(f.display_name()),
            old_va: None,
            new_va: Some(f.range.start().wrapping_offset(i64::from(at))),
            seen,
        };
        let entered = branched.contains(n) || f.range.contains(diff.new.image.entry());
        if !f.is_described() && !entered {
            let seen = "nothing describes it and nothing branches there: it may be data".to_owned();
            reasons.push(registry::UNPROVEN_REFERENCE.because("replaced code may be data", vec![evidence(0, seen)]));
        }
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
                    // An end of constants lies in no section, or in the next one.
                    all.with_data |= !diff.new.image.section_at(va).is_some_and(|s| s.executable);
                    all.counts.payload = all.counts.payload.saturating_add(1);
                    continue;
                }
                Target::PrivateSlot { slot, stub, symbol, own } => {
                    all.counts.imports = all.counts.imports.saturating_add(1);
                    if all.add_private(diff.new.image, slot, stub, (symbol, own)).is_none() {
                        let seen = format!("goes through the slot at {slot} in a way that is not understood");
                        let evidence = vec![evidence(reference.at, seen)];
                        reasons.push(registry::NEW_IMPORT.because(registry::NEW_IMPORT.meaning, evidence));
                    }
                    continue;
                }
                Target::OldCode(va) => (va, &mut all.counts.old_code),
                Target::OldData(va) => (va, &mut all.counts.old_data),
                Target::Import(va) => (va, &mut all.counts.imports),
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
            all.fixups.push(Fixup {
                new_va: start.wrapping_offset(i64::from(reference.field)),
                kind: FixupKind::PcRel32 {
                    new_next: start.wrapping_offset(i64::from(reference.instruction_len_bytes)),
                    old_target,
                },
            });
        }
    }
    all.fixups.sort_by_key(|f| f.new_va);
    all
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
