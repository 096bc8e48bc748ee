//! `cargo xtask torture`: Salve killed at every moment.
//!
//! First at every call of an apply and of a revert, one after the other, then at random
//! moments, over a process with one thread, one with many, a group of processes and threads in
//! restartable sequences, side by side, so that all are under load; then everything else that
//! may happen to a target, or be missing to Salve. Everything that the victims notice is counted; all has to be zero.

use crate::cargo;
use anyhow::{Context as _, Result, bail, ensure};
use salve_testkit::needs::{self, Need};
use salve_testkit::tools;
use salve_testkit::torture::{Act, Adversity, Bench, Busy, Hardship, Life, Tally, Victim, rounds};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Random moments, in all
    #[arg(long, default_value_t = 1000)]
    rounds: u32,
    /// Kill at every n-th call only; 0 for none [default: 1, and 5 of a group]
    #[arg(long)]
    stride: Option<u64>,
    /// Moments at which the target is killed or executes itself, for each act and life
    #[arg(long, default_value_t = 25)]
    moments: u32,
    /// Where the random moments begin, to have the same ones again
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Beside so many processes that never rest: threads wait for their turns then
    #[arg(long, default_value_t = 0)]
    busy: u32,
    /// Only the victim that lives so: one, many, group or sequences; can be given more than once
    #[arg(long, value_name = "LIFE", value_parser = life)]
    life: Vec<Life>,
    /// Write the table as Markdown
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn life(name: &str) -> Result<Life, String> {
    let found = Life::ALL.into_iter().find(|life| life.argument() == name);
    found.ok_or_else(|| Life::ALL.map(Life::argument).join(", "))
}

/// A column of the table.
type Part = (String, Tally);

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !tools::is_root() {
        bail!("the torture needs root, to trace the processes of others");
    }
    needs::ensure(&[Need::Compiler, Need::RootMaker])?;
    if std::env::var_os("SALVE_BIN_DIR").is_none() {
        cargo::build_programs()?;
    }
    let start = Instant::now();
    let bench = Bench::new()?;
    let _others = Busy::start(arguments.busy)?;
    let mut parts = Vec::new();
    let tasks: [(&str, Task, &[Life]); 3] = [
        ("every call", every_call, &Life::ALL),
        ("random moments", random_moments, &Life::ALL),
        ("adversity", adversities, &Life::ALONE),
    ];
    for (what, task, lives) in tasks {
        let begun = Instant::now();
        let wanted = |life: &Life| arguments.life.is_empty() || arguments.life.contains(life);
        let lives: Vec<Life> = lives.iter().copied().filter(wanted).collect();
        let of_all = side_by_side(&bench, arguments, task, &lives)?;
        println!("{what}: {} s", begun.elapsed().as_secs());
        for (name, tally) in &of_all {
            println!("{name}:\n{tally}");
        }
        parts.extend(of_all);
    }
    let mut all = Tally::default();
    for (_, tally) in &parts {
        all.add(tally);
    }
    let took = start.elapsed();
    println!("all, in {} s:\n{all}", took.as_secs());
    if let Some(file) = &arguments.output {
        std::fs::write(file, page(&parts, &all, took, arguments.busy))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    if all.is_clean() { Ok(()) } else { bail!("the targets noticed something") }
}

/// How often a call that was not reached is tried again.
const TURNS: u32 = 3;

/// One life on its way, told to whoever waits, not oftener than he reads.
struct Progress<'a> {
    life: Life,
    told: Instant,
    /// Another life failed: there is nothing to go on for.
    failed: &'a AtomicBool,
}

impl<'a> Progress<'a> {
    const PAUSE: Duration = Duration::from_secs(10);

    fn of(life: Life, failed: &'a AtomicBool) -> Self {
        Self { life, told: Instant::now(), failed }
    }

    fn tell(&mut self, done: impl FnOnce() -> String) -> Result<()> {
        ensure!(!self.failed.load(Ordering::Relaxed), "{}: another one failed", self.life);
        if self.told.elapsed() >= Self::PAUSE {
            self.told = Instant::now();
            eprintln!("  {}: {}", self.life, done());
        }
        Ok(())
    }
}

