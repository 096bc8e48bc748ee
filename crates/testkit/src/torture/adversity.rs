//! What else may happen while Salve works: to the target, and to Salve itself.

use super::victim::{PATIENCE, STARTS, Victim, wait_until};
use super::{Act, Bench, Seen, Tally};
use crate::salve::{Run, exit};
use crate::tree;
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What Salve has too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardship {
    /// Its events go to a file system without a free byte.
    FullDisk,
    /// So do its words.
    FullOutput,
    /// `RLIMIT_NOFILE`, soft and hard.
    Descriptors(u64),
    /// `RLIMIT_FSIZE`, which memory files obey as well.
    FileBytes(u64),
    /// `pids.max` of its control group: processes and threads (root has no `RLIMIT_NPROC`).
    Tasks(u64),
}

impl Hardship {
    /// From where a program cannot even be loaded to where nothing is missing any more.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::FullDisk, Self::FullOutput];
        all.extend((3..28).map(Self::Descriptors));
        let sizes = [0, 1, 64, 512, 4_096, 6_000, 8_192, 12_288, 16_384, 20_480, 32_768, 65_536];
        all.extend(sizes.map(Self::FileBytes));
        all.extend((1..6).map(Self::Tasks));
        all
    }
}

impl fmt::Display for Hardship {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FullDisk => f.write_str("a full disk for the events"),
            Self::FullOutput => f.write_str("a full disk for the output"),
            Self::Descriptors(count) => write!(f, "{count} descriptors"),
            Self::FileBytes(bytes) => write!(f, "files of {bytes} bytes at most"),
            Self::Tasks(count) => write!(f, "{count} tasks"),
        }
    }
}

/// The places that hardships need; they end with it.
#[derive(Debug)]
pub struct Adversity {
    full: FullDisk,
    group: TaskGroup,
}

impl Adversity {
    pub fn new() -> Result<Self> {
        Ok(Self { full: FullDisk::mount()?, group: TaskGroup::make()? })
    }

    fn command(&self, bench: &Bench, hardship: Hardship, act: Act, pid: u32) -> Result<Command> {
        let events = match hardship {
            Hardship::FullDisk => self.full.directory.path().join("events.jsonl"),
            _ => bench.directory().join("events.jsonl"),
        };
        let salve = bench.salve.clone().events_to(&events);
        let plain = salve.command(&bench.arguments(act, pid));
        let mut command = match hardship {
            Hardship::FullDisk | Hardship::FullOutput => plain,
            Hardship::Descriptors(count) => limited(&format!("--nofile={count}:{count}"), &plain),
            Hardship::FileBytes(bytes) => limited(&format!("--fsize={bytes}:{bytes}"), &plain),
            Hardship::Tasks(count) => self.group.command(count, &plain)?,
        };
        if hardship == Hardship::FullOutput {
            let full = || File::options().write(true).open("/dev/full").context("cannot open /dev/full");
            command.stdout(full()?).stderr(full()?);
        } else {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        command.stdin(Stdio::null());
        Ok(command)
    }
}

fn limited(limit: &str, plain: &Command) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(limit).arg("--").arg(plain.get_program()).args(plain.get_args());
    command
}

