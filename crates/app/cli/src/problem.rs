//! What can go wrong in the program itself, typed: each problem has a stable
//! code, an exit code, a cause chain and, where there is one, a next step.
//! `render` is the one place where a chain is printed.

use crate::exit::Exit;
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use std::borrow::Cow;
use std::error::Error;
use std::io::{self, Write};

/// An error on its way to the person who typed the command.
#[derive(Debug)]
pub(crate) struct Problem {
    /// Stable, for programs: lower-case words joined by hyphens.
    pub(crate) code: Cow<'static, str>,
    pub(crate) exit: Exit,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

/// The same as data, as `--json` carries it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProblemReport {
    pub(crate) code: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) causes: Vec<String>,
    pub(crate) hint: Option<String>,
}

/// A sentence without a source of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

/// A sentence with what caused it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct Because {
    what: String,
    source: Box<dyn Error + Send + Sync>,
}

impl Problem {
    /// Something broke.
    pub(crate) fn failed(code: impl Into<Cow<'static, str>>, what: impl Into<String>) -> Self {
        Self { code: code.into(), exit: Exit::Failed, error: Box::new(Said(what.into())), hint: None }
    }

    /// Salve will not do it.
    pub(crate) fn refused(code: impl Into<Cow<'static, str>>, what: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, ..Self::failed(code, what) }
    }

    /// Running it again finishes it.
    pub(crate) fn incomplete(code: &'static str, what: impl Into<String>) -> Self {
        Self { exit: Exit::Incomplete, ..Self::failed(code, what) }
    }

    /// The command line makes no sense, seen only after it was parsed.
    pub(crate) fn usage(code: &'static str, what: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::failed(code, what) }
    }

    #[must_use]
    pub(crate) fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let what = self.error.to_string();
        Self { error: Box::new(Because { what, source: source.into() }), ..self }
    }

    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(crate) fn report(&self) -> ProblemReport {
        ProblemReport {
            code: self.code.clone(),
            message: one_line(&self.error.to_string()),
            causes: causes(self.error.as_ref()),
            hint: self.hint.clone(),
        }
    }

    /// `error:`, `caused by:`, `hint:`, for people.
    pub(crate) fn render(&self, out: &mut dyn Write) -> io::Result<()> {
        let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let report = self.report();
        writeln!(out, "{red}error:{red:#} {}", report.message)?;
        for cause in &report.causes {
            writeln!(out, "  caused by: {cause}")?;
        }
        if let Some(hint) = &report.hint {
            let cyan = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
            writeln!(out, "{cyan}hint:{cyan:#} {hint}")?;
        }
        Ok(())
    }
}

/// Every source below `error`, outermost first, without one that only repeats its parent.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut causes = Vec::new();
    let mut above = one_line(&error.to_string());
    let mut next = error.source();
    while let Some(cause) = next {
        let text = one_line(&cause.to_string());
        if text != above {
            causes.push(text.clone());
        }
        above = text;
        next = cause.source();
    }
    causes
}

/// An error and its causes in one line, for reports that have one line for it.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = one_line(&error.to_string());
    for cause in causes(error) {
        text.push_str(": ");
        text.push_str(&cause);
    }
    text
}

/// Foreign text (paths, package names, what a parser saw) may hold control
/// characters; a terminal must not obey them.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let hide = c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let (kept, escaped) = if hide { (None, Some(c.escape_unicode())) } else { (Some(c), None) };
            kept.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(problem: &Problem) -> String {
        let mut out = anstream::StripStream::new(Vec::new());
        assert!(problem.render(&mut out).is_ok());
        String::from_utf8_lossy(&out.into_inner()).into_owned()
    }

    #[test]
    fn an_error_says_what_why_and_what_next() {
        let problem = Problem::failed("unreadable", "cannot read /x")
            .because(io::Error::from(io::ErrorKind::PermissionDenied))
            .hint("run it as root");
        assert_eq!(rendered(&problem), "error: cannot read /x\n  caused by: permission denied\nhint: run it as root\n");
    }

    #[test]
    fn a_cause_that_repeats_its_parent_is_said_once() {
        let inner = Because { what: "same".into(), source: Box::new(Said("deepest".into())) };
        let outer = Because { what: "same".into(), source: Box::new(inner) };
        assert_eq!(causes(&outer), ["deepest"]);
        assert_eq!(chain(&outer), "same: deepest");
    }

    #[test]
    fn control_characters_of_foreign_text_are_shown_not_obeyed() {
        assert_eq!(one_line("a\u{1b}[2Jb\n\u{202e}c"), "a\\u{1b}[2Jb\\u{a}\\u{202e}c");
    }
}
