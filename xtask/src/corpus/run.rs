//! Deriving a pair, and each of its images alone.

use super::measured::{self, Measured};
use super::report::{Cost, Functions, Image, Package, Reason};
use anyhow::{Context as _, Result, anyhow, bail};
use salve_elf::ContentHash;
use salve_testkit::corpus::{self, Pair, Side};
use salve_testkit::salve::{Salve, exit};
use salve_testkit::{tools, tree};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

pub(crate) struct Runner {
    salve: Salve,
    tool: PathBuf,
    limit: Duration,
    images_alone: bool,
    scratch: TempDir,
}

impl Runner {
    pub(crate) fn new(salve: Salve, limit: Duration, images_alone: bool) -> Result<Self> {
        let scratch = tree::scratch("corpus")?;
        let tool = tools::compile("measure.c", scratch.path())?;
        let salve = salve.events_to(&scratch.path().join("events.jsonl"));
        Ok(Self { salve, tool, limit, images_alone, scratch })
    }

    /// Never fails: what went wrong is part of what it gives.
    pub(crate) fn package(&self, pair: &Pair) -> Package {
        let mut package = Package {
            name: pair.package.clone(),
            source: pair.source.clone(),
            old: pair.old.clone(),
            new: pair.new.clone(),
            failure: None,
            took_ms: 0.0,
            peak_kib: 0,
            images: Vec::new(),
        };
        if let Err(error) = self.derive(pair, &mut package) {
            package.failure = Some(format!("{error:#}"));
        }
        package
    }

    fn derive(&self, pair: &Pair, package: &mut Package) -> Result<()> {
        let (measured, report) = self.salve_derive(&pair.deb(Side::Old), &pair.deb(Side::New))?;
        (package.took_ms, package.peak_kib) = (measured.took_ms, measured.peak_kib);
        let images = report.pointer("/result/images").and_then(Value::as_array);
        let Some(images) = images else { bail!("{}", failure(&report, &measured)) };
        let files = if self.images_alone { Some(Files::of(pair)?) } else { None };
        for value in images {
            let mut image = image(value).context("an image without a verdict")?;
            if let Some((old, new)) = files.as_ref().and_then(|files| files.sides(value)) {
                image.alone = Some(self.alone(&old, &new, image.len_bytes)?);
            }
            package.images.push(image);
        }
        Ok(())
    }

    fn alone(&self, old: &Path, new: &Path, len_bytes: u64) -> Result<Cost> {
        let (measured, _) = self.salve_derive(old, new)?;
        let bound_kib = (len_bytes >> 10).saturating_mul(4).saturating_add(64 << 10);
        Ok(Cost { took_ms: measured.took_ms, peak_kib: measured.peak_kib, bound_kib })
    }

    fn salve_derive(&self, old: &Path, new: &Path) -> Result<(Measured, Value)> {
        let patch = self.scratch.path().join("pair.salve");
        let arguments = ["derive".as_ref(), "--json".as_ref(), old.as_os_str(), new.as_os_str()];
        let mut command = self.salve.command(&arguments);
        command.arg("-o").arg(&patch);
        let measured = measured::run(&self.tool, &command, self.limit)?
            .with_context(|| format!("not done within {} s", self.limit.as_secs()))?;
        if ![exit::DONE, exit::REFUSED].contains(&measured.code) {
            let report: Value = serde_json::from_str(&measured.stdout).unwrap_or(Value::Null);
            bail!("ended with {}: {}", measured.code, failure(&report, &measured));
        }
        let report = serde_json::from_str(&measured.stdout).context("no JSON document")?;
        Ok((measured, report))
    }
}

/// What a run that gave no result said.
fn failure(report: &Value, measured: &Measured) -> String {
    let error = report.get("error").filter(|error| !error.is_null());
    error.map_or_else(|| measured.stderr.lines().next().unwrap_or("it said nothing").to_owned(), Value::to_string)
}

