//! A host at a glance, as one file for a browser.
//!
//! Plain HTML without a script and without anything from elsewhere: it can be
//! mailed, kept and printed, and says the same without colour and without
//! style. Everything that comes from a process, a package or the log is
//! escaped; the page itself forbids scripts and requests besides.

use crate::command::exposure::{Exposed, minute, numbers};
use crate::command::status::StatusReport;
use crate::command::windows::Window;
use crate::event::{Day, History, ProcessRef, seconds};
use crate::host;
use crate::problem::{Problem, one_line};
use crate::view::{cve_list, duration_for_people, timeline};
use core::fmt::{self, Write as _};
use core::time::Duration;
use std::collections::BTreeMap;
use std::path::Path;

/// Days that are shown, the newest.
pub(super) const DAYS: usize = 60;
/// Longest bar, in characters.
const BAR: u64 = 40;
/// Upper ends of what stops are counted by, in µs.
const STOPS_US: [(u64, &str); 6] = [
    (100, "up to 0.1 ms"),
    (300, "up to 0.3 ms"),
    (1_000, "up to 1 ms"),
    (3_000, "up to 3 ms"),
    (10_000, "up to 10 ms"),
    (100_000, "up to 100 ms"),
];

const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<style>
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em; color: #111; background: #fff; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #999; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .3em .7em .3em 0;
border-bottom: 1px solid #ddd; overflow-wrap: anywhere; } th { font-weight: 600; } td.n, th.n { text-align: right; white-space: nowrap; }
.sum { font-size: 1.1em; } .bar { font-family: monospace; white-space: pre; letter-spacing: -1px; } small { color: #555; }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #111; } small { color: #aaa; } th, td { border-color: #444; } }
@media print { body { margin: 0; max-width: none; } }
</style>
";

/// Writes the page beside the file and moves it into place, so that nobody reads half of it.
pub(crate) fn write(file: &Path, report: &StatusReport, history: &History, windows: &[Window]) -> Result<(), Problem> {
    let mut page = String::new();
    let _never_fails_on_a_string = compose(&mut page, report, history, windows, &host_name(), &host::wall_clock());
    let problem = |error: std::io::Error| {
        Problem::failed("cannot-write", format!("cannot write {}", file.display())).because(error)
    };
    let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = tempfile::NamedTempFile::new_in(directory).map_err(problem)?;
    std::io::Write::write_all(&mut beside, page.as_bytes()).map_err(problem)?;
    beside.persist(file).map_err(|error| problem(error.error)).map(drop)
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "this host".into(), |name| name.trim().to_owned())
}

/// Text that is only text, wherever it stands in the page.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in one_line(self.0).chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

fn compose(
    out: &mut String,
    report: &StatusReport,
    history: &History,
    windows: &[Window],
    host: &str,
    now: &str,
) -> fmt::Result {
    let now_s = seconds(now).unwrap_or_default();
    out.push_str(HEAD);
    let (looked_at, not_looked_at) = report.counts();
    writeln!(out, "<title>Salve: {}</title>\n</head>\n<body>", Text(host))?;
    write!(out, "<h1>Salve on {}</h1>\n<p><small>{}; {looked_at} processes looked at", Text(host), Text(&minute(now)))?;
    if not_looked_at > 0 {
        write!(out, ", {not_looked_at} could not be looked at")?;
    }
    writeln!(out, "</small></p>")?;
    if let Some(words) = report.switch().words() {
        writeln!(out, "<p><strong>{}</strong></p>", Text(&words))?;
    }
    summary(out, report)?;
    exposed(out, report)?;
    healed(out, report)?;
    exposure_over_time(out, history, windows, now_s)?;
    over_time(out, history, windows, now_s)?;
    stops(out, &history.stops_ns)?;
    causes(out, history)?;
    out.write_str("</body>\n</html>\n")
}

fn summary(out: &mut String, report: &StatusReport) -> fmt::Result {
    let exposure = report.exposure();
    let carrying: std::collections::BTreeSet<&ProcessRef> =
        report.carried().into_iter().flat_map(|(_, processes)| processes).collect();
    let exposed = match (&exposure.unknown, exposure.count()) {
        (Some(_), _) => "what is exposed is not known".to_owned(),
        (None, count) => format!("{count} run code that is older than what is installed"),
    };
    writeln!(out, "<p class=\"sum\">Processes: {exposed}; {} carry livepatches.</p>", carrying.len())
}

