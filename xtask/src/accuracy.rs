//! `cargo xtask accuracy`: what was found, against the symbols that distributors strip.
//!
//! For glibc the archive has debug packages of both versions. Other sources are
//! built again with `nostrip`; an image counts only where every section of the
//! shipped one has the same place and its `.text` the same bytes in the rebuilt one,
//! so that the rebuilt one's symbols are the shipped one's. Names are never shown to
//! the matcher: it gets the shipped, stripped images.
//!
//! Downloads and builds are kept below `target/accuracy`; a run goes on where the
//! last one ended.

mod compare;
mod report;
pub(crate) mod sources;
mod symbols;

use anyhow::{Context as _, Result};
use report::{Row, render};
use salve_testkit::corpus::{self, Pair, Side};
use sources::Truth;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A directory with packages and a manifest.json [default: the project's own corpus]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Build this source package in both versions where that is not done yet; may be repeated. Needs root, for build
    /// dependencies
    #[arg(long, value_name = "SOURCE")]
    build: Vec<String>,
    /// Write the report to this file rather than to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let directory = arguments.dir.clone().unwrap_or_else(corpus::directory);
    let mut rows = Vec::new();
    let mut without = Vec::new();
    for pair in corpus::pairs_in(&directory)? {
        let wanted = arguments.build.contains(&pair.source);
        eprint!("{} {} → {}: ", pair.package, pair.old, pair.new);
        match package(&pair, wanted) {
            Ok(found) => {
                eprintln!("{} images", found.len());
                rows.extend(found);
            }
            Err(error) => {
                eprintln!("{error:#}");
                without.push((format!("{} {} → {}", pair.package, pair.old, pair.new), format!("{error:#}")));
            }
        }
    }
    let text = render(&rows, &without);
    if let Some(file) = &arguments.output {
        return std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()));
    }
    println!("{text}");
    Ok(())
}

/// A row for each image of the pair that differs and whose symbols are known.
fn package(pair: &Pair, build: bool) -> Result<Vec<Row>> {
    let truth = [Truth::of(pair, Side::Old, build)?, Truth::of(pair, Side::New, build)?];
    let trees = [pair.extract(Side::Old)?, pair.extract(Side::New)?];
    let mut rows = Vec::new();
    let mut paths = corpus::files(trees[1].path())?;
    paths.sort();
    for new_path in paths {
        let path = new_path.strip_prefix(trees[1].path()).context("a file outside its tree")?;
        let (new, old) = (read(&new_path)?, read(&trees[0].path().join(path)).unwrap_or_default());
        let elf = |bytes: &[u8]| bytes.starts_with(b"\x7fELF");
        if !elf(&new) || !elf(&old) || old == new {
            continue;
        }
        rows.push(row(pair, path, &truth, [&old, &new]));
    }
    Ok(rows)
}

fn row(pair: &Pair, path: &Path, [old, new]: &[Truth; 2], [old_bytes, new_bytes]: [&[u8]; 2]) -> Row {
    let image = format!("/{}", path.display());
    let compared = || -> Result<compare::Counts> {
        let symbols = [old.symbols(path, old_bytes).context("old")?, new.symbols(path, new_bytes).context("new")?];
        compare::images([old_bytes, new_bytes], &symbols, (&pair.old, &pair.new))
    };
    Row {
        package: pair.package.clone(),
        version: pair.new.clone(),
        image,
        counts: compared().map_err(|e| format!("{e:#}")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
