//! The log read back: what happened on this host, for people to look at.
//!
//! What processes carry is never taken from here, since a log can be lost or
//! written by others; only what is over, or was tried in vain, is. Lines that
//! are not understood are counted and passed over. Rotated logs are read with it,
//! a long one from its end, up to a limit, and that older lines were left out is said.

use super::ProcessRef;
use super::course::Courses;
use super::logs::Logs;
#[cfg(test)]
use super::{Blocker, LeftSubject, UpdateRef};
use crate::carry::Ending;
use salve_elf::ContentHash;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Longest stops that are kept one by one.
const MAX_STOPS: usize = 1 << 20;

/// What was tried last on a process for one update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Tried {
    pub(crate) at: String,
    /// The event's name.
    pub(crate) event: String,
    pub(crate) code: Option<String>,
    pub(crate) why: Option<String>,
}

/// One day, in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Day {
    pub(crate) applied: u64,
    pub(crate) reverted: u64,
    /// Deferred, not applied, rolled back, indeterminate.
    pub(crate) not_healed: u64,
}

/// One cause of something that was not done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) times: u64,
    /// The last time, in words.
    pub(crate) why: String,
    pub(crate) program: String,
    pub(crate) at: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// By process of this boot (pid and start) and source.
    pub(crate) last: BTreeMap<(u64, u64, String), Tried>,
    pub(crate) days: BTreeMap<String, Day>,
    /// Nanoseconds, of every process that was healed or reverted.
    pub(crate) stops_ns: Vec<u64>,
    pub(crate) causes: BTreeMap<String, Cause>,
    /// What happened with each update.
    pub(crate) courses: Courses,
    pub(crate) not_understood: u64,
    /// Old and new content, in hex, of images whose update this Salve judged to change no code.
    pub(crate) unchanged: BTreeSet<(String, String)>,
    /// Older lines were not read.
    pub(crate) cut: bool,
    /// Rotated logs that could not be read, with the reason.
    pub(crate) gaps: Vec<String>,
    /// Why there is no log.
    pub(crate) missing: Option<String>,
}

impl History {
    pub(crate) fn read(path: Option<&Path>, boot_id: Option<&str>) -> Self {
        let Some(path) = path else {
            return Self { missing: Some("nothing says where the log is".into()), ..Self::default() };
        };
        match Logs::read(path) {
            Ok(logs) => {
                let mut history = Self { cut: logs.cut, gaps: logs.gaps, ..Self::default() };
                for part in logs.parts {
                    history.add_all(&String::from_utf8_lossy(&part.bytes), part.cut, part.own, boot_id);
                }
                history
            }
            Err(error) => Self { missing: Some(format!("{}: {error}", path.display())), ..Self::default() },
        }
    }

    /// One file; what one says that others can write to is not believed where it would hide something.
    fn add_all(&mut self, text: &str, cut: bool, own: bool, boot_id: Option<&str>) {
        let believed = core::mem::take(&mut self.unchanged);
        // The first line of a log that was cut is the rest of one.
        for line in text.lines().skip(usize::from(cut)) {
            match serde_json::from_str::<Value>(line) {
                Ok(event) => self.add(&event, boot_id),
                Err(_) => self.not_understood = self.not_understood.saturating_add(1),
            }
        }
        if !own {
            self.unchanged.clear();
        }
        self.unchanged.extend(believed);
    }

    #[cfg(test)]
    pub(crate) fn of(text: &str, cut: bool, boot_id: Option<&str>) -> Self {
        let mut history = Self { cut, ..Self::default() };
        history.add_all(text, cut, true, boot_id);
        history
    }

    fn add(&mut self, event: &Value, boot_id: Option<&str>) {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let (Some(name), Some(at)) = (text("/event"), text("/time/wall")) else {
            self.not_understood = self.not_understood.saturating_add(1);
            return;
        };
        self.courses.add(&name, event);
        if name == "judged" {
            // A newer Salve may see more.
            if text("/verdict").as_deref() == Some("unchanged")
                && text("/salve_version").as_deref() == Some(env!("CARGO_PKG_VERSION"))
                && let (Some(old), Some(new)) = (text("/image/old_sha256"), text("/image/new_sha256"))
            {
                self.unchanged.insert((old, new));
            }
            return;
        }
        let program = text("/process/program").unwrap_or_default();
        let day = self.days.entry(at.chars().take(10).collect()).or_default();
        let (code, why) = match name.as_str() {
            "applied" | "reverted" => {
                let count = if name == "applied" { &mut day.applied } else { &mut day.reverted };
                *count = count.saturating_add(1);
                if let Some(ns) = event.get("stopped_ns").and_then(Value::as_u64)
                    && self.stops_ns.len() < MAX_STOPS
                {
                    self.stops_ns.push(ns);
                }
                (None, None)
            }
            "deferred" => (Some("in-use".to_owned()), Some(blocked_by(event))),
            "not-applied" | "not-reverted" => (text("/code"), text("/why")),
            "rolled-back" | "indeterminate" => (Some(name.clone()), text("/why")),
            _no_act_on_a_process => return,
        };
        if let Some(code) = &code {
            day.not_healed = day.not_healed.saturating_add(1);
            let cause = self.causes.entry(code.clone()).or_default();
            *cause = Cause {
                times: cause.times.saturating_add(1),
                why: why.clone().unwrap_or_default(),
                program,
                at: at.clone(),
            };
        }
        let number = |path: &str| event.pointer(path).and_then(Value::as_u64);
        if let (Some(pid), Some(start), Some(source)) =
            (number("/process/pid"), number("/process/start_ticks"), text("/update/source"))
            && boot_id.is_some()
            && text("/time/boot_id").as_deref() == boot_id
        {
            self.last.insert((pid, start, source), Tried { at, event: name, code, why });
        }
    }

