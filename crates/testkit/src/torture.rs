//! Salve killed at every moment, and what a process notices of it.
//!
//! The victim (`victims/torture.c`) checks itself: answers, mixtures of old and new
//! functions, floating point, queued signals, calls that end with `EINTR`. From outside it
//! is looked at for what was left: text, mappings, descriptors. After each kill the next
//! command has to find what was half done and finish or undo it.

use crate::observe::{self, Text};
use crate::patchfile::{self, Derived};
use crate::running::Running;
use crate::salve::{Run, Salve, exit};
use crate::supervisor::{self, Ended};
use crate::tree;
use crate::victim::{Kind, Source};
use anyhow::{Context as _, Result, bail, ensure};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How a victim spends its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    OneThread,
    /// Workers, threads asleep in every kind of call, threads that come and go.
    ManyThreads,
}

impl Life {
    pub const ALL: [Self; 2] = [Self::OneThread, Self::ManyThreads];

    const fn argument(self) -> &'static str {
        match self {
            Self::OneThread => "one",
            Self::ManyThreads => "many",
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneThread => "one thread",
            Self::ManyThreads => "many threads",
        })
    }
}

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Apply,
    Revert,
}

impl Act {
    pub const ALL: [Self; 2] = [Self::Apply, Self::Revert];

    const fn other(self) -> Self {
        match self {
            Self::Apply => Self::Revert,
            Self::Revert => Self::Apply,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apply => "apply",
            Self::Revert => "revert",
        })
    }
}

/// What was counted. All but the kills and what the kernel does have to be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub kills: u64,
    pub dead: u64,
    pub hung: u64,
    pub wrong_answers: u64,
    pub lasting_mixtures: u64,
    pub wrong_floats: u64,
    pub lost_signals: u64,
    /// Of calls that the kernel repeats when a stop has no signal.
    pub interrupted: u64,
    /// Of `epoll_wait`, `sigtimedwait` and `semtimedop`, which the kernel itself ends at any
    /// stop: seen only where Salve dies before it could mend that. Not an error.
    pub interrupted_by_the_kernel: u64,
    pub other_errors: u64,
    /// The next command did not make it whole, or could not.
    pub half_applied: u64,
    pub leaked_descriptors: u64,
    pub leaked_mappings: u64,
    pub changed_text: u64,
}

impl Tally {
    fn rows(&self) -> [(&'static str, u64); 14] {
        [
            ("kills", self.kills),
            ("targets dead", self.dead),
            ("targets hung", self.hung),
            ("wrong answers", self.wrong_answers),
            ("lasting mixtures", self.lasting_mixtures),
            ("wrong floating point results", self.wrong_floats),
            ("lost signals", self.lost_signals),
            ("spurious EINTR", self.interrupted),
            ("EINTR of calls that any stop ends", self.interrupted_by_the_kernel),
            ("other errors of calls", self.other_errors),
            ("half applied after the next command", self.half_applied),
            ("descriptors left after it", self.leaked_descriptors),
            ("mappings left after it", self.leaked_mappings),
            ("text changed after a revert", self.changed_text),
        ]
    }

    /// Whether nothing went wrong.
    pub fn is_clean(&self) -> bool {
        let expected =
            Self { kills: self.kills, interrupted_by_the_kernel: self.interrupted_by_the_kernel, ..Self::default() };
        *self == expected
    }

    pub fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.dead += other.dead;
        self.hung += other.hung;
        self.wrong_answers += other.wrong_answers;
        self.lasting_mixtures += other.lasting_mixtures;
        self.wrong_floats += other.wrong_floats;
        self.lost_signals += other.lost_signals;
        self.interrupted += other.interrupted;
        self.interrupted_by_the_kernel += other.interrupted_by_the_kernel;
        self.other_errors += other.other_errors;
        self.half_applied += other.half_applied;
        self.leaked_descriptors += other.leaked_descriptors;
        self.leaked_mappings += other.leaked_mappings;
        self.changed_text += other.changed_text;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows().iter().try_for_each(|(what, count)| writeln!(f, "{count:>8}  {what}"))
    }
}

