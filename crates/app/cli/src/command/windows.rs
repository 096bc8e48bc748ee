//! Windows of exposure: since when an update was on disk and not in force, in whom, and until when.
//!
//! What is so now is read from the processes; what is over is told from the log
//! of events. A window begins when the package manager put the new version on
//! the disk. Where that is not known, or a process was healed of it before, the
//! beginning is unknown, and the first that Salve saw of it bounds the length
//! from below. The end of a process that was never healed is in no log: from
//! the last that is known of it on nothing is claimed.

use super::status::StatusReport;
use crate::event::{Course, History, ProcessKey, ProcessRef, StepKind, UpdateKey, seconds};
use crate::machine::packages::PackageFacts;
use crate::problem::one_line;
use salve_patch::{Cves, PackageId};
use std::collections::{BTreeMap, BTreeSet};

/// What the processes that are known of did in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// All ran the old code.
    Exposed,
    /// Some did, others were healed.
    Partly,
    /// All were healed.
    Healed,
}

/// From and to, in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) standing: Standing,
}

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

/// What is true now of one update.
#[derive(Default)]
struct Now {
    packages: BTreeSet<String>,
    old_versions: BTreeSet<String>,
    cves: Option<Cves>,
    installed_at: Option<i64>,
    exposed: BTreeSet<(u64, u64)>,
    carrying: BTreeSet<(u64, u64)>,
}

pub(crate) fn find(
    report: &StatusReport,
    history: &History,
    packages: Option<&dyn PackageFacts>,
    boot_id: Option<&str>,
    now: i64,
) -> Vec<Window> {
    let mut present = present(report, history);
    let courses = history.courses.by_update.iter().filter(|(_, course)| !course.steps.is_empty());
    let keys: BTreeSet<UpdateKey> = present.keys().chain(courses.map(|(key, _)| key)).cloned().collect();
    let nothing = Course::default();
    let mut windows: Vec<Window> = keys
        .into_iter()
        .map(|key| {
            let course = history.courses.by_update.get(&key).unwrap_or(&nothing);
            let mut state = present.remove(&key).unwrap_or_default();
            complete(&key, course, &mut state, packages);
            window(&key, course, &state, boot_id.unwrap_or_default(), now, report.exposure().unknown.is_some())
        })
        .collect();
    // Those that are open, then the youngest.
    windows.sort_by_key(|window| (window.exposed == 0, window.carrying == 0, core::cmp::Reverse(window.begins())));
    windows
}

fn present(report: &StatusReport, history: &History) -> BTreeMap<UpdateKey, Now> {
    let mut all: BTreeMap<UpdateKey, Now> = BTreeMap::new();
    let key = |process: &ProcessRef| (u64::from(process.pid), process.start_ticks);
    for one in &report.exposure().exposed {
        let now = all.entry((one.update.source.clone(), one.update.new_version.clone())).or_default();
        now.packages.insert(one.package.clone());
        now.old_versions.extend(one.update.old_version.clone());
        now.cves = Some(one.cves.clone());
        now.installed_at = now.installed_at.or(one.installed_at.as_deref().and_then(seconds));
        now.exposed.extend(one.processes.iter().map(|waiting| key(&waiting.process)));
    }
    for (carried, processes) in report.carried().into_iter().filter(|(carried, _)| carried.is_in_force()) {
        let of_log = history.courses.by_update.iter().find(|(_, course)| course.livepatches.contains(carried.id()));
        let now = all.entry(of_log.map_or_else(|| carried.update(), |(key, _)| key.clone())).or_default();
        now.packages.extend(carried.package().map(str::to_owned));
        now.old_versions.extend(carried.old_version().map(str::to_owned));
        now.cves.get_or_insert_with(|| carried.cves().clone());
        now.carrying.extend(processes.into_iter().map(key));
    }
    all
}

/// What neither processes nor the log say: when it was installed, and what its changelog names.
fn complete((source, new_version): &UpdateKey, course: &Course, now: &mut Now, packages: Option<&dyn PackageFacts>) {
    let (Some(packages), Some(new_version)) = (packages, new_version) else { return };
    let of_source = packages.of_source(source);
    if now.installed_at.is_none() {
        now.installed_at = of_source.iter().filter_map(|package| packages.unpacked_at(package, new_version)).min();
    }
    let known = |cves: &Cves| matches!(cves, Cves::Known { .. });
    if !now.cves.as_ref().is_some_and(known) && !course.cves.as_ref().is_some_and(known) {
        let old_versions: BTreeSet<&String> = course.old_versions.iter().chain(&now.old_versions).collect();
        let [old] = old_versions.into_iter().collect::<Vec<_>>()[..] else { return };
        let mut named = of_source
            .into_iter()
            .map(|package| packages.fixes(&PackageId { version: new_version.clone(), ..package }, old));
        now.cves = named.find(known);
    }
}

