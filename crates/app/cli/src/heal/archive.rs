//! `--candidate`: what the archive offers for what is installed and runs.

use super::disk::running;
use super::pending::{Known, Mapped, Pending, Resolved, gone, old_material, old_sides};
use super::report::Left;
use crate::carry::Interrupt;
use crate::console::Console;
use crate::event::UpdateRef;
use crate::machine::deriver::Material;
use crate::machine::disk::Disk;
use crate::machine::packages::{Candidate, Owned, Owner, PackageFacts, compare};
use crate::machine::processes::Seen;
use crate::plan::{Direction, Running, direction};
use crate::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(crate) fn resolve(
    names: &[String],
    seen: &[Seen],
    packages: &dyn PackageFacts,
    console: Console,
    interrupt: &Interrupt,
) -> Result<Resolved, Problem> {
    let candidates = packages.candidates(names)?;
    for name in names {
        if !candidates.iter().any(|candidate| candidate.installed.name == *name) {
            if packages.installed(name).is_none() {
                return Err(Problem::failed("not-installed", format!("package {name} is not installed"))
                    .hint("`salve heal --from NEW.deb --was OLD.deb` heals programs outside the package database"));
            }
            console.note(&format!("{name}: the archive has no newer candidate"));
        }
    }
    let mut resolved = Resolved::default();
    let mut mapped = mapped_of(seen, packages, &candidates, &mut resolved)?;
    let progress = console.progress(candidates.len(), "downloading");
    for candidate in candidates {
        progress.step(&candidate.installed.name);
        if interrupt.came() {
            resolved.left.push(Left::update(&update(&candidate), "interrupted", "the run was interrupted".into()));
            continue;
        }
        let Some(images) = mapped.remove(&candidate.installed.name) else {
            console.note(&format!("{}: no process runs it", candidate.installed.name));
            continue;
        };
        if let Some(name) = packages.unsettled(&candidate.installed.source) {
            let why = format!("package {name} is not fully installed; it is tried again when it is");
            resolved.left.push(Left::update(&update(&candidate), "half-configured", why));
            continue;
        }
        match pending(&candidate, images, packages) {
            Ok(found) => resolved.pending.extend(found),
            Err(problem) => resolved.left.push(Left::problem(&update(&candidate), &problem)),
        }
    }
    Ok(resolved)
}

/// Every mapped image that belongs to one of the packages and whose content is
/// proven to be older than its candidate.
pub(super) fn mapped_of<'a>(
    seen: &'a [Seen],
    packages: &dyn PackageFacts,
    candidates: &[Candidate],
    resolved: &mut Resolved,
) -> Result<BTreeMap<String, Vec<Mapped<'a>>>, Problem> {
    let all = seen.iter().flat_map(|process| &process.images).map(|image| image.path.to_string_lossy().into_owned());
    let paths: BTreeSet<String> = all.filter(|path| path.starts_with('/')).collect();
    let owners = packages.owners(&paths.into_iter().collect::<Vec<_>>())?;
    let mut disk = Disk::default();
    let mut mapped: BTreeMap<String, Vec<Mapped<'a>>> = BTreeMap::new();
    for process in seen {
        for image in &process.images {
            let path = image.path.to_string_lossy().into_owned();
            let Some(Owner::One(owned)) = owners.get(&path) else { continue };
            let package = &owned.package;
            let Some(candidate) = candidates.iter().find(|c| c.installed.name == package.name) else { continue };
            if let Some(leave) = process.leave {
                resolved.left.push(Left::image(process, &path, leave.code(), leave.why()));
                continue;
            }
            let what_runs = known(process, &path, image.sha256, owned, packages, &mut disk);
            match direction(&what_runs, Some(&candidate.version), compare) {
                Direction::Forward { .. } => {
                    mapped.entry(package.name.clone()).or_default().push(Mapped {
                        path,
                        sha256: image.sha256,
                        by: process,
                    });
                }
                Direction::Same { .. } => {}
                Direction::Backward { from, to } => {
                    let why = format!("{from} may run and {to} is offered: a downgrade is never healed");
                    resolved.block(process, &package.source, &path, "downgrade", why);
                }
                Direction::Unknown { why } => {
                    resolved.block(process, &package.source, &path, "unknown-direction", why);
                }
            }
        }
    }
    Ok(mapped)
}

/// Which version a process runs: the installed one if it maps what is installed,
/// else what the history allows.
fn known(
    process: &Seen,
    path: &str,
    content: salve_elf::ContentHash,
    owned: &Owned,
    packages: &dyn PackageFacts,
    disk: &mut Disk,
) -> Running {
    let package = &owned.package;
    let Some(held) = disk.look(Path::new(path)) else {
        return Running::Unknown { why: "there is no file at its path now".into() };
    };
    if held.sha256 != content {
        return running(process, package, packages);
    }
    let installed = held.read().ok().and_then(|bytes| packages.is_installed_content(owned, &bytes));
    match installed {
        Some(true) => Running::Version { version: package.version.clone() },
        Some(false) | None => {
            Running::Unknown { why: format!("it is not known to be the file of {} {}", package.name, package.version) }
        }
    }
}

pub(super) fn update(candidate: &Candidate) -> UpdateRef {
    UpdateRef {
        source: candidate.installed.source.clone(),
        old_version: Some(candidate.installed.version.clone()),
        new_version: Some(candidate.version.clone()),
    }
}

fn pending(
    candidate: &Candidate,
    images: Vec<Mapped<'_>>,
    packages: &dyn PackageFacts,
) -> Result<Vec<Pending>, Problem> {
    let name = &candidate.installed.name;
    let file = packages.download(candidate)?;
    let mut found = Vec::new();
    let sides = old_sides(images)?;
    if sides.is_empty() {
        return Err(gone(name));
    }
    for side in sides {
        let new = file.try_clone().map_err(|error| {
            Problem::failed("cannot-read", format!("cannot read the package file of {name}")).because(error)
        })?;
        found.push(Pending {
            update: update(candidate),
            package: name.clone(),
            expected: side.iter().map(|image| (image.path.clone(), image.sha256, None)).collect(),
            old: old_material(
                side,
                Some(candidate.installed.clone()),
                Known::of(&candidate.installed, packages),
                &format!("{name} as it runs"),
            ),
            new: Material::Deb { file: new, label: format!("{name}_{}.deb", candidate.version) },
            held: Vec::new(),
            watched: true,
            disk_is_old: true,
            installed_version: Some(candidate.installed.version.clone()),
        });
    }
    Ok(found)
}
