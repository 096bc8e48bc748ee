//! Lines of a story, each of which has to come true.

use anyhow::{Context as _, Result, bail};
use std::io::Write;

pub(super) struct Checks<'a> {
    out: &'a mut dyn Write,
    untrue: Vec<String>,
}

impl<'a> Checks<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, untrue: Vec::new() }
    }

    /// A line that is information only.
    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.out, "{line}").context("cannot write the story")
    }

    /// A line that has to be true. One that is not is marked, and the story goes on.
    pub(super) fn check(&mut self, what: &str, came_true: bool, detail: &str) -> Result<()> {
        let mark = if came_true { "" } else { "NOT TRUE: " };
        if !came_true {
            self.untrue.push(format!("{what}: {detail}"));
        }
        writeln!(self.out, "{mark}{what}: {detail}").context("cannot write the story")
    }

    /// An error that names what was not true.
    pub(super) fn finish(self) -> Result<()> {
        if self.untrue.is_empty() {
            return writeln!(self.out, "all of it came true").context("cannot write the story");
        }
        bail!("not true: {}", self.untrue.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_untrue_line_is_told_apart_and_fails_the_whole() -> Result<()> {
        let mut out = Vec::new();
        let mut story = Checks::new(&mut out);
        story.check("a", true, "1")?;
        story.check("b", false, "2")?;
        story.check("c", true, "3")?;
        let error = story.finish().expect_err("b is not true");
        assert_eq!(error.to_string(), "not true: b: 2");
        assert_eq!(String::from_utf8_lossy(&out), "a: 1\nNOT TRUE: b: 2\nc: 3\n");
        Ok(())
    }
}
