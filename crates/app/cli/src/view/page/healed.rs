//! Which livepatches are in force, and what is in processes that nobody would want.

use super::text::{Text, who};
use crate::command::status::StatusReport;
use crate::view::cve_list;
use core::fmt::{self, Write as _};

pub(super) fn write(out: &mut String, report: &StatusReport) -> fmt::Result {
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
