//! Windows of exposure as a table, and as a drawing that needs no colour.
//!
//! What is exposed is hatched, what is healed is filled, of what is both the
//! upper half is hatched and the lower one filled; of what nothing is known
//! stays empty. The table says the same in words.

use super::DAYS;
use super::text::Text;
use crate::command::windows::{Since, Standing, Window};
use crate::event::History;
use crate::view::{cve_list, minute};
use core::fmt::{self, Write as _};

/// Rows and lanes; windows that are open come first.
const SHOWN: usize = 40;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// In units of the drawing: its width, where lanes begin, how high one is.
const WIDTH: i64 = 1000;
const LANES_AT: i64 = 20;
const LANE: i64 = 40;
/// Time is told in so many steps, so that the drawing's size is bounded.
const COLUMNS: usize = 480;
const TICKS: i64 = 4;

pub(super) fn write(out: &mut String, history: &History, windows: &[Window], now: i64) -> fmt::Result {
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
    table_and_drawing(out, windows, now)
}

fn table_and_drawing(out: &mut String, windows: &[Window], now: i64) -> fmt::Result {
    if windows.is_empty() {
        return writeln!(out, "<p>No update is known that was on disk and not in force.</p>");
    }
    let shown = windows.get(..SHOWN).unwrap_or(windows);
    writeln!(
        out,
        "<table>\n<tr><th>Update</th><th>CVEs</th><th>Exposed since</th><th>Healed</th><th class=\"n\">Exposed for</th>\
         <th>Processes</th></tr>"
    )?;
    for window in shown {
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            Text(&window.heading),
            Text(&cve_list(&window.cves)),
            Text(&since(window)),
            Text(&healed(window)),
            Text(&exposed_for(window)),
            Text(&processes(window))
        )?;
    }
    writeln!(out, "</table>")?;
    if let Some(more) = windows.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        writeln!(out, "<p>{more} more, that are over, are not shown.</p>")?;
    }
    let days = i64::try_from(DAYS).unwrap_or(i64::MAX);
    let earliest = now.saturating_sub(days.saturating_mul(DAY));
    let recent: Vec<&Window> = shown.iter().filter(|window| window.ends() >= earliest).collect();
    if recent.is_empty() {
        return writeln!(out, "<p>All of it was more than {days} days ago.</p>");
    }
    let oldest = recent.iter().map(|window| window.begins()).min().unwrap_or(now);
    drawing(out, &recent, oldest.clamp(earliest, now.saturating_sub(HOUR)), now)
}

/// `2026-01-31 23:59 UTC`.
fn time(at: i64) -> String {
    jiff::Timestamp::from_second(at).map_or_else(|_| "unknown".into(), |at| minute(&at.to_string()))
}

fn since(window: &Window) -> String {
    match window.since {
        Since::Installed(at) => time(at),
        Since::Before(at) => format!("unknown; before {}", time(at)),
        Since::Unknown => "unknown".into(),
    }
}

fn healed(window: &Window) -> String {
    match window.healed_at {
        None if window.carrying > 0 => "at an unknown time".into(),
        None => "no".into(),
        Some((first, last)) if time(first) == time(last) => time(first),
        Some((first, last)) => format!("{} to {}", time(first), time(last)),
    }
}

fn exposed_for(window: &Window) -> String {
    let still = if window.exposed > 0 { ", and still" } else { "" };
    if window.spans.is_empty() && window.at_least {
        return format!("unknown{still}");
    }
    let least = if window.at_least { "at least " } else { "" };
    format!("{least}{}{still}", hours(window.exposed_s))
}

/// `12 min`, `37.5 h`, `120.0 h (5 days)`.
fn hours(seconds: i64) -> String {
    let (tenths, days) = (seconds / (HOUR / 10), seconds / DAY);
    if seconds < HOUR {
        return format!("{} min", seconds / 60);
    }
    let long = if days >= 3 { format!(" ({days} days)") } else { String::new() };
    format!("{}.{} h{long}", tenths / 10, tenths % 10)
}

fn processes(window: &Window) -> String {
    let mut words = Vec::new();
    if window.exposed > 0 {
        words.push(format!("{} exposed now", window.exposed));
    }
    words.push(match (window.healed, window.carrying) {
        (0, _) => "none healed".to_owned(),
        (healed, 0) => format!("{healed} healed, none of them runs any more"),
        (healed, carrying) => format!("{healed} healed, {carrying} of them running now"),
    });
    if window.lost_sight_of > 0 {
        words.push(format!(
            "{} not healed and not seen any more (ended, restarted, or not to be judged)",
            window.lost_sight_of
        ));
    }
    words.join("; ")
}

