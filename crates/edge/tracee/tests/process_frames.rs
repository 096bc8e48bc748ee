//! What stacks show: stale words, signal frames, other stacks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod common;

use common::{Pair, Victim, livepatch, patcher, program, within};
use salve_patch::{PatchFile, RevertPolicy};
use salve_tracee::{BlockingReason, Change, NotApplied, Outcome};

/// Compiles the calls that switch stacks out.
const ONE_STACK: [&str; 1] = ["-DONE_STACK"];

fn frames(more: &[&str]) -> (tempfile::TempDir, Pair, PatchFile) {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "frames", more);
    let patch = livepatch(&pair, &["answer"], RevertPolicy::Unmap);
    (directory, pair, patch)
}

#[test]
fn words_that_calls_left_behind_do_not_block() {
    let (_directory, pair, _) = frames(&ONE_STACK);
    // `answer` was called a hundred calls deep from `deep`, which returned: its return
    // addresses lie in the live stack of a thread that has no frame of it.
    let mut patch = livepatch(&pair, &["answer"], RevertPolicy::Unmap);
    let deep = common::old_range(&pair, "deep");
    patch.images[0].livepatch.as_mut().unwrap().replaced[0].old_ranges.push(deep);
    let mut victim = Victim::start(&pair.old, &["stale"]);
    let stack = victim.words_on_stacks(deep, &pair.old);
    assert!(stack > 50, "the victim left {stack} words: this test tests nothing");
    let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(1.0)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    assert_eq!(victim.ask(""), "2");
}

#[test]
fn a_function_that_a_signal_interrupted_blocks_though_its_thread_is_on_another_stack() {
    let (_directory, pair, mut patch) = frames(&ONE_STACK);
    let spin = common::old_range(&pair, "spin");
    patch.images[0].livepatch.as_mut().unwrap().replaced[0].old_ranges.push(spin);
    let mut victim = Victim::start(&pair.old, &["signal"]);
    let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(0.2)).unwrap();
    let Outcome::Deferred { blocking, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(blocking[0].comm, "signal");
    assert!(
        matches!(blocking[0].why, BlockingReason::Frame { .. } | BlockingReason::MaybeFrame { .. }),
        "{blocking:?}"
    );
    assert_eq!(victim.ask("done"), "1");
    let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(5.0)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    assert_eq!(victim.ask(""), "2");
}

#[test]
fn a_program_that_switches_stacks_is_refused_in_words() {
    let (_directory, pair, patch) = frames(&[]);
    let mut victim = Victim::start(&pair.old, &["plain", "switch"]);
    let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(0.2)).unwrap();
    let Outcome::NotApplied { why } = outcome else { panic!("{outcome:?}") };
    assert!(matches!(&why, NotApplied::StackSwitching { symbol, .. } if symbol.ends_with("context")), "{why:?}");
    assert!(why.to_string().contains("switches stacks"));
    assert_eq!(victim.ask(""), "1");
}

#[test]
fn a_frame_in_the_middle_of_a_stack_of_several_mappings_of_a_file_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "split_stack", &[]);
    let patch = livepatch(&pair, &["inside"], RevertPolicy::Unmap);
    for how in [["shared", "thread"], ["shared", "raw"], ["private", "thread"], ["private", "raw"]] {
        let mut victim = Victim::start(&pair.old, &how);
        let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(0.2)).unwrap();
        let Outcome::Deferred { blocking, .. } = outcome else { panic!("{how:?}: {outcome:?}") };
        assert_eq!((blocking.len(), blocking[0].function.as_str()), (1, "inside"), "{how:?}: {blocking:?}");
        assert_eq!(victim.ask("done"), "3");
        let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(5.0)).unwrap();
        assert!(matches!(outcome, Outcome::Applied(_)), "{how:?}: {outcome:?}");
        assert_eq!(victim.ask(""), "4", "{how:?}");
    }
}
