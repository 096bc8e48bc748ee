//! Threads that are left as they are: the kernel's own, and those that nobody works with.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod common;

use common::{Pair, Victim, livepatch, patcher, program, revert_within, within};
use salve_patch::{PatchFile, RevertPolicy};
use salve_tracee::{BlockingReason, Change, OpenError, Outcome, Process, ReadError, RevertOutcome, Selection};
use std::time::Duration;

/// A victim with two functions to change, so that a thread of it is borrowed and one writes.
fn two_functions(name: &str) -> (tempfile::TempDir, Pair, PatchFile) {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), name, &[]);
    let patch = livepatch(&pair, &["answer", "second"], RevertPolicy::Unmap);
    (directory, pair, patch)
}

fn there_and_back(victim: &Victim, patch: &PatchFile) {
    let (patcher, process) = (patcher(), victim.process());
    let outcome = patcher.apply(&process, &Change::all_of(patch), &within(20.0)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    let outcome = patcher.revert(&process, &Selection::All, &revert_within(20.0)).unwrap();
    assert!(matches!(outcome, RevertOutcome::Reverted(_)), "{outcome:?}");
}

#[test]
fn calls_that_the_kernels_own_workers_sleep_in_are_not_interrupted() {
    let (_directory, pair, patch) = two_functions("uring");
    let mut victim = Victim::start(&pair.old, &[]);
    if victim.ask("").contains("none") {
        eprintln!("not run: this kernel has no io_uring");
        return;
    }
    for _ in 0..40 {
        there_and_back(&victim, &patch);
    }
    assert_eq!(victim.ask(""), "11 wrong 0");
}

#[test]
fn a_program_that_steps_through_its_own_code_is_changed_between_its_steps() {
    let (_directory, pair, patch) = two_functions("steps");
    let mut victim = Victim::start(&pair.old, &[]);
    for _ in 0..20 {
        there_and_back(&victim, &patch);
        assert_eq!(victim.ask(""), "11 wrong 0");
    }
}

#[test]
fn a_thread_that_sleeps_with_its_trap_flag_set_defers_an_apply_and_lives() {
    let (_directory, pair, patch) = two_functions("steps");
    let mut victim = Victim::start(&pair.old, &["asleep"]);
    let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(0.2)).unwrap();
    let Outcome::Deferred { blocking, .. } = outcome else { panic!("{outcome:?}; the target {}", victim.fate()) };
    assert!(matches!(blocking[0].why, BlockingReason::Stepping), "{blocking:?}");
    assert_eq!(victim.ask(""), "11 wrong 0");
}

#[test]
fn signals_that_are_ignored_end_no_call_of_a_process_that_is_changed() {
    let (_directory, pair, patch) = two_functions("ignored");
    let mut victim = Victim::start(&pair.old, &[]);
    for turn in 0..60 {
        there_and_back(&victim, &patch);
        assert_eq!(victim.ask(""), "11 interrupted 0", "after {turn}");
    }
}

#[test]
fn a_process_whose_first_thread_has_ended_is_there_and_is_said_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "outlived", &[]);
    let mut victim = Victim::start(&pair.old, &[]);
    while victim.state() != 'Z' {
        std::thread::sleep(Duration::from_millis(1));
    }
    let opened = Process::open(victim.pid());
    assert!(matches!(opened, Err(OpenError::Read(ReadError::FirstThreadEnded))), "{opened:?}");
    assert_eq!(victim.ask(""), "1");
    victim.kill("-KILL");
    let opened = Process::open(victim.pid());
    assert!(matches!(opened, Err(OpenError::Zombie | OpenError::NoSuchProcess)), "{opened:?}");
}
