//! A host to show, with everything that can be said of it.

use super::StatusReport;
use super::carried::{Carried, OnRestart, State};
use super::process::{Modified, ProcessView};
use crate::command::exposure::{self, Exposed, Exposure};
use crate::event::ProcessRef;
use crate::switch;
use salve_patch::Cves;

impl StatusReport {
    /// A host on which nothing is.
    pub(crate) fn clear(&mut self) {
        self.processes.clear();
        self.exposure = Exposure::default();
    }

    /// These carry the livepatch `l`.
    pub(crate) fn carry(&mut self, pids: &[u32]) {
        let first = example().processes.swap_remove(0);
        let Some(carried) = first.livepatches.into_iter().next() else { return };
        for &pid in pids {
            let livepatch = Carried { id: "l".into(), functions: Vec::new(), ..carried.clone() };
            self.processes.push(view(exposure::process(pid, "/x"), vec![livepatch]));
        }
    }

    pub(crate) fn expose(&mut self, one: Exposed) {
        self.exposure.exposed.push(one);
    }
}

fn view(process: ProcessRef, livepatches: Vec<Carried>) -> ProcessView {
    ProcessView {
        process,
        livepatches,
        unreadable: Vec::new(),
        modified_text: Vec::new(),
        leftover_stubs: 0,
        left_alone: None,
    }
}

/// The host.
pub(crate) fn example() -> StatusReport {
    let carried = |state, on_restart| Carried {
        id: "0123456789abcdef0123456789abcdef".into(),
        state,
        path: "/usr/bin/redis-check-rdb".into(),
        source: Some("redis".into()),
        package: Some("redis-tools".into()),
        old_version: Some("1".into()),
        new_version: Some("2".into()),
        cves: Cves::Known { ids: vec!["CVE-2026-1000".into()] },
        old_sha256: None,
        new_sha256: None,
        functions: (0..12).map(|n| format!("fn_{n}")).collect(),
        words: 0,
        payload_at: "0x1000".into(),
        payload_bytes: 8192,
        on_restart,
    };
    let view = |pid, livepatches| view(exposure::process(pid, "/usr/bin/redis-check-rdb"), livepatches);
    let mut processes: Vec<ProcessView> =
        (300..313).map(|pid| view(pid, vec![carried(State::Applied, OnRestart::OldCode)])).collect();
    processes.push(view(400, vec![carried(State::Partial { present: 3, total: 7 }, OnRestart::NewCode)]));
    let strange = Modified { path: "/usr/lib/<x>.so".into(), va: "0x40".into(), len_bytes: 5 };
    processes.push(ProcessView { modified_text: vec![strange], ..view(401, Vec::new()) });
    StatusReport {
        switch: switch::State::On,
        processes,
        looked_at: 350,
        not_looked_at: 2,
        without: Vec::new(),
        exposure: exposure::example(),
        single: false,
    }
}
