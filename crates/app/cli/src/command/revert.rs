//! `salve revert (--pid N … | --all) [PATCH]`: takes livepatches out again.

use super::Context;
use crate::args::Revert;
use crate::carry::{Brakes, Clock, Ending, SLICE, blocker, nanoseconds, with_others};
use crate::command::file;
use crate::console::Report;
use crate::event::{Blocker, Event, ProcessRef};
use crate::exit::Exit;
use crate::machine::processes::{self, Processes};
use crate::plan::{Bound, together};
use crate::problem::{Problem, chain, one_line};
use crate::switch::{self, State};
use crate::view::duration_for_people;
use core::time::Duration;
use salve_patch::LivepatchId;
use salve_tracee::{
    ApplyError, Ends, LivepatchState, Lost, NotApplied, Process, ProcessId, ProcessStatus, ReadError, RevertOptions,
    RevertOutcome, Selection, Tie, list_pids,
};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

#[derive(Serialize)]
pub(crate) struct RevertReport {
    processes: Vec<Reversion>,
}

/// What came of one process.
#[derive(Serialize)]
struct Reversion {
    process: ProcessRef,
    /// All processes of its transition group, itself included; none where it changes alone.
    group: Vec<u32>,
    livepatches: Vec<String>,
    outcome: RevertEnding,
    code: Option<String>,
    why: Option<String>,
    blocking: Vec<Blocker>,
    stopped_ns: Option<u64>,
    longest_stop_ns: Option<u64>,
    /// The payload stays mapped, because an address of it may have escaped.
    payload_kept: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum RevertEnding {
    Reverted,
    NothingToRevert,
    Gone,
    NotReverted,
    Deferred,
    Interrupted,
    RolledBack,
    Indeterminate,
    Failed,
}

/// Which livepatches a person meant.
enum Wanted {
    All,
    Ids(Vec<LivepatchId>),
    /// The beginning of an id, in hexadecimal.
    Beginning(String),
}

pub(crate) fn run(args: &Revert, context: &mut Context) -> Result<RevertReport, Problem> {
    if !args.while_off {
        context
            .switch
            .check()
            .map_err(|problem| problem.hint("a revert changes processes too: --while-off does it all the same"))?;
    }
    let wanted = wanted(args.patch.as_deref())?;
    let processes = Processes::new();
    let mut pids: Vec<i32> = if args.targets.all {
        list_pids().map_err(|error| Problem::failed("no-proc", "cannot list the processes").because(error))?
    } else {
        args.targets.pids.iter().map(|pid| i32::try_from(*pid).unwrap_or(i32::MAX)).collect()
    };
    pids.sort_unstable();
    pids.dedup();
    let progress = context.console.progress(pids.len(), "looking at processes");
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for pid in &pids {
        progress.step(&format!("pid {pid}"));
        if args.targets.all {
            match look_at_any(&processes, *pid, &wanted)? {
                Ok(one) => found.extend(one.filter(Carrier::has_something)),
                Err(error) => unread.push(Reversion::unread(*pid, &error)),
            }
        } else {
            let process = processes::open_named(u32::try_from(*pid).unwrap_or(u32::MAX))?;
            found.push(look(&processes, &process, &wanted)?.map_err(|error| processes::cannot_look(*pid, error))?);
        }
    }
    if !args.targets.all {
        // What one of a group gets, all get.
        for id in processes.tied_to(found.iter().map(|one| (one.id, &one.ties)))? {
            let one = look_at_any(&processes, id.pid, &wanted)?;
            found.extend(one.map_err(|error| processes::cannot_look(id.pid, error))?.filter(Carrier::has_something));
        }
    }
    drop(progress);
    let mut ends = revert_all(&processes, &found, args.wait, args.while_off, context);
    ends.extend(unread);
    let report = RevertReport { processes: ends };
    if report.processes.is_empty()
        && let Some(text) = &args.patch
    {
        return Err(Problem::failed("no-such-livepatch", format!("no process carries livepatch {text}"))
            .hint("`salve status` lists what is applied"));
    }
    Ok(report)
}

/// A process, and what is to be taken out of it.
struct Carrier {
    id: ProcessId,
    name: ProcessRef,
    ties: BTreeSet<Tie>,
    selection: Selection,
    /// What a Salve that was killed left is taken away in passing.
    untidy: bool,
}

impl Carrier {
    fn has_something(&self) -> bool {
        self.untidy || self.selection != Selection::These(Vec::new())
    }
}

/// One of many; `None` for one that is not there, or is somebody else's.
fn look_at_any(
    processes: &Processes,
    pid: i32,
    wanted: &Wanted,
) -> Result<Result<Option<Carrier>, ReadError>, Problem> {
    let process = match processes::open_any(pid) {
        Ok(Some(process)) => process,
        Ok(None) => return Ok(Ok(None)),
        Err(error) => return Ok(Err(error)),
    };
    Ok(processes::those_there(look(processes, &process, wanted)?))
}

fn look(processes: &Processes, process: &Process, wanted: &Wanted) -> Result<Result<Carrier, ReadError>, Problem> {
    let read = || Ok((processes.patcher.status(process)?, processes.facts(process)?, processes.ties(process)?));
    let (status, facts, ties) = match read() {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    let (name, untidy) = (processes::name(&facts), status.has_leftovers());
    let selection = select(wanted, &status, untidy)?;
    Ok(Ok(Carrier { id: process.id(), name, ties, selection, untidy }))
}

/// Group by group; each end is recorded as it comes. Groups that are deferred are tried
/// again, in turn, until `wait` is over, once at least; none of them holds the others up.
fn revert_all(
    processes: &Processes,
    found: &[Carrier],
    wait: Duration,
    while_off: bool,
    context: &mut Context,
) -> Vec<Reversion> {
    let clock = Clock::start(wait);
    let bound: Vec<Bound<'_>> = found.iter().map(|one| Bound { source: "", ties: &one.ties }).collect();
    let progress = context.console.progress(found.len(), "reverting");
    let mut all = Vec::new();
    let mut waiting = Vec::new();
    for group in together(&bound) {
        let members: Vec<&Carrier> = group.into_iter().filter_map(|index| found.get(index)).collect();
        let (active, idle): (Vec<&Carrier>, Vec<&Carrier>) = members.into_iter().partition(|one| one.has_something());
        all.extend(idle.into_iter().map(|one| Reversion::new(one.name.clone(), &one.selection)));
        waiting.push(active);
    }
    // Alone, it may use the time at once; among others each gets one try first.
    let mut slice = if waiting.len() == 1 { wait.min(SLICE) } else { Duration::ZERO };
    for round in 0.. {
        let mut still = Vec::new();
        for group in waiting {
            let ends = revert_group(processes, &group, slice, while_off, context);
            let deferred = ends.iter().any(|end| end.outcome == RevertEnding::Deferred);
            let over = wait.is_zero() || (round > 0 && clock.is_over()) || context.interrupt.came();
            if deferred && !over {
                still.push(group);
                continue;
            }
            for end in ends {
                progress.step(&format!("pid {}", end.process.pid));
                if let Some(event) = end.event() {
                    context.log.record(&event);
                }
                all.push(end);
            }
        }
        if still.is_empty() {
            break;
        }
        clock.rest(&Brakes { interrupt: &context.interrupt, switch: &context.switch });
        slice = clock.slice_of(round, still.len());
        waiting = still;
    }
    all.sort_by_key(|end| end.process.pid);
    all
}

fn revert_group(
    processes: &Processes,
    group: &[&Carrier],
    wait: Duration,
    while_off: bool,
    context: &Context,
) -> Vec<Reversion> {
    let plain = |one: &Carrier| Reversion::new(one.name.clone(), &one.selection);
    if context.interrupt.came() {
        let interrupted = |one: &&Carrier| Reversion { outcome: RevertEnding::Interrupted, ..plain(one) };
        return group.iter().map(interrupted).collect();
    }
    let mut ends = Vec::new();
    let mut open = Vec::new();
    for one in group {
        match processes::reopen(one.id) {
            Ok(Some(process)) => open.push((*one, process)),
            Ok(None) => ends.push(Reversion { outcome: RevertEnding::Gone, ..plain(one) }),
            Err(problem) => {
                ends.push(plain(one).because(RevertEnding::Failed, "no-permission", problem.report().message));
            }
        }
    }
    if open.is_empty() {
        return ends;
    }
    let members: Vec<(&Process, Selection)> =
        open.iter().map(|(one, process)| (process, one.selection.clone())).collect();
    let results = match attempt(processes, &members, wait, while_off, context) {
        Ok(Ok(results)) => results,
        Ok(Err(error)) => {
            let why = chain(&error);
            let failed = |one: &Carrier| plain(one).because(RevertEnding::Failed, "not-attempted", why.clone());
            ends.extend(open.iter().map(|(one, _)| failed(one)));
            return ends;
        }
        Err(off) => {
            let why = off.words().unwrap_or_default();
            let left = |one: &Carrier| plain(one).because(RevertEnding::NotReverted, switch::CODE, why.clone());
            ends.extend(open.iter().map(|(one, _)| left(one)));
            return ends;
        }
    };
    for (id, result) in results {
        let known = open.iter().find(|(one, _)| one.id == id).map(|(one, _)| plain(one));
        match (known, &result) {
            (Some(end), _) => ends.push(end.ended(result)),
            // One that joined, and had nothing to lose.
            (None, Ok(RevertOutcome::NothingToRevert)) => {}
            (None, _) => {
                let process = processes::reopen(id).ok().flatten().and_then(|open| processes.facts(&open).ok());
                let Some(facts) = process else { continue };
                ends.push(Reversion::new(processes::name(&facts), &Selection::All).ended(result));
            }
        }
    }
    let mut pids: Vec<u32> =
        ends.iter().filter(|end| end.outcome != RevertEnding::Gone).map(|end| end.process.pid).collect();
    pids.sort_unstable();
    if pids.len() > 1 {
        for end in &mut ends {
            end.group.clone_from(&pids);
        }
    }
    ends
}

/// One try, as long as that may take.
fn attempt(
    processes: &Processes,
    members: &[(&Process, Selection)],
    wait: Duration,
    while_off: bool,
    context: &Context,
) -> Result<Ends<RevertOutcome>, State> {
    let _permit = match context.switch.permit() {
        Ok(permit) => Some(permit),
        Err(_off) if while_off => None,
        Err(off) => return Err(off),
    };
    Ok(processes.patcher.revert_group(members, processes.mark, &RevertOptions { wait, force: false }))
}

/// A patch file, or an id, or the beginning of one.
fn wanted(text: Option<&str>) -> Result<Wanted, Problem> {
    let Some(text) = text else { return Ok(Wanted::All) };
    let hexadecimal = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if hexadecimal && (8..=64).contains(&text.len()) && !Path::new(text).exists() {
        return Ok(Wanted::Beginning(text.to_owned()));
    }
    let (patch, _) = file::read_patch(Path::new(text)).map_err(|problem| {
        if hexadecimal { problem.hint("an id is given by its first eight digits at least") } else { problem }
    })?;
    Ok(Wanted::Ids(patch.images.iter().filter_map(salve_patch::ImageReport::livepatch_id).collect()))
}

/// Those of the wanted livepatches that this process carries, in whatever state.
///
/// Where a Salve was killed, threads of the process may still be finishing what it began:
/// what is not in force at this look can be at the next, and is meant as well.
fn select(wanted: &Wanted, status: &ProcessStatus, untidy: bool) -> Result<Selection, Problem> {
    match wanted {
        Wanted::All if untidy => return Ok(Selection::All),
        Wanted::Ids(ids) if untidy => return Ok(Selection::These(ids.clone())),
        Wanted::All | Wanted::Ids(_) | Wanted::Beginning(_) => {}
    }
    let there = || status.livepatches.iter().filter(|l| l.state != LivepatchState::Reverted).map(|l| l.livepatch);
    let ids: Vec<LivepatchId> = match wanted {
        Wanted::All => there().collect(),
        Wanted::Ids(ids) => there().filter(|id| ids.contains(id)).collect(),
        Wanted::Beginning(text) => there().filter(|id| id.to_string().starts_with(text)).collect(),
    };
    let mut distinct = ids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if matches!(wanted, Wanted::Beginning(_)) && distinct.len() > 1 {
        return Err(Problem::usage("ambiguous-livepatch", "more than one livepatch begins like that")
            .hint("give more digits of the id that `salve status` shows"));
    }
    Ok(Selection::These(distinct))
}

impl Reversion {
    /// It could not be looked at, and may carry what was to be reverted.
    fn unread(pid: i32, error: &ReadError) -> Self {
        let pid = u32::try_from(pid).unwrap_or(u32::MAX);
        let process = ProcessRef { pid, start_ticks: 0, program: String::new() };
        let end = Self::new(process, &Selection::These(Vec::new()));
        end.because(RevertEnding::Failed, "unreadable", chain(error))
    }

    fn new(process: ProcessRef, selection: &Selection) -> Self {
        let livepatches = match selection {
            Selection::All => Vec::new(),
            Selection::These(ids) => ids.iter().map(ToString::to_string).collect(),
        };
        Self {
            process,
            group: Vec::new(),
            livepatches,
            outcome: RevertEnding::NothingToRevert,
            code: None,
            why: None,
            blocking: Vec::new(),
            stopped_ns: None,
            longest_stop_ns: None,
            payload_kept: None,
        }
    }

    fn because(self, outcome: RevertEnding, code: &str, why: String) -> Self {
        Self { outcome, code: Some(code.to_owned()), why: Some(why), ..self }
    }

    fn ended(self, result: Result<RevertOutcome, ApplyError>) -> Self {
        match result {
            Ok(RevertOutcome::Reverted(reverted)) => Self {
                outcome: RevertEnding::Reverted,
                livepatches: reverted.livepatches.iter().map(ToString::to_string).collect(),
                stopped_ns: Some(nanoseconds(reverted.stopped)),
                longest_stop_ns: Some(nanoseconds(reverted.longest_stop)),
                payload_kept: Some(!reverted.unmapped),
                ..self
            },
            Ok(RevertOutcome::NothingToRevert) => Self { outcome: RevertEnding::NothingToRevert, ..self },
            Ok(RevertOutcome::Deferred { blocking, tries: _ }) => {
                let blocking = blocking.iter().map(blocker).collect();
                Self { blocking, ..self }.because(
                    RevertEnding::Deferred,
                    "in-use",
                    "threads are inside the new code".into(),
                )
            }
            Ok(
                RevertOutcome::NotReverted { why: NotApplied::Exited }
                | RevertOutcome::Indeterminate { why: Lost::Exited },
            )
            | Err(ApplyError::Read(ReadError::Exited)) => Self { outcome: RevertEnding::Gone, ..self },
            Ok(RevertOutcome::NotReverted { why }) => self.because(RevertEnding::NotReverted, why.code(), chain(&why)),
            Ok(RevertOutcome::RolledBack { why }) => self.because(RevertEnding::RolledBack, "write-fault", chain(&why)),
            Ok(RevertOutcome::Indeterminate { why }) => {
                self.because(RevertEnding::Indeterminate, "indeterminate", chain(&why))
            }
            Err(error @ ApplyError::Read(ReadError::NoPermission { .. })) => {
                self.because(RevertEnding::Failed, "no-permission", chain(&error))
            }
            Err(error) => self.because(RevertEnding::Failed, "not-attempted", chain(&error)),
        }
    }

    fn event(&self) -> Option<Event> {
        let (process, group, livepatches) = (self.process.clone(), self.group.clone(), self.livepatches.clone());
        match self.outcome {
            RevertEnding::Reverted => Some(Event::Reverted {
                process,
                group,
                livepatches,
                stopped_ns: self.stopped_ns.unwrap_or(0),
                payload_kept: self.payload_kept.unwrap_or(true),
            }),
            RevertEnding::NothingToRevert | RevertEnding::Gone | RevertEnding::Interrupted => None,
            RevertEnding::NotReverted
            | RevertEnding::Deferred
            | RevertEnding::RolledBack
            | RevertEnding::Indeterminate
            | RevertEnding::Failed => Some(Event::NotReverted {
                process,
                group,
                livepatches,
                code: self.code.clone().unwrap_or_default(),
                why: self.why.clone().unwrap_or_default(),
            }),
        }
    }
}

impl RevertEnding {
    const fn exit(self) -> Exit {
        match self {
            Self::Reverted | Self::NothingToRevert | Self::Gone => Exit::Done,
            Self::NotReverted => Exit::Refused,
            Self::Deferred | Self::Interrupted => Exit::Incomplete,
            Self::RolledBack | Self::Indeterminate | Self::Failed => Exit::Failed,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Reverted => "reverted",
            Self::NothingToRevert => "nothing to revert",
            Self::Gone => Ending::Gone.words(),
            Self::NotReverted => "not reverted",
            Self::Deferred => Ending::Deferred.words(),
            Self::Interrupted => Ending::Interrupted.words(),
            Self::RolledBack => Ending::RolledBack.words(),
            Self::Indeterminate => Ending::Indeterminate.words(),
            Self::Failed => Ending::Failed.words(),
        }
    }
}

impl Report for RevertReport {
    fn exit(&self) -> Exit {
        self.processes.iter().fold(Exit::Done, |exit, end| exit.and(end.outcome.exit()))
    }

    fn human(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        if self.processes.is_empty() {
            return writeln!(out, "no process carries a livepatch");
        }
        for end in &self.processes {
            write!(out, "pid {} {}: {}", end.process.pid, one_line(&end.process.program), end.outcome.words())?;
            if let Some(stopped) = end.longest_stop_ns {
                write!(out, " (stopped {})", duration_for_people(Duration::from_nanos(stopped)))?;
            }
            write!(out, "{}", with_others(end.process.pid, &end.group))?;
            if let (Some(why), Some(code)) = (&end.why, &end.code) {
                write!(out, "; {} [{code}]", one_line(why))?;
            }
            writeln!(out)?;
            if end.payload_kept == Some(true) {
                writeln!(out, "  the payload stays mapped, because an address of its data may have escaped")?;
            }
            for blocker in &end.blocking {
                let function = blocker.function.as_deref().unwrap_or("the whole thread");
                writeln!(
                    out,
                    "  {}: {}: {}",
                    blocker.place(end.process.pid),
                    one_line(function),
                    one_line(&blocker.detail)
                )?;
            }
            if verbose {
                end.livepatches.iter().try_for_each(|id| writeln!(out, "  {id}"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use salve_elf::RuntimeAddr;
    use salve_tracee::{Errno, WriteFault};

    #[test]
    fn every_outcome_of_a_revert_has_its_own_exit_code_word_and_event() {
        let at = RuntimeAddr::new(0x1000);
        let process = || ProcessRef { pid: 812, start_ticks: 4711, program: "/usr/sbin/x".into() };
        let reverted = salve_tracee::Reverted {
            livepatches: Vec::new(),
            detours: 3,
            unmapped: false,
            stopped: Duration::from_micros(100),
            committed: salve_tracee::Committed::ByTarget,
            longest_stop: Duration::from_micros(120),
            tries: 1,
        };
        let undo = Lost::UndoFailed { at, errno: Errno(5) };
        let refused = NotApplied::RevertRefused { path: "/usr/sbin/x".into() };
        let cases = [
            (Ok(RevertOutcome::Reverted(reverted)), Exit::Done, "reverted", Some("reverted")),
            (Ok(RevertOutcome::NothingToRevert), Exit::Done, "nothing-to-revert", None),
            (
                Ok(RevertOutcome::Deferred { blocking: Vec::new(), tries: 9 }),
                Exit::Incomplete,
                "deferred",
                Some("not-reverted"),
            ),
            (Ok(RevertOutcome::NotReverted { why: refused }), Exit::Refused, "not-reverted", Some("not-reverted")),
            (
                Ok(RevertOutcome::RolledBack { why: WriteFault::ReadBack { at } }),
                Exit::Failed,
                "rolled-back",
                Some("not-reverted"),
            ),
            (Ok(RevertOutcome::Indeterminate { why: undo }), Exit::Failed, "indeterminate", Some("not-reverted")),
            (Ok(RevertOutcome::Indeterminate { why: Lost::Exited }), Exit::Done, "gone", None),
            (Err(ApplyError::NothingGiven), Exit::Failed, "failed", Some("not-reverted")),
        ];
        for (result, exit, word, event) in cases {
            let shown = format!("{result:?}");
            let end = Reversion::new(process(), &Selection::These(Vec::new())).ended(result);
            assert_eq!(end.outcome.exit(), exit, "{shown}");
            assert_eq!(serde_json::to_value(&end).expect("JSON")["outcome"], word, "{shown}");
            let told = end.event().map(|event| serde_json::to_value(&event).expect("JSON"));
            assert_eq!(told.as_ref().and_then(|event| event["event"].as_str()), event, "{shown}");
        }
    }
}
