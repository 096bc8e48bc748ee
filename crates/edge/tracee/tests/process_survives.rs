//! A target never notices that Salve was there: not by a call that was interrupted,
//! not by a filter, not by Salve's death at any step.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "a test may panic")]

mod common;

use common::{Pair, Victim, gcc, livepatch, patcher, program, revert_within, within};
use salve_patch::{PatchFile, RevertPolicy};
use salve_tracee::{
    Blocking, BlockingReason, Change, Committed, Limits, NotApplied, OpenError, Outcome, Patcher, Process,
    RevertOutcome, Selection, fault,
};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

#[test]
fn calls_that_sleep_are_not_interrupted_by_an_apply_or_a_revert() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "sleepers", &["-Wno-unused-result"]);
    let patch = livepatch(&pair, &["answer"], RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &[]);
    let (patcher, process) = (patcher(), victim.process());
    for _ in 0..40 {
        let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(5.0)).unwrap();
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
        assert_eq!(victim.ask(""), "2");
        let outcome = patcher.revert(&process, &Selection::All, &revert_within(5.0)).unwrap();
        assert!(matches!(outcome, RevertOutcome::Reverted(_)), "{outcome:?}");
        assert_eq!(victim.ask(""), "1");
    }
}

/// Ends what is started with it.
struct Hog(std::process::Child);

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Leaves a process the moments of one processor that others on it do not want.
fn starve(victim: &Victim) -> Hog {
    let allowed = std::fs::read_to_string("/proc/self/status").unwrap();
    let processors = allowed.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let first = processors.split([',', '-']).next().unwrap();
    let pid = victim.pid().to_string();
    for command in [["taskset", "-apc", first, &pid], ["chrt", "-aip", "0", &pid]] {
        let done = Command::new(command[0]).args(&command[1..]).output().unwrap();
        assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Hog(Command::new("taskset").args(["-c", first, "sh", "-c", "while :; do :; done"]).spawn().unwrap())
}

#[test]
fn a_borrowed_thread_that_is_too_slow_goes_home_and_nothing_is_taken_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "sleepers", &["-Wno-unused-result"]);
    let patch = livepatch(&pair, &["answer"], RevertPolicy::Unmap);
    let patcher = patcher();
    let mut let_go = 0;
    for kind in ["nanosleep", "clock_nanosleep", "poll", "futex"] {
        let mut victim = Victim::start(&pair.old, &[kind]);
        let process = victim.process();
        let (before, open) = (victim.text(&pair.old), descriptors(&victim));
        let hog = starve(&victim);
        // Short of time at each part of it.
        for millis in [0, 1, 2, 4, 8, 16, 32, 64] {
            let limits = Limits { max_borrow: Duration::from_millis(millis), ..*patcher.limits() };
            let impatient = Patcher::new(limits);
            let (changes, wait) = (Change::all_of(&patch), Duration::from_secs(60));
            match impatient.apply(&process, &changes, &within(0.0)).unwrap() {
                Outcome::Deferred { blocking, .. } => let_go += gone_astray(&blocking),
                Outcome::Applied(_) => {}
                other => panic!("{kind}: {other:?}; the target {}", victim.fate()),
            }
            let outcome = patcher.apply(&process, &changes, &within(wait.as_secs_f64())).unwrap();
            assert!(matches!(outcome, Outcome::Applied(_) | Outcome::AlreadyApplied { .. }), "{kind}: {outcome:?}");
            match impatient.revert(&process, &Selection::All, &revert_within(0.0)).unwrap() {
                RevertOutcome::Deferred { blocking, .. } => let_go += gone_astray(&blocking),
                RevertOutcome::Reverted(_) => {}
                other => panic!("{kind}: {other:?}; the target {}", victim.fate()),
            }
            patcher.revert(&process, &Selection::All, &revert_within(wait.as_secs_f64())).unwrap();
        }
        drop(hog);
        // Longer than any of them sleeps.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(victim.ask(""), "1", "{kind}");
        assert!(victim.text(&pair.old) == before, "{kind}: the text is not what it was");
        assert!(patcher.status(&process).unwrap().livepatches.is_empty());
        assert_eq!(descriptors(&victim), open, "{kind}");
        let mappings = std::fs::read_to_string(format!("/proc/{}/maps", victim.pid())).unwrap();
        assert!(!mappings.contains("memfd:salve"), "{kind}: {mappings}");
    }
    assert!(let_go > 0, "no thread was ever let go on its way");
}

