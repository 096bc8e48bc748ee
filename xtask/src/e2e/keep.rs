//! Results, kept beside the build.

use anyhow::{Context as _, Result};
use salve_testkit::services::endure::Endured;
use salve_testkit::services::report::Report;
use salve_testkit::tree;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A result that belongs to a service.
pub(super) trait Kept: Serialize + DeserializeOwned {
    const KIND: &'static str;
    /// The service's name, and what tells its runs of several sorts apart.
    fn key(&self) -> String;

    fn file(key: &str) -> PathBuf {
        tree::target().join("e2e").join(format!("{key}{}.json", Self::KIND))
    }

    fn keep(&self) -> Result<()> {
        let file = Self::file(&self.key());
        std::fs::create_dir_all(tree::target().join("e2e")).context("no place for results")?;
        let text = serde_json::to_string_pretty(self).context("a report that is no JSON")?;
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// An older result does not stand for a run that failed.
    fn forget(key: &str) -> Result<()> {
        match std::fs::remove_file(Self::file(key)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("cannot forget a result"),
            _ => Ok(()),
        }
    }

    /// The last result, if there is one.
    fn last(key: &str) -> Result<Option<Self>> {
        let file = Self::file(key);
        if !file.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).map(Some).with_context(|| format!("cannot understand {}", file.display()))
    }
}

impl Kept for Report {
    const KIND: &'static str = "";

    fn key(&self) -> String {
        self.service.clone()
    }
}

impl Kept for Endured {
    const KIND: &'static str = "-long";

    fn key(&self) -> String {
        long_key(&self.service, self.gentle)
    }
}

/// A gentle run says nothing of a hard one, nor takes its place.
pub(super) fn long_key(service: &str, gentle: bool) -> String {
    if gentle { format!("{service}-gentle") } else { service.to_owned() }
}

/// A long run in which nothing was changed.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Control(pub(super) Endured);

impl Kept for Control {
    const KIND: &'static str = "-control";

    fn key(&self) -> String {
        self.0.key()
    }
}
