//! `salve status --needrestart`: what a restart is still for, in the words of needrestart(1).
//!
//! needrestart finds processes that map files which are deleted or replaced. It
//! cannot know that a livepatch gave such a process the code that is on the disk
//! by now. Two answers: `batch` prints the services and sessions that run
//! something else than the disk has and are not healed of it, in needrestart's
//! batch format; `healed` prints the files that needrestart may pass over.
//!
//! A file is passed over only if every process that still runs its old content
//! is healed of it. A program is named only where needrestart loses nothing else
//! by it: needrestart looks at interpreters for their scripts, and gives a child's need
//! to the parent. What could not be looked at counts as not healed.

use crate::args::{Global, NeedRestart};
use crate::console::Report;
use crate::event::{History, log_path};
use crate::exit::Exit;
use crate::heal::{self, Obsolete};
use crate::host;
use crate::machine::debian::{self, Debian};
use crate::machine::processes::Processes;
use crate::problem::{Problem, one_line};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

/// The answer, half by half; the one that was not asked for is there in JSON as well.
#[derive(Debug, Serialize)]
pub(crate) struct NeedRestartReport {
    /// Units whose processes run something else than the disk has.
    services: BTreeSet<String>,
    /// The same outside of services: user, and what of theirs.
    sessions: BTreeSet<(String, String)>,
    /// Libraries whose old content is healed in every process that maps it.
    healed_mappings: BTreeSet<String>,
    /// Programs of which the same holds, with everything else that their processes map.
    healed_programs: BTreeSet<String>,
    /// Processes that could not be looked at: while there are any, nothing is passed over.
    not_looked_at: usize,
    #[serde(skip)]
    asked: NeedRestart,
}

/// One process, as the answer needs it.
#[derive(Clone, Debug, Default)]
struct One {
    pid: u32,
    parent: Option<u32>,
    program: String,
    /// Obsolete images, and whether each is healed.
    obsolete: Vec<(String, bool)>,
}

impl One {
    fn needs_restart(&self) -> bool {
        self.obsolete.iter().any(|(_, healed)| !healed)
    }
}

/// Where a process belongs, by its control group.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Service(String),
    /// The user's number, and a name for what it belongs to there.
    Session(u32, String),
    Nowhere,
}

pub(crate) fn run(asked: NeedRestart, global: &Global) -> Result<NeedRestartReport, Problem> {
    let root = debian::root()?;
    let packages = Debian::read(&root)?;
    let processes = Processes::new();
    let euid = rustix::process::geteuid().as_raw();
    let history = History::read(log_path(global.events.as_deref(), euid).as_deref(), host::boot_id().as_deref());
    let (seen, unseen) = processes.survey(&[])?;
    let mut all: BTreeMap<u32, One> = BTreeMap::new();
    for process in &seen {
        let program = process.name.program.trim_end_matches(" (deleted)").to_owned();
        let pid = process.name.pid;
        all.insert(pid, One { pid, parent: parent(pid), program, obsolete: Vec::new() });
    }
    for Obsolete { process, path, healed } in heal::obsolete(&seen, &processes, &packages, &history) {
        if let Some(one) = all.get_mut(&process.name.pid) {
            one.obsolete.push((path, healed));
        }
    }
    let all: Vec<One> = all.into_values().collect();
    let mut report = NeedRestartReport {
        services: BTreeSet::new(),
        sessions: BTreeSet::new(),
        healed_mappings: BTreeSet::new(),
        healed_programs: BTreeSet::new(),
        not_looked_at: unseen.len(),
        asked,
    };
    for one in all.iter().filter(|one| one.needs_restart()) {
        let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", one.pid)).unwrap_or_default();
        match place(&cgroup) {
            Place::Service(unit) => drop(report.services.insert(unit)),
            Place::Session(uid, what) => drop(report.sessions.insert((user(uid), what))),
            // No unit to restart: the process is named, so that nothing is lost.
            Place::Nowhere => {
                let what = format!("{} (pid {})", one.program, one.pid);
                report.sessions.insert((user(owner(one.pid)), what));
            }
        }
    }
    if unseen.is_empty() {
        report.healed_mappings = healed_mappings(&all);
        report.healed_programs = healed_programs(&all);
    }
    Ok(report)
}

/// Files that somebody runs in an old content, and nobody unhealed.
fn healed_mappings(all: &[One]) -> BTreeSet<String> {
    let images = || all.iter().flat_map(|one| &one.obsolete);
    let open: BTreeSet<&String> = images().filter(|(_, healed)| !healed).map(|(path, _)| path).collect();
    images().map(|(path, _)| path).filter(|path| !open.contains(path) && is_plain(path)).cloned().collect()
}

