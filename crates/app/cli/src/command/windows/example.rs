//! Windows to show.

use super::{Since, Span, Standing, Window};
use salve_patch::Cves;

/// Three windows: one open, one closed, one of which the log knows only.
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
