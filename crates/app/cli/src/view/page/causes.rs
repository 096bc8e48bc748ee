//! Why processes were not healed.

use super::text::Text;
use crate::event::History;
use crate::view::minute;
use core::cmp::Reverse;
use core::fmt::{self, Write as _};

pub(super) fn write(out: &mut String, history: &History) -> fmt::Result {
    writeln!(out, "<h2>Not healed, by cause</h2>")?;
    if history.causes.is_empty() {
        return writeln!(out, "<p>None is in the log.</p>");
    }
    let mut causes: Vec<_> = history.causes.iter().collect();
    causes.sort_by_key(|(code, cause)| (Reverse(cause.times), *code));
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
