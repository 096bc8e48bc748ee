//! System calls made by a borrowed thread of the target.
//!
//! The order is what makes it safe: the stub and its table are written; the registers
//! are set, by which the thread is already on a way that leads home; then its signals
//! are blocked; then it runs, makes all calls of the table by itself, and waits a moment
//! at their end. There it is stopped again, before it gets back to user space by itself,
//! and gets its mask and its registers: only at such a stop the kernel repeats an
//! interrupted call as it would have. One that nobody catches goes home by itself.
//!
//! While a thread is borrowed the process's first thread is seized too: no debugger and
//! no other tracer comes between. The seizure ends with its holder's life.

use crate::Errno;
use crate::home::{self, Home};
use crate::image::Found;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::outcome::NotApplied;
use crate::process::{Process, ReadError, Seccomp};
use crate::program::{Program, Row};
use crate::seccomp::{self, Call};
use crate::seize::{seize, tracer};
use crate::slot::{SLOT_BYTES, Slot};
use crate::stop::mended_registers;
use crate::stub::{self, AFTER_BELL, AFTER_CALL, AFTER_MASK, AFTER_YIELD, Bell, Ending};
use crate::sys::{self, BpfInstruction};
use crate::wait::{self, Stopped};
use core::time::Duration;
use libc::user_regs_struct;
use salve_elf::RuntimeAddr;
use std::time::Instant;

/// How long a program may take before its thread is let go, to come home by itself.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long threads that do not stop in time are tried again.
const LATE_LIMIT: Duration = Duration::from_secs(5);
const LATE_PAUSE: Duration = Duration::from_millis(20);
/// Candidates that are tried before giving up for now.
const MAX_CANDIDATES: usize = 16;
/// `__USER_CS`: 64-bit code.
const CODE_SEGMENT_64: u64 = 0x33;

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
    /// It did not stop in time: the machine is busy, or the thread in the kernel.
    Late { tid: i32 },
    /// The process or the thread went away.
    Gone,
    /// No thread of this process will do.
    Not(NotApplied),
    /// The call itself failed in the target.
    Call { call: &'static str, errno: Errno },
    /// A borrowed thread went on by itself, and what it did cannot be said.
    Unseen,
    /// The tracing thread could not be started.
    Thread(std::io::Error),
    /// The process is there and could not be looked at.
    Unread(ReadError),
}

impl From<ReadError> for RemoteError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Exited => Self::Gone,
            other => Self::Unread(other),
        }
    }
}

impl From<Errno> for RemoteError {
    fn from(errno: Errno) -> Self {
        if errno.0 == libc::ESRCH { Self::Gone } else { Self::Unsuitable(format!("tracing failed: {errno}")) }
    }
}

/// A system call by number and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sys(pub(crate) i64, pub(crate) &'static str);

pub(crate) const MMAP: Sys = Sys(libc::SYS_mmap, "mmap");
pub(crate) const MUNMAP: Sys = Sys(libc::SYS_munmap, "munmap");
pub(crate) const SOCKETPAIR: Sys = Sys(libc::SYS_socketpair, "socketpair");
pub(crate) const RECVMSG: Sys = Sys(libc::SYS_recvmsg, "recvmsg");
pub(crate) const CLOSE: Sys = Sys(libc::SYS_close, "close");
pub(crate) const PWRITE: Sys = Sys(libc::SYS_pwrite64, "pwrite64");
pub(crate) const RT_SIGPROCMASK: Sys = Sys(libc::SYS_rt_sigprocmask, "rt_sigprocmask");
const TKILL: Sys = Sys(libc::SYS_tkill, "tkill");
const SCHED_YIELD: Sys = Sys(libc::SYS_sched_yield, "sched_yield");