const WRONG: usize = 0;
const MIXED: usize = 1;
const FLOAT: usize = 2;
const SENT: usize = 3;
const HANDLED: usize = 4;
const INTERRUPTED: usize = 5;
const INTERRUPTED_ALWAYS: usize = 6;
const BROKEN: usize = 7;
const NOW: usize = 8;
const THREADS: usize = 9;
const BEATS: usize = 16;
const WORDS: usize = 64;

/// How long a healthy victim needs at most for each thread to get round once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Both versions of the program, the patch between them, and a Salve to be killed.
#[derive(Debug)]
pub struct Bench {
    salve: Salve,
    old: PathBuf,
    derived: Derived,
    _directory: TempDir,
}

impl Bench {
    pub fn new() -> Result<Self> {
        let directory = tree::scratch("torture")?;
        let salve = Salve::built()?.events_to(&directory.path().join("events.jsonl"));
        let source = Source::named("torture.c")?;
        let [old, new] = ["torture", "torture-new"].map(|name| directory.path().join(name));
        source.compile(Kind::Program, false, &old, &[])?;
        source.compile(Kind::Program, true, &new, &[])?;
        let derived = patchfile::derive(&salve, &old, &new)?;
        ensure!(derived.run.code == Some(exit::DONE), "{}{}", derived.run.stdout, derived.run.stderr);
        Ok(Self { salve, old, derived, _directory: directory })
    }

    fn arguments(&self, act: Act, pid: u32) -> Vec<OsString> {
        let pid = pid.to_string();
        let mut words: Vec<OsString> = match act {
            Act::Apply => vec!["apply".into(), "--accept".into(), "direction-unknown".into()],
            Act::Revert => vec!["revert".into()],
        };
        words.extend(["--pid".into(), pid.into(), "--wait".into(), "30s".into()]);
        if act == Act::Apply {
            words.push(self.derived.file.clone().into_os_string());
        }
        words
    }

    pub fn start(&self, life: Life) -> Result<Victim<'_>> {
        Victim::start(self, life)
    }
}

/// A victim, and what it has told so far.
#[derive(Debug)]
pub struct Victim<'a> {
    bench: &'a Bench,
    life: Life,
    process: Running,
    shared: File,
    text: Text,
    descriptors: Vec<String>,
    told: [u64; WORDS],
    pub tally: Tally,
    _directory: TempDir,
}