fn healed_programs(all: &[One]) -> BTreeSet<String> {
    let candidates: BTreeSet<&String> = all
        .iter()
        .filter(|one| one.obsolete.iter().any(|(path, healed)| *healed && *path == one.program))
        .map(|one| &one.program)
        .collect();
    candidates
        .into_iter()
        .filter(|program| is_plain(program) && !is_interpreter(program))
        .filter(|program| {
            let mut of_it = all.iter().filter(|one| one.program == **program);
            of_it.all(|one| {
                let mut children = all.iter().filter(|child| child.parent == Some(one.pid));
                !one.needs_restart() && children.all(|child| !child.needs_restart() && !is_interpreter(&child.program))
            })
        })
        .cloned()
        .collect()
}

/// Whether a line can hold it.
fn is_plain(path: &str) -> bool {
    path.starts_with('/') && !path.chars().any(|c| c.is_control() || c == '\u{fffd}')
}

/// Programs whose scripts needrestart looks at as well, by their names, generously.
fn is_interpreter(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    ["java", "jamvm", "perl", "python", "pypy", "ruby", "puma"].iter().any(|start| name.starts_with(start))
}

/// systemd's naming of control groups (`systemd.slice(5)`, `pam_systemd(8)`).
fn place(cgroup: &str) -> Place {
    let path = cgroup
        .lines()
        .find_map(|line| line.strip_prefix("0::").filter(|path| *path != "/"))
        .or_else(|| cgroup.lines().find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path)))
        .unwrap_or_default();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let number = |text: &str, start: &str, end: &str| -> Option<u32> {
        text.strip_prefix(start)?.strip_suffix(end)?.parse().ok()
    };
    let last = parts.last().copied().unwrap_or_default();
    if last == "init.scope" && parts.len() == 1 {
        return Place::Service("systemd-manager".into());
    }
    if let Some(uid) = parts.iter().find_map(|part| number(part, "user@", ".service")) {
        let what = if number(last, "user@", ".service").is_some() || last == "init.scope" {
            "user manager service"
        } else {
            last
        };
        return Place::Session(uid, what.to_owned());
    }
    if let Some(session) = parts.iter().find_map(|part| number(part, "session-", ".scope"))
        && let Some(uid) = parts.iter().find_map(|part| number(part, "user-", ".slice"))
    {
        return Place::Session(uid, format!("session #{session}"));
    }
    // A service may have groups of its own beneath its unit's.
    match parts.iter().rev().find(|part| part.ends_with(".service")) {
        Some(unit) => Place::Service((*unit).to_owned()),
        None => Place::Nowhere,
    }
}

fn status_field(pid: u32, name: &str) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
}

fn parent(pid: u32) -> Option<u32> {
    status_field(pid, "PPid:")
}

fn owner(pid: u32) -> u32 {
    status_field(pid, "Uid:").unwrap_or(0)
}

/// The name that the machine's own file gives a number.
fn user(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}

impl Report for NeedRestartReport {
    fn exit(&self) -> Exit {
        Exit::Done
    }