fn descriptors(victim: &Victim) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", victim.pid())).unwrap().count()
}

fn gone_astray(blocking: &[Blocking]) -> u32 {
    u32::from(blocking.iter().any(|one| one.why == BlockingReason::Astray))
}

#[test]
fn a_filter_that_allows_the_calls_is_no_hindrance_and_one_that_kills_is_seen_first() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "filtered", &[]);
    let patch = livepatch(&pair, &["answer"], RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &[]);
    let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(5.0)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    assert_eq!(victim.ask(""), "2");

    let mut victim = Victim::start(&pair.old, &["socketpair"]);
    let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(5.0)).unwrap();
    let Outcome::NotApplied { why: NotApplied::SeccompForbids { call } } = outcome else { panic!("{outcome:?}") };
    assert_eq!(call, "socketpair");
    assert_eq!(victim.ask(""), "1");
}

#[test]
fn a_process_whose_ways_to_tell_its_end_are_barred_is_changed_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "filtered", &[]);
    let patch = livepatch(&pair, &["answer", "other"], RevertPolicy::Unmap);
    // What is forbidden, and who makes the writes then.
    let cases = [
        ("vfork", Committed::ByTarget),
        ("handlers", Committed::ByTarget),
        ("tkill", Committed::ByTarget),
        ("sched_yield", Committed::ByTarget),
        ("ppoll", Committed::ByTarget),
        ("pwrite64", Committed::BySalve),
    ];
    for (barred, by) in cases {
        let mut victim = Victim::start(&pair.old, &[barred]);
        let before = victim.text(&pair.old);
        let (patcher, process) = (patcher(), victim.process());
        let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(5.0)).unwrap();
        let Outcome::Applied(applied) = outcome else { panic!("{barred}: {outcome:?}") };
        assert_eq!((applied.images[0].detours, applied.committed), (2, by), "{barred}");
        // No handler ran.
        assert_eq!(victim.ask(""), "2", "{barred}");
        let outcome = patcher.revert(&process, &Selection::All, &revert_within(5.0)).unwrap();
        let RevertOutcome::Reverted(reverted) = outcome else { panic!("{barred}: {outcome:?}") };
        assert_eq!(reverted.committed, by, "{barred}");
        assert_eq!(victim.ask(""), "1", "{barred}");
        assert!(victim.text(&pair.old) == before, "{barred}");
    }
}

#[test]
fn a_process_that_is_traced_already_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "filtered", &[]);
    let patch = livepatch(&pair, &["answer"], RevertPolicy::Unmap);
    let mut victim = Victim::start(&pair.old, &[]);
    // The tracer is a thread of this very process, which holds the victim meanwhile.
    let outcome = std::thread::scope(|scope| {
        let (seized, wait) = std::sync::mpsc::channel();
        let (done, until) = std::sync::mpsc::channel::<()>();
        let pid = victim.pid();
        scope.spawn(move || {
            // SAFETY: seizing takes numbers only.
            assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) }, 0);
            seized.send(()).unwrap();
            until.recv().unwrap();
        });
        wait.recv().unwrap();
        let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(1.0)).unwrap();
        done.send(()).unwrap();
        outcome
    });
    let Outcome::NotApplied { why: NotApplied::AlreadyTraced { tracer: found } } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(u32::try_from(found), Ok(std::process::id()));
    assert_eq!(victim.ask(""), "1");
}

