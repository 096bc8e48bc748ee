//! `salve man [--dir DIR]`

use crate::args::{Cli, Man};
use crate::exit::Exit;
use crate::problem::Problem;
use clap::{Command, CommandFactory as _};
use clap_mangen::roff::{Roff, bold, roman};
use std::io;
use std::path::Path;

/// What a person looks for at the end of a page, `man-pages(7)`.
const FILES: &[(&str, &str)] = &[
    ("/etc/salve/off", "the stop switch: Salve changes nothing while it is there"),
    ("/etc/salve/leave", "processes that Salve leaves alone, one rule a line"),
    ("/var/log/salve/events.jsonl", "what root's runs decided and did; of others: ~/.local/state/salve/events.jsonl"),
    ("/usr/share/doc/salve", "the guide, where the package is installed"),
];

pub(crate) fn run(args: &Man) -> Result<Exit, Problem> {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = &args.dir else {
        let mut bytes = Vec::new();
        page(&command, &mut bytes)
            .map_err(|error| Problem::failed("man-page", "cannot render the manual page").because(error))?;
        super::print_bytes(&bytes)?;
        return Ok(Exit::Done);
    };
    for one in core::iter::once(&command).chain(command.get_subcommands()) {
        write(one, dir)?;
    }
    Ok(Exit::Done)
}

fn write(command: &Command, dir: &Path) -> Result<(), Problem> {
    let file = dir.join(clap_mangen::Man::new(command.clone()).get_filename());
    let mut bytes = Vec::new();
    page(command, &mut bytes).and_then(|()| std::fs::write(&file, bytes)).map_err(|error| {
        let problem = Problem::failed("cannot-write", format!("cannot write {}", file.display()));
        match error.kind() {
            io::ErrorKind::NotFound => problem.because(error).hint("the directory has to exist"),
            _other => problem.because(error),
        }
    })
}

/// One page. Verdicts and exit codes stand in sections of their own names, on every page.
fn page(command: &Command, out: &mut Vec<u8>) -> io::Result<()> {
    let man =
        clap_mangen::Man::new(command.clone()).source(concat!("salve ", env!("CARGO_PKG_VERSION"))).manual("Salve");
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(out)?;
    }
    let mut rest = Roff::default();
    if command.get_after_long_help().is_some() {
        rest.control("SH", ["VERDICTS"]);
        verbatim(&mut rest, crate::args::VERDICTS);
    }
    rest.control("SH", ["EXIT STATUS"]);
    for row in Exit::ALL.map(Exit::row) {
        rest.control("TP", []).text([bold(format!("{} {}", row.code, row.name))]).text([roman(row.meaning)]);
    }
    rest.control("SH", ["FILES"]);
    for (path, what) in FILES {
        rest.control("TP", []).text([bold(*path)]).text([roman(*what)]);
    }
    rest.control("SH", ["SEE ALSO"]);
    rest.text([bold(if command.has_subcommands() { "salve-heal(1), salve-status(1)" } else { "salve(1)" })]);
    rest.to_writer(out)
}

/// A table that keeps its lines, without its title, which is the section's.
fn verbatim(roff: &mut Roff, text: &str) {
    roff.control("nf", []);
    for line in text.lines().skip(1) {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}
