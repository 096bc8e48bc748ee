//! What a call was asked to move it moves whole, although its thread is stopped; and where
//! that cannot be, nothing is done, or it is told.
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
use salve_tracee::{Asked, BlockingReason, Change, Limits, Outcome, Patcher, RevertOutcome, Selection};

/// How many calls of the victim moved less than they were asked for: `1 write=2,0 send=1,0`.
fn cut_short_in(answer: &str) -> usize {
    let counts = answer.split(' ').skip(1).filter_map(|count| count.split_once('=')?.1.split_once(','));
    counts.map(|(less, error)| if error == "0" { less.parse::<usize>().unwrap() } else { panic!("{answer}") }).sum()
}

/// A thread may enter such a call between the look and the stop. Where nobody looks, 24 calls
/// of these eight threads were cut short in the 60 transitions.
#[test]
fn calls_that_move_much_are_hardly_ever_cut_short_and_never_in_silence() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "transfers", &[]);
    let patch = livepatch(&pair, &["answer", "other"], RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &[]);
    let (patcher, process) = (patcher(), victim.process());
    let mut told = Vec::new();
    for _ in 0..30 {
        let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(30.0)).unwrap();
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
        assert!(victim.ask("").starts_with('2'));
        let outcome = patcher.revert(&process, &Selection::All, &revert_within(30.0)).unwrap();
        assert!(matches!(outcome, RevertOutcome::Reverted(_)), "{outcome:?}");
        told.extend(process.take_cut_short());
    }
    let answer = victim.ask("");
    let seen = cut_short_in(&answer);
    assert!(seen <= told.len(), "{answer}: {told:?}");
    assert!(seen <= 6, "{answer}: {told:?}");
}

#[test]
fn a_thread_that_writes_to_a_full_pipe_is_in_the_way_unless_its_write_may_be_cut_short() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "transfers", &[]);
    let patch = livepatch(&pair, &["answer", "other"], RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &["pipe"]);
    let process = victim.process();
    let asked = Asked { call: "write", amount: Some(256 << 10), unit: "bytes" };
    let outcome = patcher().apply(&process, &Change::all_of(&patch), &within(1.0)).unwrap();
    let Outcome::Deferred { blocking, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(blocking.len(), 1, "{blocking:?}");
    assert_eq!((blocking[0].comm.as_str(), &blocking[0].why), ("stuck", &BlockingReason::Transfer(asked)));
    assert_eq!(blocking[0].why.to_string(), "it sleeps in a write of 262144 bytes, which a stop may cut short");
    assert_eq!((victim.ask("").as_str(), process.take_cut_short()), ("1", Vec::new()));

    let patcher = Patcher::new(Limits { may_cut_transfers: true, ..Limits::default() });
    let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(30.0)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    assert_eq!(victim.ask(""), "2 ended=65536");
    let told = process.take_cut_short();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].comm.as_str(), told[0].asked, told[0].done), ("stuck", asked, 65536));
    assert_eq!(process.take_cut_short(), Vec::new());
}

#[test]
fn what_is_moved_whole_or_not_at_all_is_not_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "transfers", &[]);
    let patch = livepatch(&pair, &["answer", "other"], RevertPolicy::Unmap);
    for how in ["line", "datagram"] {
        let mut victim = Victim::start(&pair.old, &[how]);
        let process = victim.process();
        let outcome = patcher().apply(&process, &Change::all_of(&patch), &within(30.0)).unwrap();
        assert!(matches!(outcome, Outcome::Applied(_)), "{how}: {outcome:?}");
        assert_eq!((victim.ask("").as_str(), process.take_cut_short()), ("2", Vec::new()), "{how}");
    }
}

/// The kernel keeps its own code, 512, as an error of the socket.
#[test]
fn a_socket_whose_messages_were_cut_short_has_no_error_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "transfers", &[]);
    let patch = livepatch(&pair, &["answer", "other"], RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &["messages"]);
    let process = victim.process();
    let patcher = Patcher::new(Limits { may_cut_transfers: true, ..Limits::default() });
    let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(30.0)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    assert_eq!(victim.ask(""), "2 ended=1");
    assert_eq!(process.take_cut_short().len(), 1);
}
