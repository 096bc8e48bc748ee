//! The sandbox holds, and whoever started the process learns how it ended.

use rustix::io::FdFlags;
use salve_deriver::protocol::{Attempt, LimitedResource, ResourceLimits};
use salve_deriver::{Deriver, DeriverError, FileInput, NotWhatWasAsked, Priority, SideInput};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn deriver() -> Deriver {
    Deriver::at(PathBuf::from(env!("CARGO_BIN_EXE_salve-derive"))).with_time_limit(Duration::from_secs(120))
}

fn killed_by_the_filter(attempt: Attempt) {
    match deriver().try_sandbox(attempt, None) {
        Err(DeriverError::SandboxViolation { signal_name: "SIGSYS", .. }) => {}
        other => panic!("{attempt:?}: {other:?}"),
    }
}

#[test]
fn everything_is_given_up_before_the_first_foreign_byte() {
    let answer = deriver().try_sandbox(Attempt::Nothing, None).unwrap();
    let report = &answer.sandbox;
    assert!(report.seccomp);
    if rustix::process::geteuid().is_root() {
        assert_eq!((report.uid, report.gid), (65_534, 65_534), "root is given up");
    }
    // What a kernel cannot do is said, not passed over.
    let full = report.landlock == salve_deriver::protocol::Enforcement::Full;
    assert_eq!(full, report.degraded.is_empty(), "{report:?}");
}

#[test]
fn opening_a_file_is_refused() {
    let answer = deriver().try_sandbox(Attempt::OpenFile, None).unwrap();
    assert!(!answer.value.succeeded && answer.value.seen.contains("os error 1"), "{answer:?}");
    let unsafely = deriver().unsafe_without_sandbox().try_sandbox(Attempt::OpenFile, None).unwrap();
    assert!(unsafely.value.succeeded, "without the sandbox it works: {unsafely:?}");
}

#[test]
fn connecting_a_socket_is_death() {
    killed_by_the_filter(Attempt::Connect);
}

#[test]
fn executing_a_program_is_death() {
    killed_by_the_filter(Attempt::Execute);
}

#[test]
fn tracing_is_death() {
    killed_by_the_filter(Attempt::Trace);
}

#[test]
fn signalling_another_process_is_death() {
    killed_by_the_filter(Attempt::SignalProcess);
}

#[test]
fn starting_a_thread_is_death() {
    killed_by_the_filter(Attempt::StartThread);
}

#[test]
fn writing_to_an_input_is_death_even_where_the_caller_may_write() {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, b"four").unwrap();
    match deriver().try_sandbox(Attempt::WriteToInput, Some(file.as_fd())) {
        Err(DeriverError::SandboxViolation { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(file.metadata().unwrap().len(), 4);
    // Without the filter the descriptor itself forbids it: it was opened anew for reading.
    let unsafely = deriver().unsafe_without_sandbox();
    let answer = unsafely.try_sandbox(Attempt::WriteToInput, Some(file.as_fd())).unwrap();
    assert!(!answer.value.succeeded, "{answer:?}");
}

#[test]
fn reading_an_input_works() {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, b"four").unwrap();
    let answer = deriver().try_sandbox(Attempt::Nothing, Some(file.as_fd())).unwrap();
    assert_eq!(answer.value.seen, "4 bytes");
}

#[test]
fn a_descriptor_that_others_left_open_is_closed_and_counted() {
    let before = deriver().try_sandbox(Attempt::Nothing, None).unwrap().sandbox.descriptors_closed;
    let left_open = File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&left_open, FdFlags::empty()).unwrap();
    let number = left_open.as_raw_fd();
    let answer = deriver().try_sandbox(Attempt::CloseDescriptor { number }, None).unwrap();
    assert!(!answer.value.succeeded, "descriptor {number} is open in the sandbox");
    assert!(answer.sandbox.descriptors_closed > before, "{answer:?}");
}