/// The ELF files of both packages by content, because the two sides may call one
/// image by two paths.
struct Files {
    by_hash: BTreeMap<String, PathBuf>,
    _trees: [TempDir; 2],
}

impl Files {
    fn of(pair: &Pair) -> Result<Self> {
        let trees = [pair.extract(Side::Old)?, pair.extract(Side::New)?];
        let mut by_hash = BTreeMap::new();
        for tree in &trees {
            for file in corpus::files(tree.path())? {
                let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                if bytes.starts_with(b"\x7fELF") {
                    by_hash.insert(ContentHash::of(&bytes).to_string(), file);
                }
            }
        }
        Ok(Self { by_hash, _trees: trees })
    }

    /// The two files of an image, if they differ.
    fn sides(&self, image: &Value) -> Option<(PathBuf, PathBuf)> {
        let hash = |side: &str| image.get(side)?.get("sha256")?.as_str();
        let (old, new) = (hash("old")?, hash("new")?);
        if old == new {
            return None;
        }
        Some((self.by_hash.get(old)?.clone(), self.by_hash.get(new)?.clone()))
    }
}

fn image(value: &Value) -> Result<Image> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let numbers = value.get("references").and_then(Value::as_object);
    let len = |side: &str| value.get(side).and_then(|id| id.get("len_bytes")).and_then(Value::as_u64).unwrap_or(0);
    let functions = value.get("functions").cloned().unwrap_or(Value::Null);
    Ok(Image {
        path: text("path").ok_or_else(|| anyhow!("no path"))?,
        verdict: text("verdict").ok_or_else(|| anyhow!("no verdict"))?,
        functions: serde_json::from_value::<Functions>(functions).context("no functions")?,
        references: numbers.into_iter().flat_map(|n| n.values()).filter_map(Value::as_u64).sum(),
        reasons: value.get("reasons").and_then(Value::as_array).into_iter().flatten().filter_map(reason).collect(),
        len_bytes: len("old").saturating_add(len("new")),
        alone: None,
    })
}

fn reason(value: &Value) -> Option<Reason> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let first = value.get("evidence").and_then(Value::as_array).and_then(|all| all.first());
    let evidence = first.map(|first| {
        let text = |key: &str| first.get(key).and_then(Value::as_str);
        let at = |key: &str| first.get(key).and_then(Value::as_u64).map(|va| format!("{va:#x}"));
        let place = at("new_va").or_else(|| at("old_va").map(|va| format!("old {va}")));
        let parts = [text("function").map(str::to_owned), place, text("seen").map(str::to_owned)];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    });
    Some(Reason { code: text("code")?, verdict: text("verdict")?, summary: text("summary")?, evidence })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::report::Outcome;

    #[test]
    fn a_bad_file_is_a_row_that_failed_and_the_next_pair_is_derived() -> Result<()> {
        let own = corpus::pair("memcached")?;
        let directory = tree::scratch("bad-corpus")?;
        let record = |package: &str, old: &Path, new: &Path| {
            serde_json::json!({
                "package": package, "source": package, "old": "1", "new": "2", "old_deb": old, "new_deb": new,
                "cves": [], "elf_files": 1, "largest_elf": "/usr/bin/memcached",
            })
        };
        let bad = directory.path().join("bad.deb");
        std::fs::write(&bad, b"!<arch>\nno package")?;
        let (old, new) = (own.deb(Side::Old), own.deb(Side::New));
        let records =
            [record("bad", &bad, &new), record("missing", &old, Path::new("gone.deb")), record("good", &old, &new)];
        std::fs::write(directory.path().join("manifest.json"), serde_json::to_string(&records)?)?;
        let runner = Runner::new(Salve::built()?, Duration::from_secs(300), true)?;
        let pairs = corpus::pairs_in(directory.path())?;
        let outcomes: Vec<Outcome> = pairs.iter().map(|pair| runner.package(pair).outcome()).collect();
        assert_eq!(outcomes, [Outcome::Failed, Outcome::Failed, Outcome::Unchanged]);
        Ok(())
    }
}
