//! What the archive has that is not on the disk.

use super::so_many_run;
use crate::event::ProcessRef;
use crate::machine::packages::{Offered, Owner, PackageFacts};
use crate::machine::processes::Seen;
use crate::problem::{Problem, one_line};
use crate::view::counted;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{self, Write};

/// Updates that apt knows of and that are not on the disk, of packages whose code runs.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct NotInstalled {
    pub(crate) packages: Vec<Waits>,
    /// Why nothing is known of it.
    pub(crate) unknown: Option<String>,
}

/// One package that runs in an older version than its candidate's.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Waits {
    pub(crate) package: String,
    pub(crate) source: String,
    pub(crate) installed_version: String,
    pub(crate) candidate_version: String,
    /// The candidate, or a version between, came through a suite for security updates.
    pub(crate) security: bool,
    /// On hold.
    pub(crate) held: bool,
    /// Who maps a file of it.
    pub(crate) processes: Vec<ProcessRef>,
}

impl NotInstalled {
    /// Asks the lists that are there, and fetches nothing.
    pub(super) fn among(seen: &[Seen], packages: &dyn PackageFacts) -> Self {
        match waiting(seen, packages) {
            Ok(packages) => Self { packages, unknown: None },
            Err(problem) => Self { packages: Vec::new(), unknown: Some(problem.report().message) },
        }
    }

    /// One line for each package with a security update; the others are counted.
    pub(super) fn lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        if let Some(why) = &self.unknown {
            return writeln!(
                out,
                "whether the archive has fixes that are not installed is not known: {}",
                one_line(why)
            );
        }
        let (security, others): (Vec<&Waits>, Vec<&Waits>) = self.packages.iter().partition(|one| one.security);
        security.iter().try_for_each(|one| writeln!(out, "{}", one.words()))?;
        if verbose {
            others.iter().try_for_each(|one| writeln!(out, "{}", one.words()))?;
        } else if !others.is_empty() {
            let count = counted(others.len(), "further update", "further updates");
            writeln!(out, "not installed: {count} of packages that run, none for security (-v lists them)")?;
        }
        Ok(())
    }
}

/// Packages of which something newer is offered, and who runs what they have.
fn waiting(seen: &[Seen], packages: &dyn PackageFacts) -> Result<Vec<Waits>, Problem> {
    let offered = packages.offered()?;
    if offered.is_empty() {
        return Ok(Vec::new());
    }
    let all = seen.iter().flat_map(|process| &process.images).map(|image| image.path.to_string_lossy());
    let paths: BTreeSet<String> = all.filter(|path| path.starts_with('/')).map(Into::into).collect();
    let owners = packages.owners(&paths.into_iter().collect::<Vec<_>>())?;
    let mut waits: Vec<Waits> = offered.into_iter().map(Waits::nobody).collect();
    for process in seen {
        for image in &process.images {
            let Some(Owner::One(owned)) = owners.get(image.path.to_string_lossy().as_ref()) else { continue };
            let of_it =
                |one: &&mut Waits| one.package == owned.package.name && one.installed_version == owned.package.version;
            if let Some(one) = waits.iter_mut().find(of_it)
                && one.processes.last() != Some(&process.name)
            {
                one.processes.push(process.name.clone());
            }
        }
    }
    waits.retain(|one| !one.processes.is_empty());
    waits.sort_by(|a, b| (!a.security, &a.package).cmp(&(!b.security, &b.package)));
    Ok(waits)
}

impl Waits {
    fn nobody(offered: Offered) -> Self {
        let Offered { candidate, security, held } = offered;
        Self {
            package: candidate.installed.name,
            source: candidate.installed.source,
            installed_version: candidate.installed.version,
            candidate_version: candidate.version,
            security,
            held,
            processes: Vec::new(),
        }
    }

    pub(crate) fn words(&self) -> String {
        format!(
            "not installed: {} {} -> {}{}{}; {} it; `salve heal --candidate {}` heals without installing",
            one_line(&self.package),
            one_line(&self.installed_version),
            one_line(&self.candidate_version),
            if self.security { ", a security update" } else { "" },
            if self.held { ", on hold" } else { "" },
            so_many_run(self.processes.len()),
            one_line(&self.package)
        )
    }
}
