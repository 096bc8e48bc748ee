//! Salve at work on a victim, to its end or killed on the way.

use super::Victim;
use crate::salve::{Run, exit};
use crate::supervisor::{self, Ended};
use crate::torture::{Act, Round};
use anyhow::{Context as _, Result, bail};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Victim<'_> {
    /// Naming any process of a group means the group: each command names the next one.
    fn named(&self) -> u32 {
        let pids = self.pids();
        let turn = self.commands.fetch_add(1, Ordering::Relaxed);
        pids.get(turn % pids.len()).copied().unwrap_or_else(|| self.pid())
    }

    pub(in crate::torture) fn salve(&self, act: Act) -> Command {
        self.bench.salve.command(&self.bench.arguments(act, self.named()))
    }

    /// Runs it to its end.
    pub(in crate::torture) fn act(&self, act: Act) -> Result<Run> {
        Run::of(self.salve(act).arg("--json"))
    }

    /// Brings it where `act` can be tried from.
    pub(in crate::torture) fn ready_for(&mut self, act: Act) -> Result<()> {
        if self.state == act {
            self.act(act.other())?.expect_code(exit::DONE)?;
            self.state = act.other();
        }
        Ok(())
    }

    /// Kills Salve at its so-manieth call; `false` if it came to its end before.
    pub fn kill_at(&mut self, round: Round) -> Result<bool> {
        self.ready_for(round.act)?;
        let command = self.salve(round.act);
        self.killed = format!("call {} of {command:?}", round.at);
        match supervisor::run(&command, round.at)? {
            Ended::Killed => self.look(round.next).map(|()| true),
            Ended::By { itself: Some(exit::DONE), .. } => {
                self.state = round.act;
                Ok(false)
            }
            Ended::By { itself, .. } => bail!("{} ended by itself with {itself:?}", round.act),
        }
    }

    /// Kills Salve after some time; whether it was still at work then.
    pub fn kill_after(&mut self, act: Act, delay: Duration, next: Act) -> Result<bool> {
        self.ready_for(act)?;
        let mut command = self.salve(act);
        self.killed = format!("{} µs of {command:?}", delay.as_micros());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start salve")?;
        std::thread::sleep(delay);
        let late = child.try_wait().context("cannot wait for salve")?.is_some();
        child.kill().context("cannot kill salve")?;
        child.wait().context("cannot wait for salve")?;
        self.look(next)?;
        Ok(!late)
    }

    /// How long a run that nobody kills takes.
    pub fn duration_of(&mut self, act: Act) -> Result<Duration> {
        self.ready_for(act)?;
        let start = Instant::now();
        self.act(act)?.expect_code(exit::DONE)?;
        self.state = act;
        Ok(start.elapsed())
    }
}
