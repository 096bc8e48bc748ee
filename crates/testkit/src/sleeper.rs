//! A process that sleeps in a function which an update replaces, until it is told to go on.

use crate::running::Running;
use crate::tree;
use crate::victim::{Kind, Source};
use anyhow::{Context as _, Result};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// `victims/sleep_inside.c`, asleep in the function that the update changes until told to go on.
#[derive(Debug)]
pub struct Sleeper {
    process: Running,
    state: PathBuf,
    directory: TempDir,
}

impl Sleeper {
    pub fn start() -> Result<Self> {
        let directory = tree::scratch("sleeper")?;
        let source = Source::named("sleep_inside.c")?;
        source.compile(Kind::Program, false, &directory.path().join("sleeper"), &[])?;
        source.compile(Kind::Program, true, &directory.path().join("sleeper-new"), &[])?;
        Self::run(directory)
    }

    fn run(directory: TempDir) -> Result<Self> {
        let state = directory.path().join("state");
        std::fs::write(&state, "go")?;
        let mut command = Command::new(directory.path().join("sleeper"));
        let mut process = Running::start(command.arg(&state), directory.path().join("output"))?;
        process.wait_for_line("got 100")?;
        Ok(Self { process, state, directory })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The program that runs, and the one that it is to become.
    pub fn old(&self) -> PathBuf {
        self.directory.path().join("sleeper")
    }

    pub fn newer(&self) -> PathBuf {
        self.directory.path().join("sleeper-new")
    }

    /// A second process of the same program, awake on its own.
    pub fn another(&self) -> Result<Self> {
        let directory = tree::scratch("sleeper")?;
        std::fs::hard_link(self.old(), directory.path().join("sleeper")).context("cannot link the program")?;
        Self::run(directory)
    }

    pub fn must_run(&mut self) -> Result<()> {
        self.process.must_run()
    }

    pub fn kill(&self) -> Result<()> {
        self.process.signal(rustix::process::Signal::KILL)
    }

    /// From now on it sleeps inside; waits until it does.
    pub fn sleep(&mut self) -> Result<()> {
        std::fs::write(&self.state, "wait")?;
        // One round at most is under way: when nothing is printed for ten of them, it sleeps.
        let mut last = (usize::MAX, 0);
        self.process.wait_for("the sleep", |process| {
            let length = process.output().ok()?.len();
            last = if length == last.0 { (length, last.1 + 1) } else { (length, 0) };
            (last.1 > 10).then_some(())
        })
    }

    pub fn go_on(&self) -> Result<()> {
        std::fs::write(&self.state, "go").context("cannot wake it")
    }

    /// Waits until it prints what the old code gives, or the new.
    pub fn wait_for_got(&mut self, value: u32) -> Result<()> {
        let line = format!("got {value}");
        self.process.wait_for(&line, |process| {
            let output = process.output().ok()?;
            (output.lines().last()? == line).then_some(())
        })
    }
}
