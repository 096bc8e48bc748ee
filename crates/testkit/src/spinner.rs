//! `victims/spin.c`, running: a process that measures how long it was stopped.

use crate::running::Running;
use crate::tree;
use crate::victim::Source;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Its two versions, compiled.
#[derive(Debug)]
pub struct Programs {
    pub old: PathBuf,
    pub new: PathBuf,
    directory: TempDir,
}

impl Programs {
    /// `extra` goes to the compiler for both sides.
    pub fn compile(extra: &[&str]) -> Result<Self> {
        let directory = tree::scratch("spin")?;
        let [old, new] = Source::named("spin.c")?.programs(directory.path(), extra)?;
        Ok(Self { old, new, directory })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

#[derive(Debug)]
pub struct Spinner {
    process: Running,
    /// u64 longest gap in ns, u64 reset request, u64 answer.
    shared: File,
    resets: u64,
    _directory: TempDir,
}

impl Spinner {
    pub fn start(program: &Path, threads: u32) -> Result<Self> {
        Self::of(Command::new(program), threads, 0)
    }

    /// With each thread so many frames deep, and ahead of everybody: a gap is a stop then
    /// rather than somebody else's turn.
    pub fn start_to_measure(program: &Path, threads: u32, frames: u32) -> Result<Self> {
        let mut command = Command::new("nice");
        command.args(["-n", "-20"]).arg(program);
        Self::of(command, threads, frames)
    }

    fn of(mut command: Command, threads: u32, frames: u32) -> Result<Self> {
        let directory = tree::scratch("spin")?;
        let path = directory.path().join("shared");
        std::fs::write(&path, vec![0; 4096]).context("cannot write the shared file")?;
        let shared = File::options().read(true).write(true).open(&path).context("cannot open the shared file")?;
        command.arg(&path).arg(threads.to_string()).arg(frames.to_string());
        let mut process = Running::start(&mut command, directory.path().join("output"))?;
        process.wait_for_line("ready")?;
        Ok(Self { process, shared, resets: 0, _directory: directory })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn must_run(&mut self) -> Result<()> {
        self.process.must_run()
    }

    /// Longest time around `act` that its busy thread did not run, in µs.
    pub fn gap(&mut self, act: impl FnOnce() -> Result<()>) -> Result<f64> {
        self.resets += 1;
        self.shared.write_all_at(&self.resets.to_ne_bytes(), 8).context("cannot ask for a reset")?;
        std::thread::sleep(Duration::from_millis(20));
        act()?;
        std::thread::sleep(Duration::from_millis(20));
        Ok(Duration::from_nanos(self.word(0)?).as_secs_f64() * 1e6)
    }

    /// Waits until the function that the update changes answers as the new code does, or as the old.
    pub fn wait_for_answer(&mut self, new: bool) -> Result<()> {
        let bit = if new { 0x200 } else { 0x100 };
        let shared = &self.shared;
        self.process.wait_for("the other answer", |_| {
            let word = read_word(shared, 16).ok()?;
            (word & 0x300 == bit).then_some(())
        })
    }

    fn word(&self, at: u64) -> Result<u64> {
        read_word(&self.shared, at)
    }
}

fn read_word(file: &File, at: u64) -> Result<u64> {
    let mut word = [0; 8];
    file.read_exact_at(&mut word, at).context("cannot read the shared file")?;
    Ok(u64::from_ne_bytes(word))
}
