//! A library of the corpus inside a running program that works on without end.
//!
//! The library's old file lies in a scratch directory that the program's run
//! path names; nothing is installed. The program checks its own results and
//! ends with an error at the first wrong one.

use crate::corpus::{self, Pair, Side};
use crate::needs::{self, Need};
use crate::running::Running;
use crate::tree;
use crate::victim::{Kind, Source};
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use tempfile::TempDir;

#[derive(Debug)]
pub struct Embedded {
    pub pair: Pair,
    process: Running,
    /// The library file that the process has mapped, for as long as it is there.
    pub library: PathBuf,
    directory: TempDir,
}

impl Embedded {
    /// Starts the program of `source` with the old `soname` of `package`.
    pub fn start(package: &str, soname: &str, source: &str) -> Result<Self> {
        Self::start_by(package, soname, source, |program| Command::new(program))
    }

    /// The same with a command that starts the program.
    pub fn start_by(
        package: &str,
        soname: &str,
        source: &str,
        launch: impl FnOnce(&std::path::Path) -> Command,
    ) -> Result<Self> {
        needs::ensure(&[Need::Compiler, Need::DecoderLibraries])?;
        let pair = corpus::pair(package)?;
        let old = pair.extract(Side::Old)?;
        let directory = tree::scratch("embedded")?;
        let library = directory.path().join(soname);
        std::fs::copy(pair.largest_in(old.path()), &library).context("cannot place the library")?;
        let program = directory.path().join("program");
        let run_path = format!("-Wl,-rpath,{}", directory.path().display());
        let file = library.display().to_string();
        Source::named(source)?.compile(
            Kind::Program,
            false,
            &program,
            &[&file, &run_path, "-Wl,--allow-shlib-undefined"],
        )?;
        let log = directory.path().join("output");
        let mut process = Running::start(&mut launch(&program), log)?;
        process.wait_for_line("rounds ")?;
        let embedded = Self { pair, process, library, directory };
        embedded.maps_our_library()?;
        Ok(embedded)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Deletes the library's file, as an upgrade does.
    pub fn delete_library(&self) -> Result<()> {
        std::fs::remove_file(&self.library).context("cannot delete the library's file")
    }

    /// Puts the new version's file in its place.
    pub fn install_new_library(&self) -> Result<()> {
        let new = self.pair.extract(Side::New)?;
        let beside = self.directory.path().join("incoming");
        std::fs::copy(self.pair.largest_in(new.path()), &beside).context("cannot place the new library")?;
        std::fs::rename(&beside, &self.library).context("cannot move the new library into place")
    }

    /// Waits until it has done `more` further rounds, all of them right.
    pub fn works_on(&mut self, more: u64) -> Result<()> {
        let goal = rounds(&self.process) + more;
        self.process.wait_for("further rounds", |process| (rounds(process) >= goal).then_some(()))
    }

    /// Asks it to end: it does so with 0 only if every round was right.
    pub fn end(self) -> Result<ExitStatus> {
        self.process.terminate()
    }

    fn maps_our_library(&self) -> Result<()> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).context("cannot read its maps")?;
        let path = self.library.display().to_string();
        if maps.contains(&path) { Ok(()) } else { bail!("the program runs without {path}") }
    }
}

fn rounds(process: &Running) -> u64 {
    let output = process.output().unwrap_or_default();
    let last = output.lines().rev().filter_map(|line| line.strip_prefix("rounds ")).find_map(|n| n.parse().ok());
    last.unwrap_or(0)
}
