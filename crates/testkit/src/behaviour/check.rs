//! What holds for every behaviour.

use super::{Asked, Behaviour, CompilerRefused};
use crate::observe::{self, Text};
use crate::patchfile::{self, Derived};
use crate::salve::{Run, Salve, exit, texts};
use crate::tree;
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A behaviour with its two sides on disk.
#[derive(Debug)]
pub struct Prepared {
    /// Trees with `bin/victim` and `lib/`.
    pub old: PathBuf,
    pub new: PathBuf,
    pub derived: Derived,
    directory: TempDir,
}

impl Prepared {
    /// The old program.
    pub fn program(&self) -> PathBuf {
        self.old.join("bin/victim")
    }

    /// A scratch directory that lives as long as this.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Behaviour {
    /// Both sides compiled, and the patch file derived from them.
    fn derive(&self, salve: &Salve) -> Result<Prepared> {
        let directory = tree::scratch("behaviour")?;
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        self.compile(&old, false)?;
        self.compile(&new, true)?;
        let derived = patchfile::derive(salve, &old, &new)?;
        Ok(Prepared { old, new, derived, directory })
    }

    /// The same, with the verdict that the source expects.
    pub fn prepare(&self, salve: &Salve) -> Result<Prepared> {
        let prepared = self.derive(salve)?;
        self.check_verdict(&prepared.derived)?;
        Ok(prepared)
    }

    /// Runs it through all that it expects.
    pub fn check(&self) -> Result<()> {
        let salve = Salve::built()?;
        let prepared = self.prepare(&salve)?;
        if self.refused() {
            return Asked::start(&mut Command::new(prepared.program()))?.end();
        }
        let outcome = self.exercise(&salve, &prepared)?;
        ensure!(outcome == self.outcome, "{outcome:?}, not {:?}", self.outcome);
        Ok(())
    }

    /// Whatever the verdict of this variant: what is applied answers as it should.
    /// Gives the worst verdict.
    pub fn check_variant(&self) -> Result<&'static str> {
        let salve = Salve::built()?;
        // Some sources say it in flags that only one compiler knows.
        let prepared = match self.derive(&salve) {
            Err(error) if error.is::<CompilerRefused>() && self.otherwise.is_some_and(|v| v.c != "gcc") => {
                return Ok("not compiled");
            }
            other => other?,
        };
        let images = prepared.derived.images();
        let is = |wanted: &str| images.iter().any(|image| image.verdict() == wanted);
        ensure!(images.iter().any(|i| i.verdict() != "unchanged"), "nothing changed: {}", prepared.derived.run.stderr);
        if is("refused") {
            return Ok("refused");
        }
        let outcome = self.exercise(&salve, &prepared)?;
        // Threads that hardly ever leave what is replaced may outlast the wait on a busy machine.
        let expected = outcome.0 == "applied" || outcome.0 == "deferred" || outcome == self.outcome;
        ensure!(expected, "{outcome:?}");
        Ok(if is("review") { "review" } else { "safe" })
    }

    /// Patched, patched again, reverted and patched once more, or not touched at all.
    /// Gives the outcome of the first time, and its code.
    fn exercise(&self, salve: &Salve, prepared: &Prepared) -> Result<(String, Option<String>)> {
        let derived = &prepared.derived;
        let mut asked = Asked::start(&mut Command::new(prepared.program()))?;
        let before = Text::of(asked.pid())?;
        self.answers(&mut asked, false)?;
        let run = apply(salve, derived, &asked)?;
        let outcome = run.only_outcome()?;
        let applied = outcome.0 == "applied";
        self.answers(&mut asked, applied).with_context(|| format!("{outcome:?}: {}{}", run.stdout, run.stderr))?;
        ensure!(observe::tracer(asked.pid())? == 0, "it is still traced");
        let both = observe::writable_and_executable(asked.pid())?;
        ensure!(both.is_empty(), "writable and executable at once: {both:?}");
        if applied {
            self.there_and_back(salve, derived, &mut asked, &before)?;
        } else {
            let changed = Text::of(asked.pid())?.differences_from(&before);
            ensure!(changed.is_empty(), "not applied, but {changed:?}");
        }
        asked.end()?;
        Ok(outcome)
    }

    /// Applied it is: again, off, and on once more.
    fn there_and_back(&self, salve: &Salve, derived: &Derived, asked: &mut Asked, before: &Text) -> Result<()> {
        let again = apply(salve, derived, asked)?.expect_code(exit::DONE)?.only_outcome()?;
        ensure!(again.0 == "already-applied", "applied again: {again:?}");
        for _ in 0..2 {
            let pid = asked.pid().to_string();
            salve.json(&["revert", "--pid", &pid, "--wait", "30s"])?.expect_code(exit::DONE)?;
            self.answers(asked, false)?;
            let changed = Text::of(asked.pid())?.changes_to(before);
            ensure!(changed.is_empty(), "reverted, but {changed:?}");
            apply(salve, derived, asked)?.expect_code(exit::DONE)?;
            self.answers(asked, true)?;
        }
        Ok(())
    }

    fn check_verdict(&self, derived: &Derived) -> Result<()> {
        let images = derived.images();
        let changed: Vec<_> = images.iter().filter(|image| image.verdict() != "unchanged").collect();
        ensure!(!changed.is_empty(), "nothing changed: {}{}", derived.run.stdout, derived.run.stderr);
        for image in changed {
            let verdict = image.verdict();
            ensure!(
                Some(verdict) == self.expectations.verdict.as_deref(),
                "{} is {verdict}: {:?}",
                image.path(),
                image.codes()
            );
            for code in &self.expectations.refusals {
                ensure!(image.codes().contains(&code.as_str()), "{}: {:?}", image.path(), image.codes());
            }
        }
        Ok(())
    }

    fn answers(&self, asked: &mut Asked, new: bool) -> Result<()> {
        for _ in 0..3 {
            for exchange in &self.exchanges {
                let answer = asked.ask(&exchange.asked)?;
                let expected = if new { &exchange.new } else { &exchange.old };
                ensure!(&answer == expected, "asked {:?} it answered {answer:?}, not {expected:?}", exchange.asked);
            }
        }
        Ok(())
    }
}

/// Applies the patch file to that one process, with every consent that it asks for.
fn apply(salve: &Salve, derived: &Derived, asked: &Asked) -> Result<Run> {
    let pid = asked.pid().to_string();
    let mut words: Vec<&str> = vec!["apply", "--pid", &pid, "--wait", "30s", "--accept", "direction-unknown"];
    let report = derived.inspected.as_ref().context("no patch file")?;
    let asks = derived.images().iter().any(|image| image.verdict() == "review");
    let codes = if asks { texts(report, "code") } else { Vec::new() };
    words.extend(codes.iter().flat_map(|&code| ["--accept", code]));
    salve.json(&words.iter().map(AsRef::as_ref).chain([derived.file.as_os_str()]).collect::<Vec<_>>())
}
