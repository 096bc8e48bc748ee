//! The long runs, as a section of `docs/services.md`.

use super::keep::{Control, Kept as _, long_key};
use super::page::Page;
use anyhow::Result;
use salve_testkit::services::Service;
use salve_testkit::services::drift::Drift;
use salve_testkit::services::endure::Endured;
use salve_testkit::services::endure_report::latencies;
use salve_testkit::services::holding::Holding;
use salve_testkit::services::report::ms;
use std::fmt::Write as _;

const HEAD: &str = "\
## Long runs

`cargo xtask e2e SERVICE --for 1h` derives a livepatch once and then applies and reverts it every few seconds in every
process of a service that works all the time. *Nothing leaks* means: of what only a livepatch brings (executable mappings,
memory files, their descriptors, payload, copied code) no process held more after the last revert than after the first; of
what the service has of its own as well, mappings and descriptors, none grew by as much as one for two cycles. Percentiles
of waiting times are the 50th, 90th and 99th, and the longest; *first* and *last* are the first and the last sixth of the
time. *Gentle* runs have their checking clients only, with pauses. *Drift* compares the first with the last quarter, for the median and the 99th of a hundred: it is one if the last is
slower by a tenth or more, that stands out from what varies within the quarters (rank-sum test at 1 %), and both hold beside
the floor as well, an echo over loopback at the same time ([decision 0097](adr/0097-a-long-run-compares-what-processes-hold.md)).
Data is checked at the end.

";

pub(super) fn write(text: &mut String, services: &[Box<dyn Service>], before: &Page) -> Result<()> {
    let (mut rows, mut sections) = (String::new(), String::new());
    for (service, gentle) in services.iter().flat_map(|service| [(service, false), (service, true)]) {
        let key = long_key(service.name(), gentle);
        if let Some(endured) = Endured::last(&key)? {
            row(&mut rows, &endured)?;
            processes(&mut sections, &endured, Control::last(&key)?.map(|control| control.0).as_ref())?;
        } else if let Some((row, section)) = before.long_run(&title(service.name(), gentle)) {
            writeln!(rows, "{row}")?;
            writeln!(sections, "{section}\n")?;
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "{HEAD}| service | code | cycles, time | changes of a process | requests, errors | leaks | drift | waiting: idle | first | last | \
         longest stop |\n|---|---|---|---|---|---|---|---|---|---|---|\n{rows}\n{sections}"
    )?;
    let blank_lines = text.trim_end().len() + 2;
    text.truncate(blank_lines.min(text.len()));
    Ok(())
}

fn row(text: &mut String, one: &Endured) -> Result<()> {
    let (first, last) = one.ends();
    writeln!(
        text,
        "| {} | {} | {}, {} min | {} | {}, {} | {} | {} | {} | {} | {} | {} |",
        title(&one.service, one.gentle),
        one.title,
        one.cycles(),
        one.lasted_s().div_ceil(60),
        one.applied(),
        one.requests,
        one.errors,
        if one.leaks.is_empty() { "nothing".to_owned() } else { one.leaks.len().to_string() },
        drift(one),
        latencies(&one.idle),
        latencies(&first),
        latencies(&last),
        ms(one.longest_stop_us())
    )?;
    Ok(())
}

/// What a run is called on the page.
fn title(service: &str, gentle: bool) -> String {
    if gentle { format!("{service}, gentle") } else { service.to_owned() }
}

fn drift(one: &Endured) -> &'static str {
    match one.drift() {
        Drift::NotJudged(_) => "NOT JUDGED",
        drift if drift.is_real() => "DRIFT",
        Drift::Judged(_) => "none",
    }
}

type Read = fn(&Holding) -> u64;

fn processes(text: &mut String, one: &Endured, control: Option<&Endured>) -> Result<()> {
    let (processes, held) = one.held();
    writeln!(
        text,
        "### {}, {} min\n\nRun {} on {}; load average at the beginning, in the middle and at the end: {}. `cargo xtask e2e {} --for {}m \
         --every {}s{}`. The {processes} processes that lived all the time held together:\n",
        title(&one.service, one.gentle),
        one.lasted_s().div_ceil(60),
        one.when,
        one.machine,
        one.load_averages.join("; "),
        one.service,
        one.lasted_s() / 60,
        one.every_ms / 1000,
        if one.gentle { " --gentle" } else { "" }
    )?;
    let beside = control.map_or_else(
        || "no control".to_owned(),
        |control| format!("per minute in a control of {} min", control.lasted_s().div_ceil(60)),
    );
    writeln!(
        text,
        "| | before the first apply | after the first revert | in the middle | at the end | growth per cycle after the first \
         | per minute | {beside} |\n|---|---|---|---|---|---|---|---|"
    )?;
    let rows: [(&str, Read, u64); 9] = [
        ("mappings", |held| held.mappings, 1),
        ("executable mappings", |held| held.executable_mappings, 1),
        ("mappings of memory files", |held| held.memory_file_mappings, 1),
        ("descriptors", |held| held.descriptors, 1),
        ("descriptors of memory files", |held| held.memory_file_descriptors, 1),
        ("payload, KiB", |held| held.payload_bytes, 1024),
        ("copied code, KiB", |held| held.copied_bytes, 1024),
        ("private memory, KiB", |held| held.private_bytes, 1024),
        ("address space, KiB", |held| held.virtual_bytes, 1024),
    ];
    for (what, read, unit) in rows {
        let [before, first, middle, end] = held.each_ref().map(|held| read(held) / unit);
        let cycles = u64::from(one.cycles().saturating_sub(1));
        let (per_cycle, per_minute) = (growth(first, end, cycles, 1), growth(first, end, one.lasted_s(), 60));
        let beside = control.map_or_else(String::new, |control| {
            let [_, first, _, end] = control.held().1.each_ref().map(|held| read(held) / unit);
            growth(first, end, control.lasted_s(), 60)
        });
        writeln!(text, "| {what} | {before} | {first} | {middle} | {end} | {per_cycle} | {per_minute} | {beside} |")?;
    }
    writeln!(text)?;
    for (why, times) in &one.left_behind {
        writeln!(text, "- APPLIED IN PART {times} times: {}", super::document::cell(why))?;
    }
    for (why, times) in &one.left {
        writeln!(text, "- left as it was {times} times: {}", super::document::cell(why))?;
    }
    writeln!(text, "- first and last quarter: {}", one.drift())?;
    if let Some(control) = control {
        writeln!(text, "- the same of the control: {}", control.drift())?;
    }
    one.leaks.iter().try_for_each(|leak| writeln!(text, "- LEAK: {leak}"))?;
    one.afterwards.iter().try_for_each(|fact| writeln!(text, "- {fact}"))?;
    writeln!(text)?;
    Ok(())
}

/// For each `unit` of `count`; in thousandths, since a leak may be rare.
fn growth(first: u64, end: u64, count: u64, unit: u64) -> String {
    let thousandths = first.abs_diff(end) * 1000 * unit / count.max(1);
    let sign = if end < first && thousandths > 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", thousandths / 1000, thousandths % 1000)
}