/// What a borrowed thread is to do.
pub(crate) struct Task<'a> {
    pub(crate) program: &'a Program,
    /// Where its table lies, written by the caller; `None`: behind the stub.
    pub(crate) table: Option<RuntimeAddr>,
    /// A second table, which goes behind the stub; the first one leads there.
    pub(crate) tail: Option<&'a Program>,
    /// Calls that will be made later: judged now, before the first is made.
    pub(crate) later: &'a [Row],
    /// Whether the program has come to its good end.
    pub(crate) done: &'a (dyn Fn() -> bool + Sync),
}

/// A call whose result was not the wanted one: which, and the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) row: usize,
    pub(crate) result: i64,
}

impl Failed {
    pub(crate) fn error(self, program: &Program) -> RemoteError {
        let call = program.rows.get(self.row).map_or("a call", |row| row.sys.1);
        match i32::try_from(self.result.saturating_neg()) {
            Ok(code) if (1..4096).contains(&code) => RemoteError::Call { call, errno: Errno(code) },
            _ => RemoteError::Call { call, errno: Errno::EIO },
        }
    }
}

/// Borrows one thread for one program; says how long it was held.
pub(crate) fn run(
    target: &Target<'_>,
    slot: &Slot,
    task: &Task<'_>,
) -> Result<(Result<(), Failed>, Duration), RemoteError> {
    let start = Instant::now();
    loop {
        match run_once(target, slot, task) {
            // All of it was a matter of time.
            Err(RemoteError::Late { .. }) if start.elapsed() < LATE_LIMIT => std::thread::sleep(LATE_PAUSE),
            other => return other,
        }
    }
}

fn run_once(target: &Target<'_>, slot: &Slot, task: &Task<'_>) -> Result<(Result<(), Failed>, Duration), RemoteError> {
    let mut last = "it has no thread that could be looked at".to_owned();
    let (candidates, mut late) = candidates(target)?;
    for tid in candidates {
        // One tracing thread for each try: when it ends, the kernel releases whatever
        // it still holds, also a thread that never stopped.
        let tried = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("salve-borrow".to_owned())
                .spawn_scoped(scope, || borrow(target, tid, slot, task))
                .map_err(RemoteError::Thread)?
                .join()
                .unwrap_or_else(|_| Err(RemoteError::Unsuitable("the tracing thread failed".to_owned())))
        });
        match tried {
            Err(RemoteError::Unsuitable(why)) => last = why,
            Err(RemoteError::Late { tid }) => late = Some(tid),
            Err(RemoteError::Gone) if target.process.still_there().is_ok() => {
                "it exited meanwhile".clone_into(&mut last);
            }
            other => return other,
        }
    }
    Err(match late {
        Some(tid) => RemoteError::Late { tid },
        None => RemoteError::Not(NotApplied::NoThread { why: last }),
    })
}

/// Threads in the order of preference: running ones first, for those lose least. And one
/// that will do when its `vfork` child is done.
fn candidates(target: &Target<'_>) -> Result<(Vec<i32>, Option<i32>), RemoteError> {
    let (mut ranked, mut waiting) = (Vec::new(), None);
    for tid in target.process.threads(target.limits)?.into_iter().take(1024) {
        match rank(target.process, tid) {
            Some(Rank::Fit(rank)) => ranked.push((rank, tid)),
            Some(Rank::Waiting) => waiting = Some(tid),
            None => {}
        }
    }
    ranked.sort_unstable();
    Ok((ranked.into_iter().take(MAX_CANDIDATES).map(|(_, tid)| tid).collect(), waiting))
}

enum Rank {
    Fit(u32),
    /// It cannot stop until its `vfork` child is done.
    Waiting,
}

