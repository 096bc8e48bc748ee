//! `cargo xtask corpus`: what Salve makes of every pair of a corpus.
//!
//! Each pair goes through the built `salve` and `salve-derive`, as an operator
//! would run them: once as two packages, which gives the verdicts, and once more
//! for each image that differs, alone, which gives its time and its peak memory.
//! What fails is a row of the report too: a bad file, a crash or a run past the
//! time limit ends one pair and not the others.

mod markdown;
mod measured;
mod report;
mod run;

use crate::cargo;
use anyhow::{Context as _, Result, bail, ensure};
use report::Report;
use salve_testkit::corpus::{self, Pair};
use salve_testkit::needs::{self, Need};
use salve_testkit::salve::Salve;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A directory with packages and a manifest.json [default: the project's own corpus]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Only pairs of this binary or source package; may be repeated
    #[arg(long, value_name = "PKG")]
    only: Vec<String>,
    /// Print the report as one JSON document rather than Markdown
    #[arg(long)]
    json: bool,
    /// Write the report to this file rather than to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Longest that one run may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Only the verdicts: measure no image by itself
    #[arg(long)]
    verdicts_only: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    needs::ensure(&[Need::Compiler])?;
    cargo::build_programs()?;
    let directory = arguments.dir.clone().unwrap_or_else(corpus::directory);
    let pairs = wanted(corpus::pairs_in(&directory)?, &arguments.only)?;
    let runner = run::Runner::new(Salve::built()?, Duration::from_secs(arguments.limit), !arguments.verdicts_only)?;
    let mut packages = Vec::new();
    let since = Instant::now();
    for (index, pair) in pairs.iter().enumerate() {
        eprint!("[{}/{}] {} {} → {} ", index.saturating_add(1), pairs.len(), pair.package, pair.old, pair.new);
        let package = runner.package(pair);
        eprintln!("{} in {:.2} s", package.outcome().name(), package.took_ms / 1e3);
        packages.push(package);
    }
    eprintln!("{} pairs in {:.1} s", packages.len(), since.elapsed().as_secs_f64());
    let report = Report { packages };
    let text = if arguments.json { serde_json::to_string_pretty(&report)? } else { markdown::render(&report) };
    match &arguments.output {
        Some(file) => std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?,
        None => println!("{text}"),
    }
    let failed = report.packages.iter().filter(|package| package.failure.is_some()).count();
    ensure!(failed == 0, "{failed} pairs failed; the report says how");
    Ok(())
}

fn wanted(pairs: Vec<Pair>, only: &[String]) -> Result<Vec<Pair>> {
    for name in only {
        if !pairs.iter().any(|pair| pair.package == *name || pair.source == *name) {
            bail!("the corpus has no pair of {name}");
        }
    }
    let wanted = |pair: &Pair| only.is_empty() || only.contains(&pair.package) || only.contains(&pair.source);
    Ok(pairs.into_iter().filter(wanted).collect())
}
