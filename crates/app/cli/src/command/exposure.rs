//! Who runs code that is older than what is installed, and why it is so still.
//!
//! Found as `salve heal` finds it, without deriving anything: processes are
//! compared with the disk, the direction is proven from the package database.
//! What was tried last is read from the log of events.

use crate::event::{History, ProcessRef, Tried, UpdateRef};
use crate::heal::{self, Left};
use crate::machine::debian::{self, Debian};
use crate::machine::packages::{Offered, Owner, PackageFacts};
use crate::machine::processes::{Processes, Seen};
use crate::problem::{Problem, one_line};
use crate::view::cve_list;
use salve_patch::{Cves, PackageId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

/// Processes of one program that are named without `--verbose`.
const SHOWN: usize = 10;

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

/// What is known of it, or why nothing is.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Exposure {
    pub(crate) exposed: Vec<Exposed>,
    /// Found, and not to be judged or treated.
    pub(crate) left: Vec<Left>,
    pub(crate) unknown: Option<String>,
    /// What the archive has for it that is not installed.
    pub(crate) not_installed: NotInstalled,
}

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

impl Exposure {
    /// Of all processes, or of those named.
    pub(crate) fn of(processes: &Processes, named: &[u32], history: &History) -> Self {
        let found = || -> Result<Self, Problem> {
            let root = debian::root()?;
            let packages = Debian::read(&root)?;
            let (seen, _) = processes.survey(named)?;
            let exposure = Self::among(&seen, processes, &packages, history)?;
            Ok(Self { not_installed: NotInstalled::among(&seen, &packages), ..exposure })
        };
        found().unwrap_or_else(|problem| Self { unknown: Some(problem.report().message), ..Self::default() })
    }

    fn among(
        seen: &[Seen],
        processes: &Processes,
        packages: &dyn PackageFacts,
        history: &History,
    ) -> Result<Self, Problem> {
        let resolved = heal::on_disk_only(seen, processes, packages)?;
        let mut exposed: Vec<Exposed> = Vec::new();
        for pending in &resolved.pending {
            // Of an update that changes no code, the old content is no exposure.
            let changed: Vec<_> = pending
                .expected
                .iter()
                .filter(|(_, old, new)| !new.is_some_and(|new| history.is_unchanged(*old, new)))
                .collect();
            let runs = |process: &&Seen| {
                // A healed process maps the old content still.
                let exposed = |old, new: Option<_>| {
                    process.image(old).is_some()
                        && !new.is_some_and(|new| heal::carries(&processes.patcher, process, old, new))
                };
                process.leave.is_none() && changed.iter().any(|(_, old, new)| exposed(*old, *new))
            };
            let mut waiting = seen
                .iter()
                .filter(runs)
                .map(|process| Waiting {
                    process: process.name.clone(),
                    tried: history.last(&process.name, &pending.update.source).cloned(),
                })
                .peekable();
            if waiting.peek().is_none() {
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
                    processes: waiting.collect(),
                }),
            }
        }
        for one in &mut exposed {
            one.images = core::mem::take(&mut one.images).into_iter().collect::<BTreeSet<_>>().into_iter().collect();
            one.processes.sort_by(|a, b| a.process.cmp(&b.process));
            one.processes.dedup_by(|a, b| a.process == b.process);
        }
        Ok(Self { exposed, left: resolved.left, ..Self::default() })
    }

    /// Processes that run something old, each once.
    pub(crate) fn count(&self) -> usize {
        self.exposed.iter().flat_map(|one| &one.processes).map(|one| &one.process).collect::<BTreeSet<_>>().len()
    }

    pub(crate) fn lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        if let Some(why) = &self.unknown {
            return writeln!(out, "what is exposed is not known: {}", one_line(why));
        }
        if self.exposed.is_empty() && self.left.is_empty() {
            writeln!(out, "exposed: nothing; every process that was looked at runs the code that is on disk")?;
        }
        for one in &self.exposed {
            one.lines(out, verbose)?;
        }
        left_lines(&self.left, out, verbose)?;
        self.not_installed.lines(out, verbose)
    }
}

impl NotInstalled {
    /// Asks the lists that are there, and fetches nothing.
    fn among(seen: &[Seen], packages: &dyn PackageFacts) -> Self {
        let found = || -> Result<Vec<Waits>, Problem> {
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
                    let of_it = |one: &&mut Waits| {
                        one.package == owned.package.name && one.installed_version == owned.package.version
                    };
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
        };
        match found() {
            Ok(packages) => Self { packages, unknown: None },
            Err(problem) => Self { packages: Vec::new(), unknown: Some(problem.report().message) },
        }
    }

    /// One line for each package with a security update; the others are counted.
    fn lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
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
            let count = others.len();
            writeln!(
                out,
                "not installed: {count} further updates of packages that run, none for security (-v lists them)"
            )?;
        }
        Ok(())
    }
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
        let count = self.processes.len();
        format!(
            "not installed: {} {} -> {}{}{}; {count} {} it; `salve heal --candidate {}` heals without installing",
            one_line(&self.package),
            one_line(&self.installed_version),
            one_line(&self.candidate_version),
            if self.security { ", a security update" } else { "" },
            if self.held { ", on hold" } else { "" },
            if count == 1 { "process runs" } else { "processes run" },
            one_line(&self.package)
        )
    }
}

/// The installed package that an update leads to.
fn package(pending: &heal::Pending, packages: &dyn PackageFacts) -> Option<PackageId> {
    let installed = packages.installed(&pending.package)?;
    (Some(&installed.version) == pending.update.new_version.as_ref()).then_some(installed)
}

