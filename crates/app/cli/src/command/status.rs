//! `salve status [PID]`: what processes carry, read from the processes, and which run code that is older than the disk.
//!
//! A host is shown by update and by livepatch, one process alone in full.

use super::exposure::{Exposure, programs};
use super::windows::{self, Window};
use super::without::{self, Runs, Without};
use crate::args::{Global, Status};
use crate::console::{Console, Report};
use crate::event::{History, ProcessRef, UpdateKey, log_path};
use crate::exit::Exit;
use crate::host;
use crate::machine::debian::{self, Debian};
use crate::machine::disk::Disk;
use crate::machine::packages::PackageFacts;
use crate::machine::processes::{self, Processes};
use crate::problem::{Problem, chain, one_line};
use crate::switch::{self, Switch};
use crate::view::{bytes_for_people, cve_list, page};
use salve_elf::ContentHash;
use salve_patch::{Cves, Origin};
use salve_tracee::{LivepatchState, LivepatchStatus, OpenError, Process, ProcessStatus, ReadError, list_pids};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

#[derive(Serialize)]
pub(crate) struct StatusReport {
    /// Whether Salve may change anything on this host.
    switch: switch::State,
    /// Processes that carry something, or the one that was asked for.
    processes: Vec<ProcessView>,
    looked_at: u64,
    /// Processes that could not be looked at, for want of permission most often.
    not_looked_at: u64,
    /// Who runs code that a livepatch replaces in others.
    without: Vec<Without>,
    #[serde(flatten)]
    exposure: Exposure,
    /// One process, that was asked for.
    #[serde(skip)]
    single: bool,
}

#[derive(Serialize)]
pub(crate) struct ProcessView {
    process: ProcessRef,
    livepatches: Vec<Carried>,
    /// Payloads that are not what Salve would have delivered.
    unreadable: Vec<Unreadable>,
    /// Code that differs from its file and that no livepatch explains.
    modified_text: Vec<Modified>,
    leftover_stubs: u64,
    /// Why `heal` and `apply --all` leave it alone, if they do.
    left_alone: Option<LeftAlone>,
}

#[derive(Serialize)]
struct LeftAlone {
    code: &'static str,
    why: String,
}

#[derive(Clone, Serialize)]
pub(crate) struct Carried {
    id: String,
    state: State,
    path: String,
    #[serde(skip)]
    source: Option<String>,
    package: Option<String>,
    old_version: Option<String>,
    new_version: Option<String>,
    cves: Cves,
    old_sha256: Option<ContentHash>,
    new_sha256: Option<ContentHash>,
    functions: Vec<String>,
    /// Words of tables that it changed where they lie.
    words: usize,
    payload_at: String,
    payload_bytes: u64,
    /// What a restart would run.
    on_restart: OnRestart,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum State {
    Applied,
    /// Whoever wrote it was killed in between; `apply` finishes it, `revert` undoes it.
    Partial {
        present: u64,
        total: u64,
    },
    Reverted,
}

/// By the content of the file that is at the image's path now.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum OnRestart {
    /// The code that the livepatch brought.
    NewCode,
    /// The code that the livepatch replaced: the fix is lost until it is installed.
    OldCode,
    /// Something else, newer or older.
    OtherCode,
    /// There is no such file, or it cannot be read from here.
    Unknown,
}

#[derive(Serialize)]
struct Unreadable {
    at: String,
    name: String,
    why: String,
}

#[derive(Serialize)]
struct Modified {
    path: String,
    va: String,
    len_bytes: u64,
}

pub(crate) fn run(args: &Status, global: &Global, console: Console) -> Result<StatusReport, Problem> {
    let euid = rustix::process::geteuid().as_raw();
    let history = History::read(log_path(global.events.as_deref(), euid).as_deref(), host::boot_id().as_deref());
    let report = look_at_all(args, &history, console)?;
    if let Some(file) = &args.html {
        page::write(file, &report, &history, &windows(&report, &history))?;
    }
    Ok(report)
}

