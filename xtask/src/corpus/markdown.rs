//! The report as a person reads it (`docs/corpus.md`).

use super::report::{Image, Outcome, Package, Report, cause};
use salve_verdict::registry::Cause;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const INTRODUCTION: &str = "\
# What Salve makes of the corpus

Written by `cargo xtask corpus --dir DIR --output docs/corpus.md`, DIR being a directory of package pairs with a \
`manifest.json` as in `corpus/`. Each pair went through `salve derive` as two packages; that gives the verdicts. Each \
image that differs was derived once more, alone, by a process of its own: *ms* is that process from start to end, *MiB* \
its largest resident set.

A package is what its worst image is, because the images of one update change together. *Inherent* and *limit* are \
properties of the reason codes (`docs/reason-codes.md`); an image is refused for an inherent cause if one of its codes \
is inherent.
";

pub(crate) fn render(report: &Report) -> String {
    let mut text = INTRODUCTION.to_owned();
    summary(&mut text, report);
    causes(&mut text, report);
    refusals(&mut text, report);
    for package in &report.packages {
        images(&mut text, package);
    }
    text
}

/// Writing to a string does not fail.
macro_rules! line {
    ($text:expr, $($arguments:tt)*) => {{ let _ = writeln!($text, $($arguments)*); }};
}

fn count(images: &[Image], outcome: Outcome) -> usize {
    images.iter().filter(|image| image.outcome() == outcome).count()
}

fn summary(text: &mut String, report: &Report) {
    const COLUMNS: [Outcome; 5] =
        [Outcome::Unchanged, Outcome::Healable, Outcome::AfterReview, Outcome::Inherent, Outcome::Limit];
    line!(text, "\n## Packages\n");
    line!(text, "| package | old → new | images | unchanged | safe | review | inherent | limit | outcome | s | MiB |");
    line!(text, "|---|---|--:|--:|--:|--:|--:|--:|---|--:|--:|");
    let mut totals = [0_usize; 5];
    let (mut all, mut seconds) = (0_usize, 0.0);
    for package in &report.packages {
        let counts = COLUMNS.map(|outcome| count(&package.images, outcome));
        for (total, count) in totals.iter_mut().zip(counts) {
            *total = total.saturating_add(count);
        }
        all = all.saturating_add(package.images.len());
        seconds += package.took_ms / 1e3;
        let [unchanged, safe, review, inherent, limit] = counts;
        line!(
            text,
            "| {} | {} → {} | {} | {unchanged} | {safe} | {review} | {inherent} | {limit} | {} | {:.2} | {} |",
            package.name,
            package.old,
            package.new,
            package.images.len(),
            package.failure.as_deref().map_or(package.outcome().name(), |failure| failure),
            package.took_ms / 1e3,
            package.peak_kib >> 10,
        );
    }
    let [unchanged, safe, review, inherent, limit] = totals;
    line!(text, "| **all** | | {all} | {unchanged} | {safe} | {review} | {inherent} | {limit} | | {seconds:.1} | |");
    let over: Vec<String> = report
        .packages
        .iter()
        .flat_map(|package| &package.images)
        .filter(|image| image.alone.is_some_and(|cost| cost.peak_kib > cost.bound_kib))
        .map(|image| format!("`{}`", image.path))
        .collect();
    let over = if over.is_empty() { "none".to_owned() } else { over.join(", ") };
    line!(text, "\nImages that took more than 4 × the two files + 64 MiB: {over}.");
}

fn causes(text: &mut String, report: &Report) {
    let mut all: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for image in report.packages.iter().flat_map(|package| &package.images) {
        let codes: BTreeSet<&str> = image.refusals().map(|reason| reason.code.as_str()).collect();
        for code in &codes {
            let (images, alone) = all.entry(code).or_default();
            *images = images.saturating_add(1);
            *alone = alone.saturating_add(usize::from(codes.len() == 1));
        }
    }
    line!(text, "\n## Why images are refused\n");
    line!(text, "| code | cause | images with it | with nothing else |\n|---|---|--:|--:|");
    let mut rows: Vec<_> = all.into_iter().collect();
    rows.sort_by_key(|(code, (images, alone))| (std::cmp::Reverse((*alone, *images)), *code));
    for (code, (images, alone)) in rows {
        line!(text, "| `{code}` | {} | {images} | {alone} |", cause(code).map_or("–", Cause::name));
    }
}

fn refusals(text: &mut String, report: &Report) {
    line!(text, "\n## Refused images, each with what was seen first\n");
    line!(text, "| image | cause | code | seen |\n|---|---|---|---|");
    for package in &report.packages {
        for image in &package.images {
            // The cause that decides comes first; one line a code.
            let mut reasons: Vec<_> = image.refusals().collect();
            reasons.sort_by_key(|reason| std::cmp::Reverse(cause(&reason.code)));
            reasons.dedup_by_key(|reason| reason.code.clone());
            for (index, reason) in reasons.into_iter().enumerate() {
                let name = if index == 0 { format!("`{}` ({})", image.path, package.new) } else { String::new() };
                let seen = reason.evidence.as_ref().unwrap_or(&reason.summary);
                let cause = cause(&reason.code).map_or("–", Cause::name);
                line!(text, "| {name} | {cause} | `{}` | {} |", reason.code, cell(seen));
            }
        }
    }
}

fn images(text: &mut String, package: &Package) {
    line!(text, "\n## {} {} → {}\n", package.name, package.old, package.new);
    if let Some(failure) = &package.failure {
        line!(text, "Failed: {failure}\n");
    }
    line!(
        text,
        "| image | functions | identical | noise | changed | new | gone | references | verdict | reasons | ms | MiB |"
    );
    line!(text, "|---|--:|--:|--:|--:|--:|--:|--:|---|---|--:|--:|");
    for image in &package.images {
        let f = image.functions;
        let codes: BTreeSet<&str> = image.reasons.iter().map(|reason| reason.code.as_str()).collect();
        let codes = codes.into_iter().collect::<Vec<_>>().join(", ");
        let cost = image
            .alone
            .map_or_else(|| "| |".to_owned(), |cost| format!("| {:.0} | {} |", cost.took_ms, cost.peak_kib >> 10));
        line!(
            text,
            "| `{}` | {} → {} | {} | {} | {} | {} | {} | {} | {} | {codes} {cost}",
            image.path,
            f.old,
            f.new,
            f.identical,
            f.noise,
            f.changed,
            f.added,
            f.gone,
            image.references,
            image.verdict,
        );
    }
}

/// Nothing that was seen may end a table's cell or its row.
fn cell(text: &str) -> String {
    const LONGEST: usize = 160;
    let plain: String = text.chars().map(|c| if c == '|' || c.is_control() { ' ' } else { c }).collect();
    if plain.chars().count() <= LONGEST { plain } else { plain.chars().take(LONGEST).chain(['…']).collect() }
}
