//! One module for each command. Each resolves what was typed, calls what does
//! the work, and returns a report or a problem; nothing here prints.

mod completions;
pub(crate) mod file;
mod inspect;
mod man;

use crate::args::{Cli, Command};
use crate::console::{self, Console};
use crate::exit::Exit;
use crate::problem::Problem;

/// Runs the command that was typed.
pub(crate) fn run(cli: &Cli, console: Console) -> Exit {
    let name = cli.command.name();
    let end = match &cli.command {
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        Command::Inspect(args) => inspect::run(args).map(|report| console.report(name, &report, None)),
        _ => Err(Problem::failed("todo", "not there yet")),
    };
    end.unwrap_or_else(|problem| console.problem(name, &problem, None))
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
