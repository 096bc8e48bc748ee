//! `salve`: brings running programs up to date without restarting them.
//!
//! A thin program: what was typed is parsed (`args`), resolved by the command
//! against the machine, planned by pure functions (`plan`), carried out by the
//! edge crates, and rendered (`console`). It links no disassembler and parses
//! no foreign ELF file or package: `salve-derive` does, without privilege.
#![forbid(unsafe_code)]

mod args;
mod carry;
mod command;
mod console;
mod event;
mod exit;
mod heal;
mod host;
mod machine;
mod plan;
mod problem;
mod switch;
mod view;

use clap::Parser as _;
use console::Console;
use std::process::ExitCode;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(say_what_to_do));
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return command::usage(&error).code().into(),
    };
    let console = Console::new(&cli.global);
    command::run(&cli, console).code().into()
}

/// No known path panics. If one does all the same, the person at the terminal
/// has to know what that means for the processes.
fn say_what_to_do(panic: &std::panic::PanicHookInfo<'_>) {
    use std::io::Write as _;
    let _nothing_more_can_be_said = writeln!(
        anstream::stderr(),
        "error: a defect in salve: {}\nhint: a process that was being patched goes on by itself; `salve status` shows \
         what each one runs; please report this",
        problem::one_line(&panic.to_string())
    );
}
