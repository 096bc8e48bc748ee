//! `cargo xtask oracle`: the maintainers' own tests as judge.
//!
//! The new version's upstream tests run three times: with the old shipped library,
//! with the old one in programs started by `salve run --patch`, and with the new one.
//! Where the old one fails because of the fix the patched one has to pass, and no other
//! test may come out otherwise. Builds and results are kept below `target/oracle`, so
//! that a run goes on where the last one ended; another livepatch drops the results of
//! the patched column.

mod recipes;

use crate::accuracy::sources;
use crate::cargo;
use anyhow::{Context as _, Result, ensure};
use recipes::{Recipe, Test};
use salve_testkit::corpus::{self, Pair, Side};
use salve_testkit::salve::Salve;
use salve_testkit::{needs, patchfile, tree};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Binary packages of the corpus [default: all there are recipes for]
    #[arg(value_name = "PKG")]
    packages: Vec<String>,
    /// A directory with packages and a manifest.json [default: the project's own corpus]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Accept what asks for review, and these reasons; without it such a package is shown as it is
    #[arg(long, value_name = "CODE")]
    accept: Vec<String>,
    /// Write the report to this file rather than to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Old,
    Patched,
    New,
}

impl Column {
    const ALL: [Self; 3] = [Self::Old, Self::Patched, Self::New];

    fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::Patched => "patched",
            Self::New => "new",
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    needs::ensure(&[needs::Need::Compiler])?;
    cargo::build_programs()?;
    let directory = arguments.dir.clone().unwrap_or_else(corpus::directory);
    let pairs = corpus::pairs_in(&directory)?;
    let known = || recipes::ALL.iter().map(|recipe| recipe.package.to_owned()).collect();
    let packages: Vec<String> = if arguments.packages.is_empty() { known() } else { arguments.packages.clone() };
    let mut text = String::from(HEAD);
    let mut wrong = 0;
    for package in &packages {
        let pair = pairs.iter().find(|pair| pair.package == *package).with_context(|| format!("no {package} there"))?;
        wrong += one(pair, &arguments.accept, &mut text)?;
    }
    match &arguments.output {
        Some(file) => std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?,
        None => println!("{text}"),
    }
    ensure!(wrong == 0, "{wrong} tests come out otherwise with the livepatch than with the new version");
    Ok(())
}

const HEAD: &str = "# The maintainers' own tests

Written by `cargo xtask oracle PKG --dir DIR --output docs/oracle.md`. The new version's upstream tests run with the \
old shipped image, with the old one started through `salve run --patch`, and with the new one. *Patched* has to be \
what *new* is, test by test.
";

/// One package: its section of the report, and how many tests come out wrong.
fn one(pair: &Pair, accept: &[String], text: &mut String) -> Result<usize> {
    writeln!(text, "\n## {} {} → {}\n", pair.package, pair.old, pair.new)?;
    let salve = Salve::built()?;
    let derived = patchfile::derive(&salve, &pair.deb(Side::Old), &pair.deb(Side::New))?;
    let image = derived.image(|path| pair.is_largest(path))?;
    let (path, verdict) = (image.path().to_owned(), image.verdict().to_owned());
    writeln!(text, "`{path}` is {verdict} ({}).", listed(&image.codes()))?;
    let open = verdict == "review" && !image.codes().iter().all(|code| accept.iter().any(|a| a == code));
    if matches!(verdict.as_str(), "refused" | "unchanged") || open {
        writeln!(text, "\nNot run: nothing is applied of what is {verdict}.")?;
        return Ok(0);
    }
    let Some(recipe) = recipes::of(&pair.package) else {
        writeln!(text, "\nNot run: there is no recipe for its tests yet.")?;
        return Ok(0);
    };
    let place = tree::target().join("oracle").join(format!("{}_{}", pair.source, pair.new.replace(':', "_")));
    let source = sources::unpacked(&pair.source, &pair.new)?;
    recipes::prepare(recipe, &source, &place.join("built"))?;
    let tests = recipe.tests(&place.join("built"), &source)?;
    let columns = Columns { pair, salve: &salve, place: &place, accept };
    columns.keep_patch(&derived.file)?;
    columns.table(recipe, &tests, text)
}

struct Columns<'c> {
    pair: &'c Pair,
    salve: &'c Salve,
    place: &'c Path,
    accept: &'c [String],
}

