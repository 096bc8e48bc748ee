//! nginx: a master and its workers are healed under traffic, reloaded, and
//! upgraded to the old program that is still on the disk.

use super::checks::Checks;
use super::{Update, tell_traffic};
use crate::backend::Backend;
use crate::corpus::{self, Pair, Side};
use crate::load::{Load, Plan};
use crate::nginx::{Answer, Nginx, WORKERS, wait_for};
use crate::salve::{Salve, exit, texts};
use crate::{events, tree};
use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Runs it all and writes the story to `out`. `Ok` only if all of it came true.
pub fn run(out: &mut dyn Write) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the demo changes running processes and needs root: try `sudo -E cargo xtask demo nginx`");
    }
    let pair = corpus::pair("nginx")?;
    let scratch = tree::scratch("demo")?;
    let log = scratch.path().join("events.jsonl");
    let salve = Salve::built()?.events_to(&log);
    let mut story = Checks::new(out);
    story.say(&format!("nginx {} -> {}, nothing installed, nothing restarted", pair.old, pair.new))?;
    let patch = scratch.path().join("nginx.salve");
    let update = Update::derive(&salve, &pair, &patch)?;
    story.say(&update.to_string())?;
    story.check("the verdict asks for a person", update.verdict == "review", &update.verdict)?;
    let codes = review_codes(&salve, &patch)?;

    let backend = Backend::start()?;
    let nginx = Nginx::start(backend.address())?;
    let since = Instant::now();
    // Kept connections too: nothing but Salve touches the workers in this part.
    let load = Load::start(nginx.service, Plan::default())?;
    load.pass(500)?;
    let (master, workers) = (nginx.master()?, nginx.workers_of(nginx.master()?)?);
    story.say(&format!("master {master}, workers {}, under traffic", numbers(&workers)))?;
    told(&mut story, "before: the crafted request reads", &nginx, false)?;

    let unasked = heal(&salve, &pair, &[])?;
    let left = texts(&unasked.report()?, "outcome").iter().all(|outcome| *outcome == "needs-accept");
    let detail = format!("exit code {}", unasked.code.unwrap_or(-1));
    story.check("not accepted: nothing is done", left && unasked.code == Some(exit::REFUSED), &detail)?;
    told(&mut story, "not accepted: the same request reads", &nginx, false)?;

    let healed = heal(&salve, &pair, &codes)?.expect_code(exit::DONE)?;
    let applied = texts(&healed.report()?, "outcome").iter().filter(|outcome| **outcome == "applied").count();
    story.check("healed: processes", applied == WORKERS + 1, &format!("{applied} (master and {WORKERS} workers)"))?;
    tell_spread(&mut story, &events::read(&log)?)?;
    told(&mut story, "healed: the same request gets", &nginx, true)?;
    let same = nginx.master()? == master && nginx.workers_of(master)? == workers;
    story.check("healed: the same master and workers", same, &numbers(&nginx.workers_of(master)?))?;
    load.pass(500)?;
    std::thread::sleep(Duration::from_secs(8).saturating_sub(since.elapsed()));
    let traffic = load.end();
    tell_traffic(&mut story, &traffic, since.elapsed())?;

    // nginx itself closes kept connections when workers change: only new ones from here on.
    let since = Instant::now();
    let load = Load::start(nginx.service, Plan { kept: 0, quiet: 0, fresh: 8, ..Plan::default() })?;
    load.pass(200)?;
    nginx.signal(master, Signal::HUP)?;
    wait_for("new workers", || {
        let now = nginx.workers_of(master)?;
        Ok(now.len() == WORKERS && now.iter().all(|worker| !workers.contains(worker)))
    })?;
    load.pass(200)?;
    story.say(&format!("reloaded: workers {}", numbers(&nginx.workers_of(master)?)))?;
    told(&mut story, "reloaded: workers forked from the healed master give", &nginx, true)?;

    upgrade(&mut story, &nginx, master, &load, &mut || heal(&salve, &pair, &codes)?.expect_code(exit::DONE).map(drop))?;
    std::thread::sleep(Duration::from_secs(8).saturating_sub(since.elapsed()));
    let fresh = load.end();
    let detail = format!("{} of {} over new connections; {}", fresh.failed, fresh.requests, fresh.failures.join("; "));
    let enough = fresh.requests > 500;
    story.check("reload and upgrade: requests failed", fresh.failed == 0 && enough, detail.trim_end_matches("; "))?;
    story.finish()
}