/// `/proc/PID/task/TID/syscall`: `running`, or the number of the call it sleeps in.
fn rank(process: &Process, tid: i32) -> Option<Rank> {
    let text = process.read_entry(&format!("task/{tid}/syscall"), "syscall", 512).ok()?;
    let text = String::from_utf8_lossy(&text);
    let number = text.split_ascii_whitespace().next()?;
    let calm: u32 = match number {
        "running" | "-1" => 0,
        // read, poll, nanosleep, futex, clock_nanosleep, ppoll: these go on as if nothing was.
        "0" | "7" | "35" | "202" | "230" | "271" => 1,
        "58" => return Some(Rank::Waiting),
        _ => 2,
    };
    let filtered = match process.status(Some(tid)).ok()?.seccomp().ok()? {
        Seccomp::Off => 0_u32,
        Seccomp::Filter => 4,
        Seccomp::Strict => return None,
    };
    calm.checked_add(filtered).map(Rank::Fit)
}

fn borrow(
    target: &Target<'_>,
    tid: i32,
    slot: &Slot,
    task: &Task<'_>,
) -> Result<(Result<(), Failed>, Duration), RemoteError> {
    let _hurried = wait::hurry();
    let bell = target.process.status(Some(tid)).ok().as_ref().and_then(bell);
    lock(target, tid)?;
    let start = Instant::now();
    sys::interrupt(tid)?;
    let deadline = start.checked_add(target.limits.max_stop).unwrap_or(start);
    if wait::stopped(tid, deadline)? == Stopped::NotYet {
        return Err(RemoteError::Late { tid });
    }
    let prepared = mended_registers(tid)
        .map_err(RemoteError::from)
        .and_then(|registers| Prepared::of(target.process, target.memory, tid, &registers))
        .and_then(|prepared| {
            let rows = task.program.rows.iter().chain(task.later);
            prepared.judge(slot.at, rows).map(|()| prepared)
        });
    let mut prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            let _ = sys::detach(tid);
            return Err(error);
        }
    };
    let table = task.table.unwrap_or_else(|| slot.table_at());
    let mut code = prepared.stub(slot.at, bell).to_vec();
    let in_slot = if task.table.is_none() { Some(task.program) } else { task.tail };
    if let Some(program) = in_slot {
        code.extend(program.table(slot.table_at()));
    }
    if code.len() > SLOT_BYTES {
        let _ = sys::detach(tid);
        return Err(RemoteError::Unsuitable("the first table is too long".to_owned()));
    }
    target.memory.write(slot.at, &code).map_err(|errno| {
        let _ = sys::detach(tid);
        forbidden(errno)
    })?;
    let sent = prepared.send(slot.at, table)?;
    let driven = sent.drive(task.done, CALL_LIMIT)?;
    let ended = match driven.caught() {
        _ if (task.done)() => Ok(Ok(())),
        Some(registers) => Ok(task
            .program
            .row_at(table, registers.r13)
            .map_or(Ok(()), |row| Err(Failed { row, result: registers.r12.cast_signed() }))),
        None => Err(RemoteError::Unseen),
    };
    driven.release()?;
    let held = start.elapsed();
    // Nobody is in the stub, and no handler ran from it: it would have been seen here.
    target.memory.write(slot.at, &slot.original).map_err(|_| RemoteError::Gone)?;
    ended.map(|ended| (ended, held))
}

pub(crate) fn forbidden(errno: Errno) -> RemoteError {
    match errno.0 {
        libc::EIO | libc::EPERM | libc::EACCES => RemoteError::Not(NotApplied::TextWriteForbidden),
        _ => RemoteError::Gone,
    }
}

/// The bit of a signal in a mask.
fn bit(signal: i32) -> u64 {
    u32::try_from(signal).ok().and_then(|signal| 1_u64.checked_shl(signal.checked_sub(1)?)).unwrap_or(0)
}

/// A signal that the thread may send to itself without anybody noticing: one that is
/// ignored unless it is caught, and that its process does not catch.
pub(crate) fn bell(status: &crate::process::Status) -> Option<Bell> {
    let caught = u64::from_str_radix(status.field("SigCgt")?, 16).ok()?;
    let blocked = u64::from_str_radix(status.field("SigBlk")?, 16).ok()?;
    let tid = status.field("NSpid")?.split_ascii_whitespace().last()?.parse().ok()?;
    let signals = [libc::SIGURG, libc::SIGWINCH, libc::SIGCHLD];
    let signal = signals.into_iter().find(|&signal| (caught | blocked) & bit(signal) == 0)?;
    Some(Bell { signal, tid })
}

