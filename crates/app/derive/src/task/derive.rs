//! Two sides in, one patch file out.

use super::Work;
use crate::pairing::{self, Candidate, Pairing, Versions};
use crate::pipeline::{PairContext, derive_image};
use crate::report;
use crate::side::{LoadedImage, LoadedSide, Unusable};
use crate::{output, packages};
use salve_elf::ContentHash;
use salve_patch::{FORMAT_VERSION, ImageReport, Origin, PatchFile, Verdict};
use salve_protocol::{DerivedImage, DerivedSummary, Descriptor, Failure, FailureKind, Response, Side, SideName, Stage};
use salve_verdict::registry;
use std::collections::BTreeMap;
use std::time::Instant;

/// Memory that analysing a pair may take, in times of the two images; the
/// target is four (`DESIGN`), with room for what the allocator keeps.
const ANALYSIS_FACTOR: u64 = 6;

pub(crate) fn run(
    work: &Work<'_>,
    old: &Side,
    new: &Side,
    output: Descriptor,
    created_by: &str,
) -> Result<Response, Failure> {
    let plain_pair = is_one_file(old) && is_one_file(new);
    let mut sides = work.load(vec![old.clone(), new.clone()])?.into_iter();
    let (Some(old_side), Some(new_side)) = (sides.next(), sides.next()) else {
        return Err(Failure::new(FailureKind::Internal).because("a side is missing"));
    };
    let origin = packages::origin(&old_side, &new_side, (old.label(), new.label()))?;
    if plain_pair {
        // Two files that somebody named: what is wrong with one is an error, not a finding.
        let broken = old_side.images.iter().chain(&new_side.images).find_map(LoadedImage::failure);
        broken.map_or(Ok(()), Err)?;
    }
    for (side, name) in [(&old_side, SideName::Old), (&new_side, SideName::New)] {
        if side.images.is_empty() {
            return Err(FailureKind::NoImages { side: name }.into());
        }
    }
    let not_healed = salve_package::contents::not_healed(old_side.contents.as_ref(), new_side.contents.as_ref());
    let versions = versions(&origin);
    let mut settled = BTreeMap::new();
    let pairs = pair_up(old_side, new_side, plain_pair, &versions, &mut settled);
    work.progress(Stage::Pair, None, 1, 1);
    let timings = analyse(work, pairs, &mut settled);
    let patch = PatchFile {
        format_version: FORMAT_VERSION,
        created_by: created_by.to_owned(),
        origin,
        not_healed: Some(not_healed),
        images: settled.into_values().collect(),
    };
    write(work, &patch, output, &timings)
}

fn is_one_file(side: &Side) -> bool {
    matches!(side, Side::Files { files, .. } if files.len() == 1)
}

fn versions(origin: &Origin) -> (Option<String>, Option<String>) {
    match origin {
        Origin::Packages { old, new, .. } => (Some(old.version.clone()), Some(new.version.clone())),
        Origin::Files { .. } => (None, None),
    }
}

/// Two images whose contents differ.
struct Pair {
    path: String,
    old: Vec<u8>,
    new: Vec<u8>,
    context: PairContext,
}

impl Pair {
    fn cost_bytes(&self) -> u64 {
        let both = self.old.len().saturating_add(self.new.len());
        u64::try_from(both).unwrap_or(u64::MAX).saturating_mul(ANALYSIS_FACTOR)
    }
}

/// Reports by path, and by a number where several have the same.
type Settled = BTreeMap<(String, usize), ImageReport>;

fn settle(settled: &mut Settled, report: ImageReport) {
    let number = settled.range((report.path.clone(), 0)..=(report.path.clone(), usize::MAX)).count();
    settled.insert((report.path.clone(), number), report);
}

