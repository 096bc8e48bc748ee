//! What resolving comes to, whichever way an update was found.

use super::report::Left;
use crate::carry::Action;
use crate::event::UpdateRef;
use crate::machine::deriver::Material;
use crate::machine::disk::HeldFile;
use crate::machine::packages::PackageFacts;
use crate::machine::processes::Seen;
use crate::problem::Problem;
use salve_elf::ContentHash;
use salve_patch::PackageId;
use salve_tracee::{Patcher, ProcessId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::Arc;

/// An update whose direction is proven, to be derived.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) update: UpdateRef,
    pub(crate) package: String,
    pub(crate) old: Material,
    pub(crate) new: Material,
    /// What the sides were seen to be, to be compared with what comes back:
    /// path, old content, new content where it is known.
    pub(crate) expected: Vec<(String, ContentHash, Option<ContentHash>)>,
    /// Files on disk that have to be the same still when they are used.
    pub(crate) held: Vec<Arc<HeldFile>>,
    /// The package database has a say: nothing of the source may be half configured.
    pub(crate) watched: bool,
    /// The disk has the old code: a restart falls back to it.
    pub(crate) disk_is_old: bool,
    pub(crate) installed_version: Option<String>,
}

/// Why one process gets nothing of one source.
#[derive(Clone, Debug)]
pub(crate) struct Blocked {
    pub(crate) code: String,
    pub(crate) why: String,
}

/// All that was found.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) pending: Vec<Pending>,
    pub(crate) left: Vec<Left>,
    /// Processes that need nothing, with the reason.
    pub(crate) settled: Vec<Action>,
    pub(crate) blocked: BTreeMap<(ProcessId, String), Blocked>,
}

impl Resolved {
    /// This process gets nothing of `source`, and is named once.
    pub(crate) fn block(&mut self, process: &Seen, source: &str, path: &str, code: &str, why: String) {
        let key = (process.id, source.to_owned());
        if self.blocked.contains_key(&key) {
            return;
        }
        self.blocked.insert(key, Blocked { code: code.to_owned(), why: why.clone() });
        self.left.push(Left::image(process, path, code, why));
    }
}

/// An update of something that no package names.
pub(crate) fn nameless(source: &str) -> UpdateRef {
    UpdateRef { source: source.to_owned(), old_version: None, new_version: None }
}

/// Images of one package that some process maps: path, content, and the first
/// process that maps it, through which its file is read.
pub(crate) struct Mapped<'a> {
    pub(crate) path: String,
    pub(crate) sha256: ContentHash,
    pub(crate) by: &'a Seen,
}

/// The files behind images, opened through the processes that map them, even
/// where they are deleted. Each content once; the paths of one side are
/// distinct, so a path with a second content starts another side.
pub(crate) fn old_sides<'a>(images: Vec<Mapped<'a>>) -> Vec<Vec<Mapped<'a>>> {
    let mut sides: Vec<(BTreeSet<String>, Vec<Mapped<'a>>)> = Vec::new();
    let mut contents = BTreeSet::new();
    for image in images {
        if !contents.insert((image.path.clone(), image.sha256)) {
            continue;
        }
        match sides.iter_mut().find(|(paths, _)| !paths.contains(&image.path)) {
            Some((paths, side)) => {
                paths.insert(image.path.clone());
                side.push(image);
            }
            None => sides.push((BTreeSet::from([image.path.clone()]), vec![image])),
        }
    }
    sides.into_iter().map(|(_, side)| side).collect()
}

/// Opens what a process maps, or any other process that maps the same content.
pub(crate) fn open_old(image: &Mapped<'_>) -> Result<File, Problem> {
    let gone = || Problem::failed("gone", format!("the process that mapped {} exited", image.path));
    let process = image.by.reopen()?.ok_or_else(gone)?;
    let mapped = image.by.image(image.sha256).ok_or_else(gone)?;
    let mapping = mapped.mappings.iter().find(|mapping| mapping.perms.execute).or(mapped.mappings.first());
    process.open_mapped(mapping.ok_or_else(gone)?).map_err(|error| {
        Problem::failed("cannot-read", format!("cannot read {} as process {} maps it", image.path, image.by.name.pid))
            .because(error)
    })
}

/// What the package database has of a package besides its images.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) changelog: Option<File>,
    pub(crate) contents: Option<File>,
}

impl Known {
    pub(crate) fn of(package: &PackageId, packages: &dyn PackageFacts) -> Self {
        Self { changelog: packages.changelog(package), contents: packages.contents(package) }
    }
}

/// The old side out of running processes.
pub(crate) fn old_material(
    side: &[Mapped<'_>],
    package: Option<PackageId>,
    known: Known,
    label: &str,
) -> Result<Material, Problem> {
    let mut files = Vec::new();
    for image in side {
        files.push((image.path.clone(), open_old(image)?));
    }
    let Known { changelog, contents } = known;
    Ok(Material::Files { files, package, changelog, contents, label: label.to_owned() })
}

/// Whether the process carries a livepatch from `old` to `new` in full.
pub(crate) fn carries(patcher: &Patcher, process: &Seen, old: ContentHash, new: ContentHash) -> bool {
    crate::command::updates::carried(patcher, process).contains(&(old, new))
}
