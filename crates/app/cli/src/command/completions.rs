//! `salve completions SHELL`

use crate::args::{Cli, Completions, Shell};
use crate::exit::Exit;
use crate::problem::Problem;
use clap::CommandFactory as _;
use clap_complete::Shell as Known;

pub(crate) fn run(args: &Completions) -> Result<Exit, Problem> {
    let shell = match args.shell {
        Shell::Bash => Known::Bash,
        Shell::Elvish => Known::Elvish,
        Shell::Fish => Known::Fish,
        Shell::Powershell => Known::PowerShell,
        Shell::Zsh => Known::Zsh,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "salve", &mut script);
    super::print_bytes(&script)?;
    Ok(Exit::Done)
}