#[test]
fn memory_beyond_the_limit_is_a_typed_error() {
    let limits = ResourceLimits { memory_bytes: 128 << 20, ..ResourceLimits::default() };
    match deriver().with_limits(limits).try_sandbox(Attempt::ExhaustMemory, None) {
        Err(DeriverError::ResourceLimit { resource: LimitedResource::Memory, limit }) => assert_eq!(limit, 128 << 20),
        other => panic!("{other:?}"),
    }
}

#[test]
fn processor_time_beyond_the_limit_is_a_typed_error() {
    let limits = ResourceLimits { cpu_seconds: 1, ..ResourceLimits::default() };
    match deriver().with_limits(limits).try_sandbox(Attempt::ExhaustProcessor, None) {
        Err(DeriverError::ResourceLimit { resource: LimitedResource::ProcessorTime, limit: 1 }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_that_hangs_is_killed_at_the_time_limit() {
    let short = Duration::from_millis(300);
    match deriver().with_time_limit(short).try_sandbox(Attempt::Hang, None) {
        Err(DeriverError::TimedOut { limit }) => assert_eq!(limit, short),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_is_a_typed_error() {
    match deriver().try_sandbox(Attempt::Panic, None) {
        Err(DeriverError::Failed(failure)) => {
            assert!(failure.chain.iter().any(|c| c.contains("as was asked for")), "{failure:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stack_that_overflows_is_a_typed_error_with_the_signal() {
    match deriver().try_sandbox(Attempt::OverflowStack, None) {
        Err(DeriverError::Killed { signal_name: "SIGABRT" | "SIGSEGV", said, .. }) => {
            assert!(said.contains("overflowed its stack"), "{said}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_that_is_killed_from_outside_is_a_typed_error_with_the_signal() {
    // Only this one has such a limit: that is how it is told from those of other tests.
    let limits = ResourceLimits { cpu_seconds: 31_337, ..ResourceLimits::default() };
    let waiting = std::thread::spawn(move || deriver().with_limits(limits).try_sandbox(Attempt::Hang, None));
    let patience = Instant::now() + Duration::from_secs(60);
    let child = loop {
        if let Some(child) = deriver_of(std::process::id(), "31337") {
            break child;
        }
        assert!(Instant::now() < patience && !waiting.is_finished(), "no such child: {waiting:?}");
        std::thread::sleep(Duration::from_millis(5));
    };
    rustix::process::kill_process(child, rustix::process::Signal::TERM).unwrap();
    match waiting.join().unwrap() {
        Err(DeriverError::Killed { signal_name: "SIGTERM", .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// A child of that process, in its sandbox, with this limit on processor time.
fn deriver_of(parent: u32, cpu_seconds: &str) -> Option<rustix::process::Pid> {
    let own = format!("PPid:\t{parent}\n");
    std::fs::read_dir("/proc").unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        let read = |name| std::fs::read_to_string(path.join(name)).unwrap_or_default();
        let status = read("status");
        let limited = read("limits").lines().any(|l| l.starts_with("Max cpu time") && l.contains(cpu_seconds));
        let found = status.contains(&own) && status.contains("Seccomp:\t2") && limited;
        found.then(|| path.file_name()?.to_str()?.parse().ok().and_then(rustix::process::Pid::from_raw)).flatten()
    })
}

#[test]
fn an_answer_that_is_too_long_is_a_typed_error() {
    match deriver().try_sandbox(Attempt::FloodResponse, None) {
        Err(DeriverError::Garbled { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_that_is_none_is_a_typed_error() {
    match deriver().try_sandbox(Attempt::SpeakGarbage, None) {
        Err(DeriverError::Garbled { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_end_without_an_answer_is_a_typed_error() {
    match deriver().try_sandbox(Attempt::EndSilently, None) {
        Err(DeriverError::Ended { code: 0, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn endless_complaints_fill_neither_memory_nor_time() {
    let limits = ResourceLimits { cpu_seconds: 1, ..ResourceLimits::default() };
    match deriver().with_limits(limits).try_sandbox(Attempt::FloodErrors, None) {
        Err(DeriverError::ResourceLimit { resource: LimitedResource::ProcessorTime, .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// Set in a process that runs the next test alone: other tests open files meanwhile.
const ALONE: &str = "SALVE_TEST_ALONE";

#[test]
fn no_descriptor_and_no_process_is_left_behind() {
    if std::env::var_os(ALONE).is_none() {
        let again = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "no_descriptor_and_no_process_is_left_behind"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
        return;
    }
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let attempts = [Attempt::Nothing, Attempt::Connect, Attempt::EndSilently, Attempt::SpeakGarbage];
    let before = count();
    for attempt in attempts.into_iter().cycle().take(12) {
        let _ = deriver().try_sandbox(attempt, None);
        assert_eq!(count(), before, "after {attempt:?}");
    }
    match rustix::process::waitpid(None, rustix::process::WaitOptions::NOHANG) {
        Err(rustix::io::Errno::CHILD) => {}
        other => panic!("a child is left: {other:?}"),
    }
}

#[test]
fn a_program_that_is_no_deriver_is_a_typed_error() {
    match Deriver::at(PathBuf::from("/nonexistent/salve-derive")).try_sandbox(Attempt::Nothing, None) {
        Err(DeriverError::Start { .. }) => {}
        other => panic!("{other:?}"),
    }
    match Deriver::at(PathBuf::from("/bin/true")).try_sandbox(Attempt::Nothing, None) {
        Err(DeriverError::Ended { code: 0, .. } | DeriverError::UnexpectedAnswer) => {}
        other => panic!("{other:?}"),
    }
    // One that listens and never answers.
    let silent = Deriver::at(PathBuf::from("/bin/cat")).with_time_limit(Duration::from_millis(300));
    match silent.try_sandbox(Attempt::Nothing, None) {
        Err(DeriverError::TimedOut { .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// A program that stands in for `salve-derive`.
fn stand_in(script: &str) -> (tempfile::TempDir, Deriver) {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stand-in");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let deriver = Deriver::at(path).with_time_limit(Duration::from_secs(60));
    (directory, deriver)
}

#[test]
fn root_of_a_namespace_with_one_user_gives_up_its_capabilities_and_says_what_it_could_not() {
    let unshare = ["/usr/bin/unshare", "--user", "--map-root-user", "--"];
    let allowed = std::process::Command::new(unshare[0]).args(&unshare[1..]).arg("/bin/true").status();
    if !allowed.is_ok_and(|status| status.success()) {
        let test = "root_of_a_namespace_with_one_user_gives_up_its_capabilities_and_says_what_it_could_not";
        salve_testkit::not_run::record(test, "user namespaces are not allowed here");
        return;
    }
    let (_directory, deriver) = stand_in(&format!("exec {} {}", unshare.join(" "), env!("CARGO_BIN_EXE_salve-derive")));
    let answer = deriver.try_sandbox(Attempt::Nothing, None).unwrap();
    assert_eq!(answer.sandbox.uid, 0);
    let stayed = salve_deriver::protocol::Degradation::UserId { uid: 0 };
    assert!(answer.sandbox.degraded.contains(&stayed), "{:?}", answer.sandbox);
    match deriver.try_sandbox(Attempt::Connect, None) {
        Err(DeriverError::SandboxViolation { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn in_the_background_it_steps_behind_its_caller_before_it_begins_and_otherwise_it_does_not() {
    // It tells its niceness once the request is there.
    let (_directory, deriver) = stand_in("read -r request; nice >&2; exit 3");
    let niceness = |priority| match deriver.clone().with_priority(priority).try_sandbox(Attempt::Nothing, None) {
        Err(DeriverError::Ended { code: 3, said }) => said.trim().parse::<i32>().unwrap(),
        other => panic!("{other:?}"),
    };
    let ours = rustix::process::getpriority_process(None).unwrap();
    assert_eq!(niceness(Priority::Callers), ours);
    assert_eq!(niceness(Priority::Background), (ours + 10).min(19));
}

#[test]
fn one_of_another_version_is_not_spoken_to() {
    let hello = r#"{"type":"hello","protocol_version":999,"program":"x","sandbox":{"seccomp":true,"landlock":"full","uid":1,"gid":1,"descriptors_closed":0,"threads":1,"degraded":[]}}"#;
    let (_directory, deriver) = stand_in(&format!("echo '{hello}' >&0; sleep 60"));
    match deriver.try_sandbox(Attempt::Nothing, None) {
        Err(DeriverError::Version { theirs: 999, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_before_the_sandbox_stands_is_not_believed() {
    let (_directory, deriver) =
        stand_in(r#"echo '{"type":"attempted","succeeded":true,"seen":"trust me"}' >&0; sleep 60"#);
    match deriver.try_sandbox(Attempt::Nothing, None) {
        Err(DeriverError::UnexpectedAnswer) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_that_announces_what_it_did_not_write_is_not_believed() {
    let hello = r#"{"type":"hello","protocol_version":1,"program":"x","sandbox":{"seccomp":true,"landlock":"full","uid":1,"gid":1,"descriptors_closed":0,"threads":1,"degraded":[]}}"#;
    let derived = |len: u64, digest: &str| {
        format!(
            r#"{{"type":"derived","patch_len_bytes":{len},"patch_sha256":"{digest}","verdict":"safe","images":[]}}"#
        )
    };
    let file = tempfile::tempfile().unwrap();
    let side = || SideInput::Files {
        files: vec![FileInput { path: "/x".to_owned(), file: file.as_fd() }],
        package: None,
        changelog: None,
        contents: None,
        label: "x".to_owned(),
    };
    let answered = |answer: String| {
        let (_directory, deriver) = stand_in(&format!("echo '{hello}' >&0; echo '{answer}' >&0; sleep 60"));
        deriver.derive(&side(), &side(), "test", &mut |_| ()).unwrap_err()
    };
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert!(matches!(
        answered(derived(5, nothing)),
        DeriverError::NotWhatWasAsked(NotWhatWasAsked::Length { said_bytes: 5, have_bytes: 0 })
    ));
    let other = nothing.replace('e', "f");
    assert!(matches!(answered(derived(0, &other)), DeriverError::NotWhatWasAsked(NotWhatWasAsked::Digest)));
    assert!(matches!(answered(derived(0, nothing)), DeriverError::BadPatch { .. }));
}

/// Names the variable that makes the next test hang in a deriver of its own.
const DIE: &str = "SALVE_TEST_CALLER_THAT_DIES";

#[test]
fn caller_that_waits_for_a_hanging_deriver() {
    if std::env::var_os(DIE).is_some() {
        let limits = ResourceLimits { cpu_seconds: 27_182, ..ResourceLimits::default() };
        let _ = deriver().with_limits(limits).try_sandbox(Attempt::Hang, None);
    }
}

#[test]
fn a_deriver_dies_with_its_caller() {
    let mut caller = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "caller_that_waits_for_a_hanging_deriver"])
        .env(DIE, "1")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    let wait_for = |wanted: bool| {
        while deriver_of(caller.id(), "27182").is_some() != wanted {
            assert!(Instant::now() < patience, "no such child: {wanted}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait_for(true);
    let child = deriver_of(caller.id(), "27182").unwrap();
    caller.kill().unwrap();
    caller.wait().unwrap();
    while rustix::process::test_kill_process(child).is_ok() {
        assert!(Instant::now() < patience, "{child:?} outlives its caller");
        std::thread::sleep(Duration::from_millis(5));
    }
}
