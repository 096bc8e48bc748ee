//! One request and everything that comes back, within the time limit.

use crate::child::{Ends, Process};
use crate::error::DeriverError;
use crate::send::{Outgoing, Sent};
use crate::{Answer, Priority};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use salve_protocol::{
    Hello, LimitedResource, LineBuffer, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, PROTOCOL_VERSION, Progress, Request,
    ResourceLimits, Response, SandboxReport,
};
use std::ffi::OsString;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ChildStderr, ExitStatus};
use std::time::{Duration, Instant};

/// How much of what it says on standard error is kept, and how much is listened to.
const KEPT_ERROR_BYTES: usize = 16 << 10;
const HEARD_ERROR_BYTES: usize = 1 << 20;
/// How long to wait before descriptors in flight are tried again, and between
/// two looks at a process whose end is on its way.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
const SHORT_WAIT: Duration = Duration::from_millis(2);
/// A process that closed its socket is given this long to be gone.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// What Rust's allocator says before it aborts the process.
const OUT_OF_MEMORY: &str = "memory allocation of";

#[derive(Debug)]
pub(crate) struct Conversation {
    process: Process,
    ends: Ends,
    deadline: Option<Instant>,
    time_limit: Duration,
    said: Vec<u8>,
    heard_bytes: usize,
}

/// What a look at the socket brought.
enum Heard {
    Bytes(Vec<u8>),
    Nothing,
    Closed,
}

impl Conversation {
    pub(crate) fn start(
        program: &Path,
        arguments: &[OsString],
        priority: Priority,
        deadline: Option<Instant>,
        time_limit: Duration,
    ) -> Result<Self, DeriverError> {
        let (process, ends) = Process::start(program, arguments, priority)?;
        Ok(Self { process, ends, deadline, time_limit, said: Vec::new(), heard_bytes: 0 })
    }

