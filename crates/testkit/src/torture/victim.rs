//! A victim: its processes, and what it was before anything was done to it.

mod kill;
mod left;
mod look;
mod words;

pub(super) use words::STARTS;
pub use words::Words;

use super::{Act, Bench, Life, Seen, Tally};
use crate::observe::{self, Identity, Text};
use crate::running::Running;
use crate::tree;
use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a healthy victim needs at most for each thread to get round once.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A victim, and what it has told so far.
#[derive(Debug)]
pub struct Victim<'a> {
    pub(super) bench: &'a Bench,
    life: Life,
    pub(super) process: Running,
    /// The other processes of its group.
    children: Vec<Identity>,
    shared: File,
    /// Of each process.
    texts: Vec<Text>,
    descriptors: Vec<Vec<String>>,
    told: Words,
    /// Signals that will not come any more.
    pub(super) lost: u64,
    /// The last act that came to its end.
    pub(super) state: Act,
    /// How often it began.
    pub(super) starts: u64,
    tally: Tally,
    /// What was killed last, for whoever asks.
    killed: String,
    commands: AtomicUsize,
    _directory: TempDir,
}

impl<'a> Victim<'a> {
    pub(super) fn start(bench: &'a Bench, life: Life) -> Result<Self> {
        let directory = tree::scratch("torture")?;
        let path = directory.path().join("shared");
        std::fs::write(&path, vec![0; 4096]).context("cannot write the shared file")?;
        let shared = File::options().read(true).open(&path).context("cannot open the shared file")?;
        let mut command = Command::new(&bench.old);
        command.arg(&path).arg(life.argument());
        let mut process = Running::start(&mut command, directory.path().join("output"))?;
        process.wait_for_line("ready")?;
        // The one that its threads wait for is of another program, as soon as it has executed that.
        let is_of_group =
            |child: &Identity| std::fs::read_link(format!("/proc/{}/exe", child.pid)).is_ok_and(|exe| exe == bench.old);
        let mut children: Vec<Identity> = Vec::new();
        let complete = wait_until(|| {
            children = observe::children_of(process.pid())?.into_iter().filter(is_of_group).collect();
            Ok(children.len() == life.children())
        })?;
        ensure!(complete, "a group of another size: {children:?}");
        let mut victim = Self {
            bench,
            life,
            process,
            children,
            shared,
            texts: Vec::new(),
            descriptors: Vec::new(),
            told: [0; _],
            lost: 0,
            state: Act::Revert,
            starts: 1,
            tally: Tally::default(),
            killed: String::new(),
            commands: AtomicUsize::new(0),
            _directory: directory,
        };
        let before = victim.words()?;
        ensure!(victim.beats(&before)?, "the victim does not run by itself");
        // By now every thread has opened what it opens.
        victim.descriptors = victim.links(|_| false)?;
        victim.texts = victim.texts_now()?;
        Ok(victim)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Of all its processes.
    fn pids(&self) -> Vec<u32> {
        std::iter::once(self.pid()).chain(self.children.iter().map(|child| child.pid)).collect()
    }

    fn texts_now(&self) -> Result<Vec<Text>> {
        self.pids().into_iter().map(Text::of).collect()
    }

    /// Whether one of its processes has ended. Nobody waits for the children: they would be
    /// there as zombies.
    fn has_died(&mut self) -> Result<bool> {
        let lives = |child: &Identity| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid)).unwrap_or_default();
            let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
            state.is_some_and(|state| !"ZX".contains(state))
                && observe::identity(child.pid).is_ok_and(|now| now == *child)
        };
        Ok(self.process.ended()?.is_some() || !self.children.iter().all(lives))
    }

    /// What was counted since the last time.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    pub(super) fn note(&mut self, seen: Seen) {
        self.tally.note(seen, 1);
    }

    pub(super) fn begin_round(&mut self) {
        self.tally.rounds += 1;
    }

    #[expect(clippy::print_stderr, reason = "a person looks for the reason")]
    pub(super) fn say(&self, what: &str) {
        eprintln!("{} {:?}, killed: {}: {what}", self.life, self.pids(), self.killed);
    }

    /// What its threads are in, for whoever asks why it hangs.
    fn threads(&self) -> String {
        let mut text = format!("{:?}\n", self.words().unwrap_or([0; _]));
        let of = |pid| std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in self.pids().into_iter().flat_map(of) {
            for what in ["syscall", "wchan", "stat"] {
                text += std::fs::read_to_string(task.path().join(what)).unwrap_or_default().trim_end();
                text.push(' ');
            }
            text.push('\n');
        }
        text
    }

    /// Another victim in the place of one that was lost; the tally goes on.
    fn replace(&mut self, seen: Seen) -> Result<()> {
        self.say(&format!("{seen:?}: {}{}", self.process.output()?, self.threads()));
        self.note(seen);
        let tally = self.tally;
        *self = Self { tally, ..Self::start(self.bench, self.life)? };
        Ok(())
    }
}

/// Whether it comes true while there is patience.
pub(super) fn wait_until(mut is_true: impl FnMut() -> Result<bool>) -> Result<bool> {
    let since = Instant::now();
    while !is_true()? {
        if since.elapsed() > PATIENCE {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(true)
}
