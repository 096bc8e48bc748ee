//! dpkg and apt of this machine, as [`PackageFacts`]. On a machine without
//! dpkg nothing is installed, and only `--was` proves a direction.

use super::packages::{Candidate, Offered, Owned, Owner, PackageFacts};
use crate::problem::Problem;
use salve_package::apt::{Apt, AptError, Upgradable};
use salve_package::dpkg::{self, ChangeKind, Database, DpkgError, History, Installed};
use salve_package::{Root, RootError, Version, changelog};
use salve_patch::{Cves, PackageId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) struct Debian<'r> {
    root: &'r Root,
    database: Option<Database<'r>>,
    history: OnceLock<Option<History>>,
    apt: Apt,
    /// The database's state when it was last read, and the sources that were unsettled then.
    settled: Mutex<Option<(Stamp, BTreeMap<String, String>)>>,
}

/// What changes whenever dpkg changes its database.
type Stamp = Vec<(u64, i64, i64)>;

pub(crate) fn root() -> Result<Root, Problem> {
    Root::host().map_err(|error: RootError| Problem::failed("no-root", "cannot open the root directory").because(error))
}

impl<'r> Debian<'r> {
    pub(crate) fn read(root: &'r Root) -> Result<Self, Problem> {
        let database = match Database::read(root) {
            Ok(database) => Some(database),
            Err(DpkgError::NoDatabase) => None,
            Err(error) => return Err(unreadable(error)),
        };
        Ok(Self { root, database, history: OnceLock::new(), apt: Apt::default(), settled: Mutex::new(None) })
    }

    fn package(&self, id: &PackageId) -> Option<&Installed> {
        self.database.as_ref()?.package(&id.name, &id.architecture)
    }

    /// Without apt's lists nothing is newer than anything: that is no answer.
    fn upgradable<'d>(&self, database: &'d Database<'_>) -> Result<BTreeMap<&'d str, Vec<Upgradable<'d>>>, Problem> {
        let asked = self.apt.upgradable_and_listed(database);
        let (by_source, has_lists) = asked.map_err(|error| apt("cannot ask apt for candidates", error))?;
        if !has_lists {
            return Err(Problem::failed("apt", "apt has no package lists").hint("`apt-get update` fetches them"));
        }
        Ok(by_source)
    }

    fn history(&self) -> Option<&History> {
        self.history.get_or_init(|| History::read(self.root).ok()).as_ref()
    }
}

/// Names of files carry a version without its epoch.
fn without_epoch(version: &Version) -> &str {
    version.as_str().split_once(':').map_or(version.as_str(), |(_, rest)| rest)
}

fn unreadable(error: DpkgError) -> Problem {
    Problem::failed("package-database", "cannot read the package database").because(error)
}

/// Every file of dpkg's that says what is under way (`dpkg(1)`, FILES).
fn stamp() -> Stamp {
    let files = ["/var/lib/dpkg/status", "/var/lib/dpkg/updates"];
    let seen = files.iter().filter_map(|path| std::fs::metadata(path).ok());
    seen.map(|m| (m.ino(), m.ctime(), m.ctime_nsec())).collect()
}