fn exposed(out: &mut String, report: &StatusReport) -> fmt::Result {
    let exposure = report.exposure();
    writeln!(out, "<h2>Exposed now</h2>")?;
    if let Some(why) = &exposure.unknown {
        return writeln!(out, "<p>Not known: {}</p>", Text(why));
    }
    if exposure.exposed.is_empty() {
        writeln!(
            out,
            "<p>Every process that was looked at runs the code that is on disk, or cannot be judged (below).</p>"
        )?;
    } else {
        writeln!(
            out,
            "<table>\n<tr><th>Update</th><th>Installed since</th><th>CVEs</th><th>Processes</th><th>State and what to do</th></tr>"
        )?;
        exposure.exposed.iter().try_for_each(|one| exposed_rows(out, one))?;
        writeln!(out, "</table>")?;
    }
    if let Some(why) = &exposure.not_installed.unknown {
        writeln!(out, "<p>Whether the archive has fixes that are not installed is not known: {}</p>", Text(why))?;
    }
    for one in &exposure.not_installed.packages {
        writeln!(out, "<p>{}</p>", Text(&one.words()))?;
    }
    let mut left: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for one in &exposure.left {
        let count = left.entry((&one.code, &one.why)).or_default();
        *count = count.saturating_add(1);
    }
    if left.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<p>Found and not to be healed from disk:</p>\n<table>\n<tr><th>Reason</th><th class=\"n\">Images</th></tr>"
    )?;
    for ((code, why), count) in left {
        writeln!(out, "<tr><td>{} [{}]</td><td class=\"n\">{count}</td></tr>", Text(why), Text(code))?;
    }
    writeln!(out, "</table>")
}

fn exposed_rows(out: &mut String, one: &Exposed) -> fmt::Result {
    for ((standing, advice), processes) in one.by_standing() {
        let since = one.installed_at.as_deref().map_or_else(|| "unknown".into(), minute);
        let state = standing.unwrap_or_else(|| "not tried yet".into());
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}; {}</td></tr>",
            Text(&one.heading()),
            Text(&since),
            Text(&cve_list(&one.cves)),
            who(&processes),
            Text(&state),
            Text(advice)
        )?;
    }
    Ok(())
}

/// Programs and numbers, escaped.
fn who(processes: &[&ProcessRef]) -> String {
    let mut by_program: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for process in processes {
        by_program.entry(&process.program).or_default().push(process.pid);
    }
    let one = |(program, pids): (&str, Vec<u32>)| format!("{}: {}", Text(program), Text(&numbers(&pids, true)));
    by_program.into_iter().map(one).collect::<Vec<_>>().join("<br>")
}

fn healed(out: &mut String, report: &StatusReport) -> fmt::Result {
    writeln!(out, "<h2>Livepatches in force</h2>")?;
    let carried = report.carried();
    if carried.is_empty() {
        writeln!(out, "<p>No process carries one.</p>")?;
    } else {
        writeln!(
            out,
            "<table>\n<tr><th>Livepatch</th><th>Image</th><th>CVEs</th><th>State</th><th>Processes</th><th>After a restart</th></tr>"
        )?;
        for (one, processes) in carried {
            writeln!(
                out,
                "<tr><td>{} <small>{}</small></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                Text(&one.what()),
                Text(&one.short()),
                Text(one.path()),
                Text(&cve_list(one.cves())),
                Text(&one.state_words()),
                who(&processes),
                Text(one.restart_words().unwrap_or("the new code"))
            )?;
        }
        writeln!(out, "</table>")?;
    }
    for view in report.strange() {
        let mut lines = Vec::new();
        let _never_fails_on_a_vector = view.strange_lines(&mut lines);
        writeln!(out, "<p><strong>pid {} {}</strong></p>", view.process().pid, Text(&view.process().program))?;
        for line in String::from_utf8_lossy(&lines).lines() {
            writeln!(out, "<p>{}</p>", Text(line))?;
        }
    }
    Ok(())
}