/// A machine whose packages cannot be read has windows all the same: from the log.
fn windows(report: &StatusReport, history: &History) -> Vec<Window> {
    let root = debian::root().ok();
    let packages = root.as_ref().and_then(|root| Debian::read(root).ok());
    let packages = packages.as_ref().map(|packages| packages as &dyn PackageFacts);
    let now = jiff::Timestamp::now().as_second();
    windows::find(report, history, packages, host::boot_id().as_deref(), now)
}

fn look_at_all(args: &Status, history: &History, console: Console) -> Result<StatusReport, Problem> {
    let switch = Switch::of_this_host().state();
    let processes = Processes::new();
    let mut disk = Disk::default();
    if let Some(pid) = args.pid {
        let process = processes::open_named(pid)?;
        let (view, _) =
            look(&processes, &process, &mut disk).map_err(|error| processes::cannot_look(process.pid(), error))?;
        let exposure = Exposure::of(&processes, &[pid], history);
        let processes = vec![view];
        let without = Vec::new();
        return Ok(StatusReport { switch, processes, looked_at: 1, not_looked_at: 0, without, exposure, single: true });
    }
    let pids = list_pids().map_err(|error| Problem::failed("no-proc", "cannot list the processes").because(error))?;
    let exposure = Exposure::of(&processes, &[], history);
    let mut report = StatusReport {
        switch,
        processes: vec![],
        looked_at: 0,
        not_looked_at: 0,
        without: vec![],
        exposure,
        single: false,
    };
    let mut all = Vec::new();
    for pid in pids {
        let seen = match Process::open(pid) {
            Ok(process) => look(&processes, &process, &mut disk),
            Err(OpenError::NoSuchProcess | OpenError::Zombie | OpenError::KernelThread) => continue,
            Err(OpenError::NoPermission) => Err(ReadError::NoPermission { what: "process" }),
            Err(OpenError::Read(error)) => Err(error),
        };
        match seen {
            Ok((view, maps)) => {
                report.looked_at = report.looked_at.saturating_add(1);
                let process = view.process.clone();
                all.push(Runs { process, maps, replaced: view.replaced().collect() });
                if !view.is_plain() {
                    report.processes.push(view);
                }
            }
            Err(ReadError::Exited) => {}
            Err(error) => {
                report.not_looked_at = report.not_looked_at.saturating_add(1);
                console.note(&format!("pid {pid} was not looked at: {}", chain(&error)));
            }
        }
    }
    report.without = without::find(&all);
    Ok(report)
}

/// With the contents that it maps.
type Looked = (ProcessView, Vec<(String, ContentHash)>);

fn look(processes: &Processes, process: &Process, disk: &mut Disk) -> Result<Looked, ReadError> {
    let status = processes.patcher.status(process)?;
    let facts = processes.facts(process)?;
    let images = processes.patcher.images(process)?;
    let left_alone = processes.leave(&facts, &images).map(|leave| LeftAlone { code: leave.code(), why: leave.why() });
    let view = ProcessView { left_alone, ..ProcessView::of(processes::name(&facts), &status, disk) };
    let maps = images.into_iter().map(|image| (image.path.to_string_lossy().into_owned(), image.sha256));
    Ok((view, maps.collect()))
}

impl ProcessView {
    fn of(process: ProcessRef, status: &ProcessStatus, disk: &mut Disk) -> Self {
        Self {
            process,
            livepatches: status.livepatches.iter().map(|livepatch| Carried::of(livepatch, disk)).collect(),
            unreadable: status
                .unreadable
                .iter()
                .map(|payload| Unreadable {
                    at: payload.at.to_string(),
                    name: payload.name.to_string_lossy().into_owned(),
                    why: payload.why.clone(),
                })
                .collect(),
            modified_text: status
                .modified_text
                .iter()
                .map(|text| Modified {
                    path: text.path.to_string_lossy().into_owned(),
                    va: text.va.to_string(),
                    len_bytes: text.len_bytes,
                })
                .collect(),
            leftover_stubs: u64::try_from(status.leftover_stubs).unwrap_or(u64::MAX),
            left_alone: None,
        }
    }

    /// The contents that livepatches in force replace.
    fn replaced(&self) -> impl Iterator<Item = ContentHash> + '_ {
        self.livepatches.iter().filter(|one| one.state != State::Reverted).filter_map(|one| one.old_sha256)
    }

    /// Nothing that anybody would want to hear of.
    fn is_plain(&self) -> bool {
        self.livepatches.is_empty() && self.unreadable.is_empty() && self.modified_text.is_empty()
    }
}