fn drawing(out: &mut String, windows: &[&Window], from: i64, now: i64) -> fmt::Result {
    let lanes = i64::try_from(windows.len()).unwrap_or(0);
    let height = lanes.saturating_mul(LANE).saturating_add(LANES_AT);
    writeln!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" width=\"100%\" role=\"img\" aria-label=\"The table above over time, from {} to {}\">",
        time(from),
        time(now)
    )?;
    let range = now.saturating_sub(from).max(1);
    for tick in 0..=TICKS {
        let x = WIDTH.saturating_mul(tick) / TICKS;
        let anchor = match tick {
            0 => "start",
            TICKS => "end",
            _between => "middle",
        };
        let at = from.saturating_add(range.saturating_mul(tick) / TICKS);
        let words = if tick == TICKS { "now".to_owned() } else { time(at).replace(" UTC", "") };
        writeln!(
            out,
            "<line x1=\"{x}\" y1=\"16\" x2=\"{x}\" y2=\"{height}\" stroke=\"currentColor\" stroke-opacity=\".25\"/>\
             <text x=\"{x}\" y=\"12\" font-size=\"12\" text-anchor=\"{anchor}\" fill=\"currentColor\">{words}</text>"
        )?;
    }
    for (window, lane) in windows.iter().zip(0_i64..) {
        let top = lane.saturating_mul(LANE).saturating_add(LANES_AT);
        one(out, window, top, from, range)?;
    }
    writeln!(
        out,
        "</svg>\n<p><small>Times in UTC. Hatched: exposed. Filled: healed. Upper half hatched, lower half filled: some of its processes healed. \
         Empty: no process is known that ran it, or nothing is known.</small></p>"
    )
}

fn one(out: &mut String, window: &Window, top: i64, from: i64, range: i64) -> fmt::Result {
    writeln!(
        out,
        "<text x=\"2\" y=\"{}\" font-size=\"13\" fill=\"currentColor\">{}</text>",
        top.saturating_add(14),
        Text(&window.heading)
    )?;
    let y = top.saturating_add(18);
    writeln!(
        out,
        "<line x1=\"0\" y1=\"{0}\" x2=\"{WIDTH}\" y2=\"{0}\" stroke=\"currentColor\" stroke-opacity=\".4\"/>",
        y.saturating_add(16)
    )?;
    let x =
        |column: usize| WIDTH.saturating_mul(i64::try_from(column).unwrap_or(0)) / i64::try_from(COLUMNS).unwrap_or(1);
    for (first, after, standing) in runs(&columns(window, from, range)) {
        let (left, width) = (x(first), x(after).saturating_sub(x(first)));
        // How far down and how high the hatched part is, and the filled one.
        let (words, hatched, filled) = match standing {
            Standing::Exposed => ("exposed", Some((0, 16)), None),
            Standing::Partly => ("some healed, others exposed", Some((0, 8)), Some((8, 8))),
            Standing::Healed => ("healed", None, Some((0, 16))),
        };
        writeln!(
            out,
            "<rect x=\"{left}\" y=\"{y}\" width=\"{width}\" height=\"16\" fill=\"none\" stroke=\"currentColor\"><title>{words}</title></rect>"
        )?;
        if let Some((down, high)) = hatched {
            // A stroke as wide as the lane, in dashes: no pattern has to be referred to.
            writeln!(
                out,
                "<line x1=\"{left}\" y1=\"{0}\" x2=\"{1}\" y2=\"{0}\" stroke=\"currentColor\" stroke-width=\"{high}\" stroke-dasharray=\"1.5 4\"/>",
                y.saturating_add(down).saturating_add(high / 2),
                left.saturating_add(width)
            )?;
        }
        if let Some((down, high)) = filled {
            writeln!(
                out,
                "<rect x=\"{left}\" y=\"{}\" width=\"{width}\" height=\"{high}\" fill=\"currentColor\"/>",
                y.saturating_add(down)
            )?;
        }
    }
    Ok(())
}

/// What each step of time shows: of several standings in one, both.
fn columns(window: &Window, from: i64, range: i64) -> Vec<Option<Standing>> {
    let mut columns: Vec<Option<Standing>> = vec![None; COLUMNS];
    let steps = i64::try_from(COLUMNS).unwrap_or(1);
    let column = |at: i64| {
        let column = at.saturating_sub(from).clamp(0, range).saturating_mul(steps).checked_div(range).unwrap_or(0);
        usize::try_from(column.min(steps.saturating_sub(1))).unwrap_or(0)
    };
    for span in window.spans.iter().filter(|span| span.to >= from) {
        // Up to, not including, the step in which it ends, which belongs to what follows; but at least one.
        let (first, last) = (column(span.from), column(span.to.saturating_sub(1)));
        for one in columns.iter_mut().take(last.saturating_add(1)).skip(first) {
            *one = match *one {
                None => Some(span.standing),
                Some(there) if there == span.standing => Some(there),
                Some(_other) => Some(Standing::Partly),
            };
        }
    }
    // Healed, and of its process nothing further is known: a moment.
    if let Some((_, last)) = window.healed_at.filter(|(_, last)| *last >= from)
        && let Some(one) = columns.get_mut(column(last))
    {
        *one = match *one {
            Some(Standing::Exposed | Standing::Partly) => Some(Standing::Partly),
            Some(Standing::Healed) | None => Some(Standing::Healed),
        };
    }
    columns
}

/// Equal neighbours as one: first column, the one after the last, and what they show.
fn runs(columns: &[Option<Standing>]) -> Vec<(usize, usize, Standing)> {
    let mut runs: Vec<(usize, usize, Standing)> = Vec::new();
    for (index, standing) in columns.iter().enumerate() {
        let Some(standing) = *standing else { continue };
        match runs.last_mut().filter(|(_, after, last)| *after == index && *last == standing) {
            Some((_, after, _)) => *after = index.saturating_add(1),
            None => runs.push((index, index.saturating_add(1), standing)),
        }
    }
    runs
}