impl Victim<'_> {
    /// One act with too little of something. Whatever comes of it, the victim is whole, and
    /// the next command without hardship brings it to an end.
    pub fn under(&mut self, adversity: &Adversity, hardship: Hardship, act: Act) -> Result<()> {
        self.ready_for(act)?;
        self.begin_round();
        let run = Run::of(&mut adversity.command(self.bench, hardship, act, self.pid())?)?;
        self.judge(run.code, &format!("{act} with {hardship}: {} {}", run.stdout, run.stderr));
        if run.code == Some(exit::DONE) {
            self.state = act;
            if !self.becomes(act)? {
                self.note(Seen::SalveWrong);
                self.say(&format!("{act} with {hardship}: done, it said: {}", run.stdout));
            }
        }
        // What it could not take away for want of something is the next command's to take.
        self.goes_on()?;
        self.look_again(act)
    }

    /// The same without hardship, and back.
    fn look_again(&mut self, act: Act) -> Result<()> {
        for next in [act, Act::Revert] {
            self.look_on(next)?;
        }
        Ok(())
    }

    /// An apply and a revert while somebody stops and continues the process all the time.
    pub fn while_stopped_and_continued(&mut self, pause: Duration) -> Result<()> {
        self.ready_for(Act::Apply)?;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let meddler = scope.spawn(|| -> Result<()> {
                while !over.load(Ordering::Relaxed) {
                    for signal in [Signal::STOP, Signal::CONT] {
                        self.process.signal(signal)?;
                        std::thread::sleep(pause);
                    }
                }
                Ok(())
            });
            let acts = Act::ALL.map(|act| self.act(act).and_then(|run| run.expect_code(exit::DONE)));
            over.store(true, Ordering::Relaxed);
            meddler.join().unwrap_or_else(|_| bail!("the meddler failed"))?;
            acts.into_iter().try_for_each(|act| act.map(drop))
        })?;
        self.begin_round();
        self.is_well()
    }

    /// The process executes its program anew some time into `act`: whatever Salve says, the
    /// new one is as if Salve had never been there, or wholly changed.
    pub fn executes_itself_during(&mut self, act: Act, delay: Duration) -> Result<()> {
        self.ready_for(act)?;
        self.begin_round();
        let mut child =
            self.salve(act).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start salve")?;
        std::thread::sleep(delay);
        self.process.signal(Signal::USR1)?;
        let code = end_of(&mut child)?;
        self.judge(code, &format!("{act} of a process that executes itself"));
        let begun_again = wait_until(|| Ok(self.words()?[STARTS] > self.starts))?;
        self.starts += 1;
        // It begins to count anew.
        self.lost = 0;
        if !begun_again {
            self.note(Seen::Hung);
            bail!("the victim did not execute itself");
        }
        // Salve may have found the new program in time, and says what it did to it.
        self.act(Act::Revert)?.expect_code(exit::DONE)?;
        self.state = Act::Revert;
        if !self.becomes(Act::Revert)? {
            self.note(Seen::HalfApplied);
        }
        self.is_well()?;
        self.look_again(Act::Apply)
    }

    /// The process is killed some time into `act`; Salve has to notice and to say so.
    pub fn killed_during(mut self, act: Act, delay: Duration) -> Result<Tally> {
        self.ready_for(act)?;
        self.begin_round();
        let mut child =
            self.salve(act).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start salve")?;
        std::thread::sleep(delay);
        self.process.signal(Signal::KILL)?;
        let code = end_of(&mut child)?;
        self.judge(code, &format!("{act} of a process that is killed"));
        Ok(self.take_tally())
    }

    /// Done, refused, incomplete or failed: whatever it is, it is one of its own exit codes.
    fn judge(&mut self, code: Option<i32>, what: &str) {
        // The dynamic loader, and the shell in front of it, end with these.
        let could_not_be_started = matches!(code, Some(126 | 127));
        if !(could_not_be_started || code.is_some_and(|code| (exit::DONE..=exit::INCOMPLETE).contains(&code))) {
            self.note(Seen::SalveCrashed);
            self.say(&format!("{what}: ended with {code:?}"));
        }
    }
}

fn end_of(child: &mut Child) -> Result<Option<i32>> {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for salve")? {
            return Ok(status.code());
        }
        if since.elapsed() > 2 * PATIENCE {
            child.kill().context("cannot kill salve")?;
            child.wait().context("cannot wait for salve")?;
            bail!("salve does not end");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A file system in memory with no byte to spare.
#[derive(Debug)]
struct FullDisk {
    directory: TempDir,
}

impl FullDisk {
    fn mount() -> Result<Self> {
        let directory = tree::scratch("full")?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=16k", "salve-full"]).arg(directory.path()).output();
        let mounted = mounted.context("cannot run mount")?;
        ensure!(mounted.status.success(), "cannot mount a tmpfs: {}", String::from_utf8_lossy(&mounted.stderr));
        let disk = Self { directory };
        let mut file = File::create(disk.directory.path().join("filler")).context("cannot fill the disk")?;
        while file.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
        Ok(disk)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _unmounted_by_the_next_boot = Command::new("umount").arg("-l").arg(self.directory.path()).output();
    }
}

/// A control group that limits tasks.
#[derive(Debug)]
struct TaskGroup {
    path: PathBuf,
}

impl TaskGroup {
    fn make() -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let root = pids_hierarchy()?.context("no control groups that count tasks")?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("salve-torture-{}-{number}", std::process::id()));
        if !path.is_dir() {
            std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(Self { path })
    }

    fn command(&self, count: u64, plain: &Command) -> Result<Command> {
        std::fs::write(self.path.join("pids.max"), count.to_string()).context("cannot limit the tasks")?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.path);
        command.arg(plain.get_program()).args(plain.get_args());
        Ok(command)
    }
}

impl Drop for TaskGroup {
    fn drop(&mut self) {
        let _gone_with_the_next_boot = std::fs::remove_dir(&self.path);
    }
}

/// Where groups that count tasks are made: version 1, or 2 where its root hands them on.
fn pids_hierarchy() -> Result<Option<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("no list of mounts")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    for fields in fields {
        let [_, place, kind, options, ..] = fields.as_slice() else { continue };
        let place = Path::new(place);
        let first = *kind == "cgroup" && options.split(',').any(|option| option == "pids");
        let handed_on = || std::fs::read_to_string(place.join("cgroup.subtree_control")).unwrap_or_default();
        let second = *kind == "cgroup2" && {
            let _handed_on_already_or_never = std::fs::write(place.join("cgroup.subtree_control"), "+pids");
            handed_on().split_whitespace().any(|controller| controller == "pids")
        };
        if first || second {
            return Ok(Some(place.to_path_buf()));
        }
    }
    Ok(None)
}