impl Carried {
    fn of(status: &LivepatchStatus, disk: &mut Disk) -> Self {
        let image = status.patch.images.first();
        let (source, package, old_version, new_version, cves) = match &status.patch.origin {
            Origin::Packages { old, new, cves } => (
                Some(new.source.clone()),
                Some(new.name.clone()),
                Some(old.version.clone()),
                Some(new.version.clone()),
                cves.clone(),
            ),
            Origin::Files { .. } => (None, None, None, None, Cves::Unknown),
        };
        let old_sha256 = image.and_then(|image| image.old.as_ref()).map(|old| old.sha256);
        let new_sha256 = image.and_then(|image| image.new.as_ref()).map(|new| new.sha256);
        let on_disk = disk.look(Path::new(&status.mapped_path)).map(|file| file.sha256);
        let livepatch = image.and_then(|image| image.livepatch.as_ref());
        let replaced = livepatch.map(|livepatch| &livepatch.replaced);
        Self {
            id: status.livepatch.to_string(),
            state: match status.state {
                LivepatchState::Applied => State::Applied,
                LivepatchState::Reverted => State::Reverted,
                LivepatchState::Partial { present, total } => State::Partial {
                    present: u64::try_from(present).unwrap_or(u64::MAX),
                    total: u64::try_from(total).unwrap_or(u64::MAX),
                },
            },
            path: status.mapped_path.to_string_lossy().into_owned(),
            source,
            package,
            old_version,
            new_version,
            cves,
            old_sha256,
            new_sha256,
            functions: replaced
                .into_iter()
                .flatten()
                .map(|function| function.name.clone())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            words: livepatch.map_or(0, |livepatch| livepatch.words.len()),
            payload_at: status.payload_at.to_string(),
            payload_bytes: status.payload_bytes,
            on_restart: match on_disk {
                None => OnRestart::Unknown,
                Some(content) if Some(content) == new_sha256 => OnRestart::NewCode,
                Some(content) if Some(content) == old_sha256 => OnRestart::OldCode,
                Some(_) => OnRestart::OtherCode,
            },
        }
    }

