//! What the package manager knows, as planning asks for it.
//!
//! A trait, because `heal` is tested against package databases that never were.

use crate::problem::Problem;
use core::cmp::Ordering;
use salve_patch::{Cves, PackageId};
use std::collections::BTreeMap;
use std::fs::File;

/// Who owns a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    One(Owned),
    Nobody,
    /// A diverted or shared path: whose code it is cannot be said.
    Several(Vec<String>),
}

/// A file of an installed package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) package: PackageId,
    /// The path as the package names it.
    pub(crate) listed: String,
}

/// An installed package and the newer version that is offered for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) installed: PackageId,
    pub(crate) version: String,
}

/// A candidate, as the lists tell of it that are on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) candidate: Candidate,
    /// It, or a version between, came through a suite for security updates.
    pub(crate) security: bool,
    /// The package is on hold.
    pub(crate) held: bool,
}

pub(crate) trait PackageFacts: Sync {
    /// The owners of all these paths, in one pass.
    fn owners(&self, paths: &[String]) -> Result<BTreeMap<String, Owner>, Problem>;

    /// The package of that name, in the native architecture if in several.
    fn installed(&self, name: &str) -> Option<PackageId>;

    /// Whether `bytes` are what the installed version has there; `None` where
    /// the database keeps no checksum.
    fn is_installed_content(&self, owned: &Owned, bytes: &[u8]) -> Option<bool>;

    /// Every version other than the present one that may have been installed at
    /// some time since `since` (seconds since the epoch); the reason in words
    /// where the history does not reach that far.
    fn others_since(&self, package: &PackageId, since: i64) -> Result<Vec<String>, String>;

    /// What a path may be called now, where it carries a version that was
    /// upgraded (bind9's libraries do): each upgrade's new version in the place
    /// of its old one. Sorted; nothing is said about which of them exist.
    fn renamed(&self, path: &str) -> Vec<String>;

    /// A package of this source that something is being done to, as the database
    /// says at this moment; a database that cannot be read counts as one.
    fn unsettled(&self, source: &str) -> Option<String>;

    /// Installed packages with a newer candidate: those named, or all.
    fn candidates(&self, names: &[String]) -> Result<Vec<Candidate>, Problem>;

    /// Every installed package with a newer candidate in the lists that are there; nothing is fetched.
    fn offered(&self) -> Result<Vec<Offered>, Problem>;

    /// The candidate's package file, verified as the package manager verifies it.
    fn download(&self, candidate: &Candidate) -> Result<File, Problem>;

    /// Every file of the installed version with the checksum that the database
    /// keeps, as something to hand over to the deriving process.
    fn contents(&self, package: &PackageId) -> Option<File>;

    /// The Debian changelog of the installed version, if it is at hand.
    fn changelog(&self, package: &PackageId) -> Option<File>;

    /// The CVEs that the installed version's changelog names and `old`'s does not.
    fn fixes(&self, package: &PackageId, old: &str) -> Cves;

    /// When the installed version was unpacked, in seconds since the epoch.
    fn installed_at(&self, package: &PackageId) -> Option<i64>;

    /// The installed packages of a source.
    fn of_source(&self, source: &str) -> Vec<PackageId>;

    /// When a version of an installed package, the present one or an earlier one, was
    /// unpacked, in seconds since the epoch; `None` where nothing tells.
    fn unpacked_at(&self, package: &PackageId, version: &str) -> Option<i64>;
}

/// The package manager's order of versions; `None` for what is no version.
pub(crate) fn compare(a: &str, b: &str) -> Option<Ordering> {
    salve_package::version::compare(a, b)
}
