//! The main job, end to end, told in plain lines.
//!
//! Somebody's load balancer runs the old HAProxy under traffic. Salve derives
//! the livepatch from the two packages, puts it into the running process, and
//! takes it out again. What came true is checked from outside: by the answers
//! that clients get and by what the kernel says of the process, not by what
//! Salve says of itself.

mod checks;
mod nginx;

pub use nginx::run as run_nginx;

use crate::backend::Backend;
use crate::corpus::{self, Pair, Side};
use crate::haproxy::{Haproxy, THREADS};
use crate::load::{Load, Plan, Report};
use crate::observe::{self, Identity, Memory, Sockets, Text};
use crate::salve::{Salve, exit, values};
use crate::{events, tree};
use anyhow::{Context as _, Result, bail};
use checks::Checks;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The least time that traffic runs.
const TRAFFIC: Duration = Duration::from_secs(20);

/// What the process looked like at one moment.
struct Moment {
    identity: Identity,
    sockets: Sockets,
    text: Text,
    memory: Memory,
}

impl Moment {
    fn of(pid: u32) -> Result<Self> {
        Ok(Self {
            identity: observe::identity(pid)?,
            sockets: observe::sockets(pid)?,
            text: Text::of(pid)?,
            memory: observe::memory(pid)?,
        })
    }
}

/// Runs it all and writes the story to `out`. `Ok` only if all of it came true.
pub fn run(out: &mut dyn Write) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the demo changes a running process and needs root: try `sudo -E cargo xtask demo`");
    }
    let pair = corpus::pair("haproxy")?;
    let scratch = tree::scratch("demo")?;
    let log = scratch.path().join("events.jsonl");
    let salve = Salve::built()?.events_to(&log);
    let mut story = Checks::new(out);

    story.say(&format!("HAProxy {} -> {}, nothing installed, nothing restarted", pair.old, pair.new))?;
    let update = Update::derive(&salve, &pair, &scratch.path().join("haproxy.salve"))?;
    story.say(&update.to_string())?;

    let backend = Backend::start()?;
    let mut haproxy = Haproxy::start(Side::Old, backend.address())?;
    let since = Instant::now();
    let load = Load::start(haproxy.service, Plan::default())?;
    load.pass(500)?;
    let start = Moment::of(haproxy.pid())?;
    story.say(&format!("process {}, {THREADS} threads, under traffic", haproxy.pid()))?;
    let before = haproxy.behaviour()?;
    story.check("before: the request with the overlong chunk size gets", before.is_old(), &before.to_string())?;
    wait_until(since, TRAFFIC / 4);

    heal(&salve, &pair, haproxy.pid())?;
    let patched = Moment::of(haproxy.pid())?;
    let after = haproxy.behaviour()?;
    story.check("healed: the same request gets", after.is_new(), &after.to_string())?;
    haproxy.ordinary_request_works()?;
    same_process(&mut story, "healed", &start, &patched)?;
    let changes = patched.text.changes_to(&start.text);
    story.check("healed: bytes changed in", !changes.is_empty(), &changes.join("; "))?;
    never_writable_code(&mut story, "healed", haproxy.pid())?;
    load.pass(500)?;
    wait_until(since, TRAFFIC * 3 / 4);

    revert(&salve, haproxy.pid())?;
    let back = haproxy.behaviour()?;
    story.check("reverted: the same request gets", back.is_old(), &back.to_string())?;
    let end = Moment::of(haproxy.pid())?;
    same_process(&mut story, "reverted", &start, &end)?;
    let differences = end.text.changes_to(&start.text);
    let digest: String = end.text.digest().chars().take(16).collect();
    let detail = if differences.is_empty() { format!("sha256 {digest}…") } else { differences.join("; ") };
    story.check("reverted: the text is byte-identical to the start", differences.is_empty(), &detail)?;
    never_writable_code(&mut story, "reverted", haproxy.pid())?;
    load.pass(500)?;
    wait_until(since, TRAFFIC);

    let ran = since.elapsed();
    let traffic = load.end();
    haproxy.must_run()?;
    tell_traffic(&mut story, &traffic, ran)?;
    tell_cost(&mut story, &events::read(&log)?, &start.memory, &patched.memory)?;
    story.finish()
}

fn wait_until(since: Instant, least: Duration) {
    std::thread::sleep(least.saturating_sub(since.elapsed()));
}

fn heal(salve: &Salve, pair: &Pair, pid: u32) -> Result<()> {
    let mut arguments: Vec<PathBuf> = vec!["heal".into(), "--from".into(), pair.deb(Side::New)];
    arguments.extend(["--was".into(), pair.deb(Side::Old), "--pid".into(), pid.to_string().into()]);
    salve.json(&arguments)?.expect_code(exit::DONE).map(drop)
}

fn revert(salve: &Salve, pid: u32) -> Result<()> {
    salve.json(&["revert", "--pid", &pid.to_string()])?.expect_code(exit::DONE).map(drop)
}

fn same_process(story: &mut Checks<'_>, when: &str, start: &Moment, now: &Moment) -> Result<()> {
    let same = now.identity == start.identity && now.sockets.listening == start.sockets.listening;
    let Identity { pid, start_ticks } = now.identity;
    let count = now.sockets.listening.len();
    let detail = format!("pid {pid}, start time {start_ticks}, {count} listening sockets");
    story.check(&format!("{when}: the same process"), same, &detail)
}

