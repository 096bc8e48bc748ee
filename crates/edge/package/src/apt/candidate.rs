//! The archive's candidate for an installed package.

use super::policy::checked;
use super::{Apt, AptError, Policy};
use crate::Version;
use crate::deb::Control;
use crate::dpkg::{Database, Installed};
use crate::stanza::stanzas;
use salve_elf::ContentHash;
use std::collections::BTreeMap;

/// A version in the archive, as apt's verified lists describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub control: Control,
    /// `name` or `name:architecture`, as apt wants it.
    pub(super) query: String,
    pub sha256: ContentHash,
    pub len_bytes: u64,
}

/// An installed package and what apt would replace it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgradable<'d> {
    pub package: &'d Installed,
    pub policy: Policy,
}

impl Candidate {
    /// The candidate that apt has for a package, `name` or `name:architecture`.
    pub fn for_package(apt: &Apt, name: &str) -> Result<Self, AptError> {
        let policy = apt.policy(name)?;
        let version = policy.candidate.ok_or_else(|| AptError::NoCandidate { name: name.to_owned() })?;
        Self::of_version(apt, name, &version)
    }

    /// The candidate for a package that is installed, in its own architecture.
    pub fn for_installed(apt: &Apt, package: &Installed) -> Result<Self, AptError> {
        Self::for_package(apt, &query_name(package))
    }

    /// A version that apt has in its lists, as `apt-cache show` gives it.
    pub fn of_version(apt: &Apt, name: &str, version: &Version) -> Result<Self, AptError> {
        let named = format!("{}={version}", checked(name)?);
        // Only the version's own record, not the ones of the other sources that have it.
        let output = apt.cache(&["show", "--no-all-versions", "--", &named])?;
        let said = || (name.to_owned(), version.as_str().to_owned());
        for stanza in stanzas(&output) {
            let stanza = stanza.map_err(|source| {
                let (name, version) = said();
                AptError::Stanza { name, version, source }
            })?;
            // dpkg's own record of an installed version has no hash.
            let (Some(hash), Ok(control)) = (stanza.get("SHA256"), Control::from_stanza(&stanza)) else { continue };
            if control.version.as_str() != version.as_str() || !is_the_one(name, &control) {
                continue;
            }
            let size = stanza.get("Size").and_then(|size| size.parse().ok());
            let (Ok(sha256), Some(len_bytes)) = (ContentHash::try_from(hash.to_owned()), size) else { continue };
            return Ok(Self { control, query: name.to_owned(), sha256, len_bytes });
        }
        let (name, version) = said();
        Err(AptError::NoHash { name, version })
    }
}

fn is_the_one(query: &str, control: &Control) -> bool {
    let (name, architecture) = query.split_once(':').unwrap_or((query, ""));
    let id = &control.id;
    id.name == name && (architecture.is_empty() || architecture == id.architecture || id.architecture == "all")
}

impl Apt {
    /// Installed packages for which apt has a newer candidate, by source. A
    /// package on hold is among them: it is the one that live patching is for.
    pub fn upgradable<'d>(
        &self,
        database: &'d Database<'_>,
    ) -> Result<BTreeMap<&'d str, Vec<Upgradable<'d>>>, AptError> {
        Ok(self.upgradable_and_listed(database)?.0)
    }

    /// The same, and whether apt has lists at all: without them nothing is newer, and nothing is known.
    pub fn upgradable_and_listed<'d>(
        &self,
        database: &'d Database<'_>,
    ) -> Result<(BTreeMap<&'d str, Vec<Upgradable<'d>>>, bool), AptError> {
        let native = database.native_architecture().unwrap_or_default();
        let names: Vec<String> = database.installed().map(query_name).collect();
        let mut by_source: BTreeMap<&str, Vec<Upgradable<'_>>> = BTreeMap::new();
        let mut has_lists = false;
        for policy in self.policies(names.iter().map(String::as_str))? {
            has_lists |= policy.is_listed();
            // apt leaves the machine's own architecture out of the name.
            let (name, architecture) = policy.name.split_once(':').unwrap_or((&policy.name, native));
            let package = database.package(name, architecture).or_else(|| database.package(name, "all"));
            let Some(package) = package.filter(|_| policy.is_upgradable()) else { continue };
            by_source.entry(&package.id().source).or_default().push(Upgradable { package, policy });
        }
        Ok((by_source, has_lists))
    }
}

/// `name:architecture`; a package for all architectures is asked for by name alone.
fn query_name(package: &Installed) -> String {
    let id = package.id();
    if id.architecture == "all" { id.name.clone() } else { format!("{}:{}", id.name, id.architecture) }
}