    fn lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        if self.state == State::Reverted {
            return writeln!(out, "  {}  {}: {}", self.short(), one_line(&self.path), self.state_words());
        }
        writeln!(out, "  {}  {}: {}", self.short(), self.what(), self.state_words())?;
        let path = one_line(&self.path);
        match (self.functions.len(), self.words) {
            (0, words) if words > 0 => writeln!(out, "    image {path}, {words} words of tables")?,
            (functions, 0) => writeln!(out, "    image {path}, {functions} functions: {}", self.names(verbose))?,
            (functions, words) => {
                writeln!(
                    out,
                    "    image {path}, {words} words of tables, {functions} functions: {}",
                    self.names(verbose)
                )?;
            }
        }
        writeln!(out, "    CVEs: {}", cve_list(&self.cves))?;
        if verbose {
            writeln!(out, "    payload: {} at {}", bytes_for_people(self.payload_bytes), self.payload_at)?;
        }
        match self.restart_words() {
            Some(words) => writeln!(out, "    {words}"),
            None => Ok(()),
        }
    }

    pub(crate) fn short(&self) -> String {
        self.id.chars().take(12).collect()
    }

    /// `redis-tools 1 -> 2`, or the file where no package is known.
    pub(crate) fn what(&self) -> String {
        match (&self.package, &self.old_version, &self.new_version) {
            (Some(package), Some(old), Some(new)) => {
                format!("{} {} -> {}", one_line(package), one_line(old), one_line(new))
            }
            _plain_files => one_line(&self.path),
        }
    }

    pub(crate) fn state_words(&self) -> String {
        match self.state {
            State::Applied => "applied".to_owned(),
            State::Reverted => "reverted; its payload is still mapped".to_owned(),
            State::Partial { present, total } => format!(
                "HALF APPLIED: {present} of {total} functions; `salve apply` finishes it, `salve revert` undoes it"
            ),
        }
    }

    /// What to know of the next restart, if anything.
    pub(crate) fn restart_words(&self) -> Option<&'static str> {
        match self.on_restart {
            OnRestart::NewCode => None,
            OnRestart::OldCode => Some("a restart falls back to the old code: the file on disk is the old one"),
            OnRestart::OtherCode => Some("a restart runs other code: the file on disk is neither of the two"),
            OnRestart::Unknown => Some("what a restart runs is unknown: the file on disk cannot be read"),
        }
    }

    pub(crate) fn is_in_force(&self) -> bool {
        self.state == State::Applied
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn update(&self) -> UpdateKey {
        (self.source.clone().unwrap_or_else(|| self.path.clone()), self.new_version.clone())
    }

    pub(crate) fn package(&self) -> Option<&str> {
        self.package.as_deref()
    }

    pub(crate) fn old_version(&self) -> Option<&str> {
        self.old_version.as_deref()
    }

    pub(crate) fn cves(&self) -> &Cves {
        &self.cves
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    fn names(&self, verbose: bool) -> String {
        const SHOWN: usize = 8;
        let shown = if verbose { self.functions.len() } else { SHOWN.min(self.functions.len()) };
        let mut text = one_line(&self.functions.get(..shown).unwrap_or_default().join(", "));
        if shown < self.functions.len() {
            text.push_str(", …");
        }
        text
    }
}

impl StatusReport {
    /// What processes carry, each livepatch in each state once, with who carries it.
    pub(crate) fn carried(&self) -> Vec<(&Carried, Vec<&ProcessRef>)> {
        let mut by: Vec<(&Carried, Vec<&ProcessRef>)> = Vec::new();
        for view in &self.processes {
            for carried in &view.livepatches {
                let same = |one: &&mut (&Carried, Vec<&ProcessRef>)| {
                    (&one.0.id, one.0.state, one.0.on_restart, &one.0.path)
                        == (&carried.id, carried.state, carried.on_restart, &carried.path)
                };
                match by.iter_mut().find(same) {
                    Some((_, processes)) => processes.push(&view.process),
                    None => by.push((carried, vec![&view.process])),
                }
            }
        }
        by
    }

    /// Processes in which something is that nobody would want.
    pub(crate) fn strange(&self) -> impl Iterator<Item = &ProcessView> {
        self.processes.iter().filter(|view| !view.unreadable.is_empty() || !view.modified_text.is_empty())
    }

    pub(crate) fn exposure(&self) -> &Exposure {
        &self.exposure
    }

    pub(crate) fn switch(&self) -> &switch::State {
        &self.switch
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.looked_at, self.not_looked_at)
    }

    fn by_livepatch(&self, out: &mut dyn Write) -> io::Result<()> {
        let carried = self.carried();
        if !carried.is_empty() {
            writeln!(out, "livepatches in processes:")?;
        }
        for (carried, processes) in carried {
            carried.lines(out, false)?;
            programs(&processes, out, false)?;
        }
        self.without.iter().try_for_each(|without| without.lines(out, false))?;
        for view in self.strange() {
            writeln!(out, "pid {} {}", view.process.pid, one_line(&view.process.program))?;
            view.strange_lines(out)?;
        }
        Ok(())
    }
}

impl ProcessView {
    fn lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        writeln!(out, "pid {} {}", self.process.pid, one_line(&self.process.program))?;
        self.livepatches.iter().try_for_each(|livepatch| livepatch.lines(out, verbose))?;
        self.strange_lines(out)
    }

    pub(crate) fn strange_lines(&self, out: &mut dyn Write) -> io::Result<()> {
        for payload in &self.unreadable {
            writeln!(
                out,
                "  unreadable payload {} at {}: {}",
                one_line(&payload.name),
                payload.at,
                one_line(&payload.why)
            )?;
        }
        for text in &self.modified_text {
            writeln!(
                out,
                "  code of {} differs from its file at {} ({} bytes), and no livepatch explains it",
                one_line(&text.path),
                text.va,
                text.len_bytes
            )?;
        }
        Ok(())
    }

    pub(crate) fn process(&self) -> &ProcessRef {
        &self.process
    }
}

impl Report for StatusReport {
    fn exit(&self) -> Exit {
        Exit::Done
    }

