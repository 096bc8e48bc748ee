//! What `salve derive` and `salve inspect` say about a pair, as tests ask it.

use crate::salve::{Run, Salve, values};
use crate::{events, tree};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A derived pair: how the run ended, the patch file and what it says.
#[derive(Debug)]
pub struct Derived {
    pub run: Run,
    pub file: PathBuf,
    /// The inspection; `None` where no patch file was written.
    pub inspected: Option<Value>,
    _directory: TempDir,
}

/// Derives `old` → `new` into a scratch directory, whatever the verdict.
pub fn derive(salve: &Salve, old: &Path, new: &Path) -> Result<Derived> {
    let directory = tree::scratch("derived")?;
    let file = directory.path().join("pair.salve");
    let run = salve.json(&["derive".as_ref(), old.as_os_str(), new.as_os_str(), "-o".as_ref(), file.as_os_str()])?;
    let inspected =
        if file.exists() { Some(salve.json(&["inspect".as_ref(), file.as_os_str()])?.report()?) } else { None };
    Ok(Derived { run, file, inspected, _directory: directory })
}

/// The record of one image.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a>(&'a Value);

impl Derived {
    /// The images of the pair.
    pub fn images(&self) -> Vec<Image<'_>> {
        let reports = self.inspected.iter().flat_map(|report| values(report, "images"));
        reports.filter_map(Value::as_array).flatten().map(Image).collect()
    }

    /// The image that `is_it` recognises by its path.
    pub fn image(&self, is_it: impl Fn(&str) -> bool) -> Result<Image<'_>> {
        let found = self.images().into_iter().find(|image| is_it(image.path()));
        found.with_context(|| {
            format!("no such image; {} printed {} {}", self.run.asked, self.run.stdout, self.run.stderr)
        })
    }

    pub fn only_image(&self) -> Result<Image<'_>> {
        self.image(|_| true)
    }
}

impl<'a> Image<'a> {
    pub fn path(self) -> &'a str {
        events::text(self.0, &["path"]).unwrap_or_default()
    }

    pub fn verdict(self) -> &'a str {
        events::text(self.0, &["verdict"]).unwrap_or_default()
    }

    /// Codes of the reasons.
    pub fn codes(self) -> Vec<&'a str> {
        self.reasons().filter_map(|reason| events::text(reason, &["code"])).collect()
    }

    /// Codes of the reasons for which it has the verdict that it has.
    pub fn deciding_codes(self) -> Vec<&'a str> {
        let deciding = self.reasons().filter(|reason| events::text(reason, &["verdict"]) == Some(self.verdict()));
        deciding.filter_map(|reason| events::text(reason, &["code"])).collect()
    }

    /// What was seen, for one reason: functions and sentences.
    pub fn evidence(self, code: &str) -> Vec<(Option<&'a str>, &'a str)> {
        let reasons = self.reasons().filter(|reason| events::text(reason, &["code"]) == Some(code));
        let evidence = reasons.filter_map(|reason| events::at(reason, &["evidence"])?.as_array()).flatten();
        evidence.map(|e| (events::text(e, &["function"]), events::text(e, &["seen"]).unwrap_or_default())).collect()
    }

    /// Names of the functions that the livepatch carries new code for.
    pub fn changed(self) -> Vec<&'a str> {
        let items = events::at(self.0, &["livepatch", "replaced"]).and_then(Value::as_array).into_iter().flatten();
        // One that the new image no longer has is replaced by nothing.
        let carried = |f: &&Value| f.get("new_ranges").and_then(Value::as_array).is_some_and(|r| !r.is_empty());
        items.filter(carried).filter_map(|item| events::text(item, &["name"])).collect()
    }

    /// Names of the functions that differ and were left out.
    pub fn noise(self) -> Vec<&'a str> {
        let items = events::at(self.0, &["noise"]).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(|item| events::text(item, &["function"])).collect()
    }

    fn reasons(self) -> impl Iterator<Item = &'a Value> {
        events::at(self.0, &["reasons"]).and_then(Value::as_array).into_iter().flatten()
    }
}
