//! System calls made by a borrowed thread of the target.
//!
//! The order is what makes it safe: the stub is written; the registers are set,
//! by which the thread is already on a way that leads home; then its signals are
//! blocked; then it runs, from system call stop to system call stop. To end, it
//! is stopped where the kernel repeats interrupted calls (not at a system call's
//! exit, where it does not), and gets its mask and its registers back.
//!
//! Two Salves on one target would write the same stub: the process's first thread
//! is seized as a lock all the while. A lock that ends with its holder's life.

use crate::Errno;
use crate::image::Found;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::outcome::NotApplied;
use crate::process::{Process, Seccomp};
use crate::seccomp::{self, Call};
use crate::slot::Slot;
use crate::stub::{self, AFTER_CALL, Home};
use crate::sys::{self, BpfInstruction, Event};
use crate::wait::{self, Stopped};
use core::time::Duration;
use libc::user_regs_struct;
use salve_elf::RuntimeAddr;
use std::time::Instant;

/// How long one remote call may take before the thread is let go.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Candidates that are tried before giving up for now.
const MAX_CANDIDATES: usize = 16;
/// `__USER_CS`: 64-bit code.
const CODE_SEGMENT_64: u64 = 0x33;
/// Filters of one thread that are looked at.
const MAX_FILTERS: usize = 64;

/// Everything that borrowing needs to know about a target.
pub(crate) struct Target<'a> {
    pub(crate) process: &'a Process,
    pub(crate) memory: &'a Memory,
    pub(crate) images: &'a [Found],
    pub(crate) limits: &'a Limits,
}

#[derive(Debug)]
pub(crate) enum RemoteError {
    /// This thread cannot be borrowed now; another may.
    Unsuitable(String),
    /// The process or the thread went away.
    Gone,
    /// No thread of this process will do.
    Not(NotApplied),
    /// The call itself failed in the target.
    Call { call: &'static str, errno: Errno },
    /// The tracing thread could not be started.
    Thread(std::io::Error),
}

impl From<Errno> for RemoteError {
    fn from(errno: Errno) -> Self {
        if errno.0 == libc::ESRCH { Self::Gone } else { Self::Unsuitable(format!("tracing failed: {errno}")) }
    }
}

/// A system call by number and name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sys(pub(crate) i64, pub(crate) &'static str);

pub(crate) const MMAP: Sys = Sys(libc::SYS_mmap, "mmap");
pub(crate) const MUNMAP: Sys = Sys(libc::SYS_munmap, "munmap");
pub(crate) const SOCKETPAIR: Sys = Sys(libc::SYS_socketpair, "socketpair");
pub(crate) const RECVMSG: Sys = Sys(libc::SYS_recvmsg, "recvmsg");
pub(crate) const CLOSE: Sys = Sys(libc::SYS_close, "close");
/// Made by the stub itself on its own way home.
const RT_SIGPROCMASK: Sys = Sys(libc::SYS_rt_sigprocmask, "rt_sigprocmask");

/// Borrows one thread for as long as `body` makes calls; says how long it was held.
pub(crate) fn borrow<R: Send>(
    target: &Target<'_>,
    body: impl Fn(&mut Borrowed) -> Result<R, RemoteError> + Sync,
) -> Result<(R, Duration), RemoteError> {
    let mut last = "it has no thread that could be looked at".to_owned();
    for tid in candidates(target)? {
        // One tracing thread for each try: when it ends, the kernel releases whatever
        // it still holds, also a thread that never stopped.
        let tried = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("salve-borrow".to_owned())
                .spawn_scoped(scope, || borrow_thread(target, tid, &body))
                .map_err(RemoteError::Thread)?
                .join()
                .unwrap_or_else(|_| Err(RemoteError::Unsuitable("the tracing thread failed".to_owned())))
        });
        match tried {
            Err(RemoteError::Unsuitable(why)) => last = why,
            Err(RemoteError::Gone) if target.process.still_there().is_ok() => {
                "it exited meanwhile".clone_into(&mut last);
            }
            other => return other,
        }
    }
    Err(RemoteError::Not(NotApplied::NoThread { why: last }))
}

