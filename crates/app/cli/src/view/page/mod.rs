//! A host at a glance, as one file for a browser.
//!
//! Plain HTML without a script and without anything from elsewhere: it can be
//! mailed, kept and printed, and says the same without colour and without
//! style. Everything that comes from a process, a package or the log is
//! escaped; the page itself forbids scripts and requests besides.

mod causes;
mod days;
mod exposed;
mod healed;
mod stops;
#[cfg(test)]
mod tests;
mod text;
mod timeline;

use crate::command::file;
use crate::command::status::StatusReport;
use crate::command::windows::Window;
use crate::event::{History, ProcessRef, seconds};
use crate::host;
use crate::problem::Problem;
use crate::view::minute;
use core::fmt::{self, Write as _};
use std::collections::BTreeSet;
use std::path::Path;
use text::Text;

/// Days that are shown, the newest.
const DAYS: usize = 60;

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

/// Writes the page, whole or not at all, so that nobody reads half of it.
pub(crate) fn write(path: &Path, report: &StatusReport, history: &History, windows: &[Window]) -> Result<(), Problem> {
    let mut page = String::new();
    let _never_fails_on_a_string = compose(&mut page, report, history, windows, &host_name(), &host::wall_clock());
    file::write_whole(path, page.as_bytes())
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "this host".into(), |name| name.trim().to_owned())
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
    exposed::write(out, report.exposure())?;
    healed::write(out, report)?;
    timeline::write(out, history, windows, now_s)?;
    days::write(out, history, windows, now_s)?;
    stops::write(out, &history.stops_ns)?;
    causes::write(out, history)?;
    out.write_str("</body>\n</html>\n")
}

fn summary(out: &mut String, report: &StatusReport) -> fmt::Result {
    let exposure = report.exposure();
    let carrying: BTreeSet<&ProcessRef> = report.carried().into_iter().flat_map(|(_, processes)| processes).collect();
    let exposed = match (&exposure.unknown, exposure.count()) {
        (Some(_), _) => "what is exposed is not known".to_owned(),
        (None, count) => format!("{count} run code that is older than what is installed"),
    };
    writeln!(out, "<p class=\"sum\">Processes: {exposed}; {} carry livepatches.</p>", carrying.len())
}
