//! One service from its installation to its last check.
//!
//! The same clients work all the time. First nothing is done to the service for
//! about as long as the rounds will take: what its clients see then is the
//! floor beside which the stalls of the rounds stand. Then it is healed and
//! taken back, round after round, as an operator does it: `salve heal --from`
//! the new package that is held back, `salve revert --all`. That includes
//! deriving, which takes processor time from the service.

use super::meter::{Meter, Pace, Seen};
use super::operator::{self, Cause, Order, Said, Treated};
use super::packages::{self, Versions};
use super::report::{Came, Healed, Refusing, Report, SubjectReport};
use super::{Live, Service, Subject};
use crate::debian::Root;
use crate::observe::{self, Identity, Memory, Text};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So often `heal` is run where it refuses, at most: it derives anew each time.
const REFUSALS: u32 = 3;

/// How long one that was left may take to end by itself.
const MOMENT: Duration = Duration::from_secs(10);

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub rounds: u32,
    /// How long a service works healed, and how long reverted, in each round.
    pub dwell: Duration,
    /// Subjects under the service too, not its own code alone.
    pub under: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 10, dwell: Duration::from_millis(500), under: true }
    }
}

/// Runs it. `Ok(Err(why))` where this machine cannot.
pub fn run(service: &dyn Service, options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Result<Report, String>> {
    let began = Instant::now();
    let mut stage = match Stage::set(service, options.under, Pace::Full, tell)? {
        Ok(stage) => stage,
        Err(why) => return Ok(Err(why)),
    };
    let clients = stage.live.clients(&stage.root, &stage.meter)?;
    stage.meter.pass(100)?;
    let mut subjects = Vec::new();
    for (subject, versions) in stage.subjects.clone() {
        tell(&format!("{}: {}", service.name(), subject.title));
        subjects.push(stage.subject(&subject, &versions, options).with_context(|| subject.title.to_owned())?);
    }
    if !subjects.iter().any(|subject| matches!(subject.came_to, Came::Healed(_))) {
        stage.unhealed(options).context("with nothing healed")?;
    }
    stage.live.must_run(&stage.root)?;
    stage.meter.end();
    clients.join()?;
    let afterwards = stage.live.afterwards(&stage.root, &stage.meter)?;
    Ok(Ok(Report {
        service: service.name().to_owned(),
        load: service.load().to_owned(),
        when: today()?,
        machine: machine(),
        subjects,
        requests: stage.meter.requests(),
        errors: stage.meter.errors(),
        afterwards,
        took_s: began.elapsed().as_secs(),
    }))
}

/// A service that runs in a root of its own.
pub(super) struct Stage {
    pub(super) live: Box<dyn Live>,
    pub(super) meter: Arc<Meter>,
    pub(super) subjects: Vec<(Subject, Vec<Versions>)>,
    pub(super) root: Root,
}

impl Stage {
    /// Installs the old versions and starts it.
    pub(super) fn set(
        service: &dyn Service,
        under: bool,
        pace: Pace,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Result<Self, String>> {
        tell(&format!("{}: a throw-away Debian root with the old packages", service.name()));
        let root = match Root::new()? {
            Ok(root) => root,
            Err(why) => return Ok(Err(why)),
        };
        let mut words: Vec<String> = service.also().iter().map(|&package| package.to_owned()).collect();
        let mut subjects = Vec::new();
        for subject in service.subjects().iter().filter(|subject| subject.own || under) {
            let of_all: Vec<Versions> =
                subject.packages.iter().map(|package| packages::versions(&root, package)).collect::<Result<_>>()?;
            words.extend(of_all.iter().map(|v| format!("{}={}", v.package, v.old)));
            subjects.push((*subject, of_all));
        }
        for package in service.old_as_well() {
            let Versions { package, old, .. } = packages::versions(&root, package)?;
            words.push(format!("{package}={old}"));
        }
        packages::install(&root, &words)?;
        tell(&format!("{}: starting it", service.name()));
        let live = service.start(&root)?;
        Ok(Ok(Self { live, meter: Meter::new(pace), subjects, root }))
    }

    fn subject(&mut self, subject: &Subject, versions: &[Versions], options: &Options) -> Result<SubjectReport> {
        let mut report = SubjectReport {
            title: subject.title.to_owned(),
            own: subject.own,
            versions: versions.to_vec(),
            judged: Vec::new(),
            accepted: Vec::new(),
            came_to: Came::OneVersion,
            not_applied: Vec::new(),
            refusing: None,
            foreseen: Vec::new(),
            said: String::new(),
        };
        let newer: Vec<Versions> = versions.iter().filter(|versions| versions.differ()).cloned().collect();
        if newer.is_empty() {
            return Ok(report);
        }
        let (order, dry, people) = self.order(&newer)?;
        report.judged.clone_from(&dry.judged);
        report.accepted.clone_from(&order.accept);
        report.said = people;
        report.came_to = match planned(&dry) {
            planned if planned.is_empty() => {
                if matches!(report.verdict(), "safe" | "review") {
                    report.foreseen = not_applied(&dry);
                }
                report.refusing = Some(Box::new(self.refusing(&order, &dry, options)?));
                nothing(&dry)
            }
            planned => match self.rounds(&order, &dry, &planned, options)? {
                Ok(healed) => Came::Healed(Box::new(healed)),
                Err(said) => {
                    report.not_applied = not_applied(&said);
                    nothing(&said)
                }
            },
        };
        Ok(report)
    }

    /// What to hand to `heal`, with the reviews accepted, what a dry run of it
    /// comes to, and what it says to a person.
    pub(super) fn order(&self, newer: &[Versions]) -> Result<(Order, Said, String)> {
        let mut order = Order { from: packages::download_new(&self.root, newer)?, dry_run: true, ..Order::default() };
        let people = operator::heal_for_people(&self.root, &order)?.stdout;
        let mut dry = operator::heal(&self.root, &order)?;
        order.accept = dry.review_codes();
        if !order.accept.is_empty() {
            dry = operator::heal(&self.root, &order)?;
        }
        order.dry_run = false;
        Ok((order, dry, people))
    }

    /// `Ok(Err(said))` where nothing could be applied to any of the processes for which it was planned.
    fn rounds(
        &mut self,
        order: &Order,
        dry: &Said,
        planned: &[Treated],
        options: &Options,
    ) -> Result<Result<Healed, Said>> {
        let watched = self.watch(planned)?;
        let before: Vec<Option<Text>> = watched.iter().map(|one| Text::of(one.pid).ok()).collect();
        let writable_before = writable_code(&watched);
        let memory_before: Vec<Memory> = watched.iter().map(memory_of).collect();
        let idle = self.idle(options.rounds * (options.dwell * 2 + Duration::from_millis(dry.took_ms)))?;
        let mut healed = Healed {
            rounds: 0,
            in_part: 0,
            processes: planned.len(),
            threads: watched.iter().filter_map(|one| observe::threads(one.pid).ok()).max().unwrap_or(0),
            idle,
            healing: Seen::default(),
            stop_heal_us: 0,
            stop_revert_us: 0,
            heal_took_ms: 0,
            copied_bytes: 0,
            payload_bytes: 0,
            mappings: [0; 2],
            descriptors: [0; 2],
            left: BTreeMap::new(),
            left_behind: BTreeMap::new(),
            status: String::new(),
        };
        for round in 0..options.rounds {
            let said = self.heal_once(order, &mut healed).with_context(|| format!("round {round}"))?;
            if Said::of("applied", &said.treated) == 0 {
                ensure!(round == 0, "round {round}: nothing was applied: {:?} {:?}", said.treated, said.left);
                return Ok(Err(said));
            }
            no_more_writable_code(&watched, &writable_before)?;
            let left_behind = self.left_behind(dry, &said)?;
            if left_behind.is_empty() {
                healed.rounds += 1;
            } else {
                healed.in_part += 1;
                for why in left_behind {
                    *healed.left_behind.entry(why).or_default() += 1;
                }
            }
            if round + 1 == options.rounds {
                for (one, before) in watched.iter().zip(&memory_before).filter(|(one, _)| lives(one)) {
                    let now = memory_of(one);
                    healed.copied_bytes += now.copied_bytes.saturating_sub(before.copied_bytes);
                    healed.payload_bytes += now.shareable_bytes.saturating_sub(before.shareable_bytes);
                }
                healed.status = self.root.run(&["salve", "status"])?.stdout;
            }
            std::thread::sleep(options.dwell);
            self.live.meanwhile(&self.root, round)?;
            self.live.must_run(&self.root)?;
            let back = operator::revert_all(&self.root).with_context(|| format!("round {round}"))?;
            healed.stop_revert_us = healed.stop_revert_us.max(longest(&back.treated));
            same_text(&watched, &before).with_context(|| format!("after the revert of round {round}"))?;
            std::thread::sleep(options.dwell);
            let (mappings, descriptors) = held(&watched);
            if round == 0 {
                (healed.mappings[0], healed.descriptors[0]) = (mappings, descriptors);
            }
            (healed.mappings[1], healed.descriptors[1]) = (mappings, descriptors);
        }
        healed.healing = self.meter.next_period();
        Ok(Ok(healed))
    }

    fn heal_once(&self, order: &Order, healed: &mut Healed) -> Result<Said> {
        let said = operator::heal(&self.root, order)?;
        healed.stop_heal_us = healed.stop_heal_us.max(longest(&said.treated));
        healed.heal_took_ms = healed.heal_took_ms.max(said.took_ms);
        note_left(&mut healed.left, &said);
        Ok(said)
    }

    /// `heal` is run as often as it would be, and does nothing: what clients see of that, beside an idle time as long.
    fn refusing(&mut self, order: &Order, dry: &Said, options: &Options) -> Result<Refusing> {
        let watched = self.watch(&dry.treated)?;
        let before: Vec<Option<Text>> = watched.iter().map(|one| Text::of(one.pid).ok()).collect();
        let tries = options.rounds.div_ceil(3).min(REFUSALS);
        let idle = self.idle(tries * (options.dwell + Duration::from_millis(dry.took_ms)))?;
        let mut took_ms = 0;
        for _ in 0..tries {
            let said = operator::heal(&self.root, order)?;
            let changed = Said::of("applied", &said.treated);
            ensure!(changed == 0, "a dry run refused it, and {changed} processes were changed: {:?}", said.treated);
            took_ms = took_ms.max(said.took_ms);
            std::thread::sleep(options.dwell);
        }
        let refusing = self.meter.next_period();
        same_text(&watched, &before).context("after a heal that refused")?;
        Ok(Refusing { tries, processes: watched.len(), idle, refusing, took_ms })
    }

    /// Who goes on with the old code after a heal, each with the reason: then it was healed in part only.
    ///
    /// Who was left and ends by itself in a moment (a child of sshd's that only logs somebody in) runs nothing any more.
    pub(super) fn left_behind(&self, dry: &Said, said: &Said) -> Result<Vec<String>> {
        let since = Instant::now();
        loop {
            let alive = self.root.processes()?.into_iter().map(|(_, inside)| inside).collect();
            let left = still_old(dry, said, &alive);
            if left.is_empty() || since.elapsed() > MOMENT {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What an operator does meanwhile is done to a service of which nothing could be healed as well.
    fn unhealed(&mut self, options: &Options) -> Result<()> {
        for round in 0..options.rounds.min(3) {
            std::thread::sleep(options.dwell);
            self.live.meanwhile(&self.root, round)?;
            self.live.must_run(&self.root)?;
        }
        Ok(())
    }

    /// Nothing is done to the service for this long.
    pub(super) fn idle(&self, long: Duration) -> Result<Seen> {
        let _whatever_was_before = self.meter.next_period();
        std::thread::sleep(long.clamp(Duration::from_secs(2), Duration::from_secs(60)));
        let idle = self.meter.next_period();
        ensure!(idle.requests > 0, "no request was answered while nothing was done");
        Ok(idle)
    }

    /// The processes that a dry run would change, by their ids on the machine.
    pub(super) fn watch(&self, planned: &[Treated]) -> Result<Vec<Identity>> {
        let wanted: BTreeSet<u32> = planned.iter().map(|one| one.pid).collect();
        let inside = self.root.processes()?;
        Ok(inside
            .iter()
            .filter(|(_, inside)| wanted.contains(inside))
            .filter_map(|(pid, _)| observe::identity(*pid).ok())
            .collect())
    }
}

/// The processes that would be patched, each once.
pub(super) fn planned(dry: &Said) -> Vec<Treated> {
    let mut seen = BTreeSet::new();
    dry.treated.iter().filter(|one| one.outcome == "planned" && seen.insert(one.pid)).cloned().collect()
}

/// Why a dry run would patch nothing.
fn nothing(dry: &Said) -> Came {
    if !dry.treated.is_empty() && dry.treated.iter().all(|one| one.outcome == "unchanged") {
        return Came::Unchanged;
    }
    let mut programs: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for one in dry.treated.iter().filter(|one| one.outcome != "unchanged") {
        programs.entry(cause(one)).or_default().insert(&one.program);
    }
    let of_many = programs.iter().map(|(why, programs)| {
        let first: Vec<&str> = programs.iter().copied().take(3).collect();
        let more = programs.len() - first.len();
        let more = if more == 0 { String::new() } else { format!(" and {more} more programs") };
        format!("{}{more}: {why}", first.join(", "))
    });
    Came::Refused(of_many.chain(dry.left.iter().cloned()).collect())
}

/// What stood in the way in the processes themselves, though the verdict allowed it.
fn not_applied(said: &Said) -> Vec<Cause> {
    let mut causes: BTreeMap<&str, Cause> = BTreeMap::new();
    for one in &said.treated {
        let Some(code) = &one.code else { continue };
        let cause = causes.entry(code).or_insert_with(|| Cause {
            code: code.clone(),
            verdict: "refused".to_owned(),
            summary: "in the process: what the verdict allowed could not be applied".to_owned(),
            seen: one.why.clone(),
            times: 0,
        });
        cause.times += 1;
    }
    causes.into_values().collect()
}

/// Whether this one does not run the old code after a heal or an apply.
fn is_changed(one: &Treated) -> bool {
    matches!(one.outcome.as_str(), "applied" | "already-applied" | "unchanged" | "gone")
}

/// Why those of the `alive` run the old code that a heal or an apply was to change; and what it left that a dry run did not.
fn still_old(dry: &Said, said: &Said, alive: &BTreeSet<u32>) -> Vec<String> {
    let of_processes = said.treated.iter().filter(|one| !is_changed(one) && alive.contains(&one.pid)).map(reason);
    of_processes.chain(said.left.iter().filter(|why| !dry.left.contains(why)).cloned()).collect()
}

/// Counts whom a heal or an apply left as it was, by reason.
pub(super) fn note_left(left: &mut BTreeMap<String, u32>, said: &Said) {
    for one in said.treated.iter().filter(|one| !is_changed(one)) {
        *left.entry(reason(one)).or_default() += 1;
    }
    for why in &said.left {
        *left.entry(why.clone()).or_default() += 1;
    }
}

fn reason(one: &Treated) -> String {
    format!("{}: {}", one.program, cause(one))
}

fn cause(one: &Treated) -> String {
    let why = one.why.as_deref().unwrap_or("no reason given");
    match &one.code {
        Some(code) => format!("{} [{code}] {why}", one.outcome),
        None => format!("{} {why}", one.outcome),
    }
}

pub(super) fn longest(treated: &[Treated]) -> u64 {
    treated.iter().filter_map(|one| one.stopped_us).max().unwrap_or(0)
}

pub(super) fn lives(one: &Identity) -> bool {
    observe::identity(one.pid).is_ok_and(|now| now == *one)
}

/// Those that live on have the text they had. Who ended, or executed another program, has none to compare.
pub(super) fn same_text(watched: &[Identity], before: &[Option<Text>]) -> Result<()> {
    for (one, before) in watched.iter().zip(before) {
        let (Some(before), Ok(now)) = (before, Text::of(one.pid)) else { continue };
        if now.is_of_another_program(before) {
            continue;
        }
        let changes = now.changes_to(before);
        if !changes.is_empty() && lives(one) {
            bail!("the text of process {} is not what it was: {}", one.pid, changes.join("; "));
        }
    }
    Ok(())
}

/// How many mappings of each process are writable and executable: only a service that translates has some.
pub(super) fn writable_code(watched: &[Identity]) -> Vec<usize> {
    watched.iter().map(|one| observe::writable_and_executable(one.pid).map_or(0, |both| both.len())).collect()
}

/// None came to those that were there.
pub(super) fn no_more_writable_code(watched: &[Identity], before: &[usize]) -> Result<()> {
    for (one, before) in watched.iter().zip(before) {
        let both = observe::writable_and_executable(one.pid).unwrap_or_default();
        ensure!(
            both.len() <= *before,
            "process {} has memory that is writable and executable: {}",
            one.pid,
            both.join(", ")
        );
    }
    Ok(())
}

/// Nothing for a process that ended.
pub(super) fn memory_of(one: &Identity) -> Memory {
    observe::memory(one.pid).unwrap_or(Memory { copied_bytes: 0, shareable_bytes: 0, private_bytes: 0 })
}

/// Mappings and descriptors of all of them that live.
pub(super) fn held(watched: &[Identity]) -> (usize, usize) {
    let count = |path: String| std::fs::read_dir(path).map_or(0, Iterator::count);
    watched.iter().filter(|one| lives(one)).fold((0, 0), |(mappings, descriptors), one| {
        (mappings + count(format!("/proc/{}/map_files", one.pid)), descriptors + count(format!("/proc/{}/fd", one.pid)))
    })
}

pub(super) fn today() -> Result<String> {
    let date = std::process::Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output().context("no date")?;
    Ok(String::from_utf8_lossy(&date.stdout).trim().to_owned())
}

pub(super) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or(": unknown processor");
    let count = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{} × {count}, Linux {}",
        model.trim_start_matches([' ', '\t', ':']),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn treated(pid: u32, outcome: &str) -> Treated {
        Treated {
            pid,
            program: "/usr/sbin/x".into(),
            outcome: outcome.into(),
            code: None,
            why: Some("thread 8 is in parse".into()),
            stopped_us: None,
            memory_added_bytes: 0,
            threads: 1,
        }
    }

    fn said(treated: Vec<Treated>, left: &[&str]) -> Said {
        let left = left.iter().map(|why| (*why).to_owned()).collect();
        Said { code: Some(0), judged: Vec::new(), treated, left, took_ms: 1 }
    }

    #[test]
    fn a_round_in_which_one_process_of_many_was_left_is_no_healed_round() {
        let dry = said(Vec::new(), &["/usr/bin/y [unknown-direction] no history"]);
        let alive: BTreeSet<u32> = [7, 8, 9].into();
        let all = said(vec![treated(7, "applied"), treated(8, "already-applied"), treated(9, "unchanged")], &[]);
        assert_eq!(still_old(&dry, &all, &alive), Vec::<String>::new());
        let most = said(vec![treated(7, "applied"), treated(8, "deferred"), treated(9, "applied")], &[]);
        assert_eq!(still_old(&dry, &most, &alive), ["/usr/sbin/x: deferred thread 8 is in parse"]);
        assert!(still_old(&dry, &most, &[7, 9].into()).is_empty(), "it ended, and runs nothing any more");
        for outcome in ["not-applied", "rolled-back", "indeterminate", "interrupted", "a word of tomorrow"] {
            assert_eq!(still_old(&dry, &said(vec![treated(7, outcome)], &[]), &alive).len(), 1, "{outcome}");
        }
        // What the dry run left as well was never to be healed; what is new was.
        assert!(still_old(&dry, &said(Vec::new(), &["/usr/bin/y [unknown-direction] no history"]), &alive).is_empty());
        assert_eq!(still_old(&dry, &said(Vec::new(), &["/usr/sbin/x [unreadable] no descriptor"]), &alive).len(), 1);
    }
}
