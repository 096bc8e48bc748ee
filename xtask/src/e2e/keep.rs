//! Results, kept beside the build.

use anyhow::{Context as _, Result};
use salve_testkit::services::report::Report;
use salve_testkit::tree;
use std::path::PathBuf;

fn file(service: &str) -> PathBuf {
    tree::target().join("e2e").join(format!("{service}.json"))
}

pub(super) fn keep(report: &Report) -> Result<()> {
    let file = file(&report.service);
    std::fs::create_dir_all(tree::target().join("e2e")).context("no place for results")?;
    let text = serde_json::to_string_pretty(report).context("a report that is no JSON")?;
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// An older result does not stand for a run that failed.
pub(super) fn forget(service: &str) -> Result<()> {
    match std::fs::remove_file(file(service)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("cannot forget a result"),
        _ => Ok(()),
    }
}

/// The last result of a service, if there is one.
pub(super) fn last(service: &str) -> Result<Option<Report>> {
    let file = file(service);
    if !file.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).map(Some).with_context(|| format!("cannot understand {}", file.display()))
}