    fn human(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        if let Some(words) = self.switch.words() {
            writeln!(out, "{words}: nothing is changed until `salve on`")?;
        }
        self.exposure.lines(out, verbose)?;
        if self.processes.iter().all(ProcessView::is_plain) {
            writeln!(out, "no process carries a livepatch ({} looked at)", self.looked_at)?;
        }
        for view in &self.processes {
            if let Some(left) = &view.left_alone {
                let program = one_line(&view.process.program);
                writeln!(out, "pid {} {program} is left alone: {} [{}]", view.process.pid, left.why, left.code)?;
            }
        }
        if self.single || verbose {
            self.processes.iter().filter(|view| !view.is_plain()).try_for_each(|view| view.lines(out, verbose))?;
            self.without.iter().try_for_each(|without| without.lines(out, verbose))?;
        } else {
            self.by_livepatch(out)?;
        }
        if self.not_looked_at > 0 {
            writeln!(out, "{} processes could not be looked at (-v says which, and why)", self.not_looked_at)?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl StatusReport {
    /// A host on which nothing is.
    pub(crate) fn clear(&mut self) {
        self.processes.clear();
        self.exposure = Exposure::default();
    }

    /// These carry the livepatch `l`.
    pub(crate) fn carry(&mut self, pids: &[u32]) {
        let first = example().processes.swap_remove(0);
        let Some(carried) = first.livepatches.into_iter().next() else { return };
        for &pid in pids {
            let livepatches = vec![Carried { id: "l".into(), functions: Vec::new(), ..carried.clone() }];
            let process = super::exposure::process(pid, "/x");
            let unreadable = Vec::new();
            let view = ProcessView {
                process,
                livepatches,
                unreadable,
                modified_text: Vec::new(),
                leftover_stubs: 0,
                left_alone: None,
            };
            self.processes.push(view);
        }
    }

    pub(crate) fn expose(&mut self, one: super::exposure::Exposed) {
        self.exposure.exposed.push(one);
    }
}

/// A host with everything that can be said of it.
#[cfg(test)]
pub(crate) fn example() -> StatusReport {
    use super::exposure;
    let carried = |state, on_restart| Carried {
        id: "0123456789abcdef0123456789abcdef".into(),
        state,
        path: "/usr/bin/redis-check-rdb".into(),
        source: Some("redis".into()),
        package: Some("redis-tools".into()),
        old_version: Some("1".into()),
        new_version: Some("2".into()),
        cves: Cves::Known { ids: vec!["CVE-2026-1000".into()] },
        old_sha256: None,
        new_sha256: None,
        functions: (0..12).map(|n| format!("fn_{n}")).collect(),
        words: 0,
        payload_at: "0x1000".into(),
        payload_bytes: 8192,
        on_restart,
    };
    let view = |pid, livepatches| ProcessView {
        process: exposure::process(pid, "/usr/bin/redis-check-rdb"),
        livepatches,
        unreadable: Vec::new(),
        modified_text: Vec::new(),
        leftover_stubs: 0,
        left_alone: None,
    };
    let mut processes: Vec<ProcessView> =
        (300..313).map(|pid| view(pid, vec![carried(State::Applied, OnRestart::OldCode)])).collect();
    processes.push(view(400, vec![carried(State::Partial { present: 3, total: 7 }, OnRestart::NewCode)]));
    let strange = Modified { path: "/usr/lib/<x>.so".into(), va: "0x40".into(), len_bytes: 5 };
    processes.push(ProcessView { modified_text: vec![strange], ..view(401, Vec::new()) });
    StatusReport {
        switch: switch::State::On,
        processes,
        looked_at: 350,
        not_looked_at: 2,
        without: Vec::new(),
        exposure: exposure::example(),
        single: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_shown_by_update_and_by_livepatch() {
        let mut out = Vec::new();
        example().human(&mut out, false).expect("written");
        insta::assert_snapshot!(String::from_utf8_lossy(&out));
    }

    #[test]
    fn one_process_is_shown_in_full() {
        let mut report = example();
        report.processes.truncate(1);
        report.exposure = Exposure::default();
        report.single = true;
        let mut out = Vec::new();
        report.human(&mut out, false).expect("written");
        insta::assert_snapshot!(String::from_utf8_lossy(&out));
    }
}
