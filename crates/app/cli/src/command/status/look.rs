//! Looking at processes, all of them or one, and changing none.

use super::process::{LeftAlone, ProcessView};
use super::report::StatusReport;
use crate::command::exposure::Exposure;
use crate::command::without::{self, Runs};
use crate::console::Console;
use crate::event::History;
use crate::machine::disk::Disk;
use crate::machine::processes::{self, Processes};
use crate::problem::{Problem, chain};
use crate::switch::{self, Switch};
use salve_elf::ContentHash;
use salve_tracee::{OpenError, Process, ReadError, list_pids};

pub(super) fn look(pid: Option<u32>, history: &History, console: Console) -> Result<StatusReport, Problem> {
    let switch = Switch::of_this_host().state();
    let processes = Processes::new();
    match pid {
        Some(pid) => look_at_one(pid, switch, &processes, history),
        None => look_at_all(switch, &processes, history, console),
    }
}

fn look_at_one(
    pid: u32,
    switch: switch::State,
    processes: &Processes,
    history: &History,
) -> Result<StatusReport, Problem> {
    let process = processes::open_named(pid)?;
    let (view, _) = look_at(processes, &process, &mut Disk::default())
        .map_err(|error| processes::cannot_look(process.pid(), error))?;
    let exposure = Exposure::of(processes, &[pid], history);
    Ok(StatusReport {
        switch,
        processes: vec![view],
        looked_at: 1,
        not_looked_at: 0,
        without: Vec::new(),
        exposure,
        single: true,
    })
}

fn look_at_all(
    switch: switch::State,
    processes: &Processes,
    history: &History,
    console: Console,
) -> Result<StatusReport, Problem> {
    let mut disk = Disk::default();
    let pids = list_pids().map_err(|error| Problem::failed("no-proc", "cannot list the processes").because(error))?;
    let exposure = Exposure::of(processes, &[], history);
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
    let mut barred = None;
    for pid in pids {
        let seen = match Process::open(pid) {
            Ok(process) => look_at(processes, &process, &mut disk),
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
                let why = chain(&error);
                console.note(&format!("pid {pid} was not looked at: {why}"));
                barred.get_or_insert(why);
            }
        }
    }
    if let (Some(why), 0) = (barred, report.looked_at) {
        return Err(processes::blind(&why));
    }
    report.without = without::find(&all);
    Ok(report)
}

/// With the contents that it maps.
type Looked = (ProcessView, Vec<(String, ContentHash)>);

fn look_at(processes: &Processes, process: &Process, disk: &mut Disk) -> Result<Looked, ReadError> {
    let status = processes.patcher.status(process)?;
    let facts = processes.facts(process)?;
    let images = processes.patcher.images(process)?;
    let left_alone = processes.leave(&facts, &images).map(|leave| LeftAlone { code: leave.code(), why: leave.why() });
    let view = ProcessView { left_alone, ..ProcessView::of(processes::name(&facts), &status, disk) };
    let maps = images.into_iter().map(|image| (image.path.to_string_lossy().into_owned(), image.sha256));
    Ok((view, maps.collect()))
}
