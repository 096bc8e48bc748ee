//! Programs that count on the numbers of their descriptors, or have more than one table of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod common;

use common::{Victim, livepatch, patcher, program, revert_within, within};
use salve_patch::RevertPolicy;
use salve_tracee::{ApplyMember, BlockingReason, Change, Mark, NotApplied, Outcome, Process, RevertOutcome, Selection};

const FUNCTIONS: [&str; 3] = ["answer", "second", "counted"];
const CYCLES: usize = 25;

/// How many descriptors it has.
fn descriptors(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().count()
}

fn changed_and_back(how: &str) {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "descriptors", &[]);
    let patch = livepatch(&pair, &FUNCTIONS, RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &[how]);
    let (patcher, process) = (patcher(), victim.process());
    assert_eq!(victim.ask(""), "1 10 100 wrong 0", "{how} without a livepatch");
    for _ in 0..CYCLES {
        let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(20.0)).unwrap();
        assert!(matches!(outcome, Outcome::Applied(_)), "{how}: {outcome:?}");
        assert_eq!(victim.ask(""), "2 20 200 wrong 0", "{how}");
        let outcome = patcher.revert(&process, &Selection::All, &revert_within(20.0)).unwrap();
        assert!(matches!(outcome, RevertOutcome::Reverted(_)), "{how}: {outcome:?}");
        assert_eq!(victim.ask(""), "1 10 100 wrong 0", "{how}");
    }
}

#[test]
fn the_next_file_of_a_program_gets_the_number_that_it_counts_on() {
    changed_and_back("lowest");
}

#[test]
fn a_program_that_closes_and_replaces_all_descriptors_keeps_its_own() {
    changed_and_back("replaced");
}

#[test]
fn a_thread_with_descriptors_of_its_own_loses_no_message() {
    changed_and_back("unshared");
}

#[test]
fn a_process_at_its_limit_of_open_files_is_left_alone_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "descriptors", &[]);
    let patch = livepatch(&pair, &FUNCTIONS, RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &["lowest"]);
    let process = victim.process();
    let pid = rustix::process::Pid::from_raw(process.pid());
    let limit = rustix::process::Rlimit { current: Some(12), maximum: Some(12) };
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    let outcome = patcher().apply(&process, &Change::all_of(&patch), &within(1.0)).unwrap();
    let Outcome::NotApplied { why: NotApplied::DescriptorLimit { free, need } } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(free < need);
    assert_eq!(victim.ask(""), "1 10 100 wrong 0");
}

#[test]
fn two_processes_in_one_memory_are_left_alone_in_words_and_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "descriptors", &[]);
    let patch = livepatch(&pair, &FUNCTIONS, RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &["one-memory"]);
    let (patcher, process) = (patcher(), victim.process());
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.pid())).unwrap();
    let other = Process::open(children.trim().parse().unwrap()).unwrap();
    let before = descriptors(&process);
    let changes = Change::all_of(&patch);
    let members =
        [&process, &other].map(|process| ApplyMember { process, changes: changes.clone(), replaced: Vec::new() });
    let ends = patcher.apply_group(&members, Mark::now(), &within(1.0)).unwrap();
    let why: Vec<_> = ends
        .values()
        .flat_map(|end| match end.as_ref().unwrap() {
            Outcome::Deferred { blocking, .. } => blocking.clone(),
            other => panic!("{other:?}"),
        })
        .map(|blocking| blocking.why)
        .collect();
    let shares = |why: &BlockingReason| matches!(why, BlockingReason::SharesMemory { .. });
    assert!(!why.is_empty() && why.iter().all(shares), "{why:?}");
    assert_eq!(victim.ask(""), "1 10 100 wrong 0");
    assert_eq!(descriptors(&process), before);
    rustix::process::kill_process(rustix::process::Pid::from_raw(other.pid()).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
}
