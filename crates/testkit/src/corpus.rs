//! The package pairs in `corpus/`: real security updates, before and after.

use crate::tree;
use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// One update: a package in two versions.
#[derive(Clone, Debug, Deserialize)]
pub struct Pair {
    pub package: String,
    pub source: String,
    /// The version before, as the package states it.
    pub old: String,
    /// The version after.
    pub new: String,
    old_deb: String,
    new_deb: String,
    /// What the new changelog names and the old one does not.
    pub cves: Vec<String>,
    /// How many ELF files are in the new package.
    pub elf_files: u32,
    /// Path in the package of the largest ELF file.
    pub largest_elf: PathBuf,
    /// Where the package files lie.
    #[serde(skip)]
    directory: PathBuf,
}

/// Which of the two packages of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Old,
    New,
}

/// All pairs that the project carries.
pub fn pairs() -> Result<Vec<Pair>> {
    pairs_in(&directory())
}

/// All pairs of a directory that has such a manifest.
pub fn pairs_in(directory: &Path) -> Result<Vec<Pair>> {
    let manifest = directory.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let mut pairs: Vec<Pair> =
        serde_json::from_str(&text).with_context(|| format!("cannot understand {}", manifest.display()))?;
    for pair in &mut pairs {
        pair.directory = directory.to_path_buf();
    }
    Ok(pairs)
}

/// The pair of this binary package.
pub fn pair(package: &str) -> Result<Pair> {
    pairs()?.into_iter().find(|pair| pair.package == package).ok_or_else(|| anyhow!("no {package} in the corpus"))
}

pub fn directory() -> PathBuf {
    tree::root().join("corpus")
}

impl Pair {
    /// The package file itself.
    pub fn deb(&self, side: Side) -> PathBuf {
        self.directory.join(match side {
            Side::Old => &self.old_deb,
            Side::New => &self.new_deb,
        })
    }

    /// Its contents in a directory of its own; nothing is installed.
    pub fn extract(&self, side: Side) -> Result<TempDir> {
        let dir = tree::scratch(&self.package)?;
        extract(&self.deb(side), dir.path())?;
        Ok(dir)
    }

    /// Whether a path in the package is that of its largest ELF file; `/lib` and `/usr/lib` are one.
    pub fn is_largest(&self, path: &str) -> bool {
        let merged =
            |path: &Path| path.strip_prefix("/usr").map_or_else(|_| path.to_path_buf(), |p| Path::new("/").join(p));
        merged(&Path::new("/").join(path)) == merged(&self.largest_elf)
    }

    /// The largest ELF file of one side, below an extracted tree.
    pub fn largest_in(&self, tree: &Path) -> PathBuf {
        below(tree, &self.largest_elf)
    }
}

/// Unpacks a package's files with `dpkg-deb -x`: no scripts run, nothing is recorded.
pub fn extract(deb: &Path, into: &Path) -> Result<()> {
    let done = Command::new("dpkg-deb").arg("-x").arg(deb).arg(into).status().context("cannot run dpkg-deb")?;
    if !done.success() {
        bail!("dpkg-deb could not unpack {}: {done}", deb.display());
    }
    Ok(())
}

/// Every plain file below a directory.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// `path`, absolute in a package, below the directory it was unpacked into.
pub fn below(tree: &Path, path: &Path) -> PathBuf {
    tree.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_the_manifest_is_there_with_the_elf_file_it_names() -> Result<()> {
        let pairs = pairs()?;
        assert!(pairs.len() >= 5, "{}", pairs.len());
        for pair in pairs {
            for side in [Side::Old, Side::New] {
                let tree = pair.extract(side)?;
                let elf = pair.largest_in(tree.path());
                let bytes = std::fs::read(&elf).with_context(|| format!("{} of {}", elf.display(), pair.package))?;
                assert!(bytes.starts_with(b"\x7fELF"), "{}", elf.display());
            }
        }
        Ok(())
    }

    #[test]
    fn every_file_in_the_corpus_belongs_to_a_pair() -> Result<()> {
        let pairs = pairs()?;
        for entry in std::fs::read_dir(directory())? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "deb") {
                let known = pairs.iter().any(|p| p.deb(Side::Old) == path || p.deb(Side::New) == path);
                assert!(known, "{} is in no pair", path.display());
            }
        }
        Ok(())
    }
}
