//! One module for each command. Each resolves what was typed, calls what does
//! the work, and returns a report or a problem; nothing here prints.

mod apply;
mod completions;
mod debug;
mod derive;
pub(crate) mod exposure;
pub(crate) mod file;
mod inspect;
mod man;
mod material;
mod needrestart;
mod revert;
mod run;
pub(crate) mod status;
mod switch;
pub(crate) mod updates;
pub(crate) mod windows;
mod without;

pub(crate) use apply::{obstacle, settled, warn_of_stray};

use crate::args::{Cli, Command, Heal, Status};
use crate::carry::Interrupt;
use crate::console::{self, Console, Report};
use crate::event::{Event, EventLog, LogState};
use crate::exit::Exit;
use crate::heal::HealReport;
use crate::host::Actor;
use crate::machine::debian::{self, Debian};
use crate::machine::deriver::Sandboxed;
use crate::problem::Problem;
use crate::switch::Switch;

/// What a command that decides or acts needs besides what was typed.
pub(crate) struct Context {
    pub(crate) console: Console,
    pub(crate) actor: Actor,
    pub(crate) log: EventLog,
    pub(crate) interrupt: Interrupt,
    pub(crate) switch: Switch,
}

/// Runs the command that was typed.
pub(crate) fn run(cli: &Cli, console: Console) -> Exit {
    let name = cli.command.name();
    if let Command::Run(args) = &cli.command {
        // What is started inherits limits, handlers and descriptors: nothing is changed before.
        return run::run(args, &cli.global, console);
    }
    crate::host::raise_descriptor_limit();
    crate::host::survive_file_limits();
    let looked = match &cli.command {
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        Command::Inspect(args) => inspect::run(args, console).map(|report| console.report(name, &report, None)),
        Command::Status(Status { needrestart: Some(what), .. }) => {
            needrestart::run(*what, &cli.global).map(|report| console.report(name, &report, None))
        }
        Command::Status(args) => {
            status::run(args, &cli.global, console).map(|report| console.report(name, &report, None))
        }
        Command::Debug(args) => debug::run(args).map(|report| console.report(name, &report, None)),
        Command::Derive(_)
        | Command::Heal(_)
        | Command::Apply(_)
        | Command::Revert(_)
        | Command::Off(_)
        | Command::On
        | Command::Run(_) => {
            return act(cli, name, console);
        }
    };
    looked.unwrap_or_else(|problem| console.problem(name, &problem, None))
}

/// The commands whose decisions and acts are events.
fn act(cli: &Cli, name: &'static str, console: Console) -> Exit {
    let actor = Actor::current();
    let log = EventLog::new(name, cli.global.events.as_deref(), actor.clone());
    let mut context = Context { console, actor, log, interrupt: Interrupt::listen(), switch: Switch::of_this_host() };
    match &cli.command {
        Command::Derive(args) => {
            let result = derive::run(args, &mut context);
            end(name, result, context)
        }
        Command::Apply(args) => {
            let result = apply::run(args, &mut context);
            end(name, result, context)
        }
        Command::Revert(args) => {
            let result = revert::run(args, &mut context);
            end(name, result, context)
        }
        Command::Heal(args) => {
            let result = heal(args, &mut context);
            end(name, result, context)
        }
        Command::Off(args) => {
            let result = switch::off(args, &mut context);
            end(name, result, context)
        }
        Command::On => {
            let result = switch::on(&mut context);
            end(name, result, context)
        }
        Command::Inspect(_)
        | Command::Status(_)
        | Command::Debug(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Run(_) => Exit::Done,
    }
}

fn heal(args: &Heal, context: &mut Context) -> Result<HealReport, Problem> {
    if !args.dry_run {
        context.switch.check()?;
    }
    let root = debian::root()?;
    let packages = Debian::read(&root)?;
    let deriver = Sandboxed::locate(context.console)?.in_background();
    crate::heal::run(args, context, &packages, &deriver)
}

/// Closes the log before the report is printed, so that the report can tell how
/// it went. A command that decided nothing leaves no event behind.
fn end<R: Report>(name: &'static str, result: Result<R, Problem>, mut context: Context) -> Exit {
    let exit = match &result {
        Ok(report) => report.exit(),
        Err(problem) => problem.exit,
    };
    if context.log.state().written > 0 {
        let row = exit.row();
        context.log.record(&Event::Ended { exit_code: row.code, exit_name: row.name.to_owned() });
    }
    let state = context.log.state();
    let exit = match result {
        Ok(report) => context.console.report(name, &report, Some(state.clone())),
        Err(problem) => context.console.problem(name, &problem, Some(state.clone())),
    };
    warn_of_log(&state);
    exit
}

fn warn_of_log(state: &LogState) {
    if let Some(error) = &state.error {
        let place = state.path.as_ref().map_or_else(|| "nowhere".into(), |path| path.display().to_string());
        Console::warn(&format!("events could not be written to {place}: {error}"));
    }
}

/// A command line that could not be parsed, or a call for help.
pub(crate) fn usage(error: &clap::Error) -> Exit {
    let asked_for = !error.use_stderr();
    let _nothing_more_can_be_said = error.print();
    if asked_for {
        return Exit::Done;
    }
    if std::env::args_os().any(|arg| arg == "--json") {
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let problem = Problem::usage("usage", message).hint("`salve --help` shows the commands");
        console::problem_document("usage", &problem, None);
    }
    Exit::Usage
}

/// Text that a command prints as it is, report or not.
fn print_bytes(bytes: &[u8]) -> Result<(), Problem> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Problem::failed("cannot-write", "cannot write to standard output").because(error))
        }
        _written_or_nobody_reads => Ok(()),
    }
}
