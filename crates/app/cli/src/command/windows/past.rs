//! What was, of one update: when each of its processes was healed, and what is known of it since.

use super::now::Now;
use super::spans::Interval;
use crate::event::{Course, ProcessKey, StepKind};
use std::collections::BTreeSet;

#[derive(Default)]
pub(super) struct Past {
    pub(super) intervals: Vec<Interval>,
    /// The first and the last process that was healed.
    pub(super) healed_at: Option<(i64, i64)>,
    /// Processes that were healed at any time.
    pub(super) healed: usize,
    /// Not healed when they were last heard of, and neither exposed nor healed now.
    pub(super) lost_sight_of: usize,
}

impl Past {
    pub(super) fn of(course: &Course, state: &Now, installed: Option<i64>, boot_id: &str, now: i64) -> Self {
        let key = |&(pid, start_ticks): &(u64, u64)| ProcessKey { boot_id: boot_id.to_owned(), pid, start_ticks };
        let exposed: BTreeSet<ProcessKey> = state.exposed.iter().map(key).collect();
        let carrying: BTreeSet<ProcessKey> = state.carrying.iter().map(key).collect();
        let all: BTreeSet<&ProcessKey> = course.steps.keys().chain(&exposed).chain(&carrying).collect();
        let mut past = Self::default();
        for process in all {
            let steps = course.steps.get(process).map(Vec::as_slice).unwrap_or_default();
            let begun = installed.or(steps.first().map(|step| step.at)).unwrap_or(now);
            let (mut cursor, mut is_healed, mut ever) = (begun, false, false);
            for step in steps {
                past.intervals.push(Interval { from: cursor, to: step.at, healed: is_healed });
                cursor = step.at;
                is_healed = match step.kind {
                    StepKind::Healed => true,
                    StepKind::Reverted => false,
                    StepKind::NotHealed => is_healed,
                };
                if step.kind == StepKind::Healed {
                    ever = true;
                    past.saw_healed(step.at);
                }
            }
            past.healed = past.healed.saturating_add(usize::from(ever || carrying.contains(process)));
            if exposed.contains(process) {
                past.intervals.push(Interval { from: cursor, to: now, healed: false });
            } else if carrying.contains(process) {
                past.intervals.push(Interval { from: cursor, to: now, healed: true });
            } else {
                past.lost_sight_of = past.lost_sight_of.saturating_add(usize::from(!is_healed));
            }
        }
        past
    }

    fn saw_healed(&mut self, at: i64) {
        let (first, last) = self.healed_at.unwrap_or((at, at));
        self.healed_at = Some((first.min(at), last.max(at)));
    }
}
