//! `docs/services.md`, written from results that were kept.

use super::keep::Kept as _;
use super::page::Page;
use anyhow::{Context as _, Result};
use salve_testkit::services::Service;
use salve_testkit::services::report::{Came, Healed, Refusing, Report, SubjectReport, ms};
use salve_testkit::tree;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const HEAD: &str = "\
# Real services, healed in place

Written by `cargo xtask e2e --all`, or by `--document` from the last run of each; do not edit. Each service comes from its
packages in a throw-away Debian root, runs in the oldest version that the archive still has, carries its load all the time,
and is healed to the newest and reverted again and again while its package stays held back (`salve heal --from NEW.deb`,
`salve revert --all`). The clients that are counted check every answer; load generators beside them (wrk, redis-benchmark,
sysbench) tell how many of theirs failed; afterwards its data is checked as well. **A service's own code counts; a library under it is told apart.**

How to read it: *idle* is what the same clients saw for about as long while nothing was done. *Longest stall* is the
longest that any client waited for an answer, everything included: deriving runs beside the service and takes processor
time. *Stop* is the longest time for which all threads of one process stood still, as Salve measured it, over all
rounds. *Accepted* are review reasons that a person would have to judge; here they are taken to see whether the service
bears it. *Healed and reverted* counts a round only if no process went on with the old code; one in which some did is told
as *in part*. Where it is *refused*, `salve heal` was run all the same, and the figures are what clients saw of that: only
that deriving takes processor time. For QEMU the stall is the guest's: the longest jump of its clock or disk request.
Figures depend on the machine and on what else runs on it; compare a line with its own idle.

";