fn window(
    (source, new_version): &UpdateKey,
    course: &Course,
    state: &Now,
    boot_id: &str,
    now: i64,
    exposure_unknown: bool,
) -> Window {
    let first_seen = course.steps.values().flatten().map(|step| step.at).min();
    let since = match (state.installed_at, first_seen) {
        (Some(installed), None) => Since::Installed(installed),
        (Some(installed), Some(seen)) if installed <= seen => Since::Installed(installed),
        // It was healed before it was installed.
        (_, Some(seen)) => Since::Before(seen),
        (None, None) => Since::Unknown,
    };
    let installed = match since {
        Since::Installed(at) => Some(at),
        Since::Before(_) | Since::Unknown => None,
    };
    let mut intervals = Vec::new();
    let mut healed_at: Option<(i64, i64)> = None;
    let (mut healed, mut lost_sight_of) = (0_usize, 0_usize);
    let key = |&(pid, start_ticks): &(u64, u64)| ProcessKey { boot_id: boot_id.to_owned(), pid, start_ticks };
    let exposed: BTreeSet<ProcessKey> = state.exposed.iter().map(key).collect();
    let carrying: BTreeSet<ProcessKey> = state.carrying.iter().map(key).collect();
    let all: BTreeSet<&ProcessKey> = course.steps.keys().chain(&exposed).chain(&carrying).collect();
    for process in all {
        let steps = course.steps.get(process).map(Vec::as_slice).unwrap_or_default();
        let begun = installed.or(steps.first().map(|step| step.at)).unwrap_or(now);
        let (mut cursor, mut is_healed, mut ever) = (begun, false, false);
        for step in steps {
            let becomes = match step.kind {
                StepKind::Healed => true,
                StepKind::Reverted => false,
                StepKind::NotHealed => is_healed,
            };
            if step.kind == StepKind::Healed {
                ever = true;
                let (first, last) = healed_at.unwrap_or((step.at, step.at));
                healed_at = Some((first.min(step.at), last.max(step.at)));
            }
            intervals.push((cursor, step.at, is_healed));
            (cursor, is_healed) = (step.at, becomes);
        }
        healed = healed.saturating_add(usize::from(ever || carrying.contains(process)));
        if exposed.contains(process) {
            intervals.push((cursor, now, false));
        } else if carrying.contains(process) {
            intervals.push((cursor, now, true));
        } else {
            intervals.push((cursor, cursor, is_healed));
            lost_sight_of = lost_sight_of.saturating_add(usize::from(!is_healed));
        }
    }
    let spans = sweep(&intervals);
    let exposed_s = spans
        .iter()
        .filter(|span| span.standing != Standing::Healed)
        .map(|span| span.to.saturating_sub(span.from))
        .fold(0, i64::saturating_add);
    let name = if state.packages.is_empty() {
        source.clone()
    } else {
        state.packages.iter().cloned().collect::<Vec<_>>().join(", ")
    };
    let old: BTreeSet<&str> = course.old_versions.iter().chain(&state.old_versions).map(String::as_str).collect();
    let heading = match new_version {
        Some(new) => {
            let old = if old.is_empty() { "?".to_owned() } else { old.into_iter().collect::<Vec<_>>().join(" or ") };
            format!("{} {} -> {}", one_line(&name), one_line(&old), one_line(new))
        }
        None => one_line(&name),
    };
    let of_log = course.cves.as_ref().filter(|cves| matches!(cves, Cves::Known { .. }));
    Window {
        heading,
        cves: of_log.or(state.cves.as_ref()).cloned().unwrap_or(Cves::Unknown),
        since,
        healed_at,
        healed,
        carrying: carrying.len(),
        exposed: exposed.len(),
        lost_sight_of,
        spans,
        exposed_s,
        at_least: lost_sight_of > 0 || exposure_unknown || !matches!(since, Since::Installed(_)),
    }
}

