//! A service to which a livepatch is applied and taken back every few seconds for a long time.
//!
//! The livepatch is derived once, from the two packages; then `salve apply
//! --all` and `salve revert --all` take turns while the clients work. What could
//! creep in is looked at window by window, each of which ends reverted: what its
//! processes hold ([`super::holding`]), latency ([`super::drift`]), lost answers. A
//! time without any change comes first. A control does all the same and changes nothing.

use super::drift::{self, Drift};
use super::holding::{self, Holding, Holdings};
use super::meter::{Meter, Pace, Seen};
use super::operator::{self, Order, Said};
use super::packages::{self, Versions};
use super::reasons::{longest, note_left, planned};
use super::stage::Stage;
use super::surroundings::{load_average, machine, today};
use super::watched::Watched;
use super::{Service, Subject};
use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a window is, at most.
const WINDOW: Duration = Duration::from_secs(60);
/// Windows of a run at least, where they are long enough for a cycle each.
const WINDOWS: u32 = 24;
const PATCH: &str = "/var/tmp/endured.patch";

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub lasts: Duration,
    /// From one apply to the next revert, and from that to the next apply.
    pub every: Duration,
    pub pace: Pace,
    /// Nothing is changed: what grows then is the service's own.
    pub control: bool,
}

/// One window, at whose end the service was reverted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Window {
    pub seen: Seen,
    /// What an echo beside the service took.
    #[serde(default)]
    pub floor: Seen,
    /// Applies in it to every process that ran the old code, each with its revert.
    pub cycles: u32,
    /// Applies to only some of them.
    #[serde(default)]
    pub in_part: u32,
    /// Processes that were changed in them, added up.
    pub applied: u64,
    pub stop_us: u64,
    pub held: Holdings,
}

/// A long run, however it ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endured {
    pub service: String,
    pub title: String,
    pub when: String,
    pub machine: String,
    /// At the beginning, in the middle and at the end.
    pub load_averages: Vec<String>,
    pub gentle: bool,
    pub every_ms: u64,
    /// Nothing was changed in it.
    #[serde(default)]
    pub control: bool,
    pub idle: Seen,
    /// Before the first apply.
    pub before: Holdings,
    /// After the first revert.
    pub first: Holdings,
    pub windows: Vec<Window>,
    /// Processes that were left as they were in some cycle, with the reason.
    pub left: BTreeMap<String, u32>,
    /// Of those, the ones that went on with the old code.
    #[serde(default)]
    pub left_behind: BTreeMap<String, u32>,
    /// What grew though it may not.
    pub leaks: Vec<String>,
    pub requests: u64,
    pub errors: u64,
    pub afterwards: Vec<String>,
}

impl Endured {
    pub fn cycles(&self) -> u32 {
        self.windows.iter().map(|window| window.cycles).sum()
    }

    pub fn in_part(&self) -> u32 {
        self.windows.iter().map(|window| window.in_part).sum()
    }

    pub fn applied(&self) -> u64 {
        self.windows.iter().map(|window| window.applied).sum()
    }

    pub fn longest_stop_us(&self) -> u64 {
        self.windows.iter().map(|window| window.stop_us).max().unwrap_or(0)
    }

    pub fn lasted_s(&self) -> u64 {
        self.windows.iter().map(|window| window.seen.lasted_ms).sum::<u64>() / 1000
    }

    /// The first and the last sixth (of an hour: ten minutes), each as one period.
    pub fn ends(&self) -> (Seen, Seen) {
        let sixth = self.windows.len().div_ceil(6);
        let joined = |windows: &[Window]| Seen::joined(windows.iter().map(|window| &window.seen));
        let from = self.windows.len() - sixth;
        (joined(self.windows.get(..sixth).unwrap_or_default()), joined(self.windows.get(from..).unwrap_or_default()))
    }

    /// What the processes that lived all the time hold together: before the first apply, after the
    /// first revert, in the middle and at the end; and how many they are.
    pub fn held(&self) -> (usize, [Holding; 4]) {
        let windows = || self.windows.iter().map(|window| &window.held);
        let lasting = holding::lasting([&self.before, &self.first].into_iter().chain(windows()));
        let of = |held: Option<&Holdings>| held.map_or_else(Holding::default, |held| holding::sum(held, &lasting));
        let middle = windows().nth(self.windows.len() / 2);
        (lasting.len(), [of(Some(&self.before)), of(Some(&self.first)), of(middle), of(windows().next_back())])
    }

    /// Whether answers grew slower, and not the machine alone.
    pub fn drift(&self) -> Drift {
        drift::judge(&self.windows.iter().map(|window| (&window.seen, &window.floor)).collect::<Vec<_>>())
    }

    pub fn is_clean(&self) -> bool {
        // Who watched nobody has seen no leak.
        self.errors == 0 && self.in_part() == 0 && self.leaks.is_empty() && self.held().0 > 0 && !self.drift().is_real()
    }
}