/// Seizes the first thread as a lock, and the one to be borrowed.
fn lock(target: &Target<'_>, tid: i32) -> Result<(), RemoteError> {
    let leader = target.process.pid();
    let refused = |tid: i32, errno: Errno| match errno.0 {
        libc::ESRCH => RemoteError::Gone,
        _ => match tracer(target.process, Some(tid)) {
            Some(tracer) => RemoteError::Not(NotApplied::AlreadyTraced { tracer }),
            None => RemoteError::Unsuitable(format!("it cannot be traced: {errno}")),
        },
    };
    match seize(target.process, leader) {
        Ok(()) => {}
        // A first thread that ended before the others is a zombie, which cannot be traced.
        Err(_) if leader != tid && has_ended(target.process, leader) => {}
        Err(errno) => return Err(refused(leader, errno)),
    }
    if leader == tid { Ok(()) } else { seize(target.process, tid).map_err(|errno| refused(tid, errno)) }
}

/// Whether a thread ended, which is why it could not be traced: a zombie, or gone since.
pub(crate) fn has_ended(process: &Process, tid: i32) -> bool {
    match process.status(Some(tid)) {
        Ok(status) => status.field("State").is_some_and(|state| state.starts_with(['Z', 'X'])),
        Err(error) => matches!(error, ReadError::Exited),
    }
}

/// A stopped thread that may be sent away.
pub(crate) struct Prepared {
    tid: i32,
    /// What it gets back.
    original: user_regs_struct,
    home: Home,
    mask: u64,
    filters: Vec<Vec<BpfInstruction>>,
    bell: Option<Bell>,
}

impl Prepared {
    pub(crate) fn of(
        process: &Process,
        memory: &Memory,
        tid: i32,
        registers: &user_regs_struct,
    ) -> Result<Self, RemoteError> {
        let unsuitable = |why: &str| Err(RemoteError::Unsuitable(why.to_owned()));
        if registers.cs != CODE_SEGMENT_64 {
            return unsuitable("it runs 32-bit code");
        }
        if registers.rip == 0 && registers.rsp == 0 {
            return unsuitable("it is a worker of the kernel");
        }
        if sys::dispatches_system_calls(tid)? {
            return unsuitable("its system calls are dispatched to itself");
        }
        if restart_of(memory, tid, registers.rip)?.is_some() {
            return unsuitable("it is inside a restartable sequence");
        }
        let home = home::home(registers);
        if home.repeats && !repeats_by_syscall(memory, &home)? {
            return unsuitable("it sleeps in a call that was not made by a syscall instruction");
        }
        Ok(Self {
            tid,
            original: *registers,
            home,
            mask: sys::signal_mask(tid)?,
            filters: filters(process, tid)?,
            bell: None,
        })
    }

