//! Which processes run code that is older than the file now on disk.

use super::pending::{Known, Mapped, Pending, Resolved, carries, gone, nameless, old_material, old_sides};
use super::report::Left;
use crate::carry::{Action, Ending};
use crate::event::{History, UpdateRef};
use crate::machine::deriver::Material;
use crate::machine::disk::{Disk, HeldFile};
use crate::machine::packages::{Owned, Owner, PackageFacts, compare};
use crate::machine::processes::{Processes, Seen};
use crate::plan::{Direction, Leave, Running, direction, may_replace};
use crate::problem::Problem;
use rustix::fs::{major, minor};
use salve_elf::ContentHash;
use salve_patch::PackageId;
use salve_tracee::MappedImage;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

/// One content at one path, that is not what the disk has there.
struct Stale<'a> {
    held: Arc<HeldFile>,
    runners: Vec<&'a Seen>,
}

pub(crate) fn resolve(seen: &[Seen], processes: &Processes, packages: &dyn PackageFacts) -> Result<Resolved, Problem> {
    let mut resolved = Resolved::default();
    let mut disk = Disk::default();
    let mut stale: BTreeMap<(String, ContentHash), Stale<'_>> = BTreeMap::new();
    for process in seen {
        for image in &process.images {
            let Some(held) = differs(process, image, packages, &mut disk, &mut resolved) else { continue };
            let path = image.path.to_string_lossy().into_owned();
            if let Some(leave) = process.leave {
                resolved.left.push(Left::image(process, &path, leave.code(), leave.why()));
            } else if carries(&processes.patcher, process, image.sha256, held.sha256) {
                resolved.settled.push(Action::new(
                    process.name.clone(),
                    nameless(&path),
                    Vec::new(),
                    Ending::AlreadyApplied,
                ));
            } else {
                let entry = stale.entry((path, image.sha256));
                entry.or_insert_with(|| Stale { held, runners: Vec::new() }).runners.push(process);
            }
        }
    }
    group(stale, packages, &mut resolved)?;
    Ok(resolved)
}

/// One image that a process runs and that is not what the disk has at its path.
#[derive(Debug)]
pub(crate) struct Obsolete<'a> {
    pub(crate) process: &'a Seen,
    pub(crate) path: String,
    /// It is the code that the disk has: a livepatch that is applied in full brought it, or
    /// the update changes none.
    pub(crate) healed: bool,
}

/// Everything that a restart would change, whoever may heal it and whether its direction is known.
pub(crate) fn obsolete<'a>(
    seen: &'a [Seen],
    processes: &Processes,
    packages: &dyn PackageFacts,
    history: &History,
) -> Vec<Obsolete<'a>> {
    let (mut disk, mut found) = (Disk::default(), Vec::new());
    for process in seen {
        for image in &process.images {
            let mut incomparable = Resolved::default();
            let healed = match differs(process, image, packages, &mut disk, &mut incomparable) {
                Some(held) => {
                    history.is_unchanged(image.sha256, held.sha256)
                        || carries(&processes.patcher, process, image.sha256, held.sha256)
                }
                None if incomparable.left.is_empty() => continue,
                None => false,
            };
            found.push(Obsolete { process, path: image.path.to_string_lossy().into_owned(), healed });
        }
    }
    found
}

/// The file on disk, if it is another than the one mapped. What cannot be
/// compared is named as left.
fn differs(
    process: &Seen,
    image: &MappedImage,
    packages: &dyn PackageFacts,
    disk: &mut Disk,
    resolved: &mut Resolved,
) -> Option<Arc<HeldFile>> {
    let path = Path::new(&image.path);
    let text = image.path.to_string_lossy();
    if !is_file_of_the_system(&text) {
        return None;
    }
    if let Some(leave @ Leave::Elsewhere { .. }) = process.leave {
        if image.deleted {
            resolved.left.push(Left::image(process, &text, leave.code(), leave.why()));
        }
        return None;
    }
    if !image.deleted && is_same_file(image, path) {
        return None;
    }
    let there: Vec<Arc<HeldFile>> = match disk.look(path) {
        Some(held) => vec![held],
        None => packages.renamed(&text).iter().filter_map(|name| disk.look(Path::new(name))).collect(),
    };
    match there.as_slice() {
        [held] if held.sha256 == image.sha256 => None,
        [held] => Some(Arc::clone(held)),
        [] => {
            let why = "there is no file at its path now, so nothing says what would replace it";
            resolved.left.push(Left::image(process, &text, "nothing-on-disk", why.into()));
            None
        }
        [_, _, ..] => {
            let why = "more than one file may have taken its place";
            resolved.left.push(Left::image(process, &text, "ambiguous", why.into()));
            None
        }
    }
}