type Task = fn(&Bench, &Arguments, Progress<'_>) -> Result<Vec<Part>>;

/// One victim of each life at a time. Where one of them fails, the others come to their end.
fn side_by_side(bench: &Bench, arguments: &Arguments, task: Task, lives: &[Life]) -> Result<Vec<Part>> {
    let failed = AtomicBool::new(false);
    let tried = |life: Life| {
        task(bench, arguments, Progress::of(life, &failed)).inspect_err(|error| {
            if !failed.swap(true, Ordering::Relaxed) {
                eprintln!("{life}: {error:#}");
            }
        })
    };
    std::thread::scope(|scope| {
        let each: Vec<_> = lives.iter().map(|life| scope.spawn(move || tried(*life))).collect();
        let mut parts = Vec::new();
        for handle in each {
            parts.extend(handle.join().unwrap_or_else(|_| bail!("a torturer failed"))?);
        }
        Ok(parts)
    })
}

/// Kills each act at each of its calls; their number is in the name of the column.
fn every_call(bench: &Bench, arguments: &Arguments, mut progress: Progress<'_>) -> Result<Vec<Part>> {
    let life = progress.life;
    let step = arguments.stride.unwrap_or(life.stride());
    if step == 0 {
        return Ok(Vec::new());
    }
    let mut victim = bench.start(life)?;
    let mut tallies = [Tally::default(); 2];
    let (mut last, mut kills) = ([0; 2], [0_u64; 2]);
    let mut at = 1;
    loop {
        let [applies, reverts] = kills;
        progress.tell(|| format!("at call {at}; {applies} applies and {reverts} reverts killed"))?;
        let mut killed = false;
        for round in rounds(at, at + step) {
            let of_act = usize::from(round.act == Act::Revert);
            // How many calls it makes varies; what was not reached once may be at another time.
            for _ in 0..TURNS {
                if victim.kill_at(round)? {
                    killed = true;
                    kills[of_act] += 1;
                    last[of_act] = last[of_act].max(round.at);
                    break;
                }
            }
            tallies[of_act].add(&victim.take_tally());
        }
        if !killed {
            break;
        }
        at += 2 * step;
    }
    let counted = last.into_iter().zip(kills);
    let named = Act::ALL.into_iter().zip(counted).zip(tallies);
    Ok(named
        .map(|((act, (last, n)), tally)| (format!("{act}, {life}: killed at {n} of {last} calls"), tally))
        .collect())
}

fn random_moments(bench: &Bench, arguments: &Arguments, mut progress: Progress<'_>) -> Result<Vec<Part>> {
    let life = progress.life;
    let mut state = arguments.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut victim = bench.start(life)?;
    let whole = Act::ALL.map(|act| victim.duration_of(act));
    let [apply, revert] = whole;
    let (apply, revert) = (micros(apply?), micros(revert?));
    let wanted = u64::from(arguments.rounds).div_ceil(Life::ALL.len() as u64);
    let (mut in_time, mut tries) = (0, 0);
    // A kill that comes too late counts for nothing.
    while in_time < wanted && tries < wanted * 5 {
        progress.tell(|| format!("{in_time} of {wanted} random moments"))?;
        for round in rounds(0, 0) {
            tries += 1;
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let whole = if round.act == Act::Apply { apply } else { revert };
            let delay = Duration::from_micros(state % whole);
            in_time += u64::from(victim.kill_after(round.act, delay, round.next)?);
        }
    }
    Ok(vec![(format!("{in_time} random moments, {life}"), victim.take_tally())])
}

fn micros(whole: Duration) -> u64 {
    u64::try_from(whole.as_micros()).unwrap_or(u64::MAX).max(1000)
}

/// What may happen to the target, and what Salve may have too little of.
fn adversities(bench: &Bench, arguments: &Arguments, mut progress: Progress<'_>) -> Result<Vec<Part>> {
    let life = progress.life;
    let mut victim = bench.start(life)?;
    let whole = victim.duration_of(Act::Apply)?;
    let moments = || (0..arguments.moments).map(|moment| whole * moment / arguments.moments.max(1));
    let mut killed = Tally::default();
    for act in Act::ALL {
        for delay in moments() {
            progress.tell(|| format!("killed {} times", killed.rounds))?;
            killed.add(&bench.start(life)?.killed_during(act, delay)?);
        }
    }
    victim.take_tally();
    for _ in 0..arguments.moments {
        victim.while_stopped_and_continued(Duration::from_micros(700))?;
    }
    let stopped = victim.take_tally();
    for act in Act::ALL {
        for delay in moments() {
            progress.tell(|| format!("it executes itself, {} ms into each {act}", delay.as_millis()))?;
            victim.executes_itself_during(act, delay)?;
        }
    }
    let executed = victim.take_tally();
    let hard = hardships(&mut victim, &mut progress)?;
    Ok([("killed", killed), ("stopped and continued", stopped), ("executes itself", executed), ("hardship", hard)]
        .map(|(name, tally)| (format!("{name}, {life}"), tally))
        .to_vec())
}

fn hardships(victim: &mut Victim<'_>, progress: &mut Progress<'_>) -> Result<Tally> {
    let adversity = Adversity::new()?;
    for hardship in Hardship::all() {
        progress.tell(|| format!("with {hardship}"))?;
        for act in Act::ALL {
            victim.under(&adversity, hardship, act)?;
        }
    }
    Ok(victim.take_tally())
}

const MORE: &str = "\
Killed at N of M calls: how many calls one act makes differs from time to time, for it waits and tries again; M is the
most that was counted before. A kill that would come after the last call of its act is tried three times, and not counted
then: N are the calls at which Salve was killed. Of a group, which makes three times the calls, every fifth is tried unless `--stride` says otherwise.

EINTR of calls that any stop ends: `epoll_wait`, `sigtimedwait` and `semtimedop` are never begun anew by the kernel
(`signal(7)`); a stop by any tracer ends them. Salve mends each as soon as its thread stands (decision 0010), so that
they are seen only where it is killed in between.

A group of processes: three that were forked from one another and share memory, one of them with all the threads. They
change together (decision 0017); killed between two of them, Salve leaves each of them whole, old or new, and the next
command, whichever of them it names, makes all of them one or the other. How often they were of two versions until then
is counted; whether they still are after it counts as half applied.

Restartable sequences (`rseq(2)`): two threads on one processor count in them all the time; one that was stopped inside and
did not begin it anew would lose what the other counted meanwhile, which counts as a wrong answer.

Many threads, and the group: among them are calls without a timeout (`accept`, `wait4`, `waitid`, a futex, `epoll_wait`),
each ended by another thread in its turn; one that nothing wakes any more counts as hung.";

fn page(parts: &[Part], all: &Tally, took: Duration, busy: u32) -> String {
    let mut rows = parts.to_vec();
    rows.push(("all".to_owned(), *all));
    let (columns, seconds) = (Tally::table(&rows), took.as_secs());
    format!(
        "# Harmless when killed: what a full run of the torture counted\n\n\
         Written by `cargo xtask torture --busy {busy} --output docs/torture.md` in {seconds} s; not edited by hand. What it does, and \
         what each line means, is in [the threat model](threat-model.md) and in `crates/testkit/src/torture`.\n\n{MORE}\n\n{columns}"
    )
}
