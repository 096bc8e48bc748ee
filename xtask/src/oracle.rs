//! `cargo xtask oracle`: the maintainers' own tests as judge.
//!
//! The new version's upstream tests run three times: with the old shipped image, with
//! the old one in programs started by `salve run --patch`, and with the new one.
//! Where the old one fails because of the fix the patched one has to pass, and no other
//! test may come out otherwise. Builds and results are kept below `target/oracle`, so
//! that a run goes on where the last one ended; another livepatch drops the results of
//! the patched column.

mod columns;
mod recipes;

use crate::accuracy::sources;
use crate::cargo;
use anyhow::{Context as _, Result, ensure};
use columns::{Columns, Runs};
use salve_testkit::corpus::{self, Pair, Side};
use salve_testkit::patchfile::{Derived, Image};
use salve_testkit::salve::Salve;
use salve_testkit::{needs, patchfile, tree};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Binary packages of the corpus [default: all of it]
    #[arg(value_name = "PKG")]
    packages: Vec<String>,
    /// A directory with packages and a manifest.json [default: the project's own corpus]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Run the tests of what is to be reviewed as well, as if somebody had read the reasons and accepted each
    #[arg(long)]
    reviewed: bool,
    /// Run only tests with this in their name (may be repeated); the others are reported as far as they were run before
    #[arg(long, value_name = "TEXT", conflicts_with = "kept")]
    only: Vec<String>,
    /// Run nothing: report what earlier runs left, finished or not
    #[arg(long)]
    kept: bool,
    /// Write the report to this file rather than to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    needs::ensure(&[needs::Need::Compiler])?;
    if std::env::var_os("SALVE_BIN_DIR").is_none() {
        cargo::build_programs()?;
    }
    let directory = arguments.dir.clone().unwrap_or_else(corpus::directory);
    let pairs = corpus::pairs_in(&directory)?;
    for package in &arguments.packages {
        ensure!(pairs.iter().any(|pair| pair.package == *package), "no {package} there");
    }
    let mut report = Report::default();
    let wanted = |pair: &&Pair| arguments.packages.is_empty() || arguments.packages.contains(&pair.package);
    for pair in pairs.iter().filter(wanted) {
        report.one(pair, arguments)?;
    }
    let text = report.text();
    match &arguments.output {
        Some(file) => std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?,
        None => println!("{text}"),
    }
    ensure!(
        report.wrong == 0,
        "{} tests come out otherwise with the livepatch than with the new version",
        report.wrong
    );
    Ok(())
}

const HEAD: &str = "# The maintainers' own tests

Written by `cargo xtask oracle --reviewed --dir DIR --output docs/oracle.md`. The new version's upstream tests run with \
the old shipped image, with the old one started through `salve run --patch`, and with the new one. *Patched* has to be \
what *new* is, test by test. A patched test counts only if Salve recorded that it applied the livepatch to a process of \
it. Where *patched* and *new* differ, all three run twice more, and what does not end the same way each time is shown as \
*varies*.
";

#[derive(Default)]
struct Report {
    tested: String,
    /// Rows of what was not.
    left: String,
    wrong: usize,
}

impl Report {
    fn text(&self) -> String {
        let mut text = HEAD.to_owned() + &self.tested;
        if !self.left.is_empty() {
            text += "\n## Not tested\n\nThe verdict is that of the package's images that differ.\n\n";
            text += "| package | old → new | images by verdict | why not |\n|---|---|---|---|\n";
            text += &self.left;
        }
        text
    }

    fn one(&mut self, pair: &Pair, arguments: &Arguments) -> Result<()> {
        let reviewed = arguments.reviewed;
        let salve = Salve::built()?;
        let derived = patchfile::derive(&salve, &pair.deb(Side::Old), &pair.deb(Side::New))?;
        let recipe = recipes::of(&pair.package);
        let tested = |image: &Image<'_>| match recipe.and_then(|recipe| recipe.image) {
            Some(name) => image.path().ends_with(name),
            None => pair.is_largest(image.path()),
        };
        let image = derived.images().into_iter().find(tested);
        let image = image.with_context(|| format!("{}: the image under test is not there", pair.package))?;
        let place = tree::target().join("oracle").join(format!("{}_{}", pair.source, pair.new.replace(':', "_")));
        let why = match (image.verdict(), recipe) {
            ("refused", _) => Some(format!("`{}` is refused: {}", image.path(), listed(&image.deciding_codes()))),
            ("unchanged", _) => Some("nothing to patch".to_owned()),
            ("review", _) if !reviewed => Some(format!("to be reviewed first: {}", listed(&image.codes()))),
            (_, None) => Some("there is no recipe for its tests yet".to_owned()),
            _ if arguments.kept && !recipes::is_prepared(&place.join("built")) => Some("not run yet".to_owned()),
            _ => None,
        };
        if let Some(why) = why {
            let verdicts = verdicts(&derived);
            writeln!(self.left, "| {} | {} → {} | {verdicts} | {why} |", pair.package, pair.old, pair.new)?;
            return Ok(());
        }
        let Some(recipe) = recipe else { return Ok(()) };
        let text = &mut self.tested;
        writeln!(text, "\n## {} {} → {}\n", pair.package, pair.old, pair.new)?;
        let codes = if image.codes().is_empty() { "no reasons".to_owned() } else { listed(&image.codes()) };
        writeln!(text, "`{}` is {} ({codes}).", image.path(), image.verdict())?;
        let (source, not_new) = sources::newest_unpacked(pair)?;
        if let Some(why) = not_new {
            let why = why.lines().next().unwrap_or_default();
            writeln!(
                text,
                "\nThe new version's source could not be had ({why}). The tests are those of {}: the same upstream \
                 release, without tests that came with the fix.",
                pair.old
            )?;
        }
        recipes::prepare(recipe, &source, &place.join("built"))?;
        let tests = recipe.tests(&place.join("built"), &source)?;
        // Of every image that is to be reviewed: one program may map several.
        let accept: BTreeSet<&str> = derived.images().iter().flat_map(|image| image.codes()).collect();
        let accept: Vec<String> = accept.into_iter().map(str::to_owned).collect();
        let accept: &[String] = if reviewed { &accept } else { &[] };
        let runs = if arguments.kept { Runs::None } else { Runs::Named(&arguments.only) };
        let columns = Columns { pair, salve: &salve, place: &place, accept, runs };
        columns.keep_patch(&derived.file, recipe, &tests)?;
        self.wrong += columns.table(recipe, &tests, text)?;
        Ok(())
    }
}

/// How many images have which verdict.
fn verdicts(derived: &Derived) -> String {
    let images = derived.images();
    let count = |verdict: &str| images.iter().filter(|image| image.verdict() == verdict).count();
    let counted = ["refused", "review", "safe", "unchanged"].map(|verdict| (count(verdict), verdict));
    let told: Vec<String> =
        counted.iter().filter(|(n, _)| *n > 0).map(|(n, verdict)| format!("{n} {verdict}")).collect();
    told.join(", ")
}

fn listed(codes: &[&str]) -> String {
    let once: BTreeSet<&str> = codes.iter().copied().collect();
    once.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ")
}
