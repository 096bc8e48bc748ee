//! nginx: a master and its workers are healed under traffic, reloaded, and
//! upgraded to the old program that is still on the disk.

use super::checks::Checks;
use super::{Update, tell_traffic};
use crate::backend::Backend;
use crate::corpus::{self, Pair, Side};
use crate::load::{Load, Plan};
use crate::nginx::{Answer, Nginx, WORKERS, wait_for};
use crate::observe::{Identity, Text};
use crate::salve::{Run, Salve, exit, values};
use crate::together::{Seen, Together};
use crate::{events, tree};
use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Why this update asks for a person; all of them, sorted.
const REASONS: [&str; 5] = ["constant-address", "data-unwitnessed", "field-offset", "new-callback", "shared-state"];
/// The part of the update that acts when the configuration is parsed: a script that is
/// compiled from then on ends with this function, which the old program does not have.
const HANDED_OUT_BY_PARSING: &str = "ngx_http_script_complex_value_end_code";

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
    let inspected = salve.json(&["inspect".as_ref(), patch.as_os_str()])?.expect_code(exit::DONE)?.report()?;
    let codes = review_codes(&inspected);
    story.check("its reasons", codes == REASONS, &codes.join(", "))?;
    let handed_out = evidence_of(&inspected, "new-callback");
    let only_parsing = handed_out == [HANDED_OUT_BY_PARSING];
    story.check("what acts when the configuration is parsed", only_parsing, &handed_out.join(", "))?;

    let backend = Backend::start()?;
    let nginx = Nginx::start(backend.address())?;
    let since = Instant::now();
    // Kept connections too: nothing but Salve touches the workers in this part.
    let load = Load::start(nginx.service, Plan::default())?;
    load.pass(500)?;
    let (master, workers) = (nginx.master()?, nginx.workers_of(nginx.master()?)?);
    story.say(&format!("master {master}, workers {}, under traffic", numbers(&workers)))?;
    told(&mut story, "before: the crafted request reads", &nginx, false)?;
    let pids: Vec<u32> = std::iter::once(master).chain(workers.iter().map(|worker| worker.pid)).collect();
    let before = texts_of(&pids)?;

    not_accepted(&mut story, &heal(&salve, &pair, &[])?, &pids, &before, &events::read(&log)?)?;
    told(&mut story, "not accepted: the same request reads", &nginx, false)?;

    let detour = values(&inspected, "detour_at").first().and_then(|at| at.as_u64()).context("no detour")?;
    let watch = Together::watch(&pids, detour)?;
    let healed = heal(&salve, &pair, &codes)?.expect_code(exit::DONE)?;
    in_one_go(&mut story, &healed.report()?, &pids, watch.end()?)?;
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

fn heal(salve: &Salve, pair: &Pair, codes: &[String]) -> Result<Run> {
    let mut arguments: Vec<PathBuf> = vec!["heal".into(), "--from".into(), pair.deb(Side::New)];
    arguments.extend(["--was".into(), pair.deb(Side::Old)]);
    for code in codes {
        arguments.extend(["--accept".into(), code.into()]);
    }
    salve.json(&arguments)
}

/// The reasons for which the images of an inspection need a person's word.
fn reasons(inspected: &Value) -> impl Iterator<Item = &Value> {
    let images = inspected.pointer("/result/images").and_then(Value::as_array).into_iter().flatten();
    let reasons = images.filter_map(|image| image.get("reasons")?.as_array()).flatten();
    reasons.filter(|reason| events::text(reason, &["verdict"]) == Some("review"))
}

/// Their codes, which a person who read the evidence would accept.
fn review_codes(inspected: &Value) -> Vec<String> {
    let codes = reasons(inspected).filter_map(|reason| events::text(reason, &["code"]));
    let codes: BTreeSet<&str> = codes.collect();
    codes.into_iter().map(str::to_owned).collect()
}

/// The functions that are named as the evidence for one of them.
fn evidence_of<'a>(inspected: &'a Value, code: &str) -> Vec<&'a str> {
    let of_code = reasons(inspected).filter(|reason| events::text(reason, &["code"]) == Some(code));
    let evidence = of_code.filter_map(|reason| reason.get("evidence")?.as_array()).flatten();
    evidence.filter_map(|one| events::text(one, &["function"])).collect()
}

