//! What was exposed, healed, not healed and reverted, day by day.

use super::DAYS;
use super::text::{Text, bar};
use crate::command::windows::Window;
use crate::event::{Day, History};
use core::fmt::{self, Write as _};
use std::collections::BTreeMap;

pub(super) fn write(out: &mut String, history: &History, windows: &[Window], now: i64) -> fmt::Result {
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
