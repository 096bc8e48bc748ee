//! From what single processes did to what all of them did together.

use std::collections::BTreeMap;

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

/// From when to when one process was healed, or was not, in seconds since the epoch.
#[derive(Clone, Copy)]
pub(super) struct Interval {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) healed: bool,
}

/// What holds from one moment at which something changed to the next.
pub(super) fn sweep(intervals: &[Interval]) -> Vec<Span> {
    let mut changes: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for &Interval { from, to, healed } in intervals.iter().filter(|interval| interval.from < interval.to) {
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

/// For how long any process was exposed.
pub(super) fn exposed_s(spans: &[Span]) -> i64 {
    let exposed = spans.iter().filter(|span| span.standing != Standing::Healed);
    exposed.map(|span| span.to.saturating_sub(span.from)).fold(0, i64::saturating_add)
}
