//! The exit codes: they are API, and this table is the only place that has them.

use core::fmt::Write as _;
use serde::Serialize;
use std::process::ExitCode;

/// How a command ended, as the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for is the case now (also: was the case already).
    Done,
    /// Something broke, in Salve or beneath it.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// Salve looked at it and will not do it; nothing was changed.
    Refused,
    /// Not finished: deferred, given up at a limit, or interrupted. Running it again helps.
    Incomplete,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) code: u8,
    pub(crate) name: &'static str,
    #[serde(skip)]
    pub(crate) meaning: &'static str,
}

impl Exit {
    pub(crate) const ALL: [Self; 5] = [Self::Done, Self::Failed, Self::Usage, Self::Refused, Self::Incomplete];

    pub(crate) const fn row(self) -> Row {
        match self {
            Self::Done => Row { code: 0, name: "done", meaning: "what was asked for is done, or was done already" },
            Self::Failed => Row { code: 1, name: "failed", meaning: "something broke; what is known is printed" },
            Self::Usage => Row { code: 2, name: "usage", meaning: "wrong usage; nothing was looked at" },
            Self::Refused => {
                Row { code: 3, name: "refused", meaning: "refused, with the reason; what was refused is unchanged" }
            }
            Self::Incomplete => {
                Row { code: 4, name: "incomplete", meaning: "deferred, or interrupted: run it again to finish" }
            }
        }
    }

    pub(crate) const fn code(self) -> ExitCodeValue {
        ExitCodeValue(self.row().code)
    }

    /// Which of two ends of parts of one run is the end of the whole:
    /// failed before incomplete before refused before done.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        if self.weight() >= other.weight() { self } else { other }
    }

    const fn weight(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Incomplete => 2,
            Self::Failed => 3,
            Self::Usage => 4,
        }
    }
}

/// Kept apart from [`Exit`] so that nobody exits with a number of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExitCodeValue(u8);

impl From<ExitCodeValue> for ExitCode {
    fn from(value: ExitCodeValue) -> Self {
        Self::from(value.0)
    }
}

/// The table as `--help` prints it.
pub(crate) fn help_table() -> String {
    let mut text = String::from("Exit codes:\n");
    for exit in Exit::ALL {
        let row = exit.row();
        let _never_fails_on_a_string = writeln!(text, "  {}  {:<11} {}", row.code, row.name, row.meaning);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_hides_no_less_grave_end_and_done_hides_nothing() {
        assert_eq!(Exit::Done.and(Exit::Refused), Exit::Refused);
        assert_eq!(Exit::Refused.and(Exit::Incomplete), Exit::Incomplete);
        assert_eq!(Exit::Incomplete.and(Exit::Failed), Exit::Failed);
        assert_eq!(Exit::Failed.and(Exit::Done), Exit::Failed);
    }

    #[test]
    fn the_guide_has_the_same_table() {
        let guide = include_str!("../../../../docs/guide/exit-codes.md");
        for exit in Exit::ALL {
            let row = exit.row();
            let line = format!("| {} | {} | {} |", row.code, row.name, row.meaning);
            assert!(guide.contains(&line), "docs/guide/exit-codes.md lacks: {line}");
        }
    }
}
