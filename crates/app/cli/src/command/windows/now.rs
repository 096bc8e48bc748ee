//! What is so now, of each update: who runs the old code, and who was healed of it.

use crate::command::status::StatusReport;
use crate::event::{Course, History, ProcessRef, UpdateKey, seconds};
use crate::machine::packages::PackageFacts;
use salve_patch::{Cves, PackageId};
use std::collections::{BTreeMap, BTreeSet};

/// What is true now of one update.
#[derive(Default)]
pub(super) struct Now {
    pub(super) packages: BTreeSet<String>,
    pub(super) old_versions: BTreeSet<String>,
    pub(super) cves: Option<Cves>,
    pub(super) installed_at: Option<i64>,
    pub(super) exposed: BTreeSet<(u64, u64)>,
    pub(super) carrying: BTreeSet<(u64, u64)>,
}

/// What the processes show.
pub(super) fn of_updates(report: &StatusReport, history: &History) -> BTreeMap<UpdateKey, Now> {
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

impl Now {
    /// What neither processes nor the log say: when it was installed, and what its changelog names.
    pub(super) fn complete(
        &mut self,
        (source, new_version): &UpdateKey,
        course: &Course,
        packages: Option<&dyn PackageFacts>,
    ) {
        let (Some(packages), Some(new_version)) = (packages, new_version) else { return };
        let of_source = packages.of_source(source);
        if self.installed_at.is_none() {
            self.installed_at = of_source.iter().filter_map(|package| packages.unpacked_at(package, new_version)).min();
        }
        let known = |cves: &Cves| matches!(cves, Cves::Known { .. });
        if !self.cves.as_ref().is_some_and(known) && !course.cves.as_ref().is_some_and(known) {
            let old_versions: BTreeSet<&String> = course.old_versions.iter().chain(&self.old_versions).collect();
            let [old] = old_versions.into_iter().collect::<Vec<_>>()[..] else { return };
            let mut named = of_source
                .into_iter()
                .map(|package| packages.fixes(&PackageId { version: new_version.clone(), ..package }, old));
            self.cves = named.find(known);
        }
    }
}
