//! Every single write to a process fails once: what was begun is undone or finished, and
//! what cannot be said is not claimed. One test, because what fails is told to the whole
//! program.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "a test may panic")]

mod common;

use common::{Victim, livepatch, patcher, program, revert_within, within};
use salve_patch::RevertPolicy;
use salve_tracee::{Change, Lost, Outcome, RevertOutcome, Selection, fault};

/// With a filter that forbids it to write for itself, Salve makes the writes one by one.
#[test]
fn whichever_writes_fail_a_process_is_old_or_new_or_known_to_be_neither() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "filtered", &[]);
    let patch = livepatch(&pair, &["answer", "other"], RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &["pwrite64"]);
    let before = victim.text(&pair.old);
    let (patcher, process) = (patcher(), victim.process());
    let mut rolled_back = 0;
    let mut unknown = 0;
    for count in [1, 2] {
        for from in 0.. {
            fault::fail_writes(from, count);
            let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(2.0)).unwrap();
            let reached = fault::writes() > from;
            fault::fail_writes(u64::MAX, 0);
            let answer = victim.ask("");
            match &outcome {
                Outcome::Applied(_) => assert_eq!(answer, "2", "{from} {count}"),
                Outcome::RolledBack { .. } => {
                    rolled_back += 1;
                    assert_eq!(answer, "1", "{from} {count}");
                    // What is left is no code that anybody runs.
                    let status = patcher.status(&process).unwrap();
                    assert!(status.modified_text.is_empty(), "{from} {count}: {status:?}");
                }
                Outcome::Indeterminate { why: Lost::UndoFailed { .. } } => unknown += 1,
                Outcome::NotApplied { .. } | Outcome::Deferred { .. } => assert_eq!(answer, "1", "{from} {count}"),
                other => panic!("{from} {count}: {other:?}"),
            }
            // Whatever it came to, the next apply brings it to the end.
            let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(10.0)).unwrap();
            assert!(
                matches!(outcome, Outcome::Applied(_) | Outcome::AlreadyApplied { .. }),
                "{from} {count}: {outcome:?}"
            );
            assert_eq!(victim.ask(""), "2", "{from} {count}");
            let outcome = patcher.revert(&process, &Selection::All, &revert_within(10.0)).unwrap();
            assert!(matches!(outcome, RevertOutcome::Reverted(_)), "{from} {count}: {outcome:?}");
            assert_eq!(victim.ask(""), "1", "{from} {count}");
            assert!(victim.text(&pair.old) == before, "{from} {count}");
            if !reached {
                break;
            }
        }
    }
    // The second of two detours failed once, and once its undoing too.
    assert!(rolled_back > 0 && unknown > 0, "{rolled_back} rolled back, {unknown} unknown");
}