/// Threads in the order of preference: running ones first, for those lose least.
fn candidates(target: &Target<'_>) -> Result<Vec<i32>, RemoteError> {
    let tids = target.process.threads(target.limits).map_err(|_| RemoteError::Gone)?;
    let mut ranked: Vec<(u32, i32)> =
        tids.into_iter().take(1024).filter_map(|tid| Some((rank(target.process, tid)?, tid))).collect();
    ranked.sort_unstable();
    Ok(ranked.into_iter().take(MAX_CANDIDATES).map(|(_, tid)| tid).collect())
}

/// `/proc/PID/task/TID/syscall`: `running`, or the number of the call it sleeps in.
fn rank(process: &Process, tid: i32) -> Option<u32> {
    let text = process.read_entry(&format!("task/{tid}/syscall"), "syscall", 512).ok()?;
    let text = String::from_utf8_lossy(&text);
    let number = text.split_ascii_whitespace().next()?;
    let calm: u32 = match number {
        "running" | "-1" => 0,
        // read, poll, nanosleep, futex, clock_nanosleep, ppoll: these go on as if nothing was.
        "0" | "7" | "35" | "202" | "230" | "271" => 1,
        // vfork: its caller cannot stop until the child is done.
        "58" => return None,
        _ => 2,
    };
    let filtered = match process.status(Some(tid)).ok()?.seccomp().ok()? {
        Seccomp::Off => 0_u32,
        Seccomp::Filter => 4,
        Seccomp::Strict => return None,
    };
    calm.checked_add(filtered)
}

/// A thread that is in our hands.
pub(crate) struct Borrowed {
    tid: i32,
    slot: RuntimeAddr,
    original: user_regs_struct,
    mask: u64,
    filters: Vec<Vec<BpfInstruction>>,
    blocked: bool,
}

fn borrow_thread<R>(
    target: &Target<'_>,
    tid: i32,
    body: &impl Fn(&mut Borrowed) -> Result<R, RemoteError>,
) -> Result<(R, Duration), RemoteError> {
    wait::hurry();
    lock(target, tid)?;
    let slot = Slot::find(target).ok_or(RemoteError::Not(NotApplied::NoStubRoom))?;
    let start = Instant::now();
    sys::interrupt(tid)?;
    let deadline = start.checked_add(target.limits.max_stop).unwrap_or(start);
    if wait::stopped(tid, deadline)? == Stopped::NotYet {
        return Err(RemoteError::Unsuitable("it did not stop in time".to_owned()));
    }
    let prepared = Borrowed::prepare(target, tid, slot.at);
    let mut borrowed = match prepared {
        Ok(borrowed) => borrowed,
        Err(error) => {
            release(tid);
            return Err(error);
        }
    };
    let stub = stub::assemble(&stub::home(&borrowed.original), borrowed.mask);
    target.memory.write(slot.at, &stub).map_err(|errno| {
        release(tid);
        match errno.0 {
            libc::EIO | libc::EPERM | libc::EACCES => RemoteError::Not(NotApplied::TextWriteForbidden),
            _ => RemoteError::Gone,
        }
    })?;
    let result = body(&mut borrowed);
    let finished = borrowed.finish();
    let held = start.elapsed();
    finished?;
    // Nobody is in the stub, and no handler ran from it: signals were blocked.
    target.memory.write(slot.at, &slot.original).map_err(|_| RemoteError::Gone)?;
    result.map(|value| (value, held))
}

/// Seizes the first thread as a lock, and the one to be borrowed.
fn lock(target: &Target<'_>, tid: i32) -> Result<(), RemoteError> {
    let leader = target.process.pid();
    let refused = |errno: Errno| match errno.0 {
        libc::ESRCH => RemoteError::Gone,
        _ => match target.process.status(None).map(|status| status.tracer()) {
            Ok(tracer) if tracer != 0 => RemoteError::Not(NotApplied::AlreadyTraced { tracer }),
            _ => RemoteError::Unsuitable(format!("it cannot be traced: {errno}")),
        },
    };
    match sys::seize(leader) {
        Ok(()) => {}
        // A first thread that ended before the others is a zombie, which cannot be traced.
        Err(_) if leader != tid && is_zombie(target.process, leader) => {}
        Err(errno) => return Err(refused(errno)),
    }
    if leader == tid { Ok(()) } else { sys::seize(tid).map_err(refused) }
}