    fn human(&self, out: &mut dyn Write, _verbose: bool) -> io::Result<()> {
        match self.asked {
            NeedRestart::Batch => {
                // Salve does not look at the kernel: status 0 is "unknown".
                writeln!(out, "NEEDRESTART-VER: salve {}\nNEEDRESTART-KSTA: 0", env!("CARGO_PKG_VERSION"))?;
                for unit in &self.services {
                    writeln!(out, "NEEDRESTART-SVC: {}", one_line(unit))?;
                }
                for (user, what) in &self.sessions {
                    writeln!(out, "NEEDRESTART-SESS: {} @ {}", one_line(user), one_line(what))?;
                }
                Ok(())
            }
            NeedRestart::Healed => {
                self.healed_mappings.iter().try_for_each(|path| writeln!(out, "mapping {path}"))?;
                self.healed_programs.iter().try_for_each(|path| writeln!(out, "program {path}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(pid: u32, parent: u32, program: &str, obsolete: &[(&str, bool)]) -> One {
        let obsolete = obsolete.iter().map(|(path, healed)| ((*path).to_owned(), *healed)).collect();
        One { pid, parent: Some(parent), program: program.to_owned(), obsolete }
    }

    fn names(all: &BTreeSet<String>) -> Vec<&str> {
        all.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_file_is_passed_over_only_if_nobody_runs_its_old_content_unhealed() {
        let mut all =
            vec![one(10, 1, "/usr/sbin/nginx", &[("/lib/a.so", true), ("/lib/b.so", true)]), one(11, 1, "/bin/x", &[])];
        assert_eq!(names(&healed_mappings(&all)), ["/lib/a.so", "/lib/b.so"]);
        all.push(one(12, 1, "/bin/y", &[("/lib/b.so", false)]));
        assert_eq!(names(&healed_mappings(&all)), ["/lib/a.so"]);
        all.push(one(13, 1, "/bin/z", &[("/lib/\n/etc/passwd", true)]));
        assert_eq!(names(&healed_mappings(&all)), ["/lib/a.so"], "a name that would be two lines");
    }

    #[test]
    fn a_program_is_passed_over_only_if_needrestart_loses_nothing_else_by_it() {
        let nginx = "/usr/sbin/nginx";
        let healed: &[(&str, bool)] = &[(nginx, true), ("/lib/a.so", true)];
        let all = vec![one(10, 1, nginx, healed), one(11, 10, nginx, healed)];
        assert_eq!(names(&healed_programs(&all)), [nginx]);
        let with = |other: One| healed_programs(&[all.clone(), vec![other]].concat());
        let none: [&str; 0] = [];
        assert_eq!(names(&with(one(12, 1, nginx, &[(nginx, false)]))), none, "another one of it is not healed");
        let half: &[(&str, bool)] = &[(nginx, true), ("/lib/b.so", false)];
        assert_eq!(names(&with(one(12, 1, nginx, half))), none, "a library under it is not healed");
        assert_eq!(names(&with(one(12, 11, "/bin/y", &[("/lib/b.so", false)]))), none, "a child is not healed");
        assert_eq!(names(&with(one(12, 11, "/usr/bin/perl", &[]))), none, "a child may need it for its script");
        let python = "/usr/bin/python3.11";
        assert_eq!(names(&healed_programs(&[one(10, 1, python, &[(python, true)])])), none, "an interpreter");
        assert_eq!(names(&healed_programs(&[one(10, 1, nginx, &[("/lib/a.so", true)])])), none, "its file is current");
    }

    #[test]
    fn control_groups_say_where_a_process_belongs() {
        let unit = |name: &str| Place::Service(name.to_owned());
        let session = |uid, what: &str| Place::Session(uid, what.to_owned());
        assert_eq!(place("0::/system.slice/nginx.service\n"), unit("nginx.service"));
        assert_eq!(
            place("0::/system.slice/pg.slice/postgresql@15-main.service/sub\n"),
            unit("postgresql@15-main.service")
        );
        assert_eq!(place("12:cpu:/x\n1:name=systemd:/system.slice/cron.service\n0::/\n"), unit("cron.service"));
        assert_eq!(place("0::/init.scope\n"), unit("systemd-manager"));
        assert_eq!(place("0::/user.slice/user-1000.slice/session-7.scope\n"), session(1000, "session #7"));
        let manager = "0::/user.slice/user-1000.slice/user@1000.service/init.scope\n";
        assert_eq!(place(manager), session(1000, "user manager service"));
        let of_user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/dbus.service\n";
        assert_eq!(place(of_user), session(1000, "dbus.service"));
        assert_eq!(place("0::/\n"), Place::Nowhere);
        assert_eq!(place(""), Place::Nowhere);
    }

    #[test]
    fn what_needs_a_restart_is_said_in_needrestarts_batch_format() {
        let report = NeedRestartReport {
            services: ["nginx.service".to_owned()].into(),
            sessions: [("root".to_owned(), "session #3".to_owned())].into(),
            healed_mappings: ["/usr/lib/x86_64-linux-gnu/libcrypto.so.3".to_owned()].into(),
            healed_programs: ["/usr/sbin/haproxy".to_owned()].into(),
            not_looked_at: 0,
            asked: NeedRestart::Batch,
        };
        let text = |report: &NeedRestartReport| {
            let mut out = Vec::new();
            report.human(&mut out, false).expect("written");
            String::from_utf8(out).expect("text")
        };
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            text(&report),
            format!(
                "NEEDRESTART-VER: salve {version}\nNEEDRESTART-KSTA: 0\nNEEDRESTART-SVC: nginx.service\n\
                 NEEDRESTART-SESS: root @ session #3\n"
            )
        );
        assert_eq!(
            text(&NeedRestartReport { asked: NeedRestart::Healed, ..report }),
            "mapping /usr/lib/x86_64-linux-gnu/libcrypto.so.3\nprogram /usr/sbin/haproxy\n"
        );
    }
}
