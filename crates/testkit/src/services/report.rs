//! What came of a service: a value that is kept, and the text of it.

use super::meter::Seen;
use super::operator::{Cause, Judged};
use super::packages::Versions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// One service from beginning to end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub service: String,
    pub load: String,
    /// When, and on what machine.
    pub when: String,
    pub machine: String,
    pub subjects: Vec<SubjectReport>,
    /// All requests of the whole run, and those that were answered wrongly or not at all.
    pub requests: u64,
    pub errors: u64,
    /// What was true at the end.
    pub afterwards: Vec<String>,
    pub took_s: u64,
}

/// One thing that was healed in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SubjectReport {
    pub title: String,
    pub own: bool,
    pub versions: Vec<Versions>,
    pub judged: Vec<Judged>,
    /// Codes that were accepted, as a person would have to.
    pub accepted: Vec<String>,
    pub came_to: Came,
    /// Where the verdict allowed it and the processes did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_applied: Vec<Cause>,
    /// The same where a dry run said so, and nothing was tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreseen: Vec<Cause>,
    /// What clients saw of `heal` where it changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusing: Option<Box<Refusing>>,
    /// What `salve heal --dry-run` said to a person.
    pub said: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Came {
    /// Healed and taken back, this many times.
    Healed(Box<Healed>),
    /// The update changes no code in what runs.
    Unchanged,
    /// Nothing was changed, for the reasons of the verdict or those given here.
    Refused(Vec<String>),
    /// The archive has one version only.
    OneVersion,
}

/// `heal` was run and changed nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusing {
    pub tries: u32,
    /// Whose text was compared before and after.
    pub processes: usize,
    pub idle: Seen,
    /// While it was run.
    pub refusing: Seen,
    /// The longest of them, deriving included.
    pub took_ms: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Healed {
    /// In which every process that ran the old code was healed, and reverted.
    pub rounds: u32,
    /// In which only some were.
    #[serde(default)]
    pub in_part: u32,
    pub processes: usize,
    /// Of the process with the most.
    pub threads: usize,
    pub idle: Seen,
    pub healing: Seen,
    /// Longest stop of one process as Salve measured it: of all rounds, healing and reverting.
    pub stop_heal_us: u64,
    pub stop_revert_us: u64,
    pub heal_took_ms: u64,
    /// Over all processes, in the last round: pages of their own, and the payload that can be shared.
    pub copied_bytes: u64,
    pub payload_bytes: u64,
    /// Of all processes after the first revert and after the last.
    pub mappings: [usize; 2],
    pub descriptors: [usize; 2],
    /// Processes that were left as they were in some round, with the reason.
    pub left: BTreeMap<String, u32>,
    /// Of those, the ones that went on with the old code.
    #[serde(default)]
    pub left_behind: BTreeMap<String, u32>,
    /// What `salve status` said to a person while it was healed.
    pub status: String,
}

impl Healed {
    /// `10 ×`, or `8 × of 10, in part 2 ×`.
    pub fn times(&self) -> String {
        match self.in_part {
            0 => format!("{} ×", self.rounds),
            in_part => format!("{} × of {}, IN PART {in_part} ×", self.rounds, self.rounds + in_part),
        }
    }
}

impl Report {
    /// Whether no client noticed anything.
    pub fn is_clean(&self) -> bool {
        self.errors == 0
    }
}

impl SubjectReport {
    /// The gravest verdict, and on which image.
    pub fn verdict(&self) -> &str {
        let order = ["unchanged", "safe", "review", "refused"];
        let rank = |word: &str| order.iter().position(|one| *one == word).unwrap_or(order.len());
        self.judged.iter().map(|image| image.verdict.as_str()).max_by_key(|word| rank(word)).unwrap_or("none")
    }

    /// Reasons of the gravest kind, by image.
    pub fn causes(&self) -> Vec<(&str, &Cause)> {
        let in_processes = || self.not_applied.iter().chain(&self.foreseen);
        if in_processes().next().is_some() {
            return in_processes().map(|cause| (self.title.as_str(), cause)).collect();
        }
        let worst = self.verdict();
        let images = self.judged.iter().filter(|image| image.verdict == worst);
        images
            .flat_map(|image| image.reasons.iter().filter(|r| r.verdict == worst).map(|r| (image.path.as_str(), r)))
            .collect()
    }
}