/// Memory files, shared memory segments and devices have paths and no package.
fn is_file_of_the_system(path: &str) -> bool {
    path.starts_with('/')
        && !["/memfd:", "/dev/", "/SYSV", "/[", "/anon_hugepage", "/proc/", "/sys/"]
            .iter()
            .any(|no| path.starts_with(no))
}

/// The kernel's numbers for the mapping and for the path are the same: the
/// content is, too, whatever was written to the file. (Where a file system
/// shows two sets of numbers, the contents are compared.)
fn is_same_file(image: &MappedImage, path: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else { return false };
    let dev = (major(metadata.dev()), minor(metadata.dev()));
    image.mappings.iter().any(|mapping| mapping.dev == dev && mapping.inode == metadata.ino())
}

/// One package, the versions that may run, and its images with their replacements.
struct Group<'a> {
    package: PackageId,
    from: String,
    images: Vec<(Mapped<'a>, Arc<HeldFile>)>,
}

/// Stale images of one package and one direction are one update.
fn group<'a>(
    stale: BTreeMap<(String, ContentHash), Stale<'a>>,
    packages: &dyn PackageFacts,
    resolved: &mut Resolved,
) -> Result<(), Problem> {
    let name = |held: &HeldFile| held.path.to_string_lossy().into_owned();
    let paths: BTreeSet<String> = stale.values().map(|stale| name(&stale.held)).collect();
    let owners = packages.owners(&paths.into_iter().collect::<Vec<_>>())?;
    let mut by_package: BTreeMap<String, Group<'a>> = BTreeMap::new();
    for ((path, sha256), Stale { held, runners }) in stale {
        let (package, from) = match judge(&path, owners.get(&name(&held)), &held, &runners, packages) {
            Ok(found) => found,
            Err(Unknown { source, code, why }) => {
                for process in &runners {
                    resolved.block(process, &source, &path, code, why.clone());
                }
                continue;
            }
        };
        for process in &runners {
            if let Err(problem) = may_replace(held.owner, &process.privilege) {
                let why = format!("the file on disk may not replace it: {problem}");
                resolved.block(process, &package.source, &path, "ownership", why);
            }
        }
        let entry =
            by_package.entry(package.name.clone()).or_insert_with(|| Group { package, from, images: Vec::new() });
        let mapped = |by: &&'a Seen| (Mapped { path: path.clone(), sha256, by }, Arc::clone(&held));
        entry.images.extend(runners.iter().map(mapped));
    }
    for (name, Group { package, from, images }) in by_package {
        match pending(&name, &package, &from, images, packages) {
            Ok(found) => resolved.pending.extend(found),
            Err(problem) => resolved.left.push(Left::problem(&update(&package, &from), &problem)),
        }
    }
    Ok(())
}

struct Unknown {
    source: String,
    code: &'static str,
    why: String,
}