/// What holds from one moment at which something changed to the next.
fn sweep(intervals: &[(i64, i64, bool)]) -> Vec<Span> {
    let mut changes: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for &(from, to, healed) in intervals.iter().filter(|(from, to, _)| from < to) {
        for (at, sign) in [(from, 1_i64), (to, -1)] {
            let (exposed, of_healed) = changes.entry(at).or_default();
            let count = if healed { of_healed } else { exposed };
            *count = count.saturating_add(sign);
        }
    }
    let mut spans: Vec<Span> = Vec::new();
    let (mut exposed, mut healed, mut from) = (0_i64, 0_i64, 0_i64);
    for (at, (more_exposed, more_healed)) in changes {
        let standing = match (exposed > 0, healed > 0) {
            (true, false) => Some(Standing::Exposed),
            (true, true) => Some(Standing::Partly),
            (false, true) => Some(Standing::Healed),
            (false, false) => None,
        };
        if let Some(standing) = standing {
            match spans.last_mut().filter(|last| last.to == from && last.standing == standing) {
                Some(last) => last.to = at,
                None => spans.push(Span { from, to: at, standing }),
            }
        }
        exposed = exposed.saturating_add(more_exposed);
        healed = healed.saturating_add(more_healed);
        from = at;
    }
    spans
}

