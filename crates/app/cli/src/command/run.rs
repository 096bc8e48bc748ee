//! `salve run --patch FILE -- COMMAND…`: a program that is patched before the
//! first instruction of its `main`.
//!
//! This very process becomes the command, so that supervisors find what they
//! started: number, parent, exit status and signals are the command's own. A
//! helper, whom nobody waits for, changes it on the way (`salve_tracee::Launcher`).
//! Unless the caller says otherwise a command that cannot be patched does not start.

use crate::args::{Global, Run};
use crate::carry::{self, Action, Brakes, Interrupt, Task};
use crate::command::{apply, file, updates};
use crate::console::Console;
use crate::event::{Event, EventLog, UpdateRef};
use crate::exit::Exit;
use crate::host::{self, Actor};
use crate::machine::processes::Processes;
use crate::plan::steps;
use crate::problem::{Problem, chain};
use crate::switch::Switch;
use rustix::fs::{Mode, OFlags};
use salve_patch::PatchFile;
use salve_tracee::{Arrival, HelperGate, Launcher, Process, Release, Split};
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

/// Nothing runs yet but what constructors have started.
const WAIT: Duration = Duration::from_secs(5);
const TRIES: u32 = 10;

/// What is to be done with every program that is started.
struct Job<'a> {
    args: &'a Run,
    patch: PatchFile,
    update: UpdateRef,
    accepted: BTreeSet<String>,
    console: Console,
}

pub(super) fn run(args: &Run, global: &Global, console: Console) -> Exit {
    let actor = Actor::current();
    let job = match prepare(args, &actor, console) {
        Ok(Some(job)) => job,
        Ok(None) => return execute(args, console),
        Err(problem) => return without(args, console, &problem),
    };
    match salve_tracee::split() {
        Ok(Split::Command(gate)) => {
            // Where the helper cannot hold this process it has said so.
            if gate.wait() || args.unpatched_ok { execute(args, console) } else { Exit::Refused }
        }
        Ok(Split::Helper { pid, gate }) => {
            let log = EventLog::new("run", global.events.as_deref(), actor);
            help(&job, pid, gate, log)
        }
        Err(errno) => {
            let what = "cannot make the process that would patch the command";
            without(args, console, &Problem::failed("no-helper", format!("{what}: {errno}")))
        }
    }
}

/// Everything that can be known before there is a process. `None` where the patch
/// file changes nothing.
fn prepare<'a>(args: &'a Run, actor: &Actor, console: Console) -> Result<Option<Job<'a>>, Problem> {
    Switch::of_this_host().check().map_err(|problem| problem.hint("--unpatched-ok starts it as it is"))?;
    file::check_handed_over(&args.patch, actor)?;
    let (patch, _) = file::read_patch(&args.patch)?;
    let accepted: BTreeSet<String> = args.accept.iter().cloned().collect();
    apply::check_direction(&patch, &accepted)?;
    if patch.livepatches().next().is_none() && patch.verdict() == salve_patch::Verdict::Unchanged {
        return Ok(None);
    }
    let update = updates::update_of(&patch);
    Ok(Some(Job { args, patch, update, accepted, console: console.silent() }))
}

/// The command cannot be patched: it does not start, or starts as it is.
fn without(args: &Run, console: Console, problem: &Problem) -> Exit {
    if args.unpatched_ok {
        Console::warn(&format!("started without the livepatch: {}", sentence(problem)));
        return execute(args, console);
    }
    console.problem("run", problem, None)
}

fn sentence(problem: &Problem) -> String {
    let report = problem.report();
    core::iter::once(report.message).chain(report.causes).collect::<Vec<_>>().join(": ")
}

/// Becomes the command. Comes back only if that cannot be.
fn execute(args: &Run, console: Console) -> Exit {
    let Some((program, rest)) = args.command.split_first() else { return Exit::Usage };
    let error = std::process::Command::new(program).args(rest).exec();
    let problem = Problem::failed("cannot-execute", format!("cannot execute {}", program.to_string_lossy()));
    console.problem("run", &problem.because(error), None)
}