impl Columns<'_> {
    fn patch(&self) -> PathBuf {
        self.place.join("pair.salve")
    }

    /// Results of another livepatch are none of this one's.
    fn keep_patch(&self, file: &Path) -> Result<()> {
        let now = std::fs::read(file).context("no patch file")?;
        if std::fs::read(self.patch()).is_ok_and(|before| before == now) {
            return Ok(());
        }
        let results = self.place.join(Column::Patched.name());
        if results.exists() {
            std::fs::remove_dir_all(&results).context("cannot drop results")?;
        }
        std::fs::write(self.patch(), now).context("cannot keep the patch file")
    }

    fn table(&self, recipe: &Recipe, tests: &[Test], text: &mut String) -> Result<usize> {
        let trees = [self.pair.extract(Side::Old)?, self.pair.extract(Side::New)?];
        let mut rows = Vec::new();
        for test in tests {
            eprint!("{} {}:", self.pair.package, test.name);
            let mut row = Vec::new();
            for column in Column::ALL {
                let tree = if column == Column::New { &trees[1] } else { &trees[0] };
                row.push(self.result(test, column, tree.path())?);
                eprint!(" {}", row.last().map_or("", String::as_str));
            }
            eprintln!();
            rows.push((test.name.as_str(), row));
        }
        let count = |column: usize| rows.iter().filter(|(_, row)| row.get(column).is_some_and(|r| r == "ok")).count();
        let wrong = rows.iter().filter(|(_, row)| row.get(1) != row.get(2)).count();
        writeln!(text, "\n| | old | patched | new |\n|---|---|---|---|")?;
        writeln!(text, "| {} tests, passed | {} | {} | {} |", rows.len(), count(0), count(1), count(2))?;
        for (name, row) in rows.iter().filter(|(_, row)| row.iter().any(|r| r != "ok")) {
            writeln!(text, "| `{name}` | {} |", row.join(" | "))?;
        }
        writeln!(text, "\n{wrong} come out otherwise patched than new. Not reached: {}.", recipe.left_out)?;
        Ok(wrong)
    }

    /// `ok`, or how it ended; kept.
    fn result(&self, test: &Test, column: Column, tree: &Path) -> Result<String> {
        let directory = self.place.join(column.name());
        std::fs::create_dir_all(&directory).context("cannot make a directory")?;
        let kept = directory.join(test.name.replace(['/', ' '], "_"));
        if let Ok(before) = std::fs::read_to_string(&kept) {
            return Ok(before);
        }
        let libraries: Vec<String> = ["lib", "usr/lib"]
            .iter()
            .map(|part| tree.join(part).join("x86_64-linux-gnu"))
            .filter(|path| path.is_dir())
            .map(|path| path.display().to_string())
            .collect();
        let prefix = match column {
            Column::Old | Column::New => String::new(),
            Column::Patched => {
                let (salve, patch) = (self.salve.program().display().to_string(), self.patch());
                let mut words = vec![salve, "run --events /dev/null --patch".to_owned(), patch.display().to_string()];
                words.extend(self.accept.iter().map(|code| format!("--accept {code}")));
                words.push("--".to_owned());
                words.join(" ")
            }
        };
        let mut shell = Command::new("timeout");
        shell.args(["300", "sh", "-c", &test.command]).current_dir(&test.directory);
        shell.env("LD_LIBRARY_PATH", libraries.join(":")).env("ORACLE_TREE", tree);
        shell.env("ORACLE_RUN", prefix).env("LC_ALL", "C");
        let said = shell.stdin(std::process::Stdio::null()).output().context("cannot run a test")?;
        let result = match said.status.code() {
            Some(0) => "ok".to_owned(),
            // Automake's convention.
            Some(77) => "skipped".to_owned(),
            Some(124) => "timed out".to_owned(),
            Some(code) => format!("failed ({code})"),
            None => "killed".to_owned(),
        };
        let log = kept.with_extension("log");
        std::fs::write(&log, [said.stdout, said.stderr].concat()).context("cannot keep a log")?;
        std::fs::write(&kept, &result).context("cannot keep a result")?;
        Ok(result)
    }
}

fn listed(codes: &[&str]) -> String {
    if codes.is_empty() { "no reasons".to_owned() } else { codes.join(", ") }
}