fn exposure_over_time(out: &mut String, history: &History, windows: &[Window], now: i64) -> fmt::Result {
    write!(
        out,
        "<h2>Exposure over time</h2>\n<p><small>An update is exposed from when its new version was put on the disk until the last \
         process that runs the old code is healed. What is so now is read from the processes; what is over, from the log of events."
    )?;
    if history.cut {
        write!(out, " The older part of the log was not read.")?;
    }
    for gap in &history.gaps {
        write!(out, " Not read: {}.", Text(gap))?;
    }
    if history.not_understood > 0 {
        write!(out, " {} lines were not understood.", history.not_understood)?;
    }
    writeln!(out, "</small></p>")?;
    if let Some(why) = &history.missing {
        writeln!(out, "<p>There is no log: {}</p>", Text(why))?;
    }
    timeline::write(out, windows, now)
}

fn over_time(out: &mut String, history: &History, windows: &[Window], now: i64) -> fmt::Result {
    writeln!(
        out,
        "<h2>By day</h2>\n<p><small>Days in UTC. Exposed: updates; healed, not healed and reverted: processes.</small></p>"
    )?;
    let exposed = exposed_by_day(windows, now);
    let mut days: BTreeMap<&str, (u64, Day)> = BTreeMap::new();
    for (day, counts) in history.days.iter().filter(|(_, day)| **day != Day::default()) {
        days.entry(day).or_default().1 = *counts;
    }
    for (day, count) in &exposed {
        days.entry(day).or_default().0 = *count;
    }
    if days.is_empty() {
        return writeln!(out, "<p>Nothing was exposed, healed, reverted or refused.</p>");
    }
    let most = days.values().map(|(_, day)| day.applied.max(day.not_healed)).max().unwrap_or(0);
    writeln!(
        out,
        "<table>\n<tr><th>Day</th><th class=\"n\">exposed</th><th class=\"n\">healed</th><th>#</th><th class=\"n\">not healed</th><th>-</th><th class=\"n\">reverted</th></tr>"
    )?;
    for (day, (exposed, counts)) in days.iter().rev().take(DAYS) {
        writeln!(
            out,
            "<tr><td>{}</td><td class=\"n\">{exposed}</td><td class=\"n\">{}</td><td class=\"bar\">{}</td><td class=\"n\">{}</td><td class=\"bar\">{}</td><td class=\"n\">{}</td></tr>",
            Text(day),
            counts.applied,
            bar('#', counts.applied, most),
            counts.not_healed,
            bar('-', counts.not_healed, most),
            counts.reverted
        )?;
    }
    writeln!(out, "</table>")
}

/// How many updates were exposed at some time of each of the days that are shown, where any was.
fn exposed_by_day(windows: &[Window], now: i64) -> BTreeMap<String, u64> {
    const DAY_S: i64 = 86_400;
    let today = now.div_euclid(DAY_S);
    let mut days = BTreeMap::new();
    for back in 0..i64::try_from(DAYS).unwrap_or(0) {
        let from = today.saturating_sub(back).saturating_mul(DAY_S);
        let count = windows.iter().filter(|one| one.exposed_between(from, from.saturating_add(DAY_S))).count();
        if let (Ok(day), true) = (jiff::Timestamp::from_second(from), count > 0) {
            days.insert(day.to_string().chars().take(10).collect(), u64::try_from(count).unwrap_or(u64::MAX));
        }
    }
    days
}

/// At least one mark for what is not nothing.
fn bar(mark: char, count: u64, most: u64) -> String {
    let length = count.saturating_mul(BAR).div_ceil(most.max(1)).min(BAR);
    core::iter::repeat_n(mark, usize::try_from(length).unwrap_or(0)).collect()
}