/// Applies and takes back as long as `plan` says. `Ok(Err(why))` where this machine cannot.
///
/// The first of its subjects that can be healed is taken: its own code, or else a library under it.
pub fn run(service: &dyn Service, plan: Plan, tell: &mut dyn FnMut(&str)) -> Result<Result<Endured, String>> {
    let mut stage = match Stage::set(service, true, plan.pace, tell)? {
        Ok(stage) => stage,
        Err(why) => return Ok(Err(why)),
    };
    let clients = stage.live.clients(&stage.root, &stage.meter)?;
    stage.meter.pass(100)?;
    let chosen = choose(&mut stage, tell)?;
    let (floor, echo) = drift::floor()?;
    let mut endured = Endured {
        service: service.name().to_owned(),
        title: chosen.subject.title.to_owned(),
        when: today()?,
        machine: machine(),
        load_averages: vec![load_average()],
        gentle: plan.pace == Pace::Gentle,
        every_ms: u64::try_from(plan.every.as_millis()).unwrap_or(u64::MAX),
        control: plan.control,
        idle: Seen::default(),
        before: Holdings::new(),
        first: Holdings::new(),
        windows: Vec::new(),
        left: BTreeMap::new(),
        left_behind: BTreeMap::new(),
        leaks: Vec::new(),
        requests: 0,
        errors: 0,
        afterwards: Vec::new(),
    };
    endure(&mut stage, &chosen, plan, &floor, &mut endured, tell)?;
    floor.end();
    echo.join()?;
    stage.live.must_run(&stage.root)?;
    stage.meter.end();
    clients.join()?;
    endured.afterwards = stage.live.afterwards(&stage.root, &stage.meter)?;
    endured.requests = stage.meter.requests();
    endured.errors = stage.meter.errors();
    endured.load_averages.push(load_average());
    Ok(Ok(endured))
}

/// What is applied, and to whom.
struct Chosen {
    subject: Subject,
    accept: Vec<String>,
    watched: Watched,
}

fn choose(stage: &mut Stage, tell: &mut dyn FnMut(&str)) -> Result<Chosen> {
    for (subject, versions) in stage.subjects.clone() {
        let newer: Vec<Versions> = versions.into_iter().filter(Versions::differ).collect();
        // One patch file comes of one package.
        let [one] = newer.as_slice() else { continue };
        let from = packages::download_new(&stage.root, &newer)?;
        let old = packages::installed_from(&stage.root, one)?;
        let Some(judged) = operator::derive(&stage.root, &old, &from.concat(), PATCH)? else {
            tell(&format!("{}: refused", subject.title));
            continue;
        };
        let accept = operator::review_codes(&judged);
        let dry = operator::heal(&stage.root, &Order { from, accept: accept.clone(), dry_run: true })?;
        let watched = stage.watch(&planned(&dry))?;
        ensure!(!watched.processes.is_empty(), "nobody would be healed: {:?} {:?}", dry.treated, dry.left);
        tell(&format!("{}: {} processes", subject.title, watched.processes.len()));
        return Ok(Chosen { subject, accept, watched });
    }
    bail!("nothing of it can be healed")
}

fn endure(
    stage: &mut Stage,
    chosen: &Chosen,
    plan: Plan,
    floor: &Meter,
    endured: &mut Endured,
    tell: &mut dyn FnMut(&str),
) -> Result<()> {
    let watched = &chosen.watched;
    let window = WINDOW.min(plan.lasts / WINDOWS);
    endured.idle = stage.idle(window)?;
    endured.before = holding::of(&watched.processes);
    floor.next_period();
    let began = Instant::now();
    while began.elapsed() < plan.lasts {
        let (window_began, mut cycles, mut in_part, mut applied, mut stop_us) = (Instant::now(), 0, 0, 0, 0);
        while window_began.elapsed() < window {
            if plan.control {
                std::thread::sleep(plan.every);
            } else {
                let said = operator::apply_all(&stage.root, PATCH, &chosen.accept)?;
                let changed = Said::of("applied", &said.treated);
                ensure!(changed > 0, "nothing was applied: {:?} {:?}", said.treated, said.left);
                applied += changed as u64;
                note_left(&mut endured.left, &said);
                if cycles + in_part == 0 {
                    watched.must_have_no_more_writable_code()?;
                }
                std::thread::sleep(plan.every);
                let left_behind = stage.left_behind(&said, &said)?;
                let back = operator::revert_all(&stage.root)?;
                stop_us = stop_us.max(longest(&said.treated)).max(longest(&back.treated));
                if left_behind.is_empty() {
                    cycles += 1;
                } else {
                    in_part += 1;
                    for why in left_behind {
                        *endured.left_behind.entry(why).or_default() += 1;
                    }
                }
            }
            if endured.first.is_empty() {
                endured.first = holding::of(&watched.processes);
            }
            std::thread::sleep(plan.every);
        }
        let windows = endured.windows.len() + 1;
        watched.must_have_their_text().with_context(|| format!("after {windows} windows"))?;
        stage.live.must_run(&stage.root)?;
        let held = holding::of(&watched.processes);
        let window = Window {
            seen: stage.meter.next_period(),
            floor: floor.next_period(),
            cycles,
            in_part,
            applied,
            stop_us,
            held,
        };
        tell(&format!("{} {:3}: {window}", endured.service, endured.windows.len() + 1));
        endured.windows.push(window);
        if began.elapsed() > plan.lasts / 2 && endured.load_averages.len() == 1 {
            endured.load_averages.push(load_average());
        }
    }
    let after_first = (endured.cycles() + endured.in_part()).saturating_sub(1);
    if let Some(last) = endured.windows.last().filter(|_| !plan.control) {
        endured.leaks = holding::leaks(&endured.first, &last.held, after_first);
    }
    Ok(())
}