    /// This Salve judged, and wrote into a log that nobody else can write to, that
    /// this update of an image changes no code: to run the old content is to run the new code.
    pub(crate) fn is_unchanged(&self, old: ContentHash, new: ContentHash) -> bool {
        self.unchanged.contains(&(old.to_string(), new.to_string()))
    }

    /// What was tried last on this very process for an update of this source.
    pub(crate) fn last(&self, process: &ProcessRef, source: &str) -> Option<&Tried> {
        self.last.get(&(u64::from(process.pid), process.start_ticks, source.to_owned()))
    }
}

fn blocked_by(event: &Value) -> String {
    let blocking = event.get("blocking").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let one = |blocker: &Value| {
        let text = |key: &str| blocker.get(key).and_then(Value::as_str).unwrap_or("the whole thread").to_owned();
        let tid = blocker.get("tid").and_then(Value::as_u64).unwrap_or(0);
        format!("thread {tid} is in {}", text("function"))
    };
    match blocking.split_first() {
        None => "threads are inside functions that are replaced".into(),
        Some((first, [])) => one(first),
        Some((first, rest)) => format!("{}, and {} more", one(first), rest.len()),
    }
}

impl Tried {
    /// What to do about it, in words.
    pub(crate) fn advice(&self) -> &'static str {
        let why = self.why.as_deref().unwrap_or_default();
        let advice = |ending: Ending| ending.advice().unwrap_or_default();
        match (self.event.as_str(), self.code.as_deref()) {
            ("deferred", _) => advice(Ending::Deferred),
            (_, Some("half-configured" | "changed-meanwhile")) => "run `salve heal` again when the package is settled",
            (_, Some("off")) => "Salve was off; `salve heal` does it after `salve on`",
            (_, Some("no-permission" | "not-attempted")) => "run `salve heal` as root",
            ("not-applied", _) if why.starts_with("review:") => advice(Ending::NeedsAccept),
            ("not-applied", _) => advice(Ending::Refused),
            ("rolled-back" | "indeterminate", _) => advice(Ending::Indeterminate),
            _healed_and_old_again => "`salve heal` (with --dry-run it shows what it would do)",
        }
    }
}