fn texts_of(pids: &[u32]) -> Result<Vec<Text>> {
    pids.iter().map(|pid| Text::of(*pid)).collect()
}

/// Nobody accepted anything: every process says what it waits for, and none was touched.
fn not_accepted(story: &mut Checks<'_>, run: &Run, pids: &[u32], before: &[Text], log: &[Value]) -> Result<()> {
    let report = run.report()?;
    let ends = processes(&report, pids);
    let waits = ends.iter().all(|(_, outcome, _)| *outcome == "needs-accept") && ends.len() == pids.len();
    let code = run.code.unwrap_or(-1);
    let detail = format!("exit code {code}, {} processes wait for it", ends.len());
    story.check("not accepted: nothing is done", waits && code == exit::REFUSED, &detail)?;
    let wanted = format!("review: {}; ", REASONS.join(", "));
    let all = report.pointer("/result/processes").and_then(Value::as_array).into_iter().flatten();
    let is_ours = |end: &&Value| {
        events::number(end, &["process", "pid"]).is_some_and(|end| pids.iter().any(|pid| u64::from(*pid) == end))
    };
    let whys: BTreeSet<&str> = all.filter(is_ours).filter_map(|end| events::text(end, &["why"])).collect();
    let named = whys.len() == 1 && whys.iter().all(|why| why.starts_with(&wanted));
    story.check("not accepted: what is missing is named", named, &whys.into_iter().collect::<Vec<_>>().join(" | "))?;
    let same = texts_of(pids)? == before && events::named(log, "applied").is_empty();
    story.check("not accepted: the text of all is byte-identical", same, &format!("{} processes", pids.len()))
}

/// Number, outcome and transition group of those of `pids` that are in a report: whoever
/// runs another nginx of the same version on this machine is healed as well.
fn processes<'a>(report: &'a Value, pids: &[u32]) -> Vec<(u64, &'a str, Vec<u64>)> {
    let all = report.pointer("/result/processes").and_then(Value::as_array).into_iter().flatten();
    let each = all.filter_map(|end| {
        let group = end.get("group")?.as_array()?.iter().filter_map(Value::as_u64).collect();
        Some((events::number(end, &["process", "pid"])?, events::text(end, &["outcome"])?, group))
    });
    let ours = |end: &(u64, &str, Vec<u64>)| pids.iter().any(|pid| u64::from(*pid) == end.0);
    each.filter(ours).collect()
}

/// Every worker was asked several times, and all gave the one answer.
fn told(story: &mut Checks<'_>, what: &str, nginx: &Nginx, new: bool) -> Result<()> {
    let answers = nginx.probe_all()?;
    let detail = answers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", then ");
    let right = matches!((answers.as_slice(), new), ([Answer::Right], true) | ([Answer::Leaked { bytes: 51 }], false));
    story.check(what, right, &detail)
}

/// Master and workers were one transition group with one outcome, and none of them was at
/// large while one was old and another new.
fn in_one_go(story: &mut Checks<'_>, report: &Value, pids: &[u32], seen: Seen) -> Result<()> {
    let mut sorted: Vec<u64> = pids.iter().map(|pid| u64::from(*pid)).collect();
    sorted.sort_unstable();
    let mut ends = processes(report, pids);
    ends.sort();
    let expected: Vec<_> = sorted.iter().map(|pid| (*pid, "applied", sorted.clone())).collect();
    let detail = format!("{} processes (master and {WORKERS} workers)", ends.len());
    story.check("healed: one transition group, one outcome", ends == expected, &detail)?;
    let detail = format!("{} times in {} looks, {} changed at the end", seen.apart, seen.samples, seen.changed);
    let together = seen.apart == 0 && seen.samples > 0 && seen.changed == pids.len();
    story.check("healed: one was at large while one was old and another new", together, &detail)
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

fn numbers(workers: &[Identity]) -> String {
    workers.iter().map(|worker| worker.pid.to_string()).collect::<Vec<_>>().join(" and ")
}
