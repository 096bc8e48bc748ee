//! `/var/lib/dpkg/status`, with the records of a dpkg run that is under way.

use super::diversions::Diversions;
use super::{DpkgError, Status};
use crate::Root;
use crate::deb::Control;
use crate::stanza::{Stanza, stanzas};
use salve_patch::PackageId;
use std::collections::BTreeMap;

/// dpkg's files are some megabytes on the largest machines.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 20;
pub(super) const ADMIN_DIR: &str = "/var/lib/dpkg";

/// One package that the database knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub control: Control,
    pub status: Status,
    pub conffiles: Vec<Conffile>,
}

impl Installed {
    pub fn id(&self) -> &PackageId {
        &self.control.id
    }
}

/// A configuration file, and the checksum of the version the package shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conffile {
    pub path: String,
    /// `None` while dpkg has not seen the file (`newconffile`).
    pub md5: Option<[u8; 16]>,
    /// The installed version of the package no longer ships it.
    pub obsolete: bool,
}

/// The package database beneath one root, as it was when it was read.
#[derive(Debug)]
pub struct Database<'r> {
    pub(super) root: &'r Root,
    /// By name and architecture.
    packages: BTreeMap<(String, String), Installed>,
    pub(super) diversions: Diversions,
    /// Top-level directories that are links into `/usr`.
    pub(super) merged: Vec<String>,
}

impl<'r> Database<'r> {
    /// Reads the database. A record that cannot be understood is an error: it
    /// could be the one that matters.
    pub fn read(root: &'r Root) -> Result<Self, DpkgError> {
        let mut packages = BTreeMap::new();
        let status = root.read_text(&format!("{ADMIN_DIR}/status"), MAX_FILE_BYTES)?;
        let mut files = vec![("status".to_owned(), status.ok_or(DpkgError::NoDatabase)?)];
        // What a running dpkg has written down since it last wrote `status`;
        // numbered, later ones count (dpkg's own recovery reads them so too).
        for name in root.list(&format!("{ADMIN_DIR}/updates"))? {
            let Some(name) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
                continue;
            };
            let file = format!("updates/{name}");
            if let Some(text) = root.read_text(&format!("{ADMIN_DIR}/{file}"), MAX_FILE_BYTES)? {
                files.push((file, text));
            }
        }
        for (file, text) in &files {
            for stanza in stanzas(text) {
                let stanza = stanza.map_err(|source| DpkgError::Stanza { file: file.clone(), source })?;
                if let Some(installed) = installed(&stanza, file)? {
                    let id = installed.id();
                    packages.insert((id.name.clone(), id.architecture.clone()), installed);
                }
            }
        }
        Ok(Self { packages, diversions: Diversions::read(root)?, merged: merged_directories(root), root })
    }

    /// Every package that has files on the disk.
    pub fn installed(&self) -> impl Iterator<Item = &Installed> {
        self.packages.values().filter(|package| package.status.has_files())
    }

    /// The package of that name and architecture, if it has files on the disk.
    pub fn package(&self, name: &str, architecture: &str) -> Option<&Installed> {
        let found = self.packages.get(&(name.to_owned(), architecture.to_owned()))?;
        found.status.has_files().then_some(found)
    }

    /// The packages of that name, one for each architecture.
    pub fn named<'d>(&'d self, name: &'d str) -> impl Iterator<Item = &'d Installed> {
        self.installed().filter(move |package| package.id().name == name)
    }

    /// The architecture of dpkg itself, which is the machine's own.
    pub fn native_architecture(&self) -> Option<&str> {
        self.named("dpkg").next().map(|package| package.id().architecture.as_str())
    }

    /// The packages built from that source.
    pub fn of_source<'d>(&'d self, source: &'d str) -> impl Iterator<Item = &'d Installed> {
        self.installed().filter(move |package| package.id().source == source)
    }

    /// Every package that something is being done to.
    pub fn all_unsettled(&self) -> impl Iterator<Item = &Installed> {
        self.packages.values().filter(|package| !package.status.is_settled())
    }

    /// The packages of a source that something is being done to. Empty is what
    /// healing has to wait for.
    pub fn unsettled<'d>(&'d self, source: &'d str) -> impl Iterator<Item = &'d Installed> {
        self.packages.values().filter(move |package| package.id().source == source && !package.status.is_settled())
    }
}

/// `None` for a package that is only remembered by name.
fn installed(stanza: &Stanza<'_>, file: &str) -> Result<Option<Installed>, DpkgError> {
    let package = stanza.get("Package").unwrap_or_default().to_owned();
    let bad = |field| DpkgError::Field { file: file.to_owned(), package: package.clone(), field };
    if package.is_empty() {
        return Err(bad("Package"));
    }
    let status = stanza.get("Status").and_then(Status::parse).ok_or_else(|| bad("Status"))?;
    // A selection for a package that was never installed has no version.
    if !status.has_files() && stanza.get("Version").is_none() {
        return Ok(None);
    }
    let control = Control::from_stanza(stanza).map_err(|error| match error {
        crate::deb::DebError::Field { field } => bad(field),
        _other => bad("Package"),
    })?;
    let conffiles = stanza.get("Conffiles").unwrap_or_default();
    let conffiles: Option<Vec<Conffile>> =
        conffiles.lines().filter(|line| !line.trim().is_empty()).map(conffile).collect();
    Ok(Some(Installed { control, status, conffiles: conffiles.ok_or_else(|| bad("Conffiles"))? }))
}

/// ` /etc/file checksum [obsolete] [remove-on-upgrade]`; the path may have spaces.
fn conffile(line: &str) -> Option<Conffile> {
    let mut words: Vec<&str> = line.trim().split(' ').collect();
    let mut obsolete = false;
    while let Some(&flag @ ("obsolete" | "remove-on-upgrade")) = words.last() {
        obsolete |= flag == "obsolete";
        words.pop();
    }
    let checksum = words.pop()?;
    let path = words.join(" ");
    let md5 = if checksum == "newconffile" { None } else { Some(parse_md5(checksum)?) };
    (!path.is_empty()).then_some(Conffile { path, md5, obsolete })
}

pub(crate) fn parse_md5(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}

/// On a merged system `/lib/x` and `/usr/lib/x` are one file, and packages'
/// lists may name either.
fn merged_directories(root: &Root) -> Vec<String> {
    ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32"]
        .into_iter()
        .filter(|name| {
            let target = root.link_target(&format!("/{name}"));
            target.is_some_and(|target| target.trim_start_matches('/').trim_end_matches('/') == format!("usr/{name}"))
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conffiles_have_a_checksum_and_flags() {
        let sum = "d41d8cd98f00b204e9800998ecf8427e";
        let found = conffile(&format!(" /etc/a file {sum} obsolete"));
        assert_eq!(found.as_ref().map(|file| (file.path.as_str(), file.obsolete)), Some(("/etc/a file", true)));
        assert_eq!(found.and_then(|file| file.md5), parse_md5(sum));
        assert_eq!(conffile(" /etc/b newconffile").map(|file| file.md5), Some(None));
        assert_eq!(conffile(" /etc/b"), None);
        assert_eq!(conffile(" /etc/b 1234"), None);
    }
}