impl PackageFacts for Debian<'_> {
    fn owners(&self, paths: &[String]) -> Result<BTreeMap<String, Owner>, Problem> {
        let Some(database) = &self.database else {
            return Ok(paths.iter().map(|path| (path.clone(), Owner::Nobody)).collect());
        };
        let owners = database.owners(paths.iter().map(String::as_str)).map_err(unreadable)?;
        let of = |owned: dpkg::Owned<'_>| Owned { package: owned.package.id().clone(), listed: owned.listed };
        Ok(owners
            .into_iter()
            .map(|(path, owner)| {
                let owner = match owner {
                    dpkg::Owner::Nobody => Owner::Nobody,
                    dpkg::Owner::Package(owned) => Owner::One(of(owned)),
                    dpkg::Owner::Several(all) => {
                        Owner::Several(all.iter().map(|owned| owned.package.id().name.clone()).collect())
                    }
                };
                (path.to_owned(), owner)
            })
            .collect())
    }

    fn installed(&self, name: &str) -> Option<PackageId> {
        let database = self.database.as_ref()?;
        let native = database.native_architecture();
        let mut named: Vec<&Installed> = database.named(name).collect();
        named.sort_by_key(|package| Some(package.id().architecture.as_str()) != native);
        named.first().map(|package| package.id().clone())
    }

    fn is_installed_content(&self, owned: &Owned, bytes: &[u8]) -> Option<bool> {
        let package = self.package(&owned.package)?;
        let owned = dpkg::Owned { package, listed: owned.listed.clone() };
        let sum = self.database.as_ref()?.md5_of(&owned).ok()??;
        Some(sum == dpkg::md5(bytes))
    }

    fn others_since(&self, package: &PackageId, since: i64) -> Result<Vec<String>, String> {
        let Some(history) = self.history() else { return Err("the package manager's log cannot be read".into()) };
        let since = u64::try_from(since).ok().and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        let since: SystemTime = since.ok_or("when the process started is unknown")?;
        let versions = history
            .versions_since(&package.name, &package.architecture, since)
            .ok_or("the package manager's log does not reach back to when the process started")?;
        let others: Vec<String> =
            versions.iter().map(|v| v.as_str().to_owned()).filter(|version| *version != package.version).collect();
        if others.is_empty() {
            return Err(format!("{} was not upgraded since the process started, as its log says", package.name));
        }
        Ok(others)
    }

    fn renamed(&self, path: &str) -> Vec<String> {
        let Some((directory, name)) = path.rsplit_once('/') else { return Vec::new() };
        let upgrades = self.history().map_or(&[][..], History::changes).iter();
        let upgrades = upgrades.filter(|change| change.kind == ChangeKind::Upgrade);
        let mut names = BTreeSet::new();
        for (from, to) in upgrades.filter_map(|change| Some((change.from.as_ref()?, change.to.as_ref()?))) {
            for (old, new) in [(without_epoch(from), without_epoch(to)), (from.upstream(), to.upstream())] {
                // Short ones ("3") stand in names for other reasons.
                if old != new && old.contains('.') && name.contains(old) {
                    names.insert(format!("{directory}/{}", name.replace(old, new)));
                }
            }
        }
        names.into_iter().collect()
    }

    fn unsettled(&self, source: &str) -> Option<String> {
        self.database.as_ref()?;
        let now = stamp();
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.as_ref().is_none_or(|(then, _)| *then != now) {
            let Ok(database) = Database::read(self.root) else {
                return Some("whose record cannot be read".into());
            };
            let unsettled = database
                .all_unsettled()
                .map(|package| (package.id().source.clone(), package.id().name.clone()))
                .collect();
            *settled = Some((now, unsettled));
        }
        settled.as_ref().and_then(|(_, unsettled)| unsettled.get(source).cloned())
    }

    fn candidates(&self, names: &[String]) -> Result<Vec<Candidate>, Problem> {
        let Some(database) = &self.database else {
            return Err(Problem::failed("no-package-database", "there is no package database on this machine")
                .hint("`salve heal --from NEW.deb --was OLD.deb` needs none"));
        };
        let by_source = self.upgradable(database)?;
        let all = by_source.into_values().flatten();
        let wanted = all.filter(|found| names.is_empty() || names.contains(&found.package.id().name));
        Ok(wanted
            .filter_map(|found| {
                let version = found.policy.candidate.as_ref()?.as_str().to_owned();
                Some(Candidate { installed: found.package.id().clone(), version })
            })
            .collect())
    }

    fn offered(&self) -> Result<Vec<Offered>, Problem> {
        // Without a package database nothing is installed that could be newer.
        let Some(database) = &self.database else { return Ok(Vec::new()) };
        let offered = self.upgradable(database)?.into_values().flatten().filter_map(|found| {
            let version = found.policy.candidate.as_ref()?.as_str().to_owned();
            Some(Offered {
                candidate: Candidate { installed: found.package.id().clone(), version },
                security: found.policy.brings_security(),
                held: found.package.status.want == "hold",
            })
        });
        Ok(offered.collect())
    }

    fn download(&self, candidate: &Candidate) -> Result<File, Problem> {
        let name = &candidate.installed.name;
        let failed = |error| apt(&format!("cannot download {name} {}", candidate.version), error);
        let query = match candidate.installed.architecture.as_str() {
            "all" => name.clone(),
            architecture => format!("{name}:{architecture}"),
        };
        let version = Version::parse(&candidate.version)
            .map_err(|error| Problem::failed("apt", format!("{} is no version", candidate.version)).because(error))?;
        let found = salve_package::apt::Candidate::of_version(&self.apt, &query, &version).map_err(failed)?;
        Ok(found.download(&self.apt, None).map_err(failed)?.file)
    }

    fn contents(&self, package: &PackageId) -> Option<File> {
        let contents = self.database.as_ref()?.contents(self.package(package)?).ok()?;
        super::deriver::listed(&contents)
    }

    fn changelog(&self, package: &PackageId) -> Option<File> {
        self.root.open_file(&format!("/usr/share/doc/{}/changelog.Debian.gz", package.name)).ok()
    }

    fn fixes(&self, package: &PackageId, old: &str) -> Cves {
        let named = || {
            let text = changelog::unpack(self.changelog(package)?)?;
            let (old, new) = (Version::parse(old).ok()?, Version::parse(&package.version).ok()?);
            Some(changelog::cves_between(&text, &old, &new))
        };
        named().unwrap_or(Cves::Unknown)
    }

    fn installed_at(&self, package: &PackageId) -> Option<i64> {
        // dpkg writes the list of files anew with each version (dpkg(1), FILES).
        let PackageId { name, architecture, .. } = package;
        let lists =
            [format!("/var/lib/dpkg/info/{name}.list"), format!("/var/lib/dpkg/info/{name}:{architecture}.list")];
        lists.iter().find_map(|list| std::fs::metadata(list).ok()).map(|metadata| metadata.mtime())
    }

    fn of_source(&self, source: &str) -> Vec<PackageId> {
        let Some(database) = &self.database else { return Vec::new() };
        database.installed().map(Installed::id).filter(|id| id.source == source).cloned().collect()
    }

    fn unpacked_at(&self, package: &PackageId, version: &str) -> Option<i64> {
        if package.version == version {
            return self.installed_at(package);
        }
        let mut changes = self.history()?.of(&package.name, &package.architecture);
        let change = changes.find(|change| change.to.as_ref().is_some_and(|to| to.as_str() == version))?;
        // dpkg writes the time of the place, and not which that is (dpkg(1), `--log`).
        let civil =
            jiff::Timestamp::from_second(change.at.as_if_utc()).ok()?.to_zoned(jiff::tz::TimeZone::UTC).datetime();
        let here = civil.to_zoned(jiff::tz::TimeZone::system()).ok()?;
        Some(here.timestamp().as_second())
    }
}

fn apt(what: &str, error: AptError) -> Problem {
    let hint = match &error {
        AptError::NotInstalled { .. } => Some("without apt, hand the package over: --from NEW.deb"),
        AptError::Locked { .. } => Some("another package manager is at work; try again when it is done"),
        AptError::Unreachable { .. } => Some("without the archive, hand the package over: --from NEW.deb"),
        AptError::Unauthenticated { .. } | AptError::HashMismatch { .. } => {
            Some("nothing that apt cannot verify is used; `apt-get update` may help")
        }
        AptError::Unknown { .. } | AptError::NoCandidate { .. } | AptError::NoHash { .. } => {
            Some("`apt-get update` refreshes what apt knows")
        }
        _other => None,
    };
    let code = match &error {
        AptError::Unauthenticated { .. } | AptError::HashMismatch { .. } => "unauthenticated",
        _other => "apt",
    };
    let problem = if code == "unauthenticated" { Problem::refused(code, what) } else { Problem::failed(code, what) };
    let problem = problem.because(error);
    match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}
