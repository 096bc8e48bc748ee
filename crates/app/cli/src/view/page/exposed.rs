//! Who runs old code now, and what to do about it.

use super::text::{Text, who};
use crate::command::exposure::{Exposed, Exposure};
use crate::heal::Left;
use crate::view::{cve_list, minute};
use core::fmt::{self, Write as _};

pub(super) fn write(out: &mut String, exposure: &Exposure) -> fmt::Result {
    writeln!(out, "<h2>Exposed now</h2>")?;
    if let Some(why) = &exposure.unknown {
        return writeln!(out, "<p>Not known: {}</p>", Text(why));
    }
    if exposure.exposed.is_empty() {
        writeln!(
            out,
            "<p>No process that was looked at is known to run older code than the disk has; what cannot be judged is below.</p>"
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
    left(out, &exposure.left)
}

fn left(out: &mut String, left: &[Left]) -> fmt::Result {
    if left.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<p>Found and not to be healed from disk:</p>\n<table>\n<tr><th>Reason</th><th class=\"n\">Images</th></tr>"
    )?;
    for ((code, why), images) in Left::by_reason(left) {
        writeln!(out, "<tr><td>{} [{}]</td><td class=\"n\">{}</td></tr>", Text(why), Text(code), images.len())?;
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