/// Settles what can be settled without comparing code; what is left has to be analysed.
fn pair_up(
    old: LoadedSide,
    new: LoadedSide,
    plain_pair: bool,
    versions: &(Option<String>, Option<String>),
    settled: &mut Settled,
) -> Vec<Pair> {
    let pairings = if plain_pair {
        vec![Pairing::Pair { old: 0, new: 0 }]
    } else {
        let texts = (Versions::of(versions.0.as_deref()), Versions::of(versions.1.as_deref()));
        pairing::pair(&candidates(&old), &candidates(&new), (&texts.0, &texts.1))
    };
    let mut old: Vec<Option<LoadedImage>> = old.images.into_iter().map(Some).collect();
    let mut new: Vec<Option<LoadedImage>> = new.images.into_iter().map(Some).collect();
    let mut pairs = Vec::new();
    for pairing in pairings {
        match pairing {
            Pairing::Pair { old: o, new: n } => {
                if let (Some(o), Some(n)) = (take(&mut old, o), take(&mut new, n)) {
                    match compare(o, n, versions) {
                        Compared::Settled(report) => settle(settled, *report),
                        Compared::Differ(pair) => pairs.push(*pair),
                    }
                }
            }
            Pairing::OldOnly(index) => take(&mut old, index).into_iter().for_each(|i| settle(settled, gone(&i))),
            Pairing::NewOnly(index) => take(&mut new, index).into_iter().for_each(|i| settle(settled, added(&i))),
            Pairing::SonameChanged { old: o, new: n } => {
                if let (Some(o), Some(n)) = (take(&mut old, o), take(&mut new, n)) {
                    settle(settled, soname_changed(&o, &n));
                }
            }
            Pairing::Ambiguous { name, old: olds, new: news } => {
                let summary = format!("{} old and {} new images are called {name}", olds.len(), news.len());
                for index in olds {
                    let Some(image) = take(&mut old, index) else { continue };
                    let report = report::plain(&image.path, Some(image.id()), None, Verdict::Refused);
                    settle(settled, report::because(report, &registry::AMBIGUOUS_PAIRING, &summary, Vec::new()));
                }
                for index in news {
                    let Some(image) = take(&mut new, index) else { continue };
                    let report = report::plain(&image.path, None, Some(image.id()), Verdict::Refused);
                    settle(settled, report::because(report, &registry::AMBIGUOUS_PAIRING, &summary, Vec::new()));
                }
            }
        }
    }
    pairs
}

fn candidates(side: &LoadedSide) -> Vec<Candidate<'_>> {
    side.images.iter().map(LoadedImage::candidate).collect()
}

fn take(side: &mut [Option<LoadedImage>], index: usize) -> Option<LoadedImage> {
    side.get_mut(index).and_then(Option::take)
}

enum Compared {
    Settled(Box<ImageReport>),
    Differ(Box<Pair>),
}

fn compare(old: LoadedImage, new: LoadedImage, versions: &(Option<String>, Option<String>)) -> Compared {
    let plain = |verdict| report::plain(&new.path, Some(old.id()), Some(new.id()), verdict);
    if old.sha256 == new.sha256 {
        let report =
            report::because(plain(Verdict::Unchanged), &registry::IDENTICAL_FILE, "the two files are the same", vec![]);
        return Compared::Settled(Box::new(report));
    }
    for (side, image) in [("old", &old), ("new", &new)] {
        let (code, summary, seen) = match &image.facts {
            Ok(_) => continue,
            Err(Unusable::Malformed(error)) => {
                (&registry::MALFORMED_IMAGE, format!("the {side} file is no image to work on"), vec![error.to_string()])
            }
            Err(Unusable::Static) => {
                (&registry::STATIC_PROGRAM, format!("the {side} file is a static program"), vec![])
            }
        };
        return Compared::Settled(Box::new(report::because(plain(Verdict::Refused), code, summary, seen)));
    }
    let context = PairContext {
        old_id: old.id(),
        new_id: new.id(),
        old_version: versions.0.clone(),
        new_version: versions.1.clone(),
    };
    Compared::Differ(Box::new(Pair { path: new.path, old: old.bytes, new: new.bytes, context }))
}