#[test]
fn static_programs_zombies_and_dead_processes_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "filtered", &[]);
    let patch = livepatch(&pair, &["answer"], RevertPolicy::Unmap);
    let fixed = directory.path().join("static");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/victims/filtered.c");
    gcc(&["-O2", "-static", "-o", fixed.to_str().unwrap(), source]);
    let victim = Victim::start(&fixed, &[]);
    let outcome = patcher().apply(&victim.process(), &Change::all_of(&patch), &within(1.0)).unwrap();
    assert!(matches!(outcome, Outcome::NotApplied { why: NotApplied::StaticProgram }), "{outcome:?}");

    let mut child = Command::new("true").spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let pid = i32::try_from(child.id()).unwrap();
    assert!(matches!(Process::open(pid), Err(OpenError::Zombie | OpenError::NoSuchProcess)));
    child.wait().unwrap();
    assert!(matches!(Process::open(pid), Err(OpenError::NoSuchProcess)));
}

/// The environment by which this test program is made the one that dies.
const DIE_AT: &str = "SALVE_TEST_DIE_AT";
const TARGET: &str = "SALVE_TEST_TARGET";
const PATCH: &str = "SALVE_TEST_PATCH";

const AGAIN: &str = "SALVE_TEST_AGAIN";

/// Not a test of its own: what the tests below start and what kills itself.
#[test]
fn child_that_applies_and_reverts_until_it_dies() {
    let Ok(target) = std::env::var(TARGET) else { return };
    let patch = std::fs::read(std::env::var(PATCH).unwrap()).unwrap();
    let patch = salve_patch::decode(&patch, &salve_patch::Limits::default()).unwrap();
    let process = Process::open(target.parse().unwrap()).unwrap();
    fault::die_at(std::env::var(DIE_AT).unwrap().parse().unwrap());
    let patcher = patcher();
    loop {
        let applied = patcher.apply(&process, &Change::all_of(&patch), &within(60.0)).unwrap();
        let reverted = patcher.revert(&process, &Selection::All, &revert_within(60.0)).unwrap();
        if std::env::var(AGAIN).is_err() {
            eprintln!("{applied:?}\n{reverted:?}\nsteps {}", fault::steps());
            return;
        }
    }
}

/// Runs the child above; whether it was killed.
fn die(step: u64, target: &Victim, patch: &std::path::Path) -> (bool, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_applies_and_reverts_until_it_dies", "--nocapture"])
        .env(DIE_AT, step.to_string())
        .env(TARGET, target.pid().to_string())
        .env(PATCH, patch)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let killed = output.status.signal() == Some(libc::SIGKILL);
    assert!(killed || output.status.success(), "{step}: {text}");
    (killed, text)
}

fn encoded(patch: &PatchFile, directory: &std::path::Path) -> std::path::PathBuf {
    let path = directory.join("patch");
    std::fs::write(&path, salve_patch::encode(patch).unwrap()).unwrap();
    path
}

