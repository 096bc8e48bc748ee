//! For how long processes stood still.

use super::text::{Text, bar};
use crate::view::duration_for_people;
use core::fmt::{self, Write as _};
use core::time::Duration;

/// Upper ends of what stops are counted by, in µs.
const STOPS_US: [(u64, &str); 6] = [
    (100, "up to 0.1 ms"),
    (300, "up to 0.3 ms"),
    (1_000, "up to 1 ms"),
    (3_000, "up to 3 ms"),
    (10_000, "up to 10 ms"),
    (100_000, "up to 100 ms"),
];

pub(super) fn write(out: &mut String, stops_ns: &[u64]) -> fmt::Result {
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