    /// Sends the request and waits for the last line. The process is dead when this returns.
    pub(crate) fn run(
        &mut self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
        limits: &ResourceLimits,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Answer<Response>, DeriverError> {
        let line = salve_protocol::encode(request, MAX_REQUEST_BYTES)
            .map_err(|_| DeriverError::TooManyFiles { have: descriptors.len(), limit: MAX_REQUEST_BYTES })?;
        let mut outgoing = Outgoing::new(descriptors, &line);
        let mut lines = LineBuffer::new(MAX_RESPONSE_BYTES);
        let mut hello: Option<SandboxReport> = None;
        loop {
            while let Some(line) = lines.next_line().map_err(|source| DeriverError::Garbled { source })? {
                let response = salve_protocol::decode(&line).map_err(|source| DeriverError::Garbled { source })?;
                match (response, &hello) {
                    (Response::Hello(greeting), None) => hello = Some(accept_hello(greeting)?),
                    (Response::Failed(failure), _) => {
                        self.end()?;
                        return Err(DeriverError::Failed(failure));
                    }
                    (Response::Progress(step), Some(_)) => progress(&step),
                    (last, Some(sandbox)) if last.is_last() => {
                        self.end()?;
                        return Ok(Answer { value: last, sandbox: sandbox.clone() });
                    }
                    _ => return Err(DeriverError::UnexpectedAnswer),
                }
            }
            match self.wait_and_listen(&mut outgoing)? {
                Heard::Bytes(bytes) => lines.push(&bytes),
                Heard::Nothing => {}
                Heard::Closed => return Err(self.why_it_ended(limits)?),
            }
        }
    }

    fn end(&mut self) -> Result<ExitStatus, DeriverError> {
        self.process.end().map_err(|source| waiting_failed(&source))
    }

    /// Sleeps until something can be sent or read, does it, and takes in standard error.
    fn wait_and_listen(&mut self, outgoing: &mut Outgoing<'_>) -> Result<Heard, DeriverError> {
        let mut wanted = PollFlags::IN;
        let mut longest = LONGEST_WAIT;
        if !outgoing.is_done() {
            match outgoing.send_some(self.ends.socket.as_fd())? {
                Sent::Some | Sent::Closed => {
                    wanted |= if outgoing.is_done() { PollFlags::empty() } else { PollFlags::OUT }
                }
                Sent::Full => wanted |= PollFlags::OUT,
                Sent::InFlight => longest = SHORT_WAIT,
            }
        }
        let left = self.time_left(longest)?;
        let mut waiting = vec![PollFd::new(&self.ends.socket, wanted)];
        if let Some(errors) = &self.ends.errors {
            waiting.push(PollFd::new(errors, PollFlags::IN));
        }
        match poll(&mut waiting, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(source) => return Err(DeriverError::Listen { source }),
        }
        let ready = |index: usize| waiting.get(index).is_some_and(|fd: &PollFd<'_>| !fd.revents().is_empty());
        let (socket_ready, errors_ready) = (ready(0), ready(1));
        drop(waiting);
        if errors_ready {
            self.take_in_errors()?;
        }
        if socket_ready { self.listen() } else { Ok(Heard::Nothing) }
    }

    fn time_left(&self, longest: Duration) -> Result<Option<Timespec>, DeriverError> {
        let Some(deadline) = self.deadline else { return Ok(Timespec::try_from(longest).ok()) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(DeriverError::TimedOut { limit: self.time_limit });
        }
        Ok(Timespec::try_from(left.min(longest)).ok())
    }

    fn listen(&self) -> Result<Heard, DeriverError> {
        let mut piece = vec![0; 64 << 10];
        match rustix::net::recv(&self.ends.socket, &mut *piece, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => Ok(Heard::Closed),
            Ok((read, _)) => {
                piece.truncate(read);
                Ok(Heard::Bytes(piece))
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(Heard::Nothing),
            Err(source) => Err(DeriverError::Listen { source }),
        }
    }

    /// Reads what is there of standard error; one that says too much is no longer listened to.
    fn take_in_errors(&mut self) -> Result<(), DeriverError> {
        let Some(errors) = &self.ends.errors else { return Ok(()) };
        let mut piece = [0; 4096];
        let read = match read_errors(errors, &mut piece) {
            Ok(read) => read,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(()),
            Err(source) => return Err(DeriverError::Listen { source }),
        };
        self.heard_bytes = self.heard_bytes.saturating_add(read);
        if read == 0 || self.heard_bytes > HEARD_ERROR_BYTES {
            self.ends.errors = None;
            return Ok(());
        }
        let room = KEPT_ERROR_BYTES.saturating_sub(self.said.len());
        self.said.extend_from_slice(piece.get(..read.min(room)).unwrap_or_default());
        Ok(())
    }

    /// The socket is closed and no answer came: its status tells why.
    fn why_it_ended(&mut self, limits: &ResourceLimits) -> Result<DeriverError, DeriverError> {
        let patience = Instant::now().checked_add(LAST_WAIT);
        let status = loop {
            if let Some(status) = self.process.ended().map_err(|source| waiting_failed(&source))? {
                break status;
            }
            if patience.is_none_or(|until| Instant::now() >= until) {
                break self.end()?;
            }
            std::thread::sleep(SHORT_WAIT);
        };
        // What it said last is in the pipe.
        while self.ends.errors.is_some() && self.said.len() < KEPT_ERROR_BYTES {
            self.take_in_errors()?;
        }
        let said = printable(&self.said);
        let over = |resource, limit| DeriverError::ResourceLimit { resource, limit };
        let Some(signal) = status.signal() else {
            return Ok(DeriverError::Ended { code: status.code().unwrap_or(-1), said });
        };
        let signal_name = name_of(signal);
        Ok(match signal_name {
            "SIGXCPU" => over(LimitedResource::ProcessorTime, limits.cpu_seconds),
            "SIGXFSZ" => over(LimitedResource::Output, limits.max_output_bytes),
            "SIGABRT" if said.contains(OUT_OF_MEMORY) => over(LimitedResource::Memory, limits.memory_bytes),
            "SIGSYS" => DeriverError::SandboxViolation { signal, signal_name, said },
            _ => DeriverError::Killed { signal, signal_name, said },
        })
    }
}

fn accept_hello(hello: Hello) -> Result<SandboxReport, DeriverError> {
    if hello.protocol_version == PROTOCOL_VERSION {
        Ok(hello.sandbox)
    } else {
        Err(DeriverError::Version { theirs: hello.protocol_version, ours: PROTOCOL_VERSION })
    }
}

fn read_errors(errors: &ChildStderr, into: &mut [u8]) -> rustix::io::Result<usize> {
    rustix::io::read(errors, into)
}

fn waiting_failed(source: &std::io::Error) -> DeriverError {
    let errno = source.raw_os_error().map_or(Errno::CHILD, Errno::from_raw_os_error);
    DeriverError::Listen { source: errno }
}

/// What a process that may be hostile said, for a terminal: no control characters.
fn printable(said: &[u8]) -> String {
    String::from_utf8_lossy(said).chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

fn name_of(signal: i32) -> &'static str {
    use rustix::process::Signal as S;
    let names = [
        (S::ABORT, "SIGABRT"),
        (S::BUS, "SIGBUS"),
        (S::FPE, "SIGFPE"),
        (S::HUP, "SIGHUP"),
        (S::ILL, "SIGILL"),
        (S::INT, "SIGINT"),
        (S::KILL, "SIGKILL"),
        (S::PIPE, "SIGPIPE"),
        (S::QUIT, "SIGQUIT"),
        (S::SEGV, "SIGSEGV"),
        (S::SYS, "SIGSYS"),
        (S::TERM, "SIGTERM"),
        (S::TRAP, "SIGTRAP"),
        (S::XCPU, "SIGXCPU"),
        (S::XFSZ, "SIGXFSZ"),
    ];
    names.iter().find(|(known, _)| known.as_raw() == signal).map_or("another signal", |(_, name)| name)
}