/// After a death anywhere: the target answers, and the next run finishes or undoes.
fn killed_at_every_step(pair: &Pair, functions: &[&str], arguments: &[&str], answers: &dyn Fn(&str) -> bool) {
    let directory = tempfile::tempdir().unwrap();
    let patch = livepatch(pair, functions, RevertPolicy::Unmap);
    let path = encoded(&patch, directory.path());
    let mut victim = Victim::start(&pair.old, arguments);
    let before = victim.text(&pair.old);
    let (patcher, process) = (patcher(), victim.process());
    let mut deaths = 0;
    for step in 1.. {
        let (killed, text) = die(step, &victim, &path);
        let answer = victim.ask("");
        assert!(answers(&answer), "after death at step {step}: {answer}");
        if step % 2 == 0 {
            let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(60.0)).unwrap();
            assert!(
                matches!(outcome, Outcome::Applied(_) | Outcome::AlreadyApplied { .. }),
                "after death at step {step}: {outcome:?}; the target {}",
                victim.fate()
            );
        }
        let outcome = patcher.revert(&process, &Selection::All, &revert_within(60.0)).unwrap();
        assert!(
            matches!(outcome, RevertOutcome::Reverted(_) | RevertOutcome::NothingToRevert),
            "after death at step {step}: {outcome:?}; the target {}",
            victim.fate()
        );
        if !killed {
            eprintln!("survived {deaths} deaths; the last run: {text}");
            break;
        }
        deaths += 1;
        let status = patcher.status(&process).unwrap();
        assert!(status.modified_text.is_empty(), "after death at step {step}: {status:?}");
        assert!(
            status.livepatches.is_empty() && status.unreadable.is_empty(),
            "after death at step {step}: {status:?}"
        );
    }
    // One more, whole: it also puts back where the dead ones left their stubs.
    patcher.apply(&process, &Change::all_of(&patch), &within(60.0)).unwrap();
    patcher.revert(&process, &Selection::All, &revert_within(60.0)).unwrap();
    assert!(victim.text(&pair.old) == before, "the text is not what it was");
    assert!(deaths > 60, "only {deaths} steps");
    assert!(answers(&victim.ask("")));
}

#[test]
fn a_running_program_survives_the_death_of_salve_at_every_step() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "program", &[]);
    killed_at_every_step(&pair, &["answer", "second", "counted"], &["2", "calm"], &|answer| {
        answer.ends_with("wrong 0")
    });
}

/// Waited for at the place where it leaves, which is more to be in the middle of.
#[test]
fn a_thread_that_is_caught_as_it_leaves_survives_the_death_of_salve_at_every_step() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "hot", &[]);
    killed_at_every_step(&pair, &["changed"], &["1"], &|answer| answer.ends_with(" wrong 0"));
}

#[test]
fn sleeping_threads_survive_the_death_of_salve_at_every_step() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "sleepers", &["-Wno-unused-result"]);
    // A thread that dies with its tracer's stop pending sees what the kernel makes of that
    // stop: only `nanosleep`, which restarts, is asked to notice nothing.
    killed_at_every_step(&pair, &["answer"], &["nanosleep"], &|answer| answer == "1" || answer == "2");
}

#[test]
fn a_running_program_survives_the_death_of_salve_at_a_hundred_random_moments() {
    let directory = tempfile::tempdir().unwrap();
    let pair = program(directory.path(), "program", &[]);
    let patch = livepatch(&pair, &["answer", "second", "counted"], RevertPolicy::Unmap);
    let path = encoded(&patch, directory.path());
    let mut victim = Victim::start(&pair.old, &["4", "calm"]);
    let before = victim.text(&pair.old);
    // A fixed seed: the moments differ by themselves, the delays need not.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for kill in 0..100 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_applies_and_reverts_until_it_dies", "--nocapture"])
            .env(DIE_AT, u64::MAX.to_string())
            .env(TARGET, victim.pid().to_string())
            .env(PATCH, &path)
            .env(AGAIN, "1")
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(8_000 + random % 30_000));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL), "kill {kill}: it ended before");
        let answer = victim.ask("");
        assert!(answer.ends_with("wrong 0"), "kill {kill}: {answer}");
    }
    let (patcher, process) = (patcher(), victim.process());
    let outcome = patcher.apply(&process, &Change::all_of(&patch), &within(60.0)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_) | Outcome::AlreadyApplied { .. }), "{outcome:?}");
    assert!(victim.ask("").starts_with("2 20 "));
    let outcome = patcher.revert(&process, &Selection::All, &revert_within(60.0)).unwrap();
    assert!(matches!(outcome, RevertOutcome::Reverted(_)), "{outcome:?}");
    assert!(victim.text(&pair.old) == before, "the text is not what it was");
    assert!(patcher.status(&process).unwrap().livepatches.is_empty());
}
