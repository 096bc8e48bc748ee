//! Tries forbidden things from inside the sandbox, and ways to end badly.
//!
//! Most attempts never come back: the system call filter kills the process,
//! and its parent says so. Nothing here weakens anything.

use super::Work;
use crate::channel::SendError;
use crate::input;
use rustix::fd::AsFd;
use rustix::process::Pid;
use salve_protocol::{
    Attempt, AttemptReport, Descriptor, Failure, FailureKind, MAX_RESPONSE_BYTES, ResourceLimits, Response,
};
use std::fs::File;
use std::hint::black_box;
use std::net::{Ipv4Addr, TcpStream};
use std::thread;

pub(crate) fn run(work: &Work<'_>, attempt: Attempt, named: Option<Descriptor>) -> Result<Response, Failure> {
    let file = match named {
        Some(named) => Some(crate::side::descriptor(&work.descriptors, named)?),
        None => None,
    };
    let outcome = match attempt {
        Attempt::Nothing => read_input(file.map(AsFd::as_fd), &work.limits),
        Attempt::OpenFile => tried(File::open("/etc/passwd")),
        Attempt::Connect => tried(TcpStream::connect((Ipv4Addr::LOCALHOST, 9))),
        Attempt::Execute => tried(nix::unistd::execve(c"/bin/true", &[c"true"], &[] as &[&std::ffi::CStr])),
        Attempt::Trace => tried(nix::sys::ptrace::traceme()),
        Attempt::SignalProcess => tried(rustix::process::test_kill_process(Pid::INIT)),
        Attempt::StartThread => tried(thread::Builder::new().spawn(|| ()).map(thread::JoinHandle::join)),
        Attempt::WriteToInput => match file {
            Some(file) => tried(rustix::io::write(file, b"x")),
            None => return Err(Failure::new(FailureKind::BadRequest).because("no input to write to")),
        },
        Attempt::CloseDescriptor { number } => tried(nix::unistd::close(number)),
        Attempt::ExhaustMemory => tried(exhaust_memory()),
        Attempt::ExhaustProcessor => loop {
            black_box(());
        },
        Attempt::Hang => loop {
            thread::park();
        },
        Attempt::Panic => return on_a_worker(work, || explode("as was asked for")),
        Attempt::OverflowStack => return on_a_worker(work, || u64::from(descend(black_box(1)) == 0)),
        Attempt::FloodResponse => tried(flood_response(work)),
        Attempt::FloodErrors => loop {
            let _ = rustix::io::write(rustix::stdio::stderr(), &[b'x'; 4096]);
        },
        Attempt::SpeakGarbage => tried(work.replies.send_bytes(b"{\"type\":\"nonsense\"}\n")),
        #[expect(clippy::exit, reason = "ending without a last word is what was asked for")]
        Attempt::EndSilently => std::process::exit(0),
    };
    Ok(Response::Attempted(outcome))
}

fn tried<T, E: std::fmt::Display>(result: Result<T, E>) -> AttemptReport {
    match result {
        Ok(_) => AttemptReport { succeeded: true, seen: "it was done".to_owned() },
        Err(error) => AttemptReport { succeeded: false, seen: error.to_string() },
    }
}

fn read_input(file: Option<rustix::fd::BorrowedFd<'_>>, limits: &ResourceLimits) -> AttemptReport {
    match file.map(|file| input::read_whole(file, limits.max_image_bytes)) {
        None => AttemptReport { succeeded: true, seen: "nothing to read".to_owned() },
        Some(Ok(bytes)) => AttemptReport { succeeded: true, seen: format!("{} bytes", bytes.len()) },
        Some(Err(error)) => AttemptReport { succeeded: false, seen: error.to_string() },
    }
}

/// Ordinary allocations, as a parser makes them; the one that fails ends the process.
fn exhaust_memory() -> Result<(), String> {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(black_box(vec![1; 16 << 20]));
    }
}

fn on_a_worker(work: &Work<'_>, job: fn() -> u64) -> Result<Response, Failure> {
    let mut outcome = Err(Failure::new(FailureKind::Internal).because("a worker ended"));
    let run = move |()| job();
    work.pool.for_each(
        vec![()],
        u64::MAX,
        |()| 0,
        run,
        |_, result| {
            outcome = result.map_err(|panic| super::defect(&panic));
        },
    );
    outcome.map(|value| Response::Attempted(AttemptReport { succeeded: true, seen: value.to_string() }))
}

#[expect(clippy::panic, reason = "a panic is what was asked for")]
fn explode(words: &str) -> u64 {
    panic!("{words}")
}

#[expect(unconditional_recursion, reason = "running off the stack is what was asked for")]
fn descend(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    descend(frame.iter().sum::<u64>() & 0xffff).wrapping_add(black_box(frame).len() as u64)
}

fn flood_response(work: &Work<'_>) -> Result<(), SendError> {
    let flood = vec![b'x'; MAX_RESPONSE_BYTES.saturating_add(1)];
    work.replies.send_bytes(&flood)
}
