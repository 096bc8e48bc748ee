//! Child processes that do not outlive the test.

use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Every [`Running`] of this process that was not dropped yet, by its group.
fn alive() -> MutexGuard<'static, BTreeSet<u32>> {
    static ALIVE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills whatever was started and still runs: for a program that is told to end
/// in the middle of its work, where nothing is dropped.
pub fn end_all() {
    let groups = std::mem::take(&mut *alive());
    let handles = groups.iter().filter_map(|group| rustix::process::Pid::from_raw(i32::try_from(*group).ok()?));
    for group in handles.collect::<Vec<_>>() {
        let _gone_already = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// A process started by a test: killed with its whole process group on drop.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Where its stdout and stderr go, to be shown when it ends unasked.
    log: PathBuf,
}

impl Running {
    /// Starts `command` in a process group of its own, its output in `log`.
    pub fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        let out = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let err = out.try_clone().context("cannot duplicate the log's descriptor")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        alive().insert(child.id());
        Ok(Self { child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot wait for the child")
    }

    /// An error, with its last words, if it ended.
    pub fn must_run(&mut self) -> Result<()> {
        match self.ended()? {
            Some(status) => bail!("process {} ended by itself ({status}): {}", self.pid(), self.output()?),
            None => Ok(()),
        }
    }

    /// All it has printed so far.
    pub fn output(&self) -> Result<String> {
        let mut text = Vec::new();
        let mut log = std::fs::File::open(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        log.read_to_end(&mut text).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Waits until `ready` gives a value, while the process lives.
    pub fn wait_for<T>(&mut self, what: &str, mut ready: impl FnMut(&Self) -> Option<T>) -> Result<T> {
        let since = Instant::now();
        loop {
            if let Some(value) = ready(self) {
                return Ok(value);
            }
            self.must_run().with_context(|| format!("while waiting for {what}"))?;
            if since.elapsed() > PATIENCE {
                bail!("waited in vain for {what}; process {} printed: {}", self.pid(), self.output()?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it has printed a line that starts with `start`; gives the line.
    pub fn wait_for_line(&mut self, start: &str) -> Result<String> {
        self.wait_for(&format!("a line that starts with {start:?}"), |process| {
            process.output().ok()?.lines().find(|line| line.starts_with(start)).map(str::to_owned)
        })
    }

    /// Asks it to end (SIGTERM) and waits for it.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.signal(rustix::process::Signal::TERM)?;
        let since = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if since.elapsed() > PATIENCE {
                bail!("process {} does not end when asked", self.pid());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        rustix::process::kill_process(self.handle()?, signal)
            .with_context(|| format!("cannot signal process {}", self.pid()))
    }

    fn handle(&self) -> Result<rustix::process::Pid> {
        let raw = i32::try_from(self.pid()).context("a process id that is no process id")?;
        rustix::process::Pid::from_raw(raw).context("process id 0")
    }
}

/// After this long nothing will come any more: a bound for hangs, no expectation of speed.
pub const PATIENCE: Duration = Duration::from_secs(60);

impl Drop for Running {
    fn drop(&mut self) {
        // The group first: what the child started is the test's to end as well.
        if let Ok(group) = self.handle()
            && matches!(self.child.try_wait(), Ok(None))
        {
            let _gone_already = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _reaped_or_gone = self.child.wait();
        // Only now may the number be another's.
        alive().remove(&self.child.id());
    }
}