pub(crate) fn is_zombie(process: &Process, tid: i32) -> bool {
    process
        .status(Some(tid))
        .is_ok_and(|status| status.field("State").is_some_and(|state| state.starts_with(['Z', 'X'])))
}

/// Lets a stopped thread go with its system call mended, if need be.
fn release(tid: i32) {
    if let Some(registers) = sys::registers(tid).ok().as_ref().and_then(stub::mended) {
        let _ = sys::set_registers(tid, &registers);
    }
    let _ = sys::detach(tid);
}

impl Borrowed {
    fn prepare(target: &Target<'_>, tid: i32, slot: RuntimeAddr) -> Result<Self, RemoteError> {
        let unsuitable = |why: &str| Err(RemoteError::Unsuitable(why.to_owned()));
        let original = sys::registers(tid)?;
        if original.cs != CODE_SEGMENT_64 {
            return unsuitable("it runs 32-bit code");
        }
        if original.rip == 0 && original.rsp == 0 {
            return unsuitable("it is a worker of the kernel");
        }
        if sys::dispatches_system_calls(tid)? {
            return unsuitable("its system calls are dispatched to itself");
        }
        if in_restartable_sequence(target.memory, tid, original.rip)? {
            return unsuitable("it is inside a restartable sequence");
        }
        let Home { registers, repeats } = stub::home(&original);
        if repeats {
            let mut instruction = [0; 2];
            target.memory.read_exact(RuntimeAddr::new(registers.rip), &mut instruction)?;
            if instruction != [0x0f, 0x05] {
                return unsuitable("it sleeps in a call that was not made by a syscall instruction");
            }
        }
        let filters = filters(target.process, tid)?;
        let mut borrowed = Self { tid, slot, original, mask: sys::signal_mask(tid)?, filters, blocked: false };
        borrowed.original = stub::mended(&original).unwrap_or(original);
        borrowed.judge(RT_SIGPROCMASK, [2, slot.raw(), 0, 8, 0, 0])?;
        Ok(borrowed)
    }

    /// Whether the filters would let a call pass, without making it.
    pub(crate) fn judge(&self, call: Sys, arguments: [u64; 6]) -> Result<(), RemoteError> {
        let judged = seccomp::allows(
            &self.filters,
            &Call {
                number: call.0.cast_unsigned(),
                instruction_pointer: self.slot.raw().wrapping_add(AFTER_CALL),
                arguments,
            },
        );
        match judged {
            Some(true) => Ok(()),
            Some(false) => Err(RemoteError::Not(NotApplied::SeccompForbids { call: call.1 })),
            None => Err(RemoteError::Not(NotApplied::SeccompUnknown { why: format!("for {}", call.1) })),
        }
    }

    /// Makes one system call in the target.
    pub(crate) fn call(&mut self, call: Sys, arguments: [u64; 6]) -> Result<u64, RemoteError> {
        self.judge(call, arguments)?;
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        let registers = user_regs_struct {
            rip: self.slot.raw(),
            rax: call.0.cast_unsigned(),
            // No system call to restart: the kernel leaves rip and rax alone.
            orig_rax: u64::MAX,
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            ..self.original
        };
        sys::set_registers(self.tid, &registers)?;
        if !self.blocked {
            sys::set_signal_mask(self.tid, u64::MAX)?;
            self.blocked = true;
        }
        self.run_to_system_call()?;
        self.run_to_system_call()?;
        let after = sys::registers(self.tid)?;
        if after.rip != self.slot.raw().wrapping_add(AFTER_CALL) {
            return Err(RemoteError::Unsuitable("it did not come back from a call as expected".to_owned()));
        }
        let result = after.rax.cast_signed();
        match i32::try_from(result) {
            Ok(code) if (-4095..0).contains(&code) => {
                Err(RemoteError::Call { call: call.1, errno: Errno(code.saturating_neg()) })
            }
            _ => Ok(after.rax),
        }
    }

