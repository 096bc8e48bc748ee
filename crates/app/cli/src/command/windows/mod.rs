//! Windows of exposure: since when an update was on disk and not in force, in whom, and until when.
//!
//! What is so now is read from the processes; what is over is told from the log
//! of events. A window begins when the package manager put the new version on
//! the disk. Where that is not known, or a process was healed of it before, the
//! beginning is unknown, and the first that Salve saw of it bounds the length
//! from below. The end of a process that was never healed is in no log: from
//! the last that is known of it on nothing is claimed.

#[cfg(test)]
mod example;
mod now;
mod past;
mod spans;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use example::example;
pub(crate) use spans::{Span, Standing};

use super::status::StatusReport;
use crate::event::{Course, History, UpdateKey};
use crate::machine::packages::PackageFacts;
use crate::problem::one_line;
use now::Now;
use past::Past;
use salve_patch::Cves;
use std::collections::BTreeSet;

/// Where a window begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// The new version was put on the disk.
    Installed(i64),
    /// Before, at a time that is not known; Salve saw it first at this one.
    Before(i64),
    Unknown,
}

/// One update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) heading: String,
    pub(crate) cves: Cves,
    pub(crate) since: Since,
    /// The first and the last process that was healed.
    pub(crate) healed_at: Option<(i64, i64)>,
    /// Processes that were healed at any time.
    pub(crate) healed: usize,
    /// That carry it now.
    pub(crate) carrying: usize,
    /// That run the old code now.
    pub(crate) exposed: usize,
    /// That ran the old code when they were last heard of, and are not among those any more.
    pub(crate) lost_sight_of: usize,
    pub(crate) spans: Vec<Span>,
    /// For how long at least one process was exposed; or at least for that long.
    pub(crate) exposed_s: i64,
    pub(crate) at_least: bool,
}

pub(crate) fn find(
    report: &StatusReport,
    history: &History,
    packages: Option<&dyn PackageFacts>,
    boot_id: Option<&str>,
    now: i64,
) -> Vec<Window> {
    let mut present = now::of_updates(report, history);
    let courses = history.courses.by_update.iter().filter(|(_, course)| !course.steps.is_empty());
    let keys: BTreeSet<UpdateKey> = present.keys().chain(courses.map(|(key, _)| key)).cloned().collect();
    let nothing = Course::default();
    let mut windows: Vec<Window> = keys
        .into_iter()
        .map(|key| {
            let course = history.courses.by_update.get(&key).unwrap_or(&nothing);
            let mut state = present.remove(&key).unwrap_or_default();
            state.complete(&key, course, packages);
            Window::of(&key, course, &state, boot_id.unwrap_or_default(), now, report.exposure().unknown.is_some())
        })
        .collect();
    // Those that are open, then the youngest.
    windows.sort_by_key(|window| (window.exposed == 0, window.carrying == 0, core::cmp::Reverse(window.begins())));
    windows
}

impl Since {
    fn of(course: &Course, state: &Now) -> Self {
        let first_seen = course.steps.values().flatten().map(|step| step.at).min();
        match (state.installed_at, first_seen) {
            (Some(installed), None) => Self::Installed(installed),
            (Some(installed), Some(seen)) if installed <= seen => Self::Installed(installed),
            // It was healed before it was installed.
            (_, Some(seen)) => Self::Before(seen),
            (None, None) => Self::Unknown,
        }
    }

    fn installed(self) -> Option<i64> {
        match self {
            Self::Installed(at) => Some(at),
            Self::Before(_) | Self::Unknown => None,
        }
    }
}

impl Window {
    fn of(update: &UpdateKey, course: &Course, state: &Now, boot_id: &str, now: i64, exposure_unknown: bool) -> Self {
        let since = Since::of(course, state);
        let past = Past::of(course, state, since.installed(), boot_id, now);
        let spans = spans::sweep(&past.intervals);
        let of_log = course.cves.as_ref().filter(|cves| matches!(cves, Cves::Known { .. }));
        Self {
            heading: heading(update, course, state),
            cves: of_log.or(state.cves.as_ref()).cloned().unwrap_or(Cves::Unknown),
            since,
            healed_at: past.healed_at,
            healed: past.healed,
            carrying: state.carrying.len(),
            exposed: state.exposed.len(),
            lost_sight_of: past.lost_sight_of,
            exposed_s: spans::exposed_s(&spans),
            spans,
            at_least: past.lost_sight_of > 0 || exposure_unknown || since.installed().is_none(),
        }
    }

    /// The first moment of which anything is known.
    pub(crate) fn begins(&self) -> i64 {
        match self.since {
            Since::Installed(at) | Since::Before(at) => at,
            Since::Unknown => self.spans.first().map_or(i64::MAX, |span| span.from),
        }
    }

    /// The last moment of which anything is known.
    pub(crate) fn ends(&self) -> i64 {
        let known = self.spans.last().map(|span| span.to).into_iter().chain(self.healed_at.map(|(_, last)| last));
        known.max().unwrap_or_else(|| self.begins())
    }

    /// Whether any process was exposed at some time from `from` to before `to`.
    pub(crate) fn exposed_between(&self, from: i64, to: i64) -> bool {
        self.spans.iter().any(|span| span.standing != Standing::Healed && span.from < to && from < span.to)
    }
}

/// `small-bin 1 or 2 -> 3`.
fn heading((source, new_version): &UpdateKey, course: &Course, state: &Now) -> String {
    let name = if state.packages.is_empty() {
        source.clone()
    } else {
        state.packages.iter().cloned().collect::<Vec<_>>().join(", ")
    };
    let Some(new) = new_version else { return one_line(&name) };
    let old: BTreeSet<&str> = course.old_versions.iter().chain(&state.old_versions).map(String::as_str).collect();
    let old = if old.is_empty() { "?".to_owned() } else { old.into_iter().collect::<Vec<_>>().join(" or ") };
    format!("{} {} -> {}", one_line(&name), one_line(&old), one_line(new))
}