/// The helper: waits for each program at its entry, patches it, and lets it go.
fn help(job: &Job<'_>, pid: i32, gate: HelperGate, mut log: EventLog) -> Exit {
    host::raise_descriptor_limit();
    let processes = Processes::new();
    let mut launcher = match gate.open(|| Launcher::attach(pid, job.args.children)) {
        Some(Ok(launcher)) => launcher,
        Some(Err(error)) => {
            job.tell(&Problem::refused("not-traceable", "the command cannot be patched").because(error));
            return Exit::Refused;
        }
        // The other side is gone.
        None => return Exit::Done,
    };
    let mut first = true;
    while let Some(arrival) = launcher.next(&processes.patcher) {
        let limits = processes.patcher.limits();
        let released = match arrival {
            Arrival::Waiting(at) => {
                let how = job.treat(at.process(), &processes, first, &mut log);
                launcher.release(at, how, limits)
            }
            Arrival::Missed { missed, why } => {
                let how = job.missed(missed.process(), &processes, first, &why);
                launcher.give_up(missed, how, limits)
            }
        };
        if let Err(error) = released {
            job.tell(&Problem::failed("not-released", format!("process {pid} goes on by itself")).because(error));
        }
        if !job.args.children {
            break;
        }
        if core::mem::take(&mut first) {
            let_go_of_the_terminal();
        }
    }
    if log.state().written > 0 {
        let row = Exit::Done.row();
        log.record(&Event::Ended { exit_code: row.code, exit_name: row.name.to_owned() });
    }
    Exit::Done
}

impl Job<'_> {
    /// Patches a program that waits at its entry, and says how it goes on.
    fn treat(&self, process: &Process, processes: &Processes, first: bool, log: &mut EventLog) -> Release {
        let seen = match processes.look(process) {
            Ok(seen) => seen,
            Err(error) => return self.refused(&chain(&error), "no-permission", first),
        };
        let offers = [updates::offer(&self.update, &self.patch)];
        let seen = [seen];
        let runners = updates::runners(&processes.patcher, &seen, &offers);
        let steps = steps(&runners, &offers, &self.accepted);
        let [seen] = &seen;
        let (mut tasks, mut actions): (Vec<Task<'_>>, Vec<Action>) = (Vec::new(), Vec::new());
        for step in &steps {
            match apply::planned(seen, step, &self.patch, &self.update, false) {
                Ok(task) => tasks.push(task),
                Err(action) => actions.push(*action),
            }
        }
        if steps.is_empty() {
            // A command that only starts the program is what --children is for.
            if self.args.children {
                return Release::Start;
            }
            let why = "it maps no image whose content this patch file is for";
            return self.refused(why, "image-not-mapped", first);
        }
        actions.iter().filter_map(Action::event).for_each(|event| log.record(&event));
        let brakes = Brakes { interrupt: &Interrupt::default(), switch: &Switch::of_this_host() };
        let mut done = carry::apply_all(processes, &tasks, WAIT, &|_| Ok(()), &brakes, log, self.console);
        // On a machine with more to do than processors the one thread may be late.
        for _again in 0..TRIES {
            if done.iter().all(|action| action.code.as_deref() != Some("no-thread")) {
                break;
            }
            done = carry::apply_all(processes, &tasks, WAIT, &|_| Ok(()), &brakes, log, self.console);
        }
        actions.extend(done);
        match actions.iter().find(|action| action.outcome.exit() != Exit::Done) {
            Some(action) => {
                let why = action.why.clone().unwrap_or_else(|| action.outcome.words().to_owned());
                self.refused(&why, action.code.as_deref().unwrap_or("unknown"), first)
            }
            None => Release::Start,
        }
    }

    /// One that could not be made to wait. Among children only those matter that run
    /// what the patch file is for.
    fn missed(
        &self,
        process: &Process,
        processes: &Processes,
        first: bool,
        why: &(dyn core::error::Error + 'static),
    ) -> Release {
        let program = || -> Option<bool> {
            let images = processes.patcher.images(process).ok()?;
            let ours = self.patch.images.iter().filter_map(|image| image.old.as_ref());
            Some(ours.into_iter().any(|old| images.iter().any(|image| image.sha256 == old.sha256)))
        };
        if self.args.children && program() == Some(false) {
            return Release::Start;
        }
        self.refused(&chain(why), "no-entry", first)
    }

    fn refused(&self, why: &str, code: &str, first: bool) -> Release {
        let problem = Problem::refused(code.to_owned(), format!("the command cannot be patched: {why} [{code}]"));
        if first {
            self.tell(&problem.hint("--unpatched-ok starts it as it is"));
        }
        if self.args.unpatched_ok { Release::Start } else { Release::End { status: Exit::Refused.row().code } }
    }

    fn tell(&self, problem: &Problem) {
        if self.args.unpatched_ok {
            Console::warn(&format!("started without the livepatch: {}", sentence(problem)));
        } else {
            self.console.problem("run", problem, None);
        }
    }
}

/// A helper that stays must keep no pipe open that somebody waits on.
fn let_go_of_the_terminal() {
    let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else { return };
    let _kept = rustix::stdio::dup2_stdin(&null);
    let _kept = rustix::stdio::dup2_stdout(&null);
    let _kept = rustix::stdio::dup2_stderr(&null);
}