    /// Whether the filters would let all these calls pass, without making one.
    pub(crate) fn judge<'a>(&self, stub: RuntimeAddr, rows: impl Iterator<Item = &'a Row>) -> Result<(), RemoteError> {
        if self.filters.is_empty() {
            return Ok(());
        }
        let mask = [2, stub.raw(), 0, 8, 0, 0];
        self.judge_one(RT_SIGPROCMASK, mask, stub.raw().wrapping_add(AFTER_MASK))?;
        rows.into_iter()
            .try_for_each(|row| self.judge_one(row.sys, row.likely_arguments(), stub.raw().wrapping_add(AFTER_CALL)))
    }

    fn judge_one(&self, call: Sys, arguments: [u64; 6], instruction_pointer: u64) -> Result<(), RemoteError> {
        let number = call.0.cast_unsigned();
        match seccomp::allows(&self.filters, &Call { number, instruction_pointer, arguments }) {
            Some(true) => Ok(()),
            Some(false) => Err(RemoteError::Not(NotApplied::SeccompForbids { call: call.1 })),
            None => Err(RemoteError::Not(NotApplied::SeccompUnknown { why: format!("for {}", call.1) })),
        }
    }

    /// The stub for it, to lie at `at`.
    pub(crate) fn stub(&mut self, at: RuntimeAddr, bell: Option<Bell>) -> [u8; stub::STUB_BYTES] {
        let yields = self.judge_one(SCHED_YIELD, [0; 6], at.raw().wrapping_add(AFTER_YIELD)).is_ok();
        // A signal that the thread blocks may be waited for by others.
        self.bell = bell.filter(|bell| {
            let arguments = [u64::from(bell.tid.cast_unsigned()), u64::from(bell.signal.cast_unsigned()), 0, 0, 0, 0];
            self.mask & bit(bell.signal) == 0
                && self.judge_one(TKILL, arguments, at.raw().wrapping_add(AFTER_BELL)).is_ok()
        });
        stub::assemble(at, &self.home, self.mask, Ending { bell: self.bell, yields })
    }

    /// From here on it runs through the table, whatever becomes of us.
    pub(crate) fn send(self, stub: RuntimeAddr, table: RuntimeAddr) -> Result<Sent, Errno> {
        let registers = user_regs_struct {
            rip: stub.raw(),
            // No system call to restart: the kernel leaves rip and rax alone.
            orig_rax: u64::MAX,
            rbx: table.raw(),
            r12: 0,
            r13: 0,
            ..self.original
        };
        sys::set_registers(self.tid, &registers)?;
        let signal = self.bell.map(|bell| bell.signal);
        sys::set_signal_mask(self.tid, !signal.map_or(0, bit))?;
        Ok(Sent { tid: self.tid, signal, stub, original: self.original, mask: self.mask })
    }
}

pub(crate) fn repeats_by_syscall(memory: &Memory, home: &Home) -> Result<bool, Errno> {
    let mut instruction = [0; 2];
    memory.read_exact(RuntimeAddr::new(home.registers.rip), &mut instruction)?;
    Ok(instruction == [0x0f, 0x05])
}

pub(crate) use crate::drive::Sent;

/// Where a thread begins anew if it is inside a restartable sequence, as `struct rseq` and
/// `struct rseq_cs` of `include/uapi/linux/rseq.h` tell.
pub(crate) fn restart_of(memory: &Memory, tid: i32, rip: u64) -> Result<Option<u64>, Errno> {
    let Some(configuration) = sys::rseq(tid)?.filter(|known| known.pointer != 0) else { return Ok(None) };
    let at = |base: u64, offset: u64| RuntimeAddr::new(base.wrapping_add(offset));
    let sequence = memory.word(at(configuration.pointer, 8))?;
    if sequence == 0 {
        return Ok(None);
    }
    let start = memory.word(at(sequence, 8))?;
    let len = memory.word(at(sequence, 16))?;
    if rip.wrapping_sub(start) < len { memory.word(at(sequence, 24)).map(Some) } else { Ok(None) }
}

/// The system call filters of a stopped thread.
fn filters(process: &Process, tid: i32) -> Result<Vec<Vec<BpfInstruction>>, RemoteError> {
    let unknown = |why: String| RemoteError::Not(NotApplied::SeccompUnknown { why });
    // The quick question first: reading `status` takes longer than a remote call. A thread
    // in strict mode was not chosen in the first place.
    if sys::is_unfiltered(tid) == Some(true) {
        return Ok(Vec::new());
    }
    let status = process.status(Some(tid))?;
    match status.seccomp().map_err(|error| unknown(error.to_string()))? {
        Seccomp::Off => return Ok(Vec::new()),
        Seccomp::Strict => return Err(RemoteError::Unsuitable("it is in strict seccomp mode".to_owned())),
        Seccomp::Filter => {}
    }
    seccomp::filters(tid).map_err(unknown)
}