fn gone(image: &LoadedImage) -> ImageReport {
    let report = report::plain(&image.path, Some(image.id()), None, Verdict::Refused);
    report::because(report, &registry::IMAGE_GONE, "the new side has no such image", Vec::new())
}

/// Code that no process of the old side runs: nothing to change in one.
fn added(image: &LoadedImage) -> ImageReport {
    let report = report::plain(&image.path, None, Some(image.id()), Verdict::Unchanged);
    report::because(report, &registry::IMAGE_ADDED, "the old side has no such image", Vec::new())
}

fn soname_changed(old: &LoadedImage, new: &LoadedImage) -> ImageReport {
    let name = |image: &LoadedImage| image.id().soname.unwrap_or_default();
    let seen = vec![format!("{} became {}", name(old), name(new))];
    let report = report::plain(&new.path, Some(old.id()), Some(new.id()), Verdict::Refused);
    report::because(report, &registry::SONAME_CHANGED, "another library lies at this path now", seen)
}

/// Largest first, so that the last one to end is a small one. Returns how long each took.
fn analyse(work: &Work<'_>, mut pairs: Vec<Pair>, settled: &mut Settled) -> BTreeMap<String, u64> {
    pairs.sort_by_key(|pair| std::cmp::Reverse(pair.cost_bytes()));
    let total = u64::try_from(pairs.len()).unwrap_or(u64::MAX);
    let contexts: Vec<(String, PairContext)> = pairs.iter().map(|p| (p.path.clone(), p.context.clone())).collect();
    let mut timings = BTreeMap::new();
    let mut done = 0_u64;
    work.progress(Stage::Analyse, None, 0, total);
    work.pool.for_each(
        pairs,
        work.limits.memory_bytes.saturating_div(2),
        Pair::cost_bytes,
        |pair| {
            let start = Instant::now();
            let report = derive_image(&pair.path, &pair.old, &pair.new, &pair.context);
            (report, u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX))
        },
        |index, result| {
            let Some((path, context)) = contexts.get(index) else { return };
            let report = match result {
                Ok((report, micros)) => {
                    timings.insert(path.clone(), micros);
                    report
                }
                Err(panic) => {
                    let ids = (Some(context.old_id.clone()), Some(context.new_id.clone()));
                    let report = report::plain(path, ids.0, ids.1, Verdict::Refused);
                    report::because(
                        report,
                        &registry::ANALYSIS_FAILED,
                        "a defect in the analysis",
                        vec![panic.to_string()],
                    )
                }
            };
            settle(settled, report);
            done = done.saturating_add(1);
            work.progress(Stage::Analyse, Some(path), done, total);
        },
    );
    timings
}

fn write(
    work: &Work<'_>,
    patch: &PatchFile,
    output: Descriptor,
    timings: &BTreeMap<String, u64>,
) -> Result<Response, Failure> {
    let bytes = salve_patch::encode(patch).map_err(|error| Failure::new(FailureKind::Internal).caused_by(&error))?;
    let to = crate::side::descriptor(&work.descriptors, output)?;
    output::write_whole(to, &bytes, work.limits.max_output_bytes)?;
    work.progress(Stage::Write, None, 1, 1);
    let images = patch.images.iter().map(|image| DerivedImage {
        path: image.path.clone(),
        verdict: image.verdict,
        reasons: image.reasons.iter().map(|reason| reason.code.clone()).collect(),
        has_livepatch: image.livepatch.is_some(),
        analysis_micros: timings.get(&image.path).copied().unwrap_or(0),
    });
    Ok(Response::Derived(DerivedSummary {
        patch_len_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        patch_sha256: ContentHash::of(&bytes),
        verdict: patch.verdict(),
        images: images.collect(),
    }))
}
