//! Data to standard output, all else to standard error.

use crate::args::Global;
use crate::event::LogState;
use crate::exit::Exit;
use crate::problem::{Problem, ProblemReport};
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{self, IsTerminal as _, Write};

/// The version of the shape of every `--json` document.
pub(crate) const JSON_SCHEMA: u32 = 1;

/// What a command found or did: as data, and as text for a person.
pub(crate) trait Report: Serialize {
    fn exit(&self) -> Exit;
    fn human(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()>;
}

/// The one document that a command prints with `--json`.
#[derive(Serialize)]
struct Envelope<'a, R: Serialize> {
    schema: u32,
    salve_version: &'static str,
    command: &'static str,
    exit: crate::exit::Row,
    result: Option<&'a R>,
    error: Option<ProblemReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_log: Option<LogState>,
}

/// How this run talks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Console {
    json: bool,
    quiet: bool,
    verbose: bool,
}

impl Console {
    pub(crate) fn new(global: &Global) -> Self {
        Self { json: global.json, quiet: global.quiet, verbose: global.verbose }
    }

    /// The same without anything but errors and warnings.
    pub(crate) fn silent(self) -> Self {
        Self { quiet: true, verbose: false, ..self }
    }

    /// Prints what a command reports. Standard output that went away (a closed
    /// pipe) changes nothing about what was done.
    pub(crate) fn report<R: Report>(self, command: &'static str, report: &R, log: Option<LogState>) -> Exit {
        let exit = report.exit();
        let printed = if self.json {
            json(&Envelope {
                schema: JSON_SCHEMA,
                salve_version: env!("CARGO_PKG_VERSION"),
                command,
                exit: exit.row(),
                result: Some(report),
                error: None,
                event_log: log,
            })
        } else if self.quiet && exit == Exit::Done {
            Ok(())
        } else {
            let mut out = anstream::stdout().lock();
            report.human(&mut out, self.verbose).and_then(|()| out.flush())
        };
        match printed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Self::warn(&format!("cannot write to standard output: {error}"));
                exit.and(Exit::Failed)
            }
            _printed_or_nobody_reads => exit,
        }
    }

    /// Prints a problem; with `--json` the document on standard output has it too.
    pub(crate) fn problem(self, command: &'static str, problem: &Problem, log: Option<LogState>) -> Exit {
        let _nothing_more_can_be_said = problem.render(&mut anstream::stderr().lock());
        if self.json {
            problem_document(command, problem, log);
        }
        problem.exit
    }

    pub(crate) fn warn(text: &str) {
        let yellow = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
        let _nothing_more_can_be_said =
            writeln!(anstream::stderr().lock(), "{yellow}warning:{yellow:#} {}", crate::problem::one_line(text));
    }

    /// A line for who asked to hear more.
    pub(crate) fn note(self, text: &str) {
        if self.verbose && !self.quiet {
            let _nothing_more_can_be_said = writeln!(anstream::stderr().lock(), "{}", crate::problem::one_line(text));
        }
    }

    /// Progress over `len` steps, on standard error if that is a terminal.
    pub(crate) fn progress(self, len: usize, what: &'static str) -> Progress {
        let visible = !self.quiet && !self.json && io::stderr().is_terminal();
        if !visible {
            return Progress(None);
        }
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{prefix} {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        Progress(Some(bar))
    }
}

/// Draws only when told to: a bar that draws by itself from a thread of its own
/// would write to a terminal while the process that serves it is stopped.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// The next step begins.
    pub(crate) fn step(&self, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(crate::problem::one_line(what));
            bar.inc(1);
        }
    }
}

impl Progress {
    /// What is being done now, without a step.
    pub(crate) fn say(&self, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(crate::problem::one_line(what));
            bar.tick();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// The document of a command that came to nothing.
pub(crate) fn problem_document(command: &'static str, problem: &Problem, log: Option<LogState>) {
    let _nobody_reads = json(&Envelope::<()> {
        schema: JSON_SCHEMA,
        salve_version: env!("CARGO_PKG_VERSION"),
        command,
        exit: problem.exit.row(),
        result: None,
        error: Some(problem.report()),
        event_log: log,
    });
}

fn json<T: Serialize>(document: &T) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, document).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    out.flush()
}
