//! A service that is healed and reverted every few seconds for a long time.
//!
//! What could creep in is looked at window by window: mappings, descriptors and
//! memory of its processes while they are reverted, latency, lost answers. The
//! first window without any change is the floor; a drift shows between the
//! windows themselves.

use super::meter::Seen;
use super::operator::{self, Said};
use super::packages::Versions;
use super::run::{self, Stage};
use super::{Service, Subject};
use crate::observe::{self, Identity, Text};
use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, Instant};

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub lasts: Duration,
    /// From one heal to the next revert, and from that to the next heal.
    pub every: Duration,
}

/// One window, at whose end the service was reverted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Window {
    pub seen: Seen,
    /// Heals in it.
    pub heals: u32,
    pub stop_us: u64,
    pub mappings: usize,
    pub descriptors: usize,
    /// Copied pages of code and payload that are still there though it is reverted.
    pub copied_bytes: u64,
    pub payload_bytes: u64,
    pub private_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endured {
    pub service: String,
    pub title: String,
    pub idle: Seen,
    pub windows: Vec<Window>,
    pub requests: u64,
    pub errors: u64,
    pub afterwards: Vec<String>,
}

/// Heals and reverts its own code for as long as `plan` says. `Ok(Err(why))` where this machine cannot.
pub fn run(service: &dyn Service, plan: Plan, tell: &mut dyn FnMut(&str)) -> Result<Result<Endured, String>> {
    let mut stage = match Stage::set(service, false, tell)? {
        Ok(stage) => stage,
        Err(why) => return Ok(Err(why)),
    };
    let clients = stage.live.clients(&stage.root, &stage.meter)?;
    stage.meter.pass(100)?;
    let Some((subject, versions)) = stage.subjects.first().cloned() else { bail!("nothing to heal") };
    let (idle, windows) = endure(&mut stage, subject, &versions, plan, tell)?;
    stage.live.must_run(&stage.root)?;
    stage.meter.end();
    clients.join()?;
    let afterwards = stage.live.afterwards(&stage.root, &stage.meter)?;
    Ok(Ok(Endured {
        service: service.name().to_owned(),
        title: subject.title.to_owned(),
        idle,
        windows,
        requests: stage.meter.requests(),
        errors: stage.meter.errors(),
        afterwards,
    }))
}

fn endure(
    stage: &mut Stage,
    subject: Subject,
    versions: &[Versions],
    plan: Plan,
    tell: &mut dyn FnMut(&str),
) -> Result<(Seen, Vec<Window>)> {
    let newer: Vec<Versions> = versions.iter().filter(|versions| versions.differ()).cloned().collect();
    let (order, dry, _) = stage.order(&newer)?;
    let planned = run::planned(&dry);
    ensure!(!planned.is_empty(), "nothing of {} can be healed: {:?} {:?}", subject.title, dry.treated, dry.left);
    let watched = stage.watch(&planned)?;
    let before: Vec<Option<Text>> = watched.iter().map(|one| Text::of(one.pid).ok()).collect();
    let idle = stage.idle(WINDOW)?;
    let (began, mut windows) = (Instant::now(), Vec::new());
    while began.elapsed() < plan.lasts {
        let (window_began, mut heals, mut stop_us) = (Instant::now(), 0, 0);
        while window_began.elapsed() < WINDOW {
            let said = operator::heal(&stage.root, &order)?;
            ensure!(Said::of("applied", &said.treated) > 0, "nothing was applied: {:?}", said.treated);
            run::never_writable_code(&watched)?;
            std::thread::sleep(plan.every);
            let back = operator::revert_all(&stage.root)?;
            stop_us = stop_us.max(run::longest(&said.treated)).max(run::longest(&back.treated));
            run::same_text(&watched, &before)?;
            heals += 1;
            std::thread::sleep(plan.every);
        }
        stage.live.must_run(&stage.root)?;
        let seen = stage.meter.next_period();
        let window = window(&watched, seen, heals, stop_us);
        tell(&window.to_string());
        ensure!(window.seen.errors == 0, "answers were lost: {:?}", window.seen.failures);
        windows.push(window);
    }
    no_leak(&windows)?;
    Ok((idle, windows))
}

fn window(watched: &[Identity], seen: Seen, heals: u32, stop_us: u64) -> Window {
    let (mappings, descriptors) = run::held(watched);
    let memory: Vec<observe::Memory> = watched.iter().map(run::memory_of).collect();
    Window {
        seen,
        heals,
        stop_us,
        mappings,
        descriptors,
        copied_bytes: memory.iter().map(|m| m.copied_bytes).sum(),
        payload_bytes: memory.iter().map(|m| m.shareable_bytes).sum(),
        private_bytes: memory.iter().map(|m| m.private_bytes).sum(),
    }
}

/// What a revert leaves may not grow with the number of heals. A service's own
/// heap and connections come and go with its load; those are shown.
fn no_leak(windows: &[Window]) -> Result<()> {
    let (Some(first), Some(last)) = (windows.first(), windows.last()) else { return Ok(()) };
    let heals: u32 = windows.iter().skip(1).map(|window| window.heals).sum();
    let grown = |what: &str, first: u64, last: u64| {
        ensure!(last <= first, "{what} grew from {first} to {last} over {heals} heals");
        Ok(())
    };
    grown("payload that stays mapped", first.payload_bytes, last.payload_bytes)?;
    grown("copied code that stays", first.copied_bytes, last.copied_bytes).context("after the last revert")
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen, heals, stop_us, mappings, descriptors, .. } = self;
        let ms = super::report::ms;
        write!(
            f,
            "{} requests, {} errors; median {}, p99 {}, longest {}; {heals} heals, stop {}; reverted: {mappings} mappings, \
             {descriptors} descriptors, {} KiB copied, {} KiB payload, {} KiB private",
            seen.requests,
            seen.errors,
            ms(seen.median_us),
            ms(seen.p99_us),
            ms(seen.longest_us),
            ms(*stop_us),
            self.copied_bytes / 1024,
            self.payload_bytes / 1024,
            self.private_bytes / 1024
        )
    }
}

impl fmt::Display for Endured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heals: u32 = self.windows.iter().map(|window| window.heals).sum();
        writeln!(f, "{}, {}: {heals} heals and reverts in {} windows", self.service, self.title, self.windows.len())?;
        let ms = super::report::ms;
        let idle = &self.idle;
        writeln!(
            f,
            "idle: {} requests; median {}, p99 {}, longest {}",
            idle.requests,
            ms(idle.median_us),
            ms(idle.p99_us),
            ms(idle.longest_us)
        )?;
        self.windows.iter().enumerate().try_for_each(|(n, window)| writeln!(f, "{:3}: {window}", n + 1))?;
        self.afterwards.iter().try_for_each(|fact| writeln!(f, "afterwards: {fact}"))?;
        writeln!(f, "requests in all: {}, errors: {}", self.requests, self.errors)
    }
}
