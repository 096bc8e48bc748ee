//! Prints how long a transition holds a process, beside the floor that `ptrace` sets.
//! Asserts that both were measured, and no time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod common;

use common::{Victim, livepatch, patcher, program, revert_within, within};
use salve_patch::RevertPolicy;
use salve_tracee::{Change, Outcome, Selection};
use std::time::Duration;

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

#[test]
fn a_transition_is_measured_beside_the_floor() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "program", &[]);
    let patch = livepatch(&pair, &["answer", "second", "counted"], RevertPolicy::Unmap);
    for threads in ["0", "1", "9", "99"] {
        let mut victim = Victim::start(&pair.old, &[threads, "calm"]);
        let (patcher, process) = (patcher(), victim.process());
        let (mut floor, mut stopped, mut borrowed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..11 {
            floor.push(patcher.stop_floor(&process).unwrap());
            let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(20.0)).unwrap();
            let Outcome::Applied(applied) = outcome else { panic!("{outcome:?}") };
            stopped.push(applied.stopped);
            borrowed.push(applied.longest_borrow);
            patcher.revert(&process, &Selection::All, &revert_within(20.0)).unwrap();
        }
        let (floor, stopped, borrowed) = (median(floor), median(stopped), median(borrowed));
        eprintln!(
            "{threads:>3} threads beside main: floor {floor:?}, transition {stopped:?}, longest borrow {borrowed:?}"
        );
        assert!(!floor.is_zero() && !stopped.is_zero());
        assert!(victim.ask("").ends_with("wrong 0"));
    }
}