    fn run_to_system_call(&self) -> Result<(), RemoteError> {
        let deadline = Instant::now().checked_add(CALL_LIMIT).ok_or(RemoteError::Gone)?;
        let mut signal = 0;
        // Bounded: each round is a stop that the kernel reported.
        for _ in 0..64 {
            sys::resume_to_system_call(self.tid, signal)?;
            signal = match wait::event(self.tid, deadline)? {
                Some(Event::SystemCall) => return Ok(()),
                // The interruption that was still pending, or a group stop: not now.
                Some(Event::Stopped | Event::GroupStopped | Event::None) => 0,
                // Only SIGSTOP gets here, for the rest is blocked; SIGKILL shows as an exit.
                Some(Event::Signal(signal)) if signal == libc::SIGSTOP => signal,
                Some(Event::Signal(signal)) => {
                    return Err(RemoteError::Unsuitable(format!("it got signal {signal} in the stub")));
                }
                Some(Event::Exited) => return Err(RemoteError::Gone),
                None => return Err(RemoteError::Unsuitable("a call did not return in time".to_owned())),
            };
        }
        Err(RemoteError::Unsuitable("it did not get to its system call".to_owned()))
    }

    /// Gives the thread back as it was.
    fn finish(&self) -> Result<(), RemoteError> {
        if self.blocked {
            // A system call's exit is no place where the kernel repeats the call that
            // the original registers may ask for: go on to the next stop, which comes
            // before the thread gets to user space.
            sys::interrupt(self.tid)?;
            sys::resume(self.tid, 0)?;
            let deadline = Instant::now().checked_add(CALL_LIMIT).ok_or(RemoteError::Gone)?;
            if wait::stopped(self.tid, deadline)? == Stopped::NotYet {
                return Err(RemoteError::Unsuitable("it did not stop again".to_owned()));
            }
            sys::set_signal_mask(self.tid, self.mask)?;
        }
        sys::set_registers(self.tid, &self.original)?;
        sys::detach(self.tid)?;
        Ok(())
    }
}

/// `struct rseq` and `struct rseq_cs` of `include/uapi/linux/rseq.h`.
pub(crate) fn in_restartable_sequence(memory: &Memory, tid: i32, rip: u64) -> Result<bool, Errno> {
    let Some(configuration) = sys::rseq(tid)? else { return Ok(false) };
    if configuration.pointer == 0 {
        return Ok(false);
    }
    let at = |base: u64, offset: u64| RuntimeAddr::new(base.wrapping_add(offset));
    let sequence = memory.word(at(configuration.pointer, 8))?;
    if sequence == 0 {
        return Ok(false);
    }
    let start = memory.word(at(sequence, 8))?;
    let len = memory.word(at(sequence, 16))?;
    Ok(rip.wrapping_sub(start) < len)
}

/// The system call filters of a stopped thread.
fn filters(process: &Process, tid: i32) -> Result<Vec<Vec<BpfInstruction>>, RemoteError> {
    let unknown = |why: String| RemoteError::Not(NotApplied::SeccompUnknown { why });
    // The quick question first: reading `status` takes longer than a remote call. A thread
    // in strict mode was not chosen in the first place.
    if sys::is_unfiltered(tid) == Some(true) {
        return Ok(Vec::new());
    }
    let status = process.status(Some(tid)).map_err(|_| RemoteError::Gone)?;
    match status.seccomp().map_err(|error| unknown(error.to_string()))? {
        Seccomp::Off => return Ok(Vec::new()),
        Seccomp::Strict => return Err(RemoteError::Unsuitable("it is in strict seccomp mode".to_owned())),
        Seccomp::Filter => {}
    }
    let mut filters = Vec::new();
    for index in 0..MAX_FILTERS {
        match sys::seccomp_filter(tid, index) {
            Ok(Some(filter)) => filters.push(filter),
            Ok(None) => return Ok(filters),
            Err(errno) => return Err(unknown(errno.to_string())),
        }
    }
    Err(unknown("it has too many filters".to_owned()))
}