impl<'a> Victim<'a> {
    fn start(bench: &'a Bench, life: Life) -> Result<Self> {
        let directory = tree::scratch("torture")?;
        let path = directory.path().join("shared");
        std::fs::write(&path, vec![0; 4096]).context("cannot write the shared file")?;
        let shared = File::options().read(true).open(&path).context("cannot open the shared file")?;
        let mut command = Command::new(&bench.old);
        command.arg(&path).arg(life.argument());
        let mut process = Running::start(&mut command, directory.path().join("output"))?;
        process.wait_for_line("ready")?;
        let text = Text::of(process.pid())?;
        let mut victim = Self {
            bench,
            life,
            process,
            shared,
            text,
            descriptors: Vec::new(),
            told: [0; WORDS],
            tally: Tally::default(),
            _directory: directory,
        };
        let before = victim.words()?;
        ensure!(victim.beats(&before)?, "the victim does not run by itself");
        // By now every thread has opened what it opens.
        victim.descriptors = victim.links()?;
        Ok(victim)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn words(&self) -> Result<[u64; WORDS]> {
        let mut bytes = [0; WORDS * 8];
        self.shared.read_exact_at(&mut bytes, 0).context("cannot read the shared file")?;
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        Ok(words)
    }

    /// Whether every thread gets round once more.
    fn beats(&self, before: &[u64; WORDS]) -> Result<bool> {
        let since = Instant::now();
        loop {
            let now = self.words()?;
            let threads = usize::try_from(now[THREADS]).context("the victim says nonsense")?;
            if (BEATS..BEATS + threads).all(|at| now[at] > before[at]) {
                return Ok(true);
            }
            if since.elapsed() > PATIENCE {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn links(&self) -> Result<Vec<String>> {
        let mut links = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{}/fd", self.pid())).context("no descriptors")? {
            links.push(std::fs::read_link(entry?.path()).context("no link")?.display().to_string());
        }
        links.sort();
        Ok(links)
    }

    fn command(&self, act: Act) -> Result<Run> {
        self.bench.salve.json(&self.bench.arguments(act, self.pid()))
    }

    /// Brings it where `act` is to be tried from.
    fn ready_for(&self, act: Act) -> Result<()> {
        let run = self.command(act.other())?;
        ensure!(run.code == Some(exit::DONE), "{} ended with {:?}: {}{}", run.asked, run.code, run.stdout, run.stderr);
        Ok(())
    }

    /// Kills Salve at its `at`-th call of `act`; `false` if it came to its end before.
    pub fn kill_at(&mut self, act: Act, at: u64) -> Result<bool> {
        self.ready_for(act)?;
        let arguments = self.bench.arguments(act, self.pid());
        let ended = supervisor::run(&self.bench.salve.command(&arguments), at)?;
        match ended {
            Ended::Killed => self.look(self.next(act)).map(|()| true),
            Ended::By { itself: Some(exit::DONE), .. } => Ok(false),
            Ended::By { itself, .. } => bail!("{act} ended by itself with {itself:?}"),
        }
    }

    /// Kills Salve after some time; whether it was still at work then.
    pub fn kill_after(&mut self, act: Act, delay: Duration) -> Result<bool> {
        self.ready_for(act)?;
        let arguments = self.bench.arguments(act, self.pid());
        let mut command = self.bench.salve.command(&arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start salve")?;
        std::thread::sleep(delay);
        let late = child.try_wait().context("cannot wait for salve")?.is_some();
        child.kill().context("cannot kill salve")?;
        child.wait().context("cannot wait for salve")?;
        self.look(self.next(act))?;
        Ok(!late)
    }

    /// An apply and a revert while somebody stops and continues the process, so often.
    pub fn while_stopped_and_continued(&mut self, pause: Duration) -> Result<()> {
        let over = std::sync::atomic::AtomicBool::new(false);
        let order = std::sync::atomic::Ordering::Relaxed;
        std::thread::scope(|scope| {
            let meddler = scope.spawn(|| -> Result<()> {
                while !over.load(order) {
                    for signal in [rustix::process::Signal::STOP, rustix::process::Signal::CONT] {
                        self.process.signal(signal)?;
                        std::thread::sleep(pause);
                    }
                }
                Ok(())
            });
            let acts =
                [Act::Apply, Act::Revert].map(|act| self.command(act).and_then(|run| run.expect_code(exit::DONE)));
            over.store(true, order);
            meddler.join().unwrap_or_else(|_| bail!("the meddler failed"))?;
            acts.into_iter().try_for_each(|act| act.map(drop))
        })?;
        self.tally.kills += 1;
        let before = self.words()?;
        if !self.beats(&before)? {
            self.tally.hung += 1;
        }
        self.count()
    }

    /// The process is killed some time into `act`; Salve has to notice and to say so.
    pub fn killed_during(self, act: Act, delay: Duration) -> Result<()> {
        let arguments = self.bench.arguments(act, self.pid());
        let mut command = self.bench.salve.command(&arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start salve")?;
        std::thread::sleep(delay);
        self.process.signal(rustix::process::Signal::KILL)?;
        let since = Instant::now();
        loop {
            if let Some(status) = child.try_wait().context("cannot wait for salve")? {
                // Done, refused, incomplete or failed: all but a crash.
                ensure!(status.code().is_some(), "salve was ended by a signal: {status}");
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                child.kill().context("cannot kill salve")?;
                child.wait().context("cannot wait for salve")?;
                bail!("salve waits for a process that is gone");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// How long a run that nobody kills takes.
    pub fn duration_of(&self, act: Act) -> Result<Duration> {
        self.ready_for(act)?;
        let start = Instant::now();
        self.command(act)?.expect_code(exit::DONE)?;
        Ok(start.elapsed())
    }

    /// The command after a death: the same again and its opposite, in turns.
    fn next(&self, act: Act) -> Act {
        if self.tally.kills.is_multiple_of(2) { act } else { act.other() }
    }

    /// After a death: what the victim tells, what the next command makes of it, and what
    /// is left when all has been taken back.
    fn look(&mut self, next: Act) -> Result<()> {
        self.tally.kills += 1;
        if self.process.ended()?.is_some() {
            self.tally.dead += 1;
            return self.replace();
        }
        let before = self.words()?;
        for act in [next, Act::Revert] {
            let run = self.command(act)?;
            let now = if act == Act::Apply { 2 } else { 1 };
            if run.code != Some(exit::DONE) || !self.becomes(now)? {
                self.tally.half_applied += 1;
                self.say(&format!("after the next {act}: {:?} {}{}", run.code, run.stdout, run.stderr));
            }
        }
        if self.process.ended()?.is_some() {
            self.tally.dead += 1;
            return self.replace();
        }
        if !self.beats(&before)? {
            self.tally.hung += 1;
            return self.replace();
        }
        self.count()
    }

    /// Whether it answers as the old code does (1), or the new (2).
    fn becomes(&self, answer: u64) -> Result<bool> {
        let since = Instant::now();
        while self.words()?[NOW] != answer {
            if since.elapsed() > PATIENCE {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(true)
    }

    fn count(&mut self) -> Result<()> {
        let since = Instant::now();
        let mut now = self.words()?;
        // A signal may just be on its way.
        while now[SENT] > now[HANDLED] && since.elapsed() < PATIENCE {
            now = self.words()?;
        }
        let told = std::mem::replace(&mut self.told, now);
        let more = |word: usize| now[word].saturating_sub(told[word]);
        self.tally.wrong_answers += more(WRONG);
        self.tally.lasting_mixtures += more(MIXED);
        self.tally.wrong_floats += more(FLOAT);
        self.tally.interrupted += more(INTERRUPTED);
        self.tally.interrupted_by_the_kernel += more(INTERRUPTED_ALWAYS);
        self.tally.other_errors += more(BROKEN);
        self.tally.lost_signals += now[SENT].saturating_sub(now[HANDLED]);
        let changes = Text::of(self.pid())?.differences_from(&self.text);
        self.tally.changed_text += u64::from(!changes.is_empty());
        let links = self.links()?;
        self.tally.leaked_descriptors += u64::try_from(links.len().saturating_sub(self.descriptors.len()))?;
        let mappings = left_mappings(self.pid())?;
        self.tally.leaked_mappings += u64::try_from(mappings.len())?;
        if !changes.is_empty() || links.len() != self.descriptors.len() || !mappings.is_empty() {
            self.say(&format!("{changes:?} {mappings:?} {links:?}"));
        }
        ensure!(observe::tracer(self.pid())? == 0, "somebody still traces the victim");
        Ok(())
    }

    #[expect(clippy::print_stderr, reason = "a person looks for the reason")]
    fn say(&self, what: &str) {
        eprintln!("{} (pid {}): {what}", self.life, self.pid());
    }

    /// Another victim in the place of one that was lost; the tally goes on.
    fn replace(&mut self) -> Result<()> {
        self.say(&format!("lost: {}", self.process.output()?));
        let tally = self.tally;
        *self = Self::start(self.bench, self.life)?;
        self.tally = tally;
        Ok(())
    }
}

/// Mappings that only Salve makes.
fn left_mappings(pid: u32) -> Result<Vec<String>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).context("no maps")?;
    // Payloads and gates by name, workshops by the addresses that nothing else uses.
    let workshops = 0x2a5a_0000_0000..0x2b5a_0000_0000_u64;
    let ours = |line: &&str| {
        let start = line.split('-').next().and_then(|start| u64::from_str_radix(start, 16).ok());
        line.contains("/memfd:salve") || start.is_some_and(|start| workshops.contains(&start))
    };
    Ok(maps.lines().filter(ours).map(str::to_owned).collect())
}