impl Window {
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

/// Three windows: one open, one closed, one of which the log knows only.
#[cfg(test)]
pub(crate) fn example() -> Vec<Window> {
    let cves = |ids: &[&str]| Cves::Known { ids: ids.iter().map(|id| (*id).to_owned()).collect() };
    // 2026-11-20 00:00 UTC.
    let day = 1_795_132_800;
    let span = |from: i64, to: i64, standing| Span { from: day + from * 3600, to: day + to * 3600, standing };
    vec![
        Window {
            heading: "libssl3 3.0.20 -> 3.0.22".into(),
            cves: cves(&["CVE-2026-10000"]),
            since: Since::Installed(day + 10 * 3600),
            healed_at: Some((day + 12 * 3600, day + 20 * 3600)),
            healed: 20,
            carrying: 18,
            exposed: 17,
            lost_sight_of: 0,
            spans: vec![span(10, 12, Standing::Exposed), span(12, 36, Standing::Partly)],
            exposed_s: 26 * 3600,
            at_least: false,
        },
        Window {
            heading: "redis-tools 1 -> <2>".into(),
            cves: Cves::Unknown,
            since: Since::Before(day),
            healed_at: Some((day + 600, day + 600)),
            healed: 1,
            carrying: 1,
            exposed: 0,
            lost_sight_of: 0,
            spans: vec![span(0, 1, Standing::Exposed), span(1, 36, Standing::Healed)],
            exposed_s: 600,
            at_least: true,
        },
        Window {
            heading: "nginx 1.22.1-9 -> 1.22.1-10".into(),
            cves: cves(&[]),
            since: Since::Installed(day - 100 * 24 * 3600),
            healed_at: None,
            healed: 0,
            carrying: 0,
            exposed: 0,
            lost_sight_of: 3,
            spans: vec![span(-2400, -2280, Standing::Exposed)],
            exposed_s: 120 * 3600,
            at_least: true,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::exposure::{self, Exposed, Waiting};
    use crate::command::status;
    use crate::event::UpdateRef;

    const HOUR: i64 = 3600;

    fn at(hour: i64) -> i64 {
        seconds("2026-11-20T00:00:00Z").expect("a time") + hour * HOUR
    }

    fn line(event: &str, hour: i64, pid: u32, rest: &str) -> String {
        let wall = jiff::Timestamp::from_second(at(hour)).expect("a time");
        format!(
            "{{\"event\":\"{event}\",\"time\":{{\"wall\":\"{wall}\",\"boot_id\":\"b\"}},\
             \"process\":{{\"pid\":{pid},\"start_ticks\":1,\"program\":\"/x\"}}{rest}}}\n"
        )
    }

    const UPDATE: &str = ",\"update\":{\"source\":\"small\",\"old_version\":\"1\",\"new_version\":\"2\"}";

    fn applied(hour: i64, pid: u32) -> String {
        line("applied", hour, pid, &format!("{UPDATE},\"livepatches\":[{{\"id\":\"l\"}}]"))
    }

    fn reverted(hour: i64, pid: u32) -> String {
        line("reverted", hour, pid, ",\"livepatches\":[\"l\"]")
    }

    /// A host on which these run the old code now, of an update that was installed at hour 0.
    fn report(exposed: &[u32], carrying: &[u32]) -> StatusReport {
        let mut report = status::example();
        report.clear();
        report.carry(carrying);
        if !exposed.is_empty() {
            let process = |pid: &u32| Waiting { process: exposure::process(*pid, "/x"), tried: None };
            report.expose(Exposed {
                update: UpdateRef {
                    source: "small".into(),
                    old_version: Some("1".into()),
                    new_version: Some("2".into()),
                },
                package: "small-bin".into(),
                cves: Cves::Known { ids: vec!["CVE-2026-1".into()] },
                installed_at: Some("2026-11-20T00:00:00Z".into()),
                images: Vec::new(),
                processes: exposed.iter().map(process).collect(),
            });
        }
        report
    }

    fn one(log: &str, exposed: &[u32], carrying: &[u32], now: i64) -> Window {
        let mut windows = find(&report(exposed, carrying), &History::of(log, false, None), None, Some("b"), at(now));
        assert_eq!(windows.len(), 1, "{windows:?}");
        windows.remove(0)
    }

    fn spans(window: &Window) -> Vec<(i64, i64, Standing)> {
        let hour = |at_s: i64| (at_s - at(0)) / HOUR;
        window.spans.iter().map(|span| (hour(span.from), hour(span.to), span.standing)).collect()
    }

    #[test]
    fn an_update_is_exposed_from_its_installation_until_its_last_process_is_healed() {
        let window = one(&(applied(2, 7) + &applied(5, 8)), &[], &[7, 8], 10);
        // Of what is healed, the disk does not say when it came.
        assert_eq!((window.since, window.at_least), (Since::Before(at(2)), true));
        let window = one(&(applied(2, 7) + &applied(5, 8)), &[9], &[7, 8], 10);
        assert!(window.heading.contains("small-bin"), "{window:?}");
        assert_eq!(window.since, Since::Installed(at(0)));
        assert_eq!((window.healed, window.exposed, window.healed_at), (2, 1, Some((at(2), at(5)))));
        assert_eq!(spans(&window), [(0, 2, Standing::Exposed), (2, 10, Standing::Partly)]);
        assert_eq!((window.exposed_s, window.at_least), (10 * HOUR, false));
    }

    #[test]
    fn what_was_reverted_is_exposed_again_and_what_was_healed_twice_counts_once() {
        let log = applied(1, 7) + &reverted(3, 7) + &applied(6, 7) + &reverted(7, 7);
        let window = one(&log, &[7], &[], 8);
        let (exposed, healed) = (Standing::Exposed, Standing::Healed);
        assert_eq!(spans(&window), [(0, 1, exposed), (1, 3, healed), (3, 6, exposed), (6, 7, healed), (7, 8, exposed)]);
        assert_eq!((window.healed, window.exposed_s), (1, 5 * HOUR));
    }

    #[test]
    fn nothing_is_claimed_of_a_process_after_it_was_last_heard_of() {
        let refused = line("not-applied", 3, 8, &format!("{UPDATE},\"code\":\"struct-layout\",\"why\":\"w\""));
        let again = line("not-applied", 5, 8, &format!("{UPDATE},\"code\":\"struct-layout\",\"why\":\"w\""));
        let window = one(&(refused + &again), &[], &[], 100);
        assert_eq!(spans(&window), [(3, 5, Standing::Exposed)]);
        assert_eq!((window.since, window.lost_sight_of, window.healed_at), (Since::Before(at(3)), 1, None));
        assert_eq!((window.exposed_s, window.at_least), (2 * HOUR, true));
        // The same process number in another boot is another process.
        let window = one(&applied(1, 7).replace("\"b\"", "\"a\""), &[7], &[], 4);
        assert_eq!((window.healed, window.exposed), (1, 1));
        assert_eq!(spans(&window), [(0, 4, Standing::Exposed)]);
    }

    #[test]
    fn an_update_that_was_healed_before_it_was_installed_began_at_an_unknown_time() {
        let window = one(&applied(-5, 7), &[9], &[], 1);
        assert_eq!((window.since, window.at_least), (Since::Before(at(-5)), true));
    }

    #[test]
    fn a_livepatch_that_no_log_knows_of_is_shown_as_healed_at_an_unknown_time() {
        let windows = find(&status::example(), &History::default(), None, Some("b"), at(0));
        let redis = windows.iter().find(|window| window.heading == "redis-tools 1 -> 2").expect("it is carried");
        assert_eq!((redis.healed, redis.carrying, redis.healed_at, redis.since), (13, 13, None, Since::Unknown));
    }
}
