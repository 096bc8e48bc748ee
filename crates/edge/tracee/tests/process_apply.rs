//! Livepatches on real processes: applied, reverted, deferred, refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "a test may panic")]

mod common;

use common::{Victim, library, livepatch, patcher, program, report, revert_within, within};
use salve_patch::RevertPolicy;
use salve_tracee::{BlockingReason, Change, LivepatchState, NotApplied, Outcome, RevertOutcome, Selection};

const FUNCTIONS: [&str; 3] = ["answer", "second", "counted"];

fn apply_and_revert(threads: &str, more: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "program", more);
    let patch = livepatch(&pair, &FUNCTIONS, RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &[threads]);
    let before = victim.text(&pair.old);
    assert_eq!(victim.ask(""), "1 10 0 wrong 0");
    assert_eq!(victim.ask("count"), "1");
    let maps_before = victim.process().mappings(patcher().limits()).unwrap().len();

    let (patcher, process) = (patcher(), victim.process());
    let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(20.0)).unwrap();
    let Outcome::Applied(applied) = outcome else { panic!("{outcome:?}") };
    eprintln!("{threads} threads: {applied:?}");
    assert_eq!(applied.images[0].detours, 3);
    assert_eq!(victim.ask(""), "2 20 0 wrong 0");
    // The new function finds the old one's data.
    assert_eq!(victim.ask("count"), "101");

    let status = patcher.status(&process).unwrap();
    assert_eq!(status.livepatches.len(), 1);
    assert_eq!(status.livepatches[0].state, LivepatchState::Applied);
    assert_eq!(Some(status.livepatches[0].livepatch), patch.images[0].livepatch_id());
    assert_eq!(status.livepatches[0].patch.images, patch.images);
    assert!(status.modified_text.is_empty() && status.unreadable.is_empty() && status.leftover_stubs == 0);

    let again = patcher.apply(&process, &Change::all_of(&patch), &within(1.0)).unwrap();
    assert!(matches!(again, Outcome::AlreadyApplied { .. }), "{again:?}");

    let outcome = patcher.revert(&process, &Selection::All, &revert_within(20.0)).unwrap();
    let RevertOutcome::Reverted(reverted) = outcome else { panic!("{outcome:?}") };
    assert!(reverted.unmapped && reverted.detours == 3);
    assert_eq!(victim.ask(""), "1 10 0 wrong 0");
    assert_eq!(victim.ask("count"), "102");
    assert!(victim.text(&pair.old) == before, "the text is not what it was");
    assert_eq!(process.mappings(patcher.limits()).unwrap().len(), maps_before);
    assert!(patcher.status(&process).unwrap().livepatches.is_empty());
    assert_eq!(patcher.revert(&process, &Selection::All, &revert_within(1.0)).unwrap(), RevertOutcome::NothingToRevert);
}

#[test]
fn one_thread_changes_and_goes_back() {
    apply_and_revert("0", &[]);
}

#[test]
fn functions_that_begin_with_endbr64_change_and_go_back() {
    apply_and_revert("2", &["-fcf-protection=branch"]);
}

#[test]
fn ten_threads_under_load_change_and_go_back() {
    apply_and_revert("10", &[]);
}

#[test]
fn a_hundred_threads_under_load_change_and_go_back() {
    apply_and_revert("100", &[]);
}

#[test]
fn a_thread_asleep_in_a_replaced_function_defers_the_transition() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "program", &[]);
    let patch = livepatch(&pair, &["answer", "slow"], RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &["1"]);
    let before = victim.text(&pair.old);
    assert_eq!(victim.ask("sleep"), "sleeping");
    std::thread::sleep(std::time::Duration::from_millis(100));
    let (patcher, process) = (patcher(), victim.process());
    let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(0.3)).unwrap();
    let Outcome::Deferred { blocking, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(blocking.len(), 1, "{blocking:?}");
    assert_eq!((blocking[0].function.as_str(), blocking[0].comm.as_str()), ("slow", "sleeper"));
    assert!(matches!(blocking[0].why, BlockingReason::Frame { .. }), "{blocking:?}");
    assert!(victim.text(&pair.old) == before);
    assert_eq!(victim.ask(""), "1 10 0 wrong 0");
    // It leaves after three seconds.
    let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(10.0)).unwrap();
    let Outcome::Applied(applied) = outcome else { panic!("{outcome:?}") };
    eprintln!("applied after {} tries", applied.tries);
    assert!(applied.tries > 1);
    assert_eq!(victim.ask(""), "2 10 0 wrong 0");
}

#[test]
fn two_images_change_in_one_transition_though_their_files_are_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let lib = library(directory.path(), "library");
    let folder = lib.old.parent().unwrap().to_str().unwrap().to_owned();
    let rpath = format!("-Wl,-rpath,{folder}");
    let search = format!("-L{folder}");
    let pair = program(directory.path(), "program", &["-DLIBRARY", &search, "-llibrary", &rpath]);
    let mut patch = livepatch(&pair, &["answer"], RevertPolicy::KeepMapped);
    patch.images.push(report(&lib, &["from_library"], RevertPolicy::Unmap));
    let mut victim = Victim::start(&pair.old, &["3"]);
    assert_eq!(victim.ask(""), "1 10 5 wrong 0");
    std::fs::remove_file(&lib.old).unwrap();
    std::fs::remove_file(&pair.old).unwrap();
    let (patcher, process) = (patcher(), victim.process());
    let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(10.0)).unwrap();
    let Outcome::Applied(applied) = outcome else { panic!("{outcome:?}") };
    assert_eq!(applied.images.len(), 2);
    assert_eq!(victim.ask(""), "2 10 7 wrong 0");
    let outcome = patcher.revert(&process, &Selection::All, &revert_within(10.0)).unwrap();
    let RevertOutcome::Reverted(reverted) = outcome else { panic!("{outcome:?}") };
    assert!(!reverted.unmapped, "one of the two keeps its payload");
    assert_eq!(victim.ask(""), "1 10 5 wrong 0");
    let status = patcher.status(&process).unwrap();
    assert_eq!(status.livepatches.iter().map(|l| l.state).collect::<Vec<_>>(), [LivepatchState::Reverted]);
    // Applied again, the payload that stayed is taken, not mapped a second time.
    let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(10.0)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    assert_eq!(patcher.status(&process).unwrap().livepatches.len(), 2);
    assert_eq!(victim.ask(""), "2 10 7 wrong 0");
}