/// The parts of an event that are read back, so that the compiler knows of a change to them.
#[cfg(test)]
fn example(subject: LeftSubject) -> Vec<super::Event> {
    use super::Event;
    let process = ProcessRef { pid: 7, start_ticks: 70, program: "/usr/sbin/<x>".into() };
    let update = UpdateRef { source: "small".into(), old_version: Some("1".into()), new_version: Some("2".into()) };
    let blocker = Blocker { pid: 8, tid: 8, function: Some("parse".into()), detail: "executing".into() };
    vec![
        Event::Applied {
            group: Vec::new(),
            process: process.clone(),
            update: update.clone(),
            livepatches: Vec::new(),
            stopped_ns: 150_000,
            memory_bytes: 4096,
            attempts: 1,
        },
        Event::Reverted {
            process: process.clone(),
            group: Vec::new(),
            livepatches: Vec::new(),
            stopped_ns: 90_000,
            payload_kept: false,
        },
        Event::Left { subject, code: "init".into(), why: "process 1".into() },
        Event::NotApplied {
            group: Vec::new(),
            process: process.clone(),
            update: update.clone(),
            livepatches: Vec::new(),
            code: "struct-layout".into(),
            why: "refused: struct-layout".into(),
        },
        Event::Deferred { process, group: Vec::new(), update, livepatches: Vec::new(), blocking: vec![blocker] },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventLog;
    use crate::host::{self, Actor};

    #[test]
    fn what_is_written_is_read_back_and_the_last_try_on_a_process_is_known() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("events.jsonl");
        let mut log = EventLog::new("heal", Some(&path), Actor::current());
        let process = ProcessRef { pid: 7, start_ticks: 70, program: "/usr/sbin/<x>".into() };
        for event in example(LeftSubject::Process(process.clone())) {
            log.record(&event);
        }
        let boot = host::boot_id();
        let history = History::read(Some(&path), boot.as_deref());
        let day = history.days.values().next().copied().expect("a day");
        assert_eq!(day, Day { applied: 1, reverted: 1, not_healed: 2 });
        assert_eq!(history.stops_ns, [150_000, 90_000]);
        assert_eq!(history.causes.keys().collect::<Vec<_>>(), ["in-use", "struct-layout"]);
        if boot.is_some() {
            let last = history.last(&process, "small").expect("it was tried");
            assert_eq!((last.event.as_str(), last.why.as_deref()), ("deferred", Some("thread 8 is in parse")));
            assert!(last.advice().contains("--wait"));
        }
        let other = ProcessRef { start_ticks: 71, ..process };
        assert_eq!(history.last(&other, "small"), None, "another process with the same number");
        assert_eq!(History::read(Some(&path), Some("another boot")).last, BTreeMap::new());
    }

    #[test]
    fn lines_of_others_and_a_log_that_is_not_there_are_said_and_harm_nothing() {
        let history = History::of("{\"event\":\"applied\"}\nnot json\n{}\n[1]\n", false, None);
        assert_eq!((history.not_understood, history.days.len()), (4, 0));
        assert!(History::read(Some(Path::new("/nowhere/events")), None).missing.is_some());
        assert_eq!(History::of("rest of a line\n{}\n", true, None).not_understood, 1);
    }

    #[test]
    fn rotated_logs_are_read_as_well_and_one_that_cannot_be_is_said() {
        use flate2::{Compression, write::GzEncoder};
        use std::io::Write as _;
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("events.jsonl");
        let line = |day: &str, why: &str| {
            format!(
                "{{\"event\":\"not-applied\",\"time\":{{\"wall\":\"{day}T10:00:00.000Z\"}},\"code\":\"struct-layout\",\
                 \"why\":\"{why}\"}}\n"
            )
        };
        let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).expect("written");
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(line("2026-09-01", "oldest").as_bytes()).expect("packed");
        write("events.jsonl.2.gz", &packed.finish().expect("packed"));
        write("events.jsonl.1", line("2026-10-01", "older").as_bytes());
        write("events.jsonl.notes", line("2026-10-02", "of somebody else").as_bytes());
        // Between a rotation and the next event there is none.
        let history = History::read(Some(&log), None);
        assert_eq!((history.missing, history.gaps), (None, Vec::new()));
        write("events.jsonl", line("2026-11-01", "newest").as_bytes());
        std::fs::create_dir(dir.path().join("events.jsonl.3")).expect("no log");
        let history = History::read(Some(&log), None);
        assert_eq!(history.days.keys().collect::<Vec<_>>(), ["2026-09-01", "2026-10-01", "2026-11-01"]);
        let cause = history.causes.get("struct-layout").expect("it was the cause");
        assert_eq!((cause.times, cause.why.as_str()), (3, "newest"), "the last in time, not the last that was read");
        assert!(history.gaps.len() == 1 && history.gaps[0].contains("events.jsonl.3"), "{:?}", history.gaps);
    }

    #[test]
    fn that_an_update_changes_no_code_is_believed_of_this_salve_and_its_own_log_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let content = |byte: u8| ContentHash::from_bytes([byte; 32]);
        let line = |verdict: &str, version: &str| {
            format!(
                "{{\"event\":\"judged\",\"verdict\":\"{verdict}\",\"image\":{{\"path\":\"/x\",\"old_sha256\":\"{}\",\
                 \"new_sha256\":\"{}\"}},\"salve_version\":\"{version}\",\"time\":{{\"wall\":\"2026-11-21T10:00:00Z\"}}}}\n",
                content(1),
                content(2)
            )
        };
        let own = env!("CARGO_PKG_VERSION");
        let said = |text: &str| History::of(text, false, None).is_unchanged(content(1), content(2));
        assert!(said(&line("unchanged", own)));
        assert!(!said(&line("safe", own)) && !said(&line("unchanged", "0.0.1")));
        assert!(
            !History::of(&line("unchanged", own), false, None).is_unchanged(content(2), content(1)),
            "the other way"
        );

        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), line("unchanged", own)).expect("written");
        let mode = |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("set");
        let read = || History::read(Some(file.path()), None).is_unchanged(content(1), content(2));
        mode(0o640);
        assert!(read());
        mode(0o660);
        assert!(!read(), "a group that can write to it could have said so");
    }
}
