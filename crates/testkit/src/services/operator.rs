//! `salve` as an operator runs it inside a root, and what it said.

use crate::debian::Root;
use crate::salve::{Run, exit};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

pub const EVENTS: &str = "/var/log/salve/events.jsonl";

/// A verdict on one image, with its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    pub path: String,
    pub verdict: String,
    pub reasons: Vec<Cause>,
    /// Functions that the livepatch replaces.
    pub replaced: u64,
}

/// Why, and the first thing that was seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cause {
    pub code: String,
    pub verdict: String,
    pub summary: String,
    pub seen: Option<String>,
    pub times: u64,
}

/// What happened to one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Treated {
    pub pid: u32,
    pub program: String,
    pub outcome: String,
    pub code: Option<String>,
    pub why: Option<String>,
    pub stopped_us: Option<u64>,
    pub memory_added_bytes: u64,
    pub threads: u64,
}

/// A run of `heal` or `revert`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub code: Option<i32>,
    pub judged: Vec<Judged>,
    pub treated: Vec<Treated>,
    /// Codes and reasons of what was left alone, each once.
    pub left: Vec<String>,
    pub took_ms: u64,
}

impl Said {
    pub fn of(outcome: &str, treated: &[Treated]) -> usize {
        treated.iter().filter(|one| one.outcome == outcome).count()
    }

    /// Codes that a person would have to accept.
    pub fn review_codes(&self) -> Vec<String> {
        review_codes(&self.judged)
    }
}

/// Codes that a person would have to accept for these images to be healed.
pub fn review_codes(judged: &[Judged]) -> Vec<String> {
    let reasons = judged.iter().flat_map(|image| &image.reasons);
    let codes: BTreeSet<&String> =
        reasons.filter(|reason| reason.verdict == "review").map(|reason| &reason.code).collect();
    codes.into_iter().cloned().collect()
}

/// What is handed to `heal`.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// Package files, by their path inside.
    pub from: Vec<String>,
    pub accept: Vec<String>,
    pub dry_run: bool,
}

impl Order {
    fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = vec!["salve".into(), "heal".into()];
        if !self.from.is_empty() {
            words.push("--from".into());
            words.extend(self.from.iter().cloned());
        }
        for code in &self.accept {
            words.extend(["--accept".into(), code.clone()]);
        }
        if self.dry_run {
            words.push("--dry-run".into());
        }
        words
    }
}

/// `salve heal --json` inside.
pub fn heal(root: &Root, order: &Order) -> Result<Said> {
    let mut words = order.words();
    words.push("--json".into());
    said(root, &words)
}

/// `salve heal` inside, as it talks to a person.
pub fn heal_for_people(root: &Root, order: &Order) -> Result<Run> {
    root.run(&order.words())
}

/// `salve revert --all --json` inside. Everything has to come out.
pub fn revert_all(root: &Root) -> Result<Said> {
    let said = said(root, &["salve".into(), "revert".into(), "--all".into(), "--json".into()])?;
    let stayed: Vec<&Treated> = said
        .treated
        .iter()
        .filter(|one| !matches!(one.outcome.as_str(), "reverted" | "gone" | "nothing-to-revert"))
        .collect();
    if !stayed.is_empty() || said.code != Some(exit::DONE) {
        bail!("revert ended with {:?}: {stayed:?}", said.code);
    }
    Ok(said)
}

/// `salve derive` inside, from two package files there; gives what it judged. None where it refused.
pub fn derive(root: &Root, old: &str, new: &str, patch: &str) -> Result<Option<Vec<Judged>>> {
    let run = root.run(&["salve", "derive", old, new, "--output", patch, "--json"])?;
    if run.code == Some(exit::REFUSED) {
        return Ok(None);
    }
    let report = run.expect_code(exit::DONE)?.report()?;
    let images = report.pointer("/result/images").and_then(Value::as_array).context("a derivation without images")?;
    Ok(Some(images.iter().map(image).collect()))
}

/// `salve apply --all --json` inside, of a patch file there.
pub fn apply_all(root: &Root, patch: &str, accept: &[String]) -> Result<Said> {
    let mut words: Vec<String> = ["salve", "apply", "--all", patch, "--json"].map(str::to_owned).to_vec();
    words.extend(accept.iter().flat_map(|code| ["--accept".to_owned(), code.clone()]));
    said(root, &words)
}

fn said(root: &Root, words: &[String]) -> Result<Said> {
    let since = std::time::Instant::now();
    let run = root.run(words)?;
    let took_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    let report = run.report()?;
    let Some(result) = report.get("result").filter(|result| !result.is_null()) else {
        bail!("{} came to nothing: {}", run.asked, report.get("error").unwrap_or(&Value::Null));
    };
    let list = |key: &str| result.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut judged: Vec<Judged> = Vec::new();
    for update in list("updates") {
        if let Some(problem) = update.get("problem").filter(|problem| !problem.is_null()) {
            bail!("an update could not be derived: {problem}");
        }
        let images = update.get("images").and_then(Value::as_array).into_iter().flatten();
        judged.extend(images.map(image));
    }
    let treated = list("processes").iter().map(treatment).collect::<Result<Vec<_>>>()?;
    // Process 1 and whoever runs Salve are the harness's own.
    let of_others = list("left").iter().filter(|left| !matches!(text(left, "code").as_str(), "init" | "own-ancestor"));
    let left: BTreeSet<String> = of_others.map(left_alone).collect();
    Ok(Said { code: run.code, judged, treated, left: left.into_iter().collect(), took_ms })
}

fn left_alone(left: &Value) -> String {
    let program = left.pointer("/process/program").and_then(Value::as_str).unwrap_or_default();
    format!("{program} [{}] {}", text(left, "code"), text(left, "why")).trim_start().to_owned()
}

fn image(image: &Value) -> Judged {
    let reasons = image.get("reasons").and_then(Value::as_array).into_iter().flatten().map(cause).collect();
    let replaced = image.pointer("/livepatch/replaced").and_then(Value::as_array).map_or(0, Vec::len);
    Judged { path: text(image, "path"), verdict: text(image, "verdict"), reasons, replaced: replaced as u64 }
}

fn cause(reason: &Value) -> Cause {
    let evidence = reason.get("evidence").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let seen = evidence.first().map(|first| match first.get("function").and_then(Value::as_str) {
        Some(function) => format!("{function}: {}", text(first, "seen")),
        None => text(first, "seen"),
    });
    Cause {
        code: text(reason, "code"),
        verdict: text(reason, "verdict"),
        summary: text(reason, "summary"),
        seen,
        times: evidence.len() as u64,
    }
}

fn treatment(action: &Value) -> Result<Treated> {
    let number = |path: &str| action.pointer(path).and_then(Value::as_u64);
    let pid = number("/process/pid").context("an action without a process")?;
    let stop = number("/measured/longest_stop_ns").or_else(|| number("/longest_stop_ns"));
    let optional = |key: &str| action.get(key).and_then(Value::as_str).map(str::to_owned);
    Ok(Treated {
        pid: u32::try_from(pid).context("a process id that is none")?,
        program: action.pointer("/process/program").and_then(Value::as_str).unwrap_or_default().to_owned(),
        outcome: text(action, "outcome"),
        code: optional("code"),
        why: optional("why"),
        stopped_us: stop.map(|ns| ns / 1000),
        memory_added_bytes: number("/measured/memory_added_bytes").unwrap_or(0),
        threads: number("/measured/threads").unwrap_or(0),
    })
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}