#[test]
fn unexpected_bytes_at_one_detour_leave_everything_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "program", &[]);
    let mut patch = livepatch(&pair, &FUNCTIONS, RevertPolicy::Unmap);
    patch.images[0].livepatch.as_mut().unwrap().detours[1].expected[4] ^= 1;
    let mut victim = Victim::start(&pair.old, &["1"]);
    let (before, maps) = (victim.text(&pair.old), victim.process().mappings(patcher().limits()).unwrap());
    let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(1.0)).unwrap();
    let Outcome::NotApplied { why: NotApplied::UnexpectedBytes { .. } } = outcome else { panic!("{outcome:?}") };
    assert!(victim.text(&pair.old) == before);
    assert_eq!(victim.process().mappings(patcher().limits()).unwrap().len(), maps.len());
    assert_eq!(victim.ask(""), "1 10 0 wrong 0");
}

#[test]
fn a_livepatch_for_another_content_is_not_applied() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "program", &[]);
    let mut patch = livepatch(&pair, &FUNCTIONS, RevertPolicy::Unmap);
    patch.images[0].old.as_mut().unwrap().sha256 = salve_elf::ContentHash::of(b"another");
    let victim = Victim::start(&pair.old, &["0"]);
    let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(1.0)).unwrap();
    assert!(matches!(outcome, Outcome::NotApplied { why: NotApplied::ImageNotMapped { .. } }), "{outcome:?}");
}

#[test]
fn a_stopped_process_stays_stopped_and_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "sleepers", &["-Wno-unused-result"]);
    let patch = livepatch(&pair, &["answer"], RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &[]);
    victim.kill("-STOP");
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(victim.state(), 'T');
    let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(5.0)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(victim.state(), 'T');
    victim.kill("-CONT");
    assert_eq!(victim.ask(""), "2");
}

#[test]
fn another_livepatch_for_the_same_image_is_refused_while_one_is_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "program", &[]);
    let first = livepatch(&pair, &["answer"], RevertPolicy::Unmap);
    let other = livepatch(&pair, &["second"], RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &["0"]);
    let (patcher, process) = (patcher(), victim.process());
    let outcome = patcher.apply(&process, &Change::all_of(&first), &within(5.0)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    let outcome = patcher.apply(&process, &Change::all_of(&other), &within(5.0)).unwrap();
    let Outcome::NotApplied { why: NotApplied::OtherLivepatch { livepatch, .. } } = outcome else { panic!() };
    assert_eq!(Some(livepatch), first.images[0].livepatch_id());
    assert_eq!(victim.ask(""), "2 10 0 wrong 0");
}

#[test]
fn a_policy_that_refuses_reverts_only_by_force() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "program", &[]);
    let patch = livepatch(&pair, &["answer"], RevertPolicy::Refuse);
    let mut victim = Victim::start(&pair.old, &["0"]);
    let (patcher, process) = (patcher(), victim.process());
    patcher.apply(&process, &Change::all_of(&patch), &within(5.0)).unwrap();
    let outcome = patcher.revert(&process, &Selection::All, &revert_within(1.0)).unwrap();
    assert!(matches!(outcome, RevertOutcome::NotReverted { why: NotApplied::RevertRefused { .. } }), "{outcome:?}");
    assert_eq!(victim.ask(""), "2 10 0 wrong 0");
    let force = salve_tracee::RevertOptions { force: true, ..revert_within(5.0) };
    let outcome = patcher.revert(&process, &Selection::All, &force).unwrap();
    assert!(matches!(outcome, RevertOutcome::Reverted(_)), "{outcome:?}");
    assert_eq!(victim.ask(""), "1 10 0 wrong 0");
}

/// By looking at random it would take thousands of tries.
#[test]
fn a_thread_that_is_hardly_ever_outside_is_caught_as_it_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "hot", &[]);
    let patch = livepatch(&pair, &["changed"], RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &["1"]);
    let before = victim.text(&pair.old);
    let (patcher, process) = (patcher(), victim.process());
    assert_eq!(victim.ask(""), "1 wrong 0");
    for _ in 0..10 {
        let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(30.0)).unwrap();
        let Outcome::Applied(applied) = outcome else { panic!("{outcome:?}") };
        assert!(applied.tries < 10, "{applied:?}");
        assert_eq!(victim.ask(""), "2 wrong 0");
        let outcome = patcher.revert(&process, &Selection::All, &revert_within(30.0)).unwrap();
        let RevertOutcome::Reverted(reverted) = outcome else { panic!("{outcome:?}") };
        assert!(reverted.tries < 10, "{reverted:?}");
        assert_eq!(victim.ask(""), "1 wrong 0");
    }
    assert!(victim.text(&pair.old) == before);
}