pub(super) fn write(services: &[Box<dyn Service>], failed: &[(String, String)]) -> Result<()> {
    let file = tree::root().join("docs/services.md");
    let before = Page::new(std::fs::read_to_string(&file).unwrap_or_default());
    let has_failed = |name: &str| failed.iter().any(|(failed, _)| failed == name);
    let mut reports = Vec::new();
    for service in services {
        reports.push((service.as_ref(), Report::last(service.name())?));
    }
    let mut text = HEAD.to_owned();
    table(&mut text, &reports, &before)?;
    for (service, why) in failed {
        writeln!(text, "**FAILED: {service}**: {}\n", cell(why))?;
    }
    let said = |name: &str| before.service(name).filter(|_| !has_failed(name));
    for (service, report) in &reports {
        if report.is_none() && said(service.name()).is_none() && !has_failed(service.name()) {
            writeln!(text, "NOT RUN: {}\n", service.name())?;
        }
    }
    super::long::write(&mut text, services, &before)?;
    let kept: Vec<&Report> = reports.iter().filter_map(|(_, report)| report.as_ref()).collect();
    match before.causes() {
        // Counts over some of the services would be taken for counts over all.
        Some(causes) if kept.len() < reports.len() => writeln!(text, "{causes}\n")?,
        _of_all_or_for_the_first_time => causes(&mut text, &kept)?,
    }
    for (service, report) in &reports {
        match report {
            Some(report) => one(&mut text, report, service.note())?,
            None => said(service.name()).map_or(Ok(()), |said| writeln!(text, "{said}\n"))?,
        }
    }
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn table(text: &mut String, reports: &[(&dyn Service, Option<Report>)], before: &Page) -> Result<()> {
    writeln!(
        text,
        "| service | healed | code | verdict | what came of it | processes, threads | requests, errors | \
         longest stall (idle) | p99 (idle) | stop: heal, revert | memory added: own, payload |\n\
         |---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for (service, report) in reports {
        let Some(report) = report else {
            before.results(service.name()).into_iter().try_for_each(|row| writeln!(text, "{row}"))?;
            continue;
        };
        for subject in &report.subjects {
            let start = format!(
                "| {} | {} | {} | {} |",
                report.service,
                subject.title,
                if subject.own { "own" } else { "under it" },
                if subject.accepted.is_empty() || subject.verdict() != "review" {
                    subject.verdict().to_owned()
                } else {
                    format!("review, {} reasons accepted", subject.accepted.len())
                }
            );
            match &subject.came_to {
                Came::Healed(healed) => writeln!(text, "{start} {}", figures(healed))?,
                Came::Unchanged => writeln!(text, "{start} nothing to heal: no code in it changed | | | | | | |")?,
                // Without a verdict there are no codes, and what was said is the cause.
                Came::Refused(said) if subject.judged.is_empty() => {
                    writeln!(text, "{start} refused: {} | | | | | | |", cell(&said.join("; ")))?;
                }
                Came::Refused(_) => writeln!(text, "{start} refused: {} {}", codes(subject), unharmed(subject))?,
                Came::OneVersion => writeln!(text, "{start} NOT RUN: the archive has one version | | | | | | |")?,
            }
        }
    }
    writeln!(text)?;
    Ok(())
}

/// What clients saw of a `heal` that refused, in the columns of those that did not.
fn unharmed(subject: &SubjectReport) -> String {
    subject.refusing.as_deref().map_or_else(
        || "| | | | | | |".to_owned(),
        |Refusing { idle, refusing, .. }| {
            format!(
                "| | {}, {} | {} ({}) | {} ({}) | none | none |",
                idle.requests + refusing.requests,
                idle.errors + refusing.errors,
                ms(refusing.longest_us),
                ms(idle.longest_us),
                ms(refusing.p99_us),
                ms(idle.p99_us)
            )
        },
    )
}

fn figures(healed: &Healed) -> String {
    format!(
        "healed and reverted {} | {}, {} | {}, {} | {} ({}) | {} ({}) | {}, {} | {} KiB, {} KiB |",
        healed.times(),
        healed.processes,
        healed.threads,
        healed.idle.requests + healed.healing.requests,
        healed.idle.errors + healed.healing.errors,
        ms(healed.healing.longest_us),
        ms(healed.idle.longest_us),
        ms(healed.healing.p99_us),
        ms(healed.idle.p99_us),
        ms(healed.stop_heal_us),
        ms(healed.stop_revert_us),
        healed.copied_bytes.div_ceil(1024),
        healed.payload_bytes.div_ceil(1024)
    )
}

/// Codes of the reasons of the gravest kind, each once.
fn codes(subject: &SubjectReport) -> String {
    let mut codes: Vec<&str> = subject.causes().iter().map(|(_, cause)| cause.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes.join(", ")
}

/// Why services could not be healed, by reason: this decides what is built next.
fn causes(text: &mut String, reports: &[&Report]) -> Result<()> {
    let refused = reports.iter().flat_map(|report| {
        report.subjects.iter().filter(|s| matches!(s.came_to, Came::Refused(_))).map(move |subject| (report, subject))
    });
    let mut by_code = BTreeMap::<(&str, &str), Vec<String>>::new();
    for (report, subject) in refused {
        for (path, cause) in subject.causes() {
            let seen = cause.seen.as_deref().map_or_else(String::new, |seen| format!("; `{}`", cell(seen)));
            by_code
                .entry((&cause.code, &cause.summary))
                .or_default()
                .push(format!("{} ({}), {path}, {} times{seen}", report.service, subject.title, cause.times));
        }
    }
    if by_code.is_empty() {
        return Ok(());
    }
    writeln!(text, "## Why it could not be healed\n")?;
    by_weight(text, reports)?;
    writeln!(text, "Every reason of a refusal above, from its evidence.\n")?;
    for ((code, summary), places) in by_code {
        writeln!(text, "- **{code}**: {summary}")?;
        places.iter().try_for_each(|place| writeln!(text, "  - {place}"))?;
    }
    writeln!(text)?;
    Ok(())
}

/// The reasons, those first that keep the most services from being healed: this decides what is built next.
fn by_weight(text: &mut String, reports: &[&Report]) -> Result<()> {
    #[derive(Default)]
    struct Hit<'a> {
        own: BTreeSet<&'a str>,
        under: BTreeSet<&'a str>,
        images: BTreeSet<&'a str>,
        alone: BTreeSet<&'a str>,
        times: u64,
    }
    let mut hits: BTreeMap<&str, Hit<'_>> = BTreeMap::new();
    let mut counted = BTreeSet::new();
    for report in reports {
        for subject in report.subjects.iter().filter(|subject| matches!(subject.came_to, Came::Refused(_))) {
            let causes = subject.causes();
            let codes: BTreeSet<&str> = causes.iter().map(|(_, cause)| cause.code.as_str()).collect();
            for (path, cause) in &causes {
                let hit = hits.entry(&cause.code).or_default();
                let services = if subject.own { &mut hit.own } else { &mut hit.under };
                services.insert(&report.service);
                hit.images.insert(path);
                // The same image is under many services: what is wrong with it counts once.
                if counted.insert((*path, &cause.code, &cause.summary)) {
                    hit.times += cause.times;
                }
                if codes.len() == 1 {
                    hit.alone.insert(path);
                }
            }
        }
    }
    let mut hits: Vec<(&str, Hit<'_>)> = hits.into_iter().collect();
    hits.sort_by_key(|(code, hit)| (Reverse(hit.own.len()), Reverse(hit.under.len()), *code));
    writeln!(
        text,
        "Sorted by how many services' own code they hit. *Alone* names images in which nothing else stands in the way.\n\n\
         | reason | services' own code | services by a library under them | images | times | alone |\n|---|---|---|---|---|---|"
    )?;
    let list = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(", ");
    for (code, hit) in hits {
        writeln!(
            text,
            "| {code} | {}: {} | {}: {} | {} | {} | {} |",
            hit.own.len(),
            list(&hit.own),
            hit.under.len(),
            list(&hit.under),
            hit.images.len(),
            hit.times,
            list(&hit.alone)
        )?;
    }
    writeln!(text)?;
    Ok(())
}

fn one(text: &mut String, report: &Report, note: Option<&str>) -> Result<()> {
    writeln!(
        text,
        "## {}\n\nLoad: {}. Run {} on {}; {} s in all.\n",
        report.service, report.load, report.when, report.machine, report.took_s
    )?;
    if let Some(note) = note {
        writeln!(text, "{note}\n")?;
    }
    writeln!(
        text,
        "All its clients together, from start to end: {} requests, {} errors.\n",
        report.requests, report.errors
    )?;
    for subject in &report.subjects {
        writeln!(text, "### {}: {}\n", report.service, subject.title)?;
        for versions in &subject.versions {
            writeln!(text, "- `{}` {} → {}", versions.package, versions.old, versions.new)?;
        }
        for image in &subject.judged {
            write!(text, "- `{}`: {}", image.path, image.verdict)?;
            if image.replaced > 0 {
                write!(text, ", {} functions replaced", image.replaced)?;
            }
            writeln!(text)?;
            for reason in image.reasons.iter().filter(|r| matches!(r.verdict.as_str(), "review" | "refused")) {
                write!(text, "  - {}: {} ({} times)", reason.code, reason.summary, reason.times)?;
                writeln!(
                    text,
                    "{}",
                    reason.seen.as_deref().map_or_else(String::new, |seen| format!(": `{}`", cell(seen)))
                )?;
            }
        }
        if let Came::Healed(healed) = &subject.came_to {
            writeln!(
                text,
                "- mappings of all processes after the first revert and after the last: {}, {}; descriptors: {}, {}",
                healed.mappings[0], healed.mappings[1], healed.descriptors[0], healed.descriptors[1]
            )?;
            writeln!(text, "- one `salve heal`, deriving included, took at most {} ms", healed.heal_took_ms)?;
            for (why, times) in &healed.left_behind {
                writeln!(text, "- HEALED IN PART {times} times: {}", cell(why))?;
            }
            for (why, times) in &healed.left {
                writeln!(text, "- left as it was {times} times: {}", cell(why))?;
            }
        }
        if let Came::Refused(why) = &subject.came_to {
            why.iter().try_for_each(|why| writeln!(text, "- {}", cell(why)))?;
            if let Some(refusing) = &subject.refusing {
                writeln!(
                    text,
                    "- one `salve heal`, deriving included, took at most {} ms, and changed no byte of the text of {} processes",
                    refusing.took_ms, refusing.processes
                )?;
            }
        }
        said(text, "`salve heal --dry-run` says", &subject.said)?;
        if let Came::Healed(healed) = &subject.came_to {
            said(text, "`salve status` while it is healed says", &healed.status)?;
        }
        writeln!(text)?;
    }
    if !report.afterwards.is_empty() {
        writeln!(text, "Afterwards:\n")?;
        report.afterwards.iter().try_for_each(|fact| writeln!(text, "- {fact}"))?;
        writeln!(text)?;
    }
    Ok(())
}

/// Lines of a command that are shown; the rest is counted.
const SHOWN: usize = 40;

fn said(text: &mut String, what: &str, said: &str) -> Result<()> {
    if said.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n<details><summary>{what}</summary>\n\n```")?;
    for line in said.lines().take(SHOWN) {
        writeln!(text, "{}", line.replace("```", "'''"))?;
    }
    if let Some(more) = said.lines().count().checked_sub(SHOWN).filter(|more| *more > 0) {
        writeln!(text, "… {more} more lines")?;
    }
    writeln!(text, "```\n\n</details>")?;
    Ok(())
}

/// Text that breaks no table and no list.
pub(super) fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('`', "'")
}