fn stops(out: &mut String, stops_ns: &[u64]) -> fmt::Result {
    writeln!(out, "<h2>Stops</h2>")?;
    let Some(longest) = stops_ns.iter().max() else { return writeln!(out, "<p>None is in the log.</p>") };
    let mut counts = [0_u64; STOPS_US.len()];
    let mut above = 0_u64;
    for ns in stops_ns {
        let slot =
            STOPS_US.iter().position(|(end, _)| *ns <= end.saturating_mul(1000)).and_then(|at| counts.get_mut(at));
        let count = slot.unwrap_or(&mut above);
        *count = count.saturating_add(1);
    }
    writeln!(
        out,
        "<p>All threads of one process stood still {} times, at most for {}.</p>\n<table>\n<tr><th>How long</th><th class=\"n\">times</th><th>#</th></tr>",
        stops_ns.len(),
        Text(&duration_for_people(Duration::from_nanos(*longest)))
    )?;
    let rows = STOPS_US.iter().map(|(_, words)| *words).chain(["longer"]).zip(counts.into_iter().chain([above]));
    let most = counts.iter().copied().max().unwrap_or(0).max(above);
    for (words, count) in rows {
        writeln!(
            out,
            "<tr><td>{words}</td><td class=\"n\">{count}</td><td class=\"bar\">{}</td></tr>",
            bar('#', count, most)
        )?;
    }
    writeln!(out, "</table>")
}

fn causes(out: &mut String, history: &History) -> fmt::Result {
    writeln!(out, "<h2>Not healed, by cause</h2>")?;
    if history.causes.is_empty() {
        return writeln!(out, "<p>None is in the log.</p>");
    }
    let mut causes: Vec<_> = history.causes.iter().collect();
    causes.sort_by_key(|(code, cause)| (core::cmp::Reverse(cause.times), *code));
    writeln!(out, "<table>\n<tr><th>Cause</th><th class=\"n\">times</th><th>The last time</th></tr>")?;
    for (code, cause) in causes {
        writeln!(
            out,
            "<tr><td>{}</td><td class=\"n\">{}</td><td>{}: {} <small>{}</small></td></tr>",
            Text(code),
            cause.times,
            Text(&cause.program),
            Text(&cause.why),
            Text(&minute(&cause.at))
        )?;
    }
    writeln!(out, "</table>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::status::example;
    use crate::command::windows;

    fn page(history: &History) -> String {
        let mut page = String::new();
        compose(&mut page, &example(), history, &windows::example(), "host<1>", "2026-11-21T12:00:00.000Z")
            .expect("composed");
        page
    }

    fn history() -> History {
        let mut history =
            History { stops_ns: vec![90_000, 250_000, 900_000_000], not_understood: 1, ..History::default() };
        history.days.insert("2026-11-20".into(), Day { applied: 300, reverted: 0, not_healed: 1 });
        history.days.insert("2026-11-21".into(), Day { applied: 2, reverted: 300, not_healed: 0 });
        let cause = crate::event::Cause {
            times: 7,
            why: "\"><img src=x onerror=alert(1)>".into(),
            program: "/usr/sbin/<script>".into(),
            at: "2026-11-21T10:00:00.000Z".into(),
        };
        history.causes.insert("struct-layout".into(), cause);
        history
    }

    #[test]
    fn nothing_that_is_shown_becomes_markup() {
        let page = page(&history());
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<1>"), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("host&lt;1&gt;"));
        // Nothing is fetched and nothing runs, even if a browser were to be misled.
        assert!(page.contains("default-src 'none'"));
        for outside in ["http://", "https://", "src=\"", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_page_says_what_the_host_is_in_without_colour() {
        insta::assert_snapshot!(page(&history()));
    }

    #[test]
    fn every_stop_is_in_one_row_and_a_bar_fits() {
        let mut out = String::new();
        stops(&mut out, &[1, 100_000, 100_001, u64::MAX]).expect("written");
        assert!(out.contains("stood still 4 times"), "{out}");
        assert!(out.contains("<td>up to 0.1 ms</td><td class=\"n\">2</td>"), "{out}");
        assert!(out.contains("<td>longer</td><td class=\"n\">1</td>"), "{out}");
        assert_eq!((bar('#', 0, 5).len(), bar('#', 1, 1_000_000).len(), bar('#', u64::MAX, 1).len()), (0, 1, 40));
    }

    #[test]
    fn an_empty_host_and_a_missing_log_are_said() {
        let missing = History { missing: Some("/var/log: none".into()), ..History::default() };
        let page = page(&missing);
        assert!(page.contains("There is no log: /var/log: none"), "{page}");
    }
}
