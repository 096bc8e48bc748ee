//! Updates that are installed and that processes do not run.

use super::so_many_run;
use crate::event::{History, ProcessRef, Tried, UpdateRef};
use crate::heal::{self, Left, Pending};
use crate::machine::packages::{PackageFacts, compare};
use crate::machine::processes::{Processes, Seen};
use crate::problem::{Problem, one_line};
use crate::view::{cve_list, minute, programs};
use core::cmp::Ordering;
use salve_elf::ContentHash;
use salve_patch::{Cves, PackageId};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// One installed update that processes do not run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Exposed {
    #[serde(flatten)]
    pub(crate) update: UpdateRef,
    pub(crate) package: String,
    pub(crate) cves: Cves,
    /// When the new version was unpacked, RFC 3339.
    pub(crate) installed_at: Option<String>,
    pub(crate) images: Vec<String>,
    pub(crate) processes: Vec<Waiting>,
}

/// A process that runs the old code.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Waiting {
    pub(crate) process: ProcessRef,
    /// The last attempt on it, as the log has it.
    pub(crate) tried: Option<Tried>,
}

/// A file of an update whose code changes: its path, the old content, and the new one where it is known.
type Expected = (String, ContentHash, Option<ContentHash>);

/// Those that processes among the `seen` do not run, and what was found and left.
pub(super) fn find(
    seen: &[Seen],
    processes: &Processes,
    packages: &dyn PackageFacts,
    history: &History,
) -> Result<(Vec<Exposed>, Vec<Left>), Problem> {
    let resolved = heal::on_disk_only(seen, processes, packages)?;
    let mut exposed: Vec<Exposed> = Vec::new();
    for pending in &resolved.pending {
        // Of an update that changes no code, the old content is no exposure.
        let is_unchanged = |(_, old, new): &&Expected| new.is_some_and(|new| history.is_unchanged(*old, new));
        let changed: Vec<&Expected> = pending.expected.iter().filter(|file| !is_unchanged(file)).collect();
        let waiting = |process: &Seen| Waiting {
            process: process.name.clone(),
            tried: history.last(&process.name, &pending.update.source).cloned(),
        };
        let runs = |process: &&Seen| runs_old_code(process, &changed, processes);
        let waiting: Vec<Waiting> = seen.iter().filter(runs).map(waiting).collect();
        if waiting.is_empty() {
            continue;
        }
        let images = changed.iter().map(|(path, _, _)| path.clone());
        match exposed.iter_mut().find(|one| one.update == pending.update && one.package == pending.package) {
            Some(one) => {
                one.processes.extend(waiting);
                one.images.extend(images);
            }
            None => exposed.push(Exposed {
                cves: fixes(pending, packages),
                installed_at: installed_at(pending, packages),
                update: pending.update.clone(),
                package: pending.package.clone(),
                images: images.collect(),
                processes: waiting,
            }),
        }
    }
    for one in &mut exposed {
        one.images.sort_unstable();
        one.images.dedup();
        one.processes.sort_by(|a, b| a.process.cmp(&b.process));
        one.processes.dedup_by(|a, b| a.process == b.process);
    }
    Ok((exposed, resolved.left))
}

/// A healed process maps the old content still.
fn runs_old_code(process: &Seen, changed: &[&Expected], processes: &Processes) -> bool {
    let is_healed = |old, new: Option<_>| new.is_some_and(|new| heal::carries(&processes.patcher, process, old, new));
    let runs = |old, new| process.image(old).is_some() && !is_healed(old, new);
    process.leave.is_none() && changed.iter().any(|(_, old, new)| runs(*old, *new))
}

/// The installed package that an update leads to.
fn package(pending: &Pending, packages: &dyn PackageFacts) -> Option<PackageId> {
    let installed = packages.installed(&pending.package)?;
    (Some(&installed.version) == pending.update.new_version.as_ref()).then_some(installed)
}

fn fixes(pending: &Pending, packages: &dyn PackageFacts) -> Cves {
    let from = pending.update.old_version.as_deref().unwrap_or_default();
    // Of several versions that may run, the newest: no fix is claimed twice.
    let order = |a: &&str, b: &&str| compare(a, b).unwrap_or(Ordering::Equal);
    let newest = from.split(" or ").max_by(order).unwrap_or(from);
    package(pending, packages).map_or(Cves::Unknown, |package| packages.fixes(&package, newest))
}

fn installed_at(pending: &Pending, packages: &dyn PackageFacts) -> Option<String> {
    let seconds = packages.installed_at(&package(pending, packages)?)?;
    jiff::Timestamp::from_second(seconds).ok().map(|at| at.to_string())
}

impl Exposed {
    pub(crate) fn heading(&self) -> String {
        let version = |version: &Option<String>| version.as_deref().map_or_else(|| "?".into(), one_line);
        format!(
            "{} {} -> {}",
            one_line(&self.package),
            version(&self.update.old_version),
            version(&self.update.new_version)
        )
    }

    pub(super) fn lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        let since = self
            .installed_at
            .as_deref()
            .map_or_else(|| "at an unknown time".into(), |at| format!("since {}", minute(at)));
        let run = so_many_run(self.processes.len());
        writeln!(out, "exposed: {}, installed {since}; {run} the old code", self.heading())?;
        writeln!(out, "  CVEs: {}", cve_list(&self.cves))?;
        if verbose {
            self.images.iter().try_for_each(|image| writeln!(out, "  image {}", one_line(image)))?;
        }
        for (standing, processes) in self.by_standing() {
            match standing.0 {
                None => writeln!(out, "  not tried yet: {}", standing.1)?,
                Some(what) => writeln!(out, "  {what}: {}", standing.1)?,
            }
            programs(&processes, out, verbose)?;
        }
        Ok(())
    }

    /// Processes by what was tried last and what to do about it.
    pub(crate) fn by_standing(&self) -> BTreeMap<(Option<String>, &'static str), Vec<&ProcessRef>> {
        let mut by: BTreeMap<(Option<String>, &'static str), Vec<&ProcessRef>> = BTreeMap::new();
        for Waiting { process, tried } in &self.processes {
            let key = match tried {
                None => (None, "`salve heal` (with --dry-run it shows what it would do)"),
                Some(tried) => (Some(tried.words()), tried.advice()),
            };
            by.entry(key).or_default().push(process);
        }
        by
    }
}

impl Tried {
    /// `deferred: thread 8 is in parse [in-use]`.
    pub(crate) fn words(&self) -> String {
        let code = self.code.as_deref().map(|code| format!(" [{}]", one_line(code))).unwrap_or_default();
        match (self.event.as_str(), self.why.as_deref()) {
            ("applied" | "already-applied" | "reverted", _) => "healed before, and old again".into(),
            ("not-applied", Some(why)) => format!("{}{code}", one_line(why)),
            (event, Some(why)) => format!("{}: {}{code}", one_line(event), one_line(why)),
            (event, None) => format!("{}{code}", one_line(event)),
        }
    }
}