fn fixes(pending: &heal::Pending, packages: &dyn PackageFacts) -> Cves {
    let from = pending.update.old_version.as_deref().unwrap_or_default();
    // Of several versions that may run, the newest: no fix is claimed twice.
    let order = |a: &&str, b: &&str| crate::machine::packages::compare(a, b).unwrap_or(core::cmp::Ordering::Equal);
    let newest = from.split(" or ").max_by(order).unwrap_or(from);
    package(pending, packages).map_or(Cves::Unknown, |package| packages.fixes(&package, newest))
}

fn installed_at(pending: &heal::Pending, packages: &dyn PackageFacts) -> Option<String> {
    let seconds = packages.installed_at(&package(pending, packages)?)?;
    jiff::Timestamp::from_second(seconds).ok().map(|at| at.to_string())
}

/// `2026-01-31 23:59 UTC` of an RFC 3339 time in UTC.
pub(crate) fn minute(at: &str) -> String {
    match (at.get(..10), at.get(11..16)) {
        (Some(day), Some(time)) => format!("{day} {time} UTC"),
        _other_shape => at.to_owned(),
    }
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

    fn lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        let since = self
            .installed_at
            .as_deref()
            .map_or_else(|| "at an unknown time".into(), |at| format!("since {}", minute(at)));
        let count = self.processes.len();
        let word = if count == 1 { "process runs" } else { "processes run" };
        writeln!(out, "exposed: {}, installed {since}; {count} {word} the old code", self.heading())?;
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

/// One line for each program, with the numbers of its processes.
pub(crate) fn programs(processes: &[&ProcessRef], out: &mut dyn Write, verbose: bool) -> io::Result<()> {
    let mut by_program: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for process in processes {
        by_program.entry(&process.program).or_default().push(process.pid);
    }
    for (program, pids) in by_program {
        writeln!(out, "    {}: {}", one_line(program), numbers(&pids, verbose))?;
    }
    Ok(())
}

pub(crate) fn numbers(pids: &[u32], verbose: bool) -> String {
    let shown = if verbose { pids.len() } else { SHOWN };
    let named: Vec<String> = pids.iter().take(shown).map(u32::to_string).collect();
    let word = if pids.len() == 1 { "pid" } else { "pids" };
    match pids.len().checked_sub(shown).filter(|rest| *rest > 0) {
        Some(rest) => format!("{word} {} and {rest} more (-v lists them)", named.join(", ")),
        None => format!("{word} {}", named.join(", ")),
    }
}

fn left_lines(left: &[Left], out: &mut dyn Write, verbose: bool) -> io::Result<()> {
    let mut by: BTreeMap<(&str, &str), Vec<&Left>> = BTreeMap::new();
    for one in left {
        by.entry((&one.code, &one.why)).or_default().push(one);
    }
    for ((code, why), what) in by {
        writeln!(out, "not to be healed from disk: {} [{}]", one_line(why), one_line(code))?;
        let paths: BTreeSet<&str> = what.iter().filter_map(|left| left.path.as_deref()).collect();
        for path in paths.iter().take(if verbose { usize::MAX } else { SHOWN }) {
            writeln!(out, "  {}", one_line(path))?;
        }
        let processes: BTreeSet<&ProcessRef> = what.iter().filter_map(|left| left.process.as_ref()).collect();
        programs(&processes.into_iter().collect::<Vec<_>>(), out, verbose)?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) fn process(pid: u32, program: &str) -> ProcessRef {
    ProcessRef { pid, start_ticks: 1, program: program.into() }
}

#[cfg(test)]
fn tried(event: &str, code: &str, why: &str) -> Tried {
    let text = |text: &str| Some(text.to_owned());
    Tried { at: "2026-11-21T10:00:00.000Z".into(), event: event.into(), code: text(code), why: text(why) }
}

/// A host with everything that can be said of it.
#[cfg(test)]
pub(crate) fn example() -> Exposure {
    let update =
        UpdateRef { source: "openssl".into(), old_version: Some("3.0.20".into()), new_version: Some("3.0.22".into()) };
    let mut processes: Vec<Waiting> =
        (100..115).map(|pid| Waiting { process: process(pid, "/usr/sbin/nginx"), tried: None }).collect();
    processes.push(Waiting {
        process: process(200, "/usr/sbin/sshd"),
        tried: Some(tried("not-applied", "struct-layout", "refused: struct-layout")),
    });
    processes.push(Waiting {
        process: process(201, "/usr/bin/x\u{1b}[31m"),
        tried: Some(tried("deferred", "in-use", "thread 8 is in parse")),
    });
    Exposure {
        exposed: vec![Exposed {
            update,
            package: "libssl3".into(),
            cves: Cves::Known { ids: vec!["CVE-2026-10000".into()] },
            installed_at: Some("2026-11-21T10:00:00Z".into()),
            images: vec!["/usr/lib/x86_64-linux-gnu/libcrypto.so.3".into()],
            processes,
        }],
        left: Vec::new(),
        unknown: None,
        not_installed: NotInstalled {
            packages: vec![
                waits("libc6", true, true, 2),
                waits("libexpat1", true, false, 1),
                waits("tzdata", false, false, 1),
            ],
            unknown: None,
        },
    }
}

#[cfg(test)]
fn waits(package: &str, security: bool, held: bool, count: u32) -> Waits {
    Waits {
        package: package.into(),
        source: package.into(),
        installed_version: "1".into(),
        candidate_version: "2".into(),
        security,
        held,
        processes: (0..count).map(|pid| process(pid, "/usr/bin/x")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_host_size_processes_are_named_by_what_is_to_be_done_about_them() {
        let mut out = Vec::new();
        example().lines(&mut out, false).expect("written");
        insta::assert_snapshot!(String::from_utf8_lossy(&out));
    }
}