/// `USR2`: a new master from the program on the disk, which is the old one.
fn upgrade(
    story: &mut Checks<'_>,
    nginx: &Nginx,
    master: u32,
    load: &Load,
    heal: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    nginx.signal(master, Signal::USR2)?;
    wait_for("the new master", || {
        let new = nginx.master()?;
        Ok(new != master && nginx.old_master()? == master && nginx.workers_of(new)?.len() == WORKERS)
    })?;
    let new = nginx.master()?;
    load.pass(200)?;
    story.say(&format!(
        "upgraded: the disk has the old program; master {new}, workers {}",
        numbers(&nginx.workers_of(new)?)
    ))?;
    // The old master's workers serve too until it is asked to go.
    nginx.signal(master, Signal::QUIT)?;
    wait_for("the old master's end", || Ok(!nginx.processes()?.contains(&master)))?;
    told(story, "upgraded: the crafted request reads", nginx, false)?;
    heal()?;
    told(story, "healed again: the same request gets", nginx, true)?;
    load.pass(200)
}

fn heal(salve: &Salve, pair: &Pair, codes: &[String]) -> Result<crate::salve::Run> {
    let mut arguments: Vec<PathBuf> = vec!["heal".into(), "--from".into(), pair.deb(Side::New)];
    arguments.extend(["--was".into(), pair.deb(Side::Old)]);
    for code in codes {
        arguments.extend(["--accept".into(), code.into()]);
    }
    salve.json(&arguments)
}

/// The codes that a person who read the evidence would accept.
fn review_codes(salve: &Salve, patch: &std::path::Path) -> Result<Vec<String>> {
    let inspected = salve.json(&["inspect".as_ref(), patch.as_os_str()])?.expect_code(exit::DONE)?.report()?;
    let images = inspected.pointer("/result/images").and_then(Value::as_array).context("no images")?;
    let reasons = images.iter().filter_map(|image| image.get("reasons")?.as_array()).flatten();
    let review = reasons.filter(|reason| events::text(reason, &["verdict"]) == Some("review"));
    Ok(review.filter_map(|reason| events::text(reason, &["code"])).map(str::to_owned).collect())
}

/// Every worker was asked several times, and all gave the one answer.
fn told(story: &mut Checks<'_>, what: &str, nginx: &Nginx, new: bool) -> Result<()> {
    let answers = nginx.probe_all()?;
    let detail = answers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", then ");
    let right = matches!((answers.as_slice(), new), ([Answer::Right], true) | ([Answer::Leaked { bytes: 51 }], false));
    story.check(what, right, &detail)
}

/// From the first process's change to the last one's, and the longest stop.
fn tell_spread(story: &mut Checks<'_>, log: &[Value]) -> Result<()> {
    let applied = events::named(log, "applied");
    let at: Vec<u64> = applied.iter().filter_map(|event| events::number(event, &["time", "monotonic_ns"])).collect();
    let spread = at.iter().max().zip(at.iter().min()).map(|(last, first)| (last - first) / 1000);
    let stop = applied.iter().filter_map(|event| events::number(event, &["stopped_ns"])).max();
    story.say(&format!(
        "healed: from the first process to the last {} µs; longest stop {} µs",
        spread.unwrap_or(0),
        stop.unwrap_or(0) / 1000
    ))
}

fn numbers(workers: &[crate::observe::Identity]) -> String {
    workers.iter().map(|worker| worker.pid.to_string()).collect::<Vec<_>>().join(" and ")
}