/// Whose file it is, and that what runs is older.
fn judge(
    path: &str,
    owner: Option<&Owner>,
    held: &HeldFile,
    runners: &[&Seen],
    packages: &dyn PackageFacts,
) -> Result<(PackageId, String), Unknown> {
    let unknown = |source: &str, why: String| Unknown { source: source.to_owned(), code: "unknown-direction", why };
    let owned: &Owned = match owner {
        Some(Owner::One(owned)) => owned,
        Some(Owner::Nobody) | None => {
            return Err(unknown(path, "no package owns the file, so nothing says which of the two is newer".into()));
        }
        Some(Owner::Several(names)) => {
            let why = format!("more than one package owns the path: {}", names.join(", "));
            return Err(Unknown { source: path.to_owned(), code: "ambiguous", why });
        }
    };
    let package = owned.package.clone();
    if let Some(name) = packages.unsettled(&package.source) {
        let why = format!("package {name} is not fully installed; it is tried again when it is");
        return Err(Unknown { source: package.source, code: "half-configured", why });
    }
    let bytes = held.read().map_err(|problem| unknown(&package.source, problem.report().message))?;
    if packages.is_installed_content(owned, &bytes) != Some(true) {
        let why = format!("the file on disk is not known to be the one of {} {}", package.name, package.version);
        return Err(unknown(&package.source, why));
    }
    let mut found = None;
    let mut doubt = String::from("no process tells");
    for process in runners {
        match direction(&running(process, &package, packages), Some(&package.version), compare) {
            Direction::Forward { from, to: _ } => found = Some(from),
            Direction::Backward { from, to } => {
                let why = format!("{from} may run and {to} is installed: a downgrade is never healed");
                return Err(Unknown { source: package.source, code: "downgrade", why });
            }
            Direction::Same { version } => {
                doubt =
                    format!("version {version} is installed since before the process started, with another content");
            }
            Direction::Unknown { why } => doubt = why,
        }
    }
    match found {
        Some(from) => Ok((package, from)),
        None => Err(unknown(&package.source, doubt)),
    }
}

/// From the package manager's history: what was replaced since the process started.
pub(crate) fn running(process: &Seen, package: &PackageId, packages: &dyn PackageFacts) -> Running {
    let Some(started) = process.started_at else {
        return Running::Unknown { why: "when the process started is unknown".into() };
    };
    match packages.others_since(package, started) {
        Ok(versions) => Running::OneOf { versions },
        Err(why) => Running::Unknown { why },
    }
}

fn update(package: &PackageId, from: &str) -> UpdateRef {
    UpdateRef {
        source: package.source.clone(),
        old_version: Some(from.to_owned()),
        new_version: Some(package.version.clone()),
    }
}

fn pending(
    name: &str,
    package: &PackageId,
    from: &str,
    images: Vec<(Mapped<'_>, Arc<HeldFile>)>,
    packages: &dyn PackageFacts,
) -> Result<Vec<Pending>, Problem> {
    let held: BTreeMap<String, Arc<HeldFile>> =
        images.iter().map(|(image, held)| (image.path.clone(), Arc::clone(held))).collect();
    let mut found = Vec::new();
    let sides = old_sides(images.into_iter().map(|(image, _)| image).collect())?;
    if sides.is_empty() {
        return Err(gone(name));
    }
    for side in sides {
        // Of several versions that may run, the newest is named: no fix is claimed twice.
        let newest = from.split(" or ").max_by(|a, b| compare(a, b).unwrap_or(core::cmp::Ordering::Equal));
        let old_id = PackageId { version: newest.unwrap_or(from).to_owned(), ..package.clone() };
        let mut new_files = Vec::new();
        let mut files = Vec::new();
        let mut expected = Vec::new();
        for image in &side {
            let Some(file) = held.get(&image.path) else { continue };
            new_files.push((file.path.to_string_lossy().into_owned(), file.duplicate()?));
            expected.push((image.path.clone(), image.sha256, Some(file.sha256)));
            files.push(Arc::clone(file));
        }
        found.push(Pending {
            update: update(package, from),
            package: name.to_owned(),
            old: old_material(side, Some(old_id), Known::default(), &format!("{name} as it runs")),
            new: Material::Files {
                files: new_files,
                package: Some(package.clone()),
                changelog: packages.changelog(package),
                contents: packages.contents(package),
                label: format!("{name} on disk"),
            },
            expected,
            held: files,
            watched: true,
            disk_is_old: false,
            installed_version: Some(package.version.clone()),
        });
    }
    Ok(found)
}
