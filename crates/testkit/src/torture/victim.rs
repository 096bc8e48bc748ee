//! A victim, what it tells, and what is done to it.

use super::{Act, Bench, Life, Round, Seen, Tally};
use crate::observe::{self, Identity, Text};
use crate::running::Running;
use crate::salve::{Run, exit};
use crate::supervisor::{self, Ended};
use crate::tree;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What the victim counts, by its `enum word`.
pub type Words = [u64; 64];

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
/// How often it began, by itself or by executing itself again.
pub(super) const STARTS: usize = 10;
/// By what the other processes of its group answer.
const NOW_OF_CHILDREN: usize = 11;
const BEATS: usize = 16;

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
        // The one that its threads wait for is of another program.
        let is_of_group =
            |child: &Identity| std::fs::read_link(format!("/proc/{}/exe", child.pid)).is_ok_and(|exe| exe == bench.old);
        let children: Vec<Identity> = observe::children_of(process.pid())?.into_iter().filter(is_of_group).collect();
        ensure!(children.len() == life.children(), "a group of another size: {children:?}");
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

    /// Naming any process of a group means the group: each command names the next one.
    fn named(&self) -> u32 {
        let pids = self.pids();
        let turn = self.commands.fetch_add(1, Ordering::Relaxed);
        pids.get(turn % pids.len()).copied().unwrap_or_else(|| self.pid())
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

    /// By what each of its processes answers.
    fn answers(&self) -> Result<Vec<u64>> {
        let words = self.words()?;
        let children = words.iter().skip(NOW_OF_CHILDREN).take(self.children.len());
        Ok(words.iter().skip(NOW).take(1).chain(children).copied().collect())
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

    /// Runs the next command after something happened, and looks at what comes of it.
    pub(super) fn look_on(&mut self, next: Act) -> Result<()> {
        let rounds = self.tally.rounds;
        self.look(next)?;
        self.tally.rounds = rounds;
        Ok(())
    }

    pub(super) fn words(&self) -> Result<Words> {
        let mut words: Words = [0; _];
        let mut bytes = [0; size_of::<Words>()];
        self.shared.read_exact_at(&mut bytes, 0).context("cannot read the shared file")?;
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        Ok(words)
    }

    /// Whether every thread gets round once more.
    fn beats(&self, before: &Words) -> Result<bool> {
        wait_until(|| {
            let now = self.words()?;
            let threads = usize::try_from(now[THREADS]).context("the victim says nonsense")?;
            Ok((BEATS..BEATS + threads).all(|at| now[at] > before[at]))
        })
    }

    /// What the descriptors of each process lead to: the fewest in some looks, because those
    /// of connections come and go. It ends with the first look that finds `enough`.
    fn links(&self, enough: impl Fn(&[Vec<String>]) -> bool) -> Result<Vec<Vec<String>>> {
        let mut fewest = self.pids().into_iter().map(links_of).collect::<Result<Vec<_>>>()?;
        for _ in 0..LOOKS {
            if enough(&fewest) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            for (fewest, pid) in fewest.iter_mut().zip(self.pids()) {
                let now = links_of(pid)?;
                if now.len() < fewest.len() {
                    *fewest = now;
                }
            }
        }
        Ok(fewest)
    }

    pub(super) fn salve(&self, act: Act) -> Command {
        self.bench.salve.command(&self.bench.arguments(act, self.named()))
    }

    /// Runs it to its end.
    pub(super) fn act(&self, act: Act) -> Result<Run> {
        Run::of(self.salve(act).arg("--json"))
    }

    /// Brings it where `act` can be tried from.
    pub(super) fn ready_for(&mut self, act: Act) -> Result<()> {
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

    /// After a death: what the victim tells, and what the next command makes of it.
    pub(super) fn look(&mut self, next: Act) -> Result<()> {
        self.begin_round();
        if self.has_died()? {
            return self.replace(Seen::Dead);
        }
        let mut before = self.words()?;
        if self.life == Life::Group {
            // Every thread has to get round in what the death left.
            if !self.beats(&before)? {
                return self.replace(Seen::Hung);
            }
            let answers = self.answers()?;
            let apart = answers.iter().any(|answer| Some(answer) != answers.first());
            self.tally.note(Seen::Apart, u64::from(apart));
            before = self.words()?;
        }
        self.finish(next)?;
        if self.has_died()? {
            return self.replace(Seen::Dead);
        }
        if !self.beats(&before)? {
            return self.replace(Seen::Hung);
        }
        self.count()?;
        self.compare()
    }

    /// The next command has to bring it to one end.
    fn finish(&mut self, next: Act) -> Result<()> {
        let run = self.act(next)?;
        self.killed = format!("{}, then {}", self.killed, run.asked);
        if run.code != Some(exit::DONE) || !self.becomes(next)? {
            self.note(Seen::HalfApplied);
            self.say(&format!("after the next {next}: {:?} {}{}", run.code, run.stdout, run.stderr));
        }
        self.state = next;
        Ok(())
    }

    /// Whether it comes to answer as it should after an act.
    pub(super) fn becomes(&self, act: Act) -> Result<bool> {
        wait_until(|| Ok(self.answers()?.iter().all(|answer| *answer == act.answer())))
    }

    /// Every thread goes round again, and nothing that it counts is wrong.
    pub(super) fn is_well(&mut self) -> Result<()> {
        self.goes_on()?;
        self.compare()
    }

    /// The same, whatever is left in it.
    pub(super) fn goes_on(&mut self) -> Result<()> {
        if self.has_died()? {
            return self.replace(Seen::Dead);
        }
        let before = self.words()?;
        if !self.beats(&before)? {
            return self.replace(Seen::Hung);
        }
        self.count()
    }

    fn count(&mut self) -> Result<()> {
        let mut now = self.words()?;
        // A signal may just be on its way.
        let missing = |now: &Words, lost| now[SENT].saturating_sub(now[HANDLED].saturating_add(lost));
        let lost = self.lost;
        wait_until(|| {
            now = self.words()?;
            Ok(missing(&now, lost) == 0)
        })?;
        let told = std::mem::replace(&mut self.told, now);
        let counted = [
            (WRONG, Seen::WrongAnswer),
            (MIXED, Seen::LastingMixture),
            (FLOAT, Seen::WrongFloat),
            (INTERRUPTED, Seen::Interrupted),
            (INTERRUPTED_ALWAYS, Seen::InterruptedByTheKernel),
            (BROKEN, Seen::OtherError),
        ];
        for (word, seen) in counted {
            self.tally.note(seen, now[word].saturating_sub(told[word]));
        }
        let lost = missing(&now, self.lost);
        self.tally.note(Seen::LostSignal, lost);
        self.lost += lost;
        if lost > 0 {
            self.say(&format!("{lost} signals lost by round {}", self.tally.rounds));
        }
        for pid in self.pids() {
            ensure!(observe::tracer(pid)? == 0, "somebody still traces {pid}");
        }
        Ok(())
    }

    /// What is left: of descriptors always, of the rest after a revert.
    fn compare(&mut self) -> Result<()> {
        let more_in = |links: &[Vec<String>]| -> usize {
            links.iter().zip(&self.descriptors).map(|(now, before)| now.len().saturating_sub(before.len())).sum()
        };
        let links = self.links(|links| more_in(links) == 0)?;
        let more = more_in(&links);
        self.tally.note(Seen::LeakedDescriptor, u64::try_from(more)?);
        let (mut changes, mut mappings) = (Vec::new(), Vec::new());
        if self.state == Act::Revert {
            for (now, before) in self.texts_now()?.into_iter().zip(&self.texts) {
                // It may have executed itself, and lies elsewhere then.
                let now = if self.starts > 1 { now.moved_like(before) } else { now };
                changes.extend(now.differences_from(before));
            }
            for pid in self.pids() {
                mappings.extend(left_mappings(pid)?);
            }
            self.tally.note(Seen::ChangedText, u64::from(!changes.is_empty()));
            self.tally.note(Seen::LeakedMapping, u64::try_from(mappings.len())?);
        }
        if !changes.is_empty() || more > 0 || !mappings.is_empty() {
            self.say(&format!("after the next {}: {changes:?} {mappings:?} {links:?}", self.state));
        }
        Ok(())
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

/// Looks at descriptors, a millisecond apart: a connection lasts much less.
const LOOKS: u32 = 30;

/// What the descriptors of one process lead to. One that is gone by then leads nowhere.
fn links_of(pid: u32) -> Result<Vec<String>> {
    let mut links = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).context("no descriptors")? {
        if let Ok(link) = std::fs::read_link(entry?.path()) {
            links.push(link.display().to_string());
        }
    }
    links.sort();
    Ok(links)
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
