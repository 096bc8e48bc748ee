//! Which package a file on the disk belongs to.

use super::database::{ADMIN_DIR, MAX_FILE_BYTES, parse_md5};
use super::diversions::Lookup;
use super::{Database, DpkgError, Installed};
use std::collections::{BTreeMap, BTreeSet};

/// A file of an installed package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned<'d> {
    pub package: &'d Installed,
    /// The path as the package's list names it.
    pub listed: String,
}

/// Whom a path belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner<'d> {
    /// No package lists it.
    Nobody,
    Package(Owned<'d>),
    /// Several list it: one package for several architectures, or an overlap.
    /// Which of them put the file there cannot be told from the lists.
    Several(Vec<Owned<'d>>),
}

impl Database<'_> {
    /// The owners of many paths in one pass over the lists of all packages.
    ///
    /// Paths are absolute, with symbolic links resolved but for the merged
    /// `/usr` directories, which are known here. Diverted files are given to
    /// the package whose content lies there.
    pub fn owners<'p>(
        &self,
        paths: impl IntoIterator<Item = &'p str>,
    ) -> Result<BTreeMap<&'p str, Owner<'_>>, DpkgError> {
        let mut wanted: BTreeMap<String, BTreeSet<&'p str>> = BTreeMap::new();
        let mut rules = BTreeMap::new();
        for path in paths {
            let aliases = self.aliases(path);
            let rule = self.diversions.lookup(&aliases);
            let listed = if let Lookup::Moved { listed, .. } = &rule { self.aliases(listed) } else { aliases };
            for alias in listed {
                wanted.entry(alias).or_default().insert(path);
            }
            rules.insert(path, rule);
        }
        let mut found: BTreeMap<&'p str, Vec<Owned<'_>>> = BTreeMap::new();
        for package in self.installed() {
            for line in self.list_of(package)?.lines() {
                for &path in wanted.get(line).into_iter().flatten() {
                    let allowed = match rules.get(path) {
                        Some(Lookup::OnlyOf(only)) => package.id().name == *only,
                        Some(Lookup::Moved { not_of, .. }) => package.id().name != *not_of,
                        Some(Lookup::Plain) | None => true,
                    };
                    let all = found.entry(path).or_default();
                    if allowed && !all.iter().any(|owned| owned.package == package) {
                        all.push(Owned { package, listed: line.to_owned() });
                    }
                }
            }
        }
        Ok(rules.into_keys().map(|path| (path, owner(found.remove(path).unwrap_or_default()))).collect())
    }

    /// The owner of one path; for many, [`Self::owners`] reads the lists once.
    pub fn owner(&self, path: &str) -> Result<Owner<'_>, DpkgError> {
        Ok(self.owners([path])?.into_values().next().unwrap_or(Owner::Nobody))
    }

    /// All paths that a package lists, as it lists them.
    pub fn files_of(&self, package: &Installed) -> Result<Vec<String>, DpkgError> {
        Ok(self.list_of(package)?.lines().map(str::to_owned).collect())
    }

    /// The checksum that the installed version of the package has for a file;
    /// `None` where it keeps none. Says what the *installed* version shipped:
    /// a file with another content is from another version, or changed.
    pub fn md5_of(&self, owned: &Owned<'_>) -> Result<Option<[u8; 16]>, DpkgError> {
        if let Some(conffile) = owned.package.conffiles.iter().find(|conffile| conffile.path == owned.listed) {
            return Ok(conffile.md5);
        }
        let text = self.info(owned.package, "md5sums")?;
        let relative = owned.listed.trim_start_matches('/');
        let sum = text.lines().find_map(|line| line.split_once("  ").filter(|(_, path)| *path == relative));
        Ok(sum.and_then(|(sum, _)| parse_md5(sum)))
    }

    /// The names of one place on the disk on a system with a merged `/usr`.
    pub(super) fn aliases(&self, path: &str) -> Vec<String> {
        let mut all = vec![path.to_owned()];
        let inner = path.strip_prefix("/usr/").or_else(|| path.strip_prefix('/'));
        if let Some(inner) = inner
            && let Some((top, _)) = inner.split_once('/')
            && self.merged.iter().any(|merged| merged == top)
        {
            all = vec![format!("/{inner}"), format!("/usr/{inner}")];
        }
        all
    }

    pub(super) fn list_of(&self, package: &Installed) -> Result<String, DpkgError> {
        self.info(package, "list")
    }

    /// `info/NAME:ARCH.KIND` for packages of which several architectures can be
    /// installed together, `info/NAME.KIND` for the others.
    pub(super) fn info(&self, package: &Installed, kind: &str) -> Result<String, DpkgError> {
        let (first, second) = info_paths(package, kind);
        if let Some(text) = self.root.read_text(&first, MAX_FILE_BYTES)? {
            return Ok(text);
        }
        Ok(self.root.read_text(&second, MAX_FILE_BYTES)?.unwrap_or_default())
    }
}

/// Where a package's file of this kind may lie, the likelier first.
pub(super) fn info_paths(package: &Installed, kind: &str) -> (String, String) {
    let id = package.id();
    let qualified = format!("{ADMIN_DIR}/info/{}:{}.{kind}", id.name, id.architecture);
    let plain = format!("{ADMIN_DIR}/info/{}.{kind}", id.name);
    let same = package.control.multi_arch.as_deref() == Some("same");
    if same { (qualified, plain) } else { (plain, qualified) }
}

fn owner(mut all: Vec<Owned<'_>>) -> Owner<'_> {
    match (all.pop(), all.is_empty()) {
        (None, _) => Owner::Nobody,
        (Some(one), true) => Owner::Package(one),
        (Some(last), false) => {
            all.push(last);
            Owner::Several(all)
        }
    }
}
