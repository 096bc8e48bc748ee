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

/// An image of one package that a process maps.
pub(crate) struct Mapped<'a> {
    pub(crate) path: String,
    pub(crate) sha256: ContentHash,
    pub(crate) by: &'a Seen,
}

/// An image with its file, opened through a process that maps it.
pub(crate) struct Opened {
    pub(crate) path: String,
    pub(crate) sha256: ContentHash,
    file: File,
}

/// The files behind images, opened through the processes that map them, even
/// where they are deleted. Each content once; the paths of one side are
/// distinct, so a path with a second content starts another side.
///
/// A process may exit between the look at it and this: then its file is read
/// through another that maps the same content, and what nobody maps any more is
/// left out.
pub(crate) fn old_sides(images: Vec<Mapped<'_>>) -> Result<Vec<Vec<Opened>>, Problem> {
    let mut sides: Vec<(BTreeSet<String>, Vec<Opened>)> = Vec::new();
    let mut contents = BTreeSet::new();
    for image in images {
        let content = (image.path.clone(), image.sha256);
        if contents.contains(&content) {
            continue;
        }
        let Some(file) = open_old(&image)? else { continue };
        contents.insert(content);
        let opened = Opened { path: image.path, sha256: image.sha256, file };
        match sides.iter_mut().find(|(paths, _)| !paths.contains(&opened.path)) {
            Some((paths, side)) => {
                paths.insert(opened.path.clone());
                side.push(opened);
            }
            None => sides.push((BTreeSet::from([opened.path.clone()]), vec![opened])),
        }
    }
    Ok(sides.into_iter().map(|(_, side)| side).collect())
}

/// Opens what a process maps; `None` when the process is gone.
fn open_old(image: &Mapped<'_>) -> Result<Option<File>, Problem> {
    let Some(process) = image.by.reopen()? else { return Ok(None) };
    let Some(mapped) = image.by.image(image.sha256) else { return Ok(None) };
    let mapping = mapped.mappings.iter().find(|mapping| mapping.perms.execute).or(mapped.mappings.first());
    let Some(mapping) = mapping else { return Ok(None) };
    match process.open_mapped(mapping) {
        Ok(file) => Ok(Some(file)),
        Err(_) if image.by.reopen()?.is_none() => Ok(None),
        Err(error) => Err(Problem::failed(
            "cannot-read",
            format!("cannot read {} as process {} maps it", image.path, image.by.name.pid),
        )
        .because(error)),
    }
}

/// All processes that ran code of a package have exited since they were looked at.
pub(crate) fn gone(package: &str) -> Problem {
    Problem::failed("gone", format!("every process that ran code of {package} has exited"))
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
pub(crate) fn old_material(side: Vec<Opened>, package: Option<PackageId>, known: Known, label: &str) -> Material {
    let files = side.into_iter().map(|image| (image.path, image.file)).collect();
    let Known { changelog, contents } = known;
    Material::Files { files, package, changelog, contents, label: label.to_owned() }
}

/// Whether the process carries a livepatch from `old` to `new` in full.
pub(crate) fn carries(patcher: &Patcher, process: &Seen, old: ContentHash, new: ContentHash) -> bool {
    crate::command::updates::carried(patcher, process).contains(&(old, new))
}
