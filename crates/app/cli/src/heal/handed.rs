//! `--from NEW.deb … [--was OLD.deb …]`: package files that the operator hands over.

use super::archive;
use super::pending::{Known, Mapped, Pending, Resolved, gone, old_material, old_sides};
use super::report::Left;
use crate::args::Heal;
use crate::command::{file, updates};
use crate::event::UpdateRef;
use crate::host::Actor;
use crate::machine::deriver::{Deriving, Material};
use crate::machine::disk::Disk;
use crate::machine::packages::{Candidate, PackageFacts};
use crate::machine::processes::Seen;
use crate::problem::Problem;
use salve_elf::ContentHash;
use salve_patch::PackageId;
use salve_protocol::ProbedFile;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A package file that was looked into.
struct Package {
    path: PathBuf,
    file: File,
    id: PackageId,
    files: Vec<ProbedFile>,
}

impl Package {
    fn label(&self) -> String {
        self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    fn material(&self) -> Result<Material, Problem> {
        let file = self.file.try_clone().map_err(|error| file::cannot_read(&self.path, error))?;
        Ok(Material::Deb { file, label: self.label() })
    }
}

pub(crate) fn resolve(
    args: &Heal,
    seen: &[Seen],
    packages: &dyn PackageFacts,
    deriver: &dyn Deriving,
    actor: &Actor,
) -> Result<Resolved, Problem> {
    let new = open_all(&args.from, deriver, actor)?;
    let old = open_all(&args.was, deriver, actor)?;
    check_names(&new, &old)?;
    let mut resolved = Resolved::default();
    for new in &new {
        match old.iter().find(|old| same_package(&old.id, &new.id)) {
            Some(old) => proven(old, new, seen, packages, &mut resolved)?,
            None => installed(new, seen, packages, &mut resolved)?,
        }
    }
    Ok(resolved)
}

fn open_all(paths: &[PathBuf], deriver: &dyn Deriving, actor: &Actor) -> Result<Vec<Package>, Problem> {
    paths.iter().map(|path| open(path, deriver, actor)).collect()
}

fn open(path: &Path, deriver: &dyn Deriving, actor: &Actor) -> Result<Package, Problem> {
    file::check_handed_over(path, actor)?;
    let opened = file::open_regular(path)?;
    let label = path.display().to_string();
    let copy = opened.try_clone().map_err(|error| file::cannot_read(path, error))?;
    let probed = deriver.probe(Material::Deb { file: copy, label })?;
    let id = probed.package.ok_or_else(|| {
        Problem::failed("not-a-package", format!("{} does not say which package it is", path.display()))
    })?;
    Ok(Package { path: path.to_path_buf(), file: opened, id, files: probed.files })
}

fn same_package(a: &PackageId, b: &PackageId) -> bool {
    a.name == b.name && a.architecture == b.architecture
}

/// Each package once on each side, and no old one without a new one.
fn check_names(new: &[Package], old: &[Package]) -> Result<(), Problem> {
    for side in [new, old] {
        let mut seen = BTreeSet::new();
        if let Some(twice) = side.iter().find(|package| !seen.insert((&package.id.name, &package.id.architecture))) {
            return Err(Problem::usage("named-twice", format!("package {} is named twice", twice.id.name))
                .hint("which of the two versions is meant cannot be guessed"));
        }
    }
    match old.iter().find(|old| !new.iter().any(|new| same_package(&old.id, &new.id))) {
        Some(lone) => Err(Problem::refused(
            "different-packages",
            format!("{} is of package {}, and --from names no newer one of it", lone.path.display(), lone.id.name),
        )),
        None => Ok(()),
    }
}

/// The operator shows what runs now: versions prove the direction, and content
/// proves that it is what runs.
fn proven(
    old: &Package,
    new: &Package,
    seen: &[Seen],
    packages: &dyn PackageFacts,
    resolved: &mut Resolved,
) -> Result<(), Problem> {
    updates::check_forward(&old.id, &new.id)?;
    let update = UpdateRef {
        source: new.id.source.clone(),
        old_version: Some(old.id.version.clone()),
        new_version: Some(new.id.version.clone()),
    };
    let contents: BTreeSet<ContentHash> = old.files.iter().map(|file| file.sha256).collect();
    let mut images = Vec::new();
    for process in seen {
        for image in process.images.iter().filter(|image| contents.contains(&image.sha256)) {
            let path = image.path.to_string_lossy().into_owned();
            match process.leave {
                Some(leave) => resolved.left.push(Left::image(process, &path, leave.code(), leave.why())),
                None => images.push(Mapped { path, sha256: image.sha256, by: process }),
            }
        }
    }
    if images.is_empty() {
        let why = format!("no process runs code of {} {}", old.id.name, old.id.version);
        resolved.left.push(Left::update(&update, "not-running", why));
        return Ok(());
    }
    let mut disk = Disk::default();
    resolved.pending.push(Pending {
        disk_is_old: images.iter().any(|image| is_on_disk(image, &mut disk)),
        expected: images.iter().map(|image| (image.path.clone(), image.sha256, None)).collect(),
        update,
        package: new.id.name.clone(),
        old: old.material()?,
        new: new.material()?,
        held: Vec::new(),
        watched: false,
        installed_version: packages.installed(&new.id.name).map(|installed| installed.version),
    });
    Ok(())
}

fn is_on_disk(image: &Mapped<'_>, disk: &mut Disk) -> bool {
    disk.look(Path::new(&image.path)).is_some_and(|held| held.sha256 == image.sha256)
}

/// The package database knows what is installed, and what runs is that.
fn installed(
    new: &Package,
    seen: &[Seen],
    packages: &dyn PackageFacts,
    resolved: &mut Resolved,
) -> Result<(), Problem> {
    let Some(installed) = packages.installed(&new.id.name).filter(|installed| same_package(installed, &new.id)) else {
        return Err(Problem::refused(
            "unknown-direction",
            format!(
                "package {} is not installed, so nothing says that {} is newer than what runs",
                new.id.name, new.id.version
            ),
        )
        .hint("name the package that runs now as well: --was OLD.deb proves the direction"));
    };
    updates::check_forward(&installed, &new.id)?;
    let candidate = Candidate { installed, version: new.id.version.clone() };
    if let Some(name) = packages.unsettled(&candidate.installed.source) {
        let why = format!("package {name} is not fully installed; it is tried again when it is");
        resolved.left.push(Left::update(&archive::update(&candidate), "half-configured", why));
        return Ok(());
    }
    let mut mapped = archive::mapped_of(seen, packages, std::slice::from_ref(&candidate), resolved)?;
    let Some(images) = mapped.remove(&candidate.installed.name) else {
        let why = format!("no process runs code of {} that is known to be older", candidate.installed.name);
        resolved.left.push(Left::update(&archive::update(&candidate), "not-running", why));
        return Ok(());
    };
    let sides = old_sides(images)?;
    if sides.is_empty() {
        resolved.left.push(Left::problem(&archive::update(&candidate), &gone(&candidate.installed.name)));
    }
    for side in sides {
        resolved.pending.push(Pending {
            update: archive::update(&candidate),
            package: candidate.installed.name.clone(),
            expected: side.iter().map(|image| (image.path.clone(), image.sha256, None)).collect(),
            old: old_material(
                side,
                Some(candidate.installed.clone()),
                Known::of(&candidate.installed, packages),
                &format!("{} as it runs", candidate.installed.name),
            ),
            new: new.material()?,
            held: Vec::new(),
            watched: true,
            disk_is_old: true,
            installed_version: Some(candidate.installed.version.clone()),
        });
    }
    Ok(())
}
