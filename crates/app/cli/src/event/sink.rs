//! Where events go: JSON lines, appended, one write each.
//!
//! Nothing is written while a target is stopped (it may be the one that serves
//! our disk or terminal): events are made after a process was let go. A log
//! that cannot be written is said, once, and changes no decision.

use super::record::{Event, SCHEMA};
use crate::host::{self, Actor};
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// What every line carries besides the event.
#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    #[serde(flatten)]
    event: &'a Event,
    /// Same for all events of one run of the program.
    run: &'a str,
    /// Counts from 0 within the run.
    seq: u64,
    time: Time<'a>,
    command: &'static str,
    salve_version: &'static str,
    actor: &'a Actor,
}

#[derive(Serialize)]
struct Time<'a> {
    /// RFC 3339, UTC.
    wall: String,
    /// `CLOCK_MONOTONIC` of the boot that `boot_id` names.
    monotonic_ns: u64,
    boot_id: Option<&'a str>,
}

/// How logging went, for the JSON report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LogState {
    pub(crate) path: Option<PathBuf>,
    pub(crate) written: u64,
    /// Why the log is incomplete, if it is.
    pub(crate) error: Option<String>,
}

/// The log of one run.
pub(crate) struct EventLog {
    path: Option<PathBuf>,
    file: Option<File>,
    error: Option<String>,
    run: String,
    seq: u64,
    command: &'static str,
    boot_id: Option<String>,
    actor: Actor,
}

impl EventLog {
    /// Nothing is opened before the first event.
    pub(crate) fn new(command: &'static str, chosen: Option<&Path>, actor: Actor) -> Self {
        let path = log_path(chosen, actor.euid);
        let run = format!("{:016x}-{}", host::monotonic_ns(), actor.pid);
        Self { path, file: None, error: None, run, seq: 0, command, boot_id: host::boot_id(), actor }
    }

    /// Appends one event. A failure is remembered for [`Self::state`]; after it
    /// nothing more is tried, so that the log has a hole at its end only.
    pub(crate) fn record(&mut self, event: &Event) {
        if self.error.is_none()
            && let Err(error) = self.append(event)
        {
            self.error = Some(error.to_string());
        }
    }

    pub(crate) fn state(&self) -> LogState {
        LogState { path: self.path.clone(), written: self.seq, error: self.error.clone() }
    }

    fn append(&mut self, event: &Event) -> io::Result<()> {
        let line = Line {
            schema: SCHEMA,
            event,
            run: &self.run,
            seq: self.seq,
            time: Time {
                wall: host::wall_clock(),
                monotonic_ns: host::monotonic_ns(),
                boot_id: self.boot_id.as_deref(),
            },
            command: self.command,
            salve_version: env!("CARGO_PKG_VERSION"),
            actor: &self.actor,
        };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open(self.path.as_deref().ok_or_else(nowhere)?)?),
        };
        file.write_all(&bytes)?;
        self.seq = self.seq.saturating_add(1);
        Ok(())
    }
}

fn nowhere() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "neither XDG_STATE_HOME nor HOME says where the log would be")
}

/// Opens for appending without following a link in the last component: the
/// directory may be one that others can write to.
fn open(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty())
        && !dir.exists()
    {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
    }
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    Ok(File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP)?))
}

/// Where the log of this user is, or the one that was chosen.
pub(crate) fn log_path(chosen: Option<&Path>, euid: u32) -> Option<PathBuf> {
    chosen.map(Path::to_path_buf).or_else(|| default_path(euid))
}

/// `/var/log/salve/events.jsonl` for root, else the user's state directory
/// (XDG Base Directory Specification).
fn default_path(euid: u32) -> Option<PathBuf> {
    if euid == 0 {
        return Some(PathBuf::from("/var/log/salve/events.jsonl"));
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("salve/events.jsonl"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::UpdateRef;
    use crate::event::record::LeftSubject;

    fn actor() -> Actor {
        Actor { pid: 7, uid: 1, euid: 1, login_uid: Some(1), sudo_uid: None, sudo_user: None }
    }

    fn left() -> Event {
        let update =
            UpdateRef { source: "haproxy".into(), old_version: Some("1".into()), new_version: Some("2".into()) };
        Event::Left { subject: LeftSubject::Update(update), code: "unknown-direction".into(), why: "no history".into() }
    }

    #[test]
    fn events_are_appended_as_one_line_each_and_counted() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let path = dir.path().join("deeper/events.jsonl");
        let mut log = EventLog::new("heal", Some(&path), actor());
        log.record(&left());
        log.record(&left());
        let text = fs::read_to_string(&path).expect("the log");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["seq"], 1);
        assert_eq!(lines[1]["schema"], SCHEMA);
        assert_eq!(lines[1]["event"], "left");
        assert_eq!(lines[0]["run"], lines[1]["run"]);
        assert_eq!(log.state().written, 2);
        assert!(log.state().error.is_none());
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_remembered_and_tried_once() {
        let mut log = EventLog::new("heal", Some(Path::new("/proc/nowhere/events.jsonl")), actor());
        log.record(&left());
        log.record(&left());
        assert_eq!(log.state().written, 0);
        assert!(log.state().error.is_some());
    }

    #[test]
    fn a_link_planted_in_place_of_the_log_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let target = dir.path().join("target");
        let path = dir.path().join("events.jsonl");
        std::os::unix::fs::symlink(&target, &path).expect("a link");
        let mut log = EventLog::new("heal", Some(&path), actor());
        log.record(&left());
        assert!(log.state().error.is_some());
        assert!(!target.exists());
    }
}
