//! Packages of a service in two versions, from the archive that a root uses.
//!
//! Which versions is not written down here: the oldest that the archive still
//! has is installed, the newest is what is healed to. What was downloaded is
//! kept between runs beside the build.

use crate::debian::Root;
use crate::tree;
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One binary package, in the version that runs and the one that closes the hole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub package: String,
    pub old: String,
    pub new: String,
}

impl Versions {
    pub fn differ(&self) -> bool {
        self.old != self.new
    }
}

/// The oldest and the newest version of a package that the archive has.
pub fn versions(root: &Root, package: &str) -> Result<Versions> {
    let madison = root.must_run(&["apt-cache", "madison", package])?.stdout;
    // Sorted by apt, newest first.
    let all: Vec<&str> = madison.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim).collect();
    match (all.last(), all.first()) {
        (Some(old), Some(new)) => {
            Ok(Versions { package: package.to_owned(), old: (*old).to_owned(), new: (*new).to_owned() })
        }
        _ => bail!("the archive has no {package}"),
    }
}

/// Installs packages, with words as `apt-get install` takes them (`NAME` or `NAME=VERSION`).
pub fn install(root: &Root, words: &[String]) -> Result<()> {
    let kept = tree::target().join("e2e-archives");
    let archives = root.path("/var/cache/apt/archives");
    std::fs::create_dir_all(&kept).context("cannot keep packages")?;
    copy_new(&kept, &archives)?;
    let mut command = vec!["apt-get", "install", "-qq", "-y", "--no-install-recommends", "--allow-downgrades"];
    command.extend(["-o", "Dpkg::Options::=--force-unsafe-io", "-o", "APT::Keep-Downloaded-Packages=true"]);
    command.extend(words.iter().map(String::as_str));
    root.must_run(&command)?;
    copy_new(&archives, &kept)
}

/// The file that the old version was installed from, by its path inside.
pub fn installed_from(root: &Root, versions: &Versions) -> Result<String> {
    let directory = "/var/cache/apt/archives";
    let file = find(&root.path(directory), &versions.package, &versions.old);
    let file = file.with_context(|| format!("no file of {} {}", versions.package, versions.old))?;
    Ok(format!("{directory}/{}", file.file_name().unwrap_or_default().to_string_lossy()))
}

/// A package's file in a directory, by its name.
fn find(directory: &Path, package: &str, version: &str) -> Option<PathBuf> {
    // apt writes the epoch's colon as %3a.
    let start = format!("{package}_{}_", version.replace(':', "%3a"));
    let mut entries = std::fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    entries.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)))
}

/// Downloads the new version of packages; gives their paths inside the root.
pub fn download_new(root: &Root, versions: &[Versions]) -> Result<Vec<String>> {
    let kept = tree::target().join("e2e-archives");
    let directory = "/var/tmp/new";
    std::fs::create_dir_all(root.path(directory)).context("cannot make a directory")?;
    let mut files = Vec::new();
    for Versions { package, new, .. } in versions {
        if find(&root.path(directory), package, new).is_none() {
            if let Some(file) = find(&kept, package, new) {
                // apt verified it when it was downloaded, into a directory of root's.
                let name = file.file_name().context("a package without a name")?.to_owned();
                std::fs::copy(&file, root.path(directory).join(name)).context("cannot copy a package")?;
            } else {
                let wanted = format!("{package}={new}");
                let script = "cd \"$0\" && exec apt-get download -qq -o APT::Sandbox::User=root \"$1\"";
                root.must_run(&["sh", "-c", script, directory, &wanted])?;
            }
        }
        let file = find(&root.path(directory), package, new);
        let file = file.with_context(|| format!("no file of {package} {new}"))?;
        files.push(format!("{directory}/{}", file.file_name().unwrap_or_default().to_string_lossy()));
    }
    copy_new(&root.path(directory), &kept)?;
    Ok(files)
}

/// Copies the package files that are not there yet.
fn copy_new(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry.context("cannot read an entry")?.path();
        let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|e| e == "deb")) else { continue };
        if !to.join(name).exists() {
            // Beside it first: a run that is interrupted leaves no half a package.
            let partial = to.join(format!(".{}", name.to_string_lossy()));
            std::fs::copy(&path, &partial).with_context(|| format!("cannot copy {}", path.display()))?;
            std::fs::rename(&partial, to.join(name)).context("cannot keep a package")?;
        }
    }
    Ok(())
}