pub fn ms(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.service, self.load)?;
        for subject in &self.subjects {
            write!(f, "{subject}")?;
        }
        for fact in &self.afterwards {
            writeln!(f, "afterwards: {fact}")?;
        }
        writeln!(f, "requests in all: {}, errors: {} ({} s)", self.requests, self.errors, self.took_s)
    }
}

impl fmt::Display for SubjectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {} ({})", self.title, if self.own { "own code" } else { "a library under it" })?;
        for Versions { package, old, new } in &self.versions {
            writeln!(f, "    {package} {old} -> {new}")?;
        }
        for image in &self.judged {
            write!(f, "    {}: {}", image.path, image.verdict)?;
            if image.replaced > 0 {
                write!(f, ", {} functions replaced", image.replaced)?;
            }
            writeln!(f)?;
            for reason in image.reasons.iter().filter(|reason| matches!(reason.verdict.as_str(), "review" | "refused"))
            {
                writeln!(f, "      [{}] {} ({} times)", reason.code, reason.summary, reason.times)?;
                if let Some(seen) = &reason.seen {
                    writeln!(f, "        e.g. {seen}")?;
                }
            }
        }
        if !self.accepted.is_empty() {
            writeln!(f, "    accepted: {}", self.accepted.join(", "))?;
        }
        match &self.came_to {
            Came::Unchanged => writeln!(f, "    nothing to heal: the update changes no code in what runs"),
            Came::OneVersion => writeln!(f, "    NOT RUN: the archive has one version only"),
            Came::Refused(why) => {
                writeln!(f, "    refused")?;
                why.iter().try_for_each(|why| writeln!(f, "      {why}"))?;
                self.refusing.iter().try_for_each(|refusing| write!(f, "{refusing}"))
            }
            Came::Healed(healed) => write!(f, "{healed}"),
        }
    }
}

/// What clients saw in a period, by its name.
fn period(f: &mut fmt::Formatter<'_>, name: &str, seen: &Seen) -> fmt::Result {
    writeln!(
        f,
        "    {name}: {} requests in {} s, errors {}; median {}, p99 {}, longest stall {}",
        seen.requests,
        seen.lasted_ms / 1000,
        seen.errors,
        ms(seen.median_us),
        ms(seen.p99_us),
        ms(seen.longest_us)
    )?;
    seen.failures.iter().try_for_each(|failure| writeln!(f, "      {failure}"))
}

impl fmt::Display for Refusing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        period(f, "idle    ", &self.idle)?;
        period(f, "refusing", &self.refusing)?;
        writeln!(
            f,
            "    `salve heal` was run {} times, took at most {} ms, and changed no byte of the text of {} processes",
            self.tries, self.took_ms, self.processes
        )
    }
}

impl fmt::Display for Healed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "    healed and reverted {}: {} processes, at most {} threads",
            self.times(),
            self.processes,
            self.threads
        )?;
        period(f, "idle   ", &self.idle)?;
        period(f, "healing", &self.healing)?;
        writeln!(
            f,
            "    stop as Salve measured it, longest of all: {} to heal, {} to revert; one `salve heal` took {} ms",
            ms(self.stop_heal_us),
            ms(self.stop_revert_us),
            self.heal_took_ms
        )?;
        writeln!(
            f,
            "    memory added: {} of their own (copied pages), {} of payload",
            kib(self.copied_bytes),
            kib(self.payload_bytes)
        )?;
        writeln!(
            f,
            "    after the first revert and after the last: {} and {} mappings, {} and {} descriptors",
            self.mappings[0], self.mappings[1], self.descriptors[0], self.descriptors[1]
        )?;
        for (why, times) in &self.left_behind {
            writeln!(f, "    HEALED IN PART {times} times: {why}")?;
        }
        self.left.iter().try_for_each(|(why, times)| writeln!(f, "    left as it was {times} times: {why}"))
    }
}
