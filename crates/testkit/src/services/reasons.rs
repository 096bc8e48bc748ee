//! Whom a heal or an apply treated, whom it left, and why.

use super::operator::{Cause, Said, Treated};
use super::report::Came;
use std::collections::{BTreeMap, BTreeSet};

/// The processes that would be patched, each once.
pub(super) fn planned(dry: &Said) -> Vec<Treated> {
    let mut seen = BTreeSet::new();
    dry.treated.iter().filter(|one| one.outcome == "planned" && seen.insert(one.pid)).cloned().collect()
}

/// Why a dry run would patch nothing.
pub(super) fn nothing(dry: &Said) -> Came {
    if !dry.treated.is_empty() && dry.treated.iter().all(|one| one.outcome == "unchanged") {
        return Came::Unchanged;
    }
    let mut programs: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for one in dry.treated.iter().filter(|one| one.outcome != "unchanged") {
        programs.entry(cause(one)).or_default().insert(&one.program);
    }
    let of_many = programs.iter().map(|(why, programs)| {
        let first: Vec<&str> = programs.iter().copied().take(3).collect();
        let more = programs.len() - first.len();
        let more = if more == 0 { String::new() } else { format!(" and {more} more programs") };
        format!("{}{more}: {why}", first.join(", "))
    });
    Came::Refused(of_many.chain(dry.left.iter().cloned()).collect())
}

/// What stood in the way in the processes themselves, though the verdict allowed it.
pub(super) fn not_applied(said: &Said) -> Vec<Cause> {
    let mut causes: BTreeMap<&str, Cause> = BTreeMap::new();
    for one in &said.treated {
        let Some(code) = &one.code else { continue };
        let cause = causes.entry(code).or_insert_with(|| Cause {
            code: code.clone(),
            verdict: "refused".to_owned(),
            summary: "in the process: what the verdict allowed could not be applied".to_owned(),
            seen: one.why.clone(),
            times: 0,
        });
        cause.times += 1;
    }
    causes.into_values().collect()
}

/// Whether this one does not run the old code after a heal or an apply.
fn is_changed(one: &Treated) -> bool {
    matches!(one.outcome.as_str(), "applied" | "already-applied" | "unchanged" | "gone")
}

/// Why those of the `alive` run the old code that a heal or an apply was to change; and what it left that a dry run did not.
pub(super) fn still_old(dry: &Said, said: &Said, alive: &BTreeSet<u32>) -> Vec<String> {
    let of_processes = said.treated.iter().filter(|one| !is_changed(one) && alive.contains(&one.pid)).map(reason);
    of_processes.chain(said.left.iter().filter(|why| !dry.left.contains(why)).cloned()).collect()
}

/// Counts whom a heal or an apply left as it was, by reason.
pub(super) fn note_left(left: &mut BTreeMap<String, u32>, said: &Said) {
    for one in said.treated.iter().filter(|one| !is_changed(one)) {
        *left.entry(reason(one)).or_default() += 1;
    }
    for why in &said.left {
        *left.entry(why.clone()).or_default() += 1;
    }
}

fn reason(one: &Treated) -> String {
    format!("{}: {}", one.program, cause(one))
}

fn cause(one: &Treated) -> String {
    let why = one.why.as_deref().unwrap_or("no reason given");
    match &one.code {
        Some(code) => format!("{} [{code}] {why}", one.outcome),
        None => format!("{} {why}", one.outcome),
    }
}

pub(super) fn longest(treated: &[Treated]) -> u64 {
    treated.iter().filter_map(|one| one.stopped_us).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn treated(pid: u32, outcome: &str) -> Treated {
        Treated {
            pid,
            program: "/usr/sbin/x".into(),
            outcome: outcome.into(),
            code: None,
            why: Some("thread 8 is in parse".into()),
            stopped_us: None,
            memory_added_bytes: 0,
            threads: 1,
        }
    }

    fn said(treated: Vec<Treated>, left: &[&str]) -> Said {
        let left = left.iter().map(|why| (*why).to_owned()).collect();
        Said { code: Some(0), judged: Vec::new(), treated, left, took_ms: 1 }
    }

    #[test]
    fn a_round_in_which_one_process_of_many_was_left_is_no_healed_round() {
        let dry = said(Vec::new(), &["/usr/bin/y [unknown-direction] no history"]);
        let alive: BTreeSet<u32> = [7, 8, 9].into();
        let all = said(vec![treated(7, "applied"), treated(8, "already-applied"), treated(9, "unchanged")], &[]);
        assert_eq!(still_old(&dry, &all, &alive), Vec::<String>::new());
        let most = said(vec![treated(7, "applied"), treated(8, "deferred"), treated(9, "applied")], &[]);
        assert_eq!(still_old(&dry, &most, &alive), ["/usr/sbin/x: deferred thread 8 is in parse"]);
        assert!(still_old(&dry, &most, &[7, 9].into()).is_empty(), "it ended, and runs nothing any more");
        for outcome in ["not-applied", "rolled-back", "indeterminate", "interrupted", "a word of tomorrow"] {
            assert_eq!(still_old(&dry, &said(vec![treated(7, outcome)], &[]), &alive).len(), 1, "{outcome}");
        }
        // What the dry run left as well was never to be healed; what is new was.
        assert!(still_old(&dry, &said(Vec::new(), &["/usr/bin/y [unknown-direction] no history"]), &alive).is_empty());
        assert_eq!(still_old(&dry, &said(Vec::new(), &["/usr/sbin/x [unreadable] no descriptor"]), &alive).len(), 1);
    }
}
