//! The sandbox holds, and whoever started the process learns how it ended.

use rustix::io::FdFlags;
use salve_deriver::protocol::{Attempt, LimitedResource, ResourceLimits};
use salve_deriver::{Deriver, DeriverError};
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
        if let Some(child) = deriver_limited_to("31337") {
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

/// A child of this process, in its sandbox, with this limit on processor time.
fn deriver_limited_to(cpu_seconds: &str) -> Option<rustix::process::Pid> {
    let own = format!("PPid:\t{}\n", std::process::id());
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

#[test]
fn no_descriptor_and_no_process_is_left_behind() {
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let attempts = [Attempt::Nothing, Attempt::OpenFile, Attempt::EndSilently, Attempt::SpeakGarbage];
    let before = count();
    for _ in 0..3 {
        for attempt in attempts {
            let _ = deriver().try_sandbox(attempt, None);
        }
    }
    // Other tests of this program open and close files meanwhile: the smallest of several looks counts.
    let after = (0..200)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(2));
            count()
        })
        .min()
        .unwrap();
    assert!(after <= before, "{after} descriptors are open, {before} were");
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
