//! What the log tells of one update over time: who was healed of it, who was not, and who was reverted.

use salve_patch::Cves;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Source and new version; where no package is known, the file and no version.
pub(crate) type UpdateKey = (String, Option<String>);

/// A process once and for all: boot, pid and start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessKey {
    pub(crate) boot_id: String,
    pub(crate) pid: u64,
    pub(crate) start_ticks: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepKind {
    Healed,
    NotHealed,
    Reverted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Seconds since the epoch.
    pub(crate) at: i64,
    pub(crate) kind: StepKind,
}

/// One update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) old_versions: BTreeSet<String>,
    /// As its derivation had them.
    pub(crate) cves: Option<Cves>,
    /// What happened to each process, as the log has it.
    pub(crate) steps: BTreeMap<ProcessKey, Vec<Step>>,
    /// Ids of its livepatches.
    pub(crate) livepatches: BTreeSet<String>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Courses {
    pub(crate) by_update: BTreeMap<UpdateKey, Course>,
    /// Which update a livepatch in a process came from: a revert names its id only.
    healed: BTreeMap<(ProcessKey, String), UpdateKey>,
}

impl Courses {
    /// Takes in one event; what says nothing of the kind is passed over.
    pub(crate) fn add(&mut self, name: &str, event: &Value) {
        let kind = match name {
            "derived" => return self.derived(event),
            "applied" | "already-applied" => StepKind::Healed,
            "deferred" | "not-applied" | "rolled-back" | "indeterminate" => StepKind::NotHealed,
            "reverted" => StepKind::Reverted,
            _no_act_on_a_process => return,
        };
        let (Some(at), Some(process)) = (at(event), process(event)) else { return };
        let step = Step { at, kind };
        if kind == StepKind::Reverted {
            let ids = event.get("livepatches").and_then(Value::as_array).into_iter().flatten();
            let keys: BTreeSet<UpdateKey> =
                ids.filter_map(|id| self.healed.get(&(process.clone(), id.as_str()?.to_owned())).cloned()).collect();
            for key in keys {
                self.by_update.entry(key).or_default().steps.entry(process.clone()).or_default().push(step.clone());
            }
            return;
        }
        let Some((key, old_version)) = update(event) else { return };
        let course = self.by_update.entry(key.clone()).or_default();
        course.old_versions.extend(old_version);
        course.steps.entry(process.clone()).or_default().push(step);
        if kind == StepKind::Healed {
            let livepatches = event.get("livepatches").and_then(Value::as_array).into_iter().flatten();
            for id in livepatches.filter_map(|one| one.get("id")?.as_str()) {
                course.livepatches.insert(id.to_owned());
                self.healed.insert((process.clone(), id.to_owned()), key.clone());
            }
        }
    }

    fn derived(&mut self, event: &Value) {
        let cves = event.get("cves").and_then(|cves| serde_json::from_value(cves.clone()).ok());
        if let (Some(cves), Some((key, _))) = (cves, update(event)) {
            self.by_update.entry(key).or_default().cves = Some(cves);
        }
    }
}

fn text(event: &Value, path: &str) -> Option<String> {
    event.pointer(path).and_then(Value::as_str).map(str::to_owned)
}

fn at(event: &Value) -> Option<i64> {
    seconds(event.pointer("/time/wall")?.as_str()?)
}

/// Of an RFC 3339 time, since the epoch.
pub(crate) fn seconds(at: &str) -> Option<i64> {
    at.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

fn process(event: &Value) -> Option<ProcessKey> {
    let number = |path: &str| event.pointer(path).and_then(Value::as_u64);
    Some(ProcessKey {
        boot_id: text(event, "/time/boot_id").unwrap_or_default(),
        pid: number("/process/pid")?,
        start_ticks: number("/process/start_ticks")?,
    })
}

fn update(event: &Value) -> Option<(UpdateKey, Option<String>)> {
    let source = text(event, "/update/source")?;
    Some(((source, text(event, "/update/new_version")), text(event, "/update/old_version")))
}
