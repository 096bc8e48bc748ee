//! Processes that run old code, in every state that there is.

use super::not_installed::{NotInstalled, Waits};
use super::{Exposed, Exposure, Waiting};
use crate::event::{ProcessRef, Tried, UpdateRef};
use salve_patch::Cves;

pub(crate) fn process(pid: u32, program: &str) -> ProcessRef {
    ProcessRef { pid, start_ticks: 1, program: program.into() }
}

fn tried(event: &str, code: &str, why: &str) -> Tried {
    let text = |text: &str| Some(text.to_owned());
    Tried { at: "2026-11-21T10:00:00.000Z".into(), event: event.into(), code: text(code), why: text(why) }
}

/// A host with everything that can be said of it.
pub(crate) fn example() -> Exposure {
    let update =
        UpdateRef { source: "openssl".into(), old_version: Some("3.0.20".into()), new_version: Some("3.0.22".into()) };
    let mut processes: Vec<Waiting> =
        (100..115).map(|pid| Waiting { process: process(pid, "/usr/sbin/nginx"), tried: None }).collect();
    processes.push(Waiting {
        process: process(200, "/usr/sbin/sshd"),
        tried: Some(tried("not-applied", "struct-layout", "refused: struct-layout")),
    });
    processes.push(Waiting {
        process: process(201, "/usr/bin/x\u{1b}[31m"),
        tried: Some(tried("deferred", "in-use", "thread 8 is in parse")),
    });
    Exposure {
        exposed: vec![Exposed {
            update,
            package: "libssl3".into(),
            cves: Cves::Known { ids: vec!["CVE-2026-10000".into()] },
            installed_at: Some("2026-11-21T10:00:00Z".into()),
            images: vec!["/usr/lib/x86_64-linux-gnu/libcrypto.so.3".into()],
            processes,
        }],
        left: Vec::new(),
        unknown: None,
        not_installed: NotInstalled {
            packages: vec![
                waits("libc6", true, true, 2),
                waits("libexpat1", true, false, 1),
                waits("tzdata", false, false, 1),
            ],
            unknown: None,
        },
    }
}

fn waits(package: &str, security: bool, held: bool, count: u32) -> Waits {
    Waits {
        package: package.into(),
        source: package.into(),
        installed_version: "1".into(),
        candidate_version: "2".into(),
        security,
        held,
        processes: (0..count).map(|pid| process(pid, "/usr/bin/x")).collect(),
    }
}
