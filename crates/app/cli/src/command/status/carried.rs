//! One livepatch as one process carries it.

use crate::event::UpdateKey;
use crate::machine::disk::Disk;
use crate::problem::one_line;
use crate::view::{bytes_for_people, counted, cve_list};
use salve_elf::ContentHash;
use salve_patch::{Cves, Origin};
use salve_tracee::{LivepatchState, LivepatchStatus};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

#[derive(Clone, Serialize)]
pub(crate) struct Carried {
    pub(super) id: String,
    pub(super) state: State,
    pub(super) path: String,
    #[serde(skip)]
    pub(super) source: Option<String>,
    pub(super) package: Option<String>,
    pub(super) old_version: Option<String>,
    pub(super) new_version: Option<String>,
    pub(super) cves: Cves,
    pub(super) old_sha256: Option<ContentHash>,
    pub(super) new_sha256: Option<ContentHash>,
    pub(super) functions: Vec<String>,
    /// Words of tables that it changed where they lie.
    pub(super) words: usize,
    pub(super) payload_at: String,
    pub(super) payload_bytes: u64,
    /// What a restart would run.
    pub(super) on_restart: OnRestart,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(super) enum State {
    Applied,
    /// Whoever wrote it was killed in between; `apply` finishes it, `revert` undoes it.
    Partial {
        present: u64,
        total: u64,
    },
    Reverted,
}

/// By the content of the file that is at the image's path now.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OnRestart {
    /// The code that the livepatch brought.
    NewCode,
    /// The code that the livepatch replaced: the fix is lost until it is installed.
    OldCode,
    /// Something else, newer or older.
    OtherCode,
    /// There is no such file, or it cannot be read from here.
    Unknown,
}

impl State {
    fn of(state: LivepatchState) -> Self {
        let count = |functions| u64::try_from(functions).unwrap_or(u64::MAX);
        match state {
            LivepatchState::Applied => Self::Applied,
            LivepatchState::Reverted => Self::Reverted,
            LivepatchState::Partial { present, total } => {
                Self::Partial { present: count(present), total: count(total) }
            }
        }
    }
}

impl OnRestart {
    fn of(on_disk: Option<ContentHash>, old: Option<ContentHash>, new: Option<ContentHash>) -> Self {
        match on_disk {
            None => Self::Unknown,
            Some(content) if Some(content) == new => Self::NewCode,
            Some(content) if Some(content) == old => Self::OldCode,
            Some(_) => Self::OtherCode,
        }
    }
}

impl Carried {
    pub(super) fn of(status: &LivepatchStatus, disk: &mut Disk) -> Self {
        let image = status.patch.images.first();
        let (source, package, old_version, new_version, cves) = match &status.patch.origin {
            Origin::Packages { old, new, cves } => (
                Some(new.source.clone()),
                Some(new.name.clone()),
                Some(old.version.clone()),
                Some(new.version.clone()),
                cves.clone(),
            ),
            Origin::Files { .. } => (None, None, None, None, Cves::Unknown),
        };
        let old_sha256 = image.and_then(|image| image.old.as_ref()).map(|old| old.sha256);
        let new_sha256 = image.and_then(|image| image.new.as_ref()).map(|new| new.sha256);
        let on_disk = disk.look(Path::new(&status.mapped_path)).map(|file| file.sha256);
        let livepatch = image.and_then(|image| image.livepatch.as_ref());
        let replaced = livepatch.map(|livepatch| &livepatch.replaced);
        Self {
            id: status.livepatch.to_string(),
            state: State::of(status.state),
            path: status.mapped_path.to_string_lossy().into_owned(),
            source,
            package,
            old_version,
            new_version,
            cves,
            old_sha256,
            new_sha256,
            functions: replaced
                .into_iter()
                .flatten()
                .map(|function| function.name.clone())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            words: livepatch.map_or(0, |livepatch| livepatch.words.len()),
            payload_at: status.payload_at.to_string(),
            payload_bytes: status.payload_bytes,
            on_restart: OnRestart::of(on_disk, old_sha256, new_sha256),
        }
    }

    pub(super) fn lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        if self.state == State::Reverted {
            return writeln!(out, "  {}  {}: {}", self.short(), one_line(&self.path), self.state_words());
        }
        writeln!(out, "  {}  {}: {}", self.short(), self.what(), self.state_words())?;
        let path = one_line(&self.path);
        let functions = counted(self.functions.len(), "function", "functions");
        let words = counted(self.words, "word of tables", "words of tables");
        match (self.functions.len(), self.words) {
            (0, 1..) => writeln!(out, "    image {path}, {words}")?,
            (_, 0) => writeln!(out, "    image {path}, {functions}: {}", self.names(verbose))?,
            (1.., 1..) => writeln!(out, "    image {path}, {words}, {functions}: {}", self.names(verbose))?,
        }
        writeln!(out, "    CVEs: {}", cve_list(&self.cves))?;
        if verbose {
            writeln!(out, "    payload: {} at {}", bytes_for_people(self.payload_bytes), self.payload_at)?;
        }
        match self.restart_words() {
            Some(words) => writeln!(out, "    {words}"),
            None => Ok(()),
        }
    }

    pub(crate) fn short(&self) -> String {
        self.id.chars().take(12).collect()
    }

    /// `redis-tools 1 -> 2`, or the file where no package is known.
    pub(crate) fn what(&self) -> String {
        match (&self.package, &self.old_version, &self.new_version) {
            (Some(package), Some(old), Some(new)) => {
                format!("{} {} -> {}", one_line(package), one_line(old), one_line(new))
            }
            _plain_files => one_line(&self.path),
        }
    }

    pub(crate) fn state_words(&self) -> String {
        match self.state {
            State::Applied => "applied".to_owned(),
            State::Reverted => "reverted; its payload is still mapped".to_owned(),
            State::Partial { present, total } => format!(
                "HALF APPLIED: {present} of {total} functions; `salve apply` finishes it, `salve revert` undoes it"
            ),
        }
    }

    /// What to know of the next restart, if anything.
    pub(crate) fn restart_words(&self) -> Option<&'static str> {
        match self.on_restart {
            OnRestart::NewCode => None,
            OnRestart::OldCode => Some("a restart falls back to the old code: the file on disk is the old one"),
            OnRestart::OtherCode => Some("a restart runs other code: the file on disk is neither of the two"),
            OnRestart::Unknown => Some("what a restart runs is unknown: the file on disk cannot be read"),
        }
    }

    pub(crate) fn is_in_force(&self) -> bool {
        self.state == State::Applied
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn update(&self) -> UpdateKey {
        (self.source.clone().unwrap_or_else(|| self.path.clone()), self.new_version.clone())
    }

    pub(crate) fn package(&self) -> Option<&str> {
        self.package.as_deref()
    }

    pub(crate) fn old_version(&self) -> Option<&str> {
        self.old_version.as_deref()
    }

    pub(crate) fn cves(&self) -> &Cves {
        &self.cves
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    fn names(&self, verbose: bool) -> String {
        const SHOWN: usize = 8;
        let shown = if verbose { self.functions.len() } else { SHOWN.min(self.functions.len()) };
        let mut text = one_line(&self.functions.get(..shown).unwrap_or_default().join(", "));
        if shown < self.functions.len() {
            text.push_str(", …");
        }
        text
    }
}
