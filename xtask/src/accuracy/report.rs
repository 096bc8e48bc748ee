//! The report as a person reads it (`docs/accuracy.md`).

use super::compare::Counts;
use std::fmt::Write as _;

pub(crate) struct Row {
    pub package: String,
    pub version: String,
    pub image: String,
    /// Or why there is nothing to compare with.
    pub counts: Result<Counts, String>,
}

const INTRODUCTION: &str = "\
# What Salve finds, against the names

Written by `cargo xtask accuracy --dir DIR --output docs/accuracy.md`; `--build SOURCE` builds a source package that \
is not built yet. The images are the shipped, stripped ones. Their names come from glibc's debug packages, and for other \
sources from packages built again with `nostrip`, where each loaded section has the shipped one's place and size and \
the code its bytes.

- *pairs*: functions that were paired, and that have names on both sides; *wrong* if no name is on both.
- *changed*: functions that are in both versions by a name that nothing else has, and differ: in their instructions, or \
in the name of something they refer to. *noise*: of these, left alone with a proof. *missed*: said to be identical.
- *references*: of functions said to be identical, to anything that has a name; *wrong* if the names differ.
- *bound*: references of the livepatch that lead into the old image. *moved*: to \
a constant of the same value that has another name, as where the members of a table changed places; no miss. *unnamed*: \
nothing has a name there (texts, constants), so nothing was compared.

Functions are paired by their exported names first. Where a name belongs to the resolver of an indirect function in one \
version only (libm), the pair is of two different things. Such a pair is never said to be identical.
";

macro_rules! line {
    ($text:expr, $($arguments:tt)*) => {{ let _ = writeln!($text, $($arguments)*); }};
}

pub(crate) fn render(rows: &[Row], without: &[(String, String)]) -> String {
    let mut text = INTRODUCTION.to_owned();
    line!(
        text,
        "\n| image | verdict | pairs | wrong | changed | noise | missed | references | wrong | bound | wrong | moved | unnamed |"
    );
    line!(text, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let compared = || rows.iter().filter_map(|row| Some((row, row.counts.as_ref().ok()?)));
    // Hundreds of images of glibc differ in nothing that is counted: one row for them.
    let quiet = |counts: &Counts| counts.changed == 0 && counts.bound == 0 && counts.is_right();
    for (row, counts) in compared().filter(|(_, counts)| !quiet(counts)) {
        let name = format!("`{}` ({} {})", row.image, row.package, row.version);
        line!(text, "{}", table_row(&name, &counts.verdict, &[counts]));
    }
    let all: Vec<&Counts> = compared().map(|(_, counts)| counts).collect();
    let without_change: Vec<&Counts> = all.iter().copied().filter(|counts| quiet(counts)).collect();
    let name = format!("{} images in which no function differs", without_change.len());
    line!(text, "{}", table_row(&name, "", &without_change));
    line!(text, "{}", table_row(&format!("**all {}**", all.len()), "", &all));
    misses(&mut text, rows);
    line!(text, "\n## Not compared\n");
    for row in rows {
        if let Err(why) = &row.counts {
            line!(text, "- `{}` ({} {}): {why}", row.image, row.package, row.version);
        }
    }
    for (pair, why) in without {
        line!(text, "- {pair}: {why}");
    }
    text
}

fn table_row(name: &str, verdict: &str, of: &[&Counts]) -> String {
    let sum = |value: fn(&Counts) -> u64| of.iter().map(|counts| value(counts)).sum::<u64>();
    let count = |misses: fn(&Counts) -> usize| of.iter().map(|counts| misses(counts) as u64).sum::<u64>();
    let cells = [
        sum(|c| c.pairs),
        count(|c| c.wrong_pairs.len()),
        sum(|c| c.changed),
        sum(|c| c.noise),
        count(|c| c.missed.len()),
        sum(|c| c.references),
        count(|c| c.wrong_references.len()),
        sum(|c| c.bound),
        count(|c| c.wrong_bound.len()),
        sum(|c| c.moved),
        sum(|c| c.unnamed),
    ];
    let cells: Vec<String> = cells.iter().map(u64::to_string).collect();
    format!("| {name} | {verdict} | {} |", cells.join(" | "))
}

fn misses(text: &mut String, rows: &[Row]) {
    const SHOWN: usize = 20;
    line!(text, "\n## Every miss\n");
    let mut any = false;
    for row in rows {
        let Some(counts) = row.counts.as_ref().ok().filter(|counts| !counts.is_right()) else { continue };
        any = true;
        line!(text, "`{}` ({}), {}:\n", row.image, row.version, counts.verdict);
        let kinds = [
            ("wrong pair", &counts.wrong_pairs),
            ("missed change", &counts.missed),
            ("wrong reference", &counts.wrong_references),
            ("wrong bound reference", &counts.wrong_bound),
        ];
        for (kind, misses) in kinds {
            for miss in misses.iter().take(SHOWN) {
                line!(text, "- {kind}: {miss}");
            }
            if misses.len() > SHOWN {
                line!(text, "- {kind}: {} more", misses.len().saturating_sub(SHOWN));
            }
        }
        line!(text, "");
    }
    if !any {
        line!(text, "None.");
    }
}