fn never_writable_code(story: &mut Checks<'_>, when: &str, pid: u32) -> Result<()> {
    let both = observe::writable_and_executable(pid)?;
    let detail = if both.is_empty() { "none".to_owned() } else { both.join(", ") };
    story.check(&format!("{when}: memory that is writable and executable"), both.is_empty(), &detail)
}

fn tell_traffic(story: &mut Checks<'_>, traffic: &Report, ran: Duration) -> Result<()> {
    let detail = format!(
        "{} in {} s ({} over new connections, {} over kept ones)",
        traffic.requests,
        ran.as_secs(),
        traffic.fresh,
        traffic.kept
    );
    story.check("requests sent", traffic.fresh > 500 && traffic.kept > 500, &detail)?;
    let mut detail = traffic.failed.to_string();
    for failure in &traffic.failures {
        write!(detail, "; {failure}")?;
    }
    story.check("requests failed", traffic.failed == 0, &detail)?;
    story.say(&format!("longest request: {:.1} ms", traffic.longest.as_secs_f64() * 1e3))
}

fn tell_cost(story: &mut Checks<'_>, log: &[Value], start: &Memory, patched: &Memory) -> Result<()> {
    let stop = |name: &str| events::named(log, name).iter().filter_map(|e| events::number(e, &["stopped_ns"])).max();
    let (applied, reverted) = (stop("applied"), stop("reverted"));
    let told = applied.is_some() && reverted.is_some();
    let micros = |ns: Option<u64>| ns.map_or_else(|| "unknown".to_owned(), |ns| format!("{} µs", ns / 1000));
    let detail = format!("{} to heal, {} to revert", micros(applied), micros(reverted));
    story.check("longest stop of all threads", told, &detail)?;
    let copied = patched.copied_bytes.saturating_sub(start.copied_bytes) / 1024;
    let shared = patched.shareable_bytes.saturating_sub(start.shareable_bytes) / 1024;
    story.say(&format!(
        "memory added: {copied} KiB of its own (copied code pages), {shared} KiB of payload that all processes share"
    ))
}

/// What a reader is told of the update before anything is done.
struct Update {
    verdict: String,
    reasons: Vec<String>,
    changed: Vec<String>,
    noise: Vec<String>,
    cves: Vec<String>,
    identical: u64,
}

impl Update {
    fn derive(salve: &Salve, pair: &Pair, patch: &Path) -> Result<Self> {
        let words: [PathBuf; 5] =
            ["derive".into(), pair.deb(Side::Old), pair.deb(Side::New), "-o".into(), patch.to_path_buf()];
        salve.json(&words)?.expect_code(exit::DONE)?;
        let inspected = salve.json(&["inspect".as_ref(), patch.as_os_str()])?.expect_code(exit::DONE)?.report()?;
        let image = image_of(&inspected, pair).context("the patch file says nothing about the program")?;
        Ok(Self::of(image, &inspected))
    }

    fn of(image: &Value, whole: &Value) -> Self {
        let noise = image.get("noise").and_then(Value::as_array).into_iter().flatten();
        let noise = noise.filter_map(|item| events::text(item, &["function"])).map(str::to_owned);
        let reasons = events::at(image, &["reasons"]).and_then(Value::as_array).into_iter().flatten();
        let reasons = reasons.map(|reason| {
            let part = |field| events::text(reason, &[field]).unwrap_or("?");
            format!("[{}] {}", part("code"), part("summary"))
        });
        let ids = values(whole, "ids").into_iter().filter_map(Value::as_array).flatten();
        let replaced = events::at(image, &["livepatch", "replaced"]).and_then(Value::as_array).into_iter().flatten();
        let has_new_code = |f: &&Value| f.get("new_ranges").and_then(Value::as_array).is_some_and(|r| !r.is_empty());
        let changed = replaced.filter(has_new_code).filter_map(|f| events::text(f, &["name"])).map(str::to_owned);
        Self {
            verdict: events::text(image, &["verdict"]).unwrap_or("none").to_owned(),
            reasons: reasons.collect(),
            changed: changed.collect(),
            noise: noise.collect(),
            cves: ids.filter_map(Value::as_str).map(str::to_owned).collect(),
            identical: events::number(image, &["functions", "identical"]).unwrap_or(0),
        }
    }
}

/// The record of the pair's program in an inspection.
fn image_of<'a>(inspected: &'a Value, pair: &Pair) -> Option<&'a Value> {
    let images = values(inspected, "images").into_iter().filter_map(Value::as_array).flatten();
    images.into_iter().find(|image| events::text(image, &["path"]).is_some_and(|path| pair.is_largest(path)))
}

impl std::fmt::Display for Update {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "verdict: {}", self.verdict)?;
        for reason in &self.reasons {
            writeln!(f, "  {reason}")?;
        }
        writeln!(f, "functions changed: {} ({})", self.changed.len(), self.changed.join(", "))?;
        let some = self.noise.iter().take(4).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if self.noise.len() > 4 { ", …" } else { "" };
        writeln!(f, "functions dropped as noise, each on proof: {} ({some}{more})", self.noise.len())?;
        writeln!(f, "functions identical: {}", self.identical)?;
        let cves = if self.cves.is_empty() { "unknown".to_owned() } else { self.cves.join(", ") };
        write!(f, "CVEs closed: {cves}")
    }
}
