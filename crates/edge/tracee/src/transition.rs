//! The moment in which a process changes: stop, check, write, verify, let go.
//!
//! Everything that can be prepared is in the [`Plan`]; while threads are stopped
//! there is no choice left but go or not. Nothing is logged, no file is read but
//! those of `/proc/PID` that were open before.

use crate::limits::Limits;
use crate::maps::{self, Mapping};
use crate::memory::Memory;
use crate::outcome::{Blocking, BlockingReason, Lost, NotApplied, WriteFault};
use crate::process::Process;
use crate::slot::Leftover;
use crate::stop::{Held, HeldThread, StopError};
use crate::{Errno, stub, sys};
use core::time::Duration;
use rustix::fs::OFlags;
use salve_consistency::{Finding, FindingKind, Forbidden, Registers, Span, Step, Thread, ThreadCheck, UnwindTablesOf};
use salve_elf::{RuntimeAddr, Va};
use std::fs::File;

pub(crate) const JUMP_BYTES: usize = 5;
const STUB_BYTES: u64 = 192;
const _: () = assert!(stub::STUB_BYTES == 192);
/// psABI §3.2.2: bytes below the stack pointer that a leaf function may use.
const RED_ZONE_BYTES: u64 = 128;
const CODE_SEGMENT_64: u64 = 0x33;
/// How long all may be held for the sake of threads that only pass through.
const PATIENCE: Duration = Duration::from_micros(500);
/// `PROCMAP_QUERY_VMA_WRITABLE` and `_EXECUTABLE`.
const QUERY_WRITABLE: u64 = 2;
const QUERY_EXECUTABLE: u64 = 4;

/// One write of a transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) at: RuntimeAddr,
    pub(crate) expected: [u8; JUMP_BYTES],
    pub(crate) new: [u8; JUMP_BYTES],
    /// For a reader.
    pub(crate) path: String,
    pub(crate) function: String,
    pub(crate) va: Va,
    /// The mapping that has to be there still.
    pub(crate) mapping: Mapping,
}

/// All that a transition does, decided beforehand.
pub(crate) struct Plan<'a> {
    pub(crate) writes: Vec<Write>,
    pub(crate) forbidden: Forbidden,
    pub(crate) tables: Vec<UnwindTablesOf<'a>>,
    /// An address in the main thread's stack that never moves: its last byte.
    pub(crate) main_stack: Option<RuntimeAddr>,
    /// Stubs to be cleared away, if no thread is in one or has to come back to it.
    pub(crate) leftovers: Vec<Leftover>,
}

/// How one try ended.
#[derive(Debug)]
pub(crate) enum Tried {
    Done { stopped: Duration, threads: usize },
    Blocked { blocking: Vec<Blocked>, stopped: Duration },
    Not(NotApplied),
    RolledBack(WriteFault),
    Lost(Lost),
}

/// A blocking thread, before anybody has asked for its name.
#[derive(Debug)]
pub(crate) struct Blocked {
    pub(crate) tid: i32,
    pub(crate) function: String,
    pub(crate) why: BlockingReason,
}

impl Blocked {
    pub(crate) fn named(self, process: &Process) -> Blocking {
        Blocking { tid: self.tid, comm: process.thread_name(self.tid), function: self.function, why: self.why }
    }
}

/// One try, on the calling thread, which has to be one that nothing else traces from.
pub(crate) fn attempt(process: &Process, memory: &Memory, plan: &Plan<'_>, limits: &Limits) -> Tried {
    let Ok(mut space) = Space::open(process) else { return Tried::Not(NotApplied::Exited) };
    let mut chunk = vec![0_u8; 64 << 10];
    crate::wait::hurry();
    let mut held = match Held::stop_all(process, limits) {
        Ok(held) => held,
        Err(error) => return not_stopped(error, limits),
    };
    let mut result = act(process, memory, plan, limits, &held, &mut space, &mut chunk);
    while let Err(Act::Blocked(blocking)) = &result {
        let Some(tids) = passing(blocking, &held).filter(|_| held.elapsed() < PATIENCE) else { break };
        match held.nudge(process, limits, &tids) {
            Ok(()) => result = act(process, memory, plan, limits, &held, &mut space, &mut chunk),
            Err(error) => return not_stopped(error, limits),
        }
    }
    let threads = held.threads.len();
    let (stopped, failed) = held.release();
    if process.still_there().is_err() {
        return match result {
            // It went after the last write and its verification.
            Ok(()) | Err(Act::Lost(_) | Act::RolledBack(_)) => Tried::Lost(Lost::Exited),
            Err(Act::Blocked(_) | Act::Not(_)) => Tried::Not(NotApplied::Exited),
        };
    }
    match (result, failed) {
        (Err(Act::Lost(why)), _) => Tried::Lost(why),
        (_, Some((tid, errno))) => Tried::Lost(Lost::NotReleased { tid, errno }),
        (Ok(()), None) => Tried::Done { stopped, threads },
        (Err(Act::Blocked(blocking)), None) => Tried::Blocked { blocking, stopped },
        (Err(Act::Not(why)), None) => Tried::Not(why),
        (Err(Act::RolledBack(why)), None) => Tried::RolledBack(why),
    }
}

/// A stop in which nothing is done.
pub(crate) fn floor(process: &Process, limits: &Limits) -> Option<Duration> {
    crate::wait::hurry();
    let held = Held::stop_all(process, limits).ok()?;
    Some(held.release().0)
}

fn not_stopped(error: StopError, limits: &Limits) -> Tried {
    match error {
        StopError::DidNotStop { tid } => {
            let why = BlockingReason::DidNotStop;
            let blocking = vec![Blocked { tid, function: String::new(), why }];
            Tried::Blocked { blocking, stopped: limits.max_stop }
        }
        StopError::Not(why) => Tried::Not(why),
        StopError::Gone => Tried::Not(NotApplied::Exited),
    }
}

/// The blocking threads, if every one of them was stopped in user space: such a thread
/// is likely to be out of a short function in a moment, and it is cheaper for all to
/// wait that moment than to be stopped again.
fn passing(blocking: &[Blocked], held: &Held) -> Option<Vec<i32>> {
    let in_user_space = |tid: i32| {
        let thread = held.threads.iter().find(|thread| thread.tid == tid)?;
        thread.registers.filter(|registers| registers.orig_rax.cast_signed() < 0 && !thread.group_stopped)
    };
    blocking.iter().map(|blocked| in_user_space(blocked.tid).map(|_| blocked.tid)).collect()
}

enum Act {
    Blocked(Vec<Blocked>),
    Not(NotApplied),
    RolledBack(WriteFault),
    Lost(Lost),
}

fn act(
    process: &Process,
    memory: &Memory,
    plan: &Plan<'_>,
    limits: &Limits,
    held: &Held,
    space: &mut Space,
    chunk: &mut [u8],
) -> Result<(), Act> {
    // The pidfd and the `/proc` directory are this very process's, whatever its number
    // means by now; the memory is that of the program it ran when it was looked at.
    process.still_there().map_err(|_| Act::Not(NotApplied::Exited))?;
    space.refresh(process, limits).map_err(|_| Act::Not(NotApplied::Exited))?;
    verify(memory, plan, space)?;
    let checker = Checker { memory, plan, limits, space, pid: process.pid() };
    let mut blocking = Vec::new();
    for thread in &held.threads {
        if let Some(blocked) = check(&checker, &plan.forbidden, thread, chunk) {
            blocking.push(blocked);
        }
    }
    if !blocking.is_empty() {
        return Err(Act::Blocked(blocking));
    }
    write(memory, &plan.writes)?;
    clear_leftovers(&checker, held, chunk);
    Ok(())
}

/// Puts back what belongs where a killed Salve left a stub. All threads are held by
/// us, so no other Salve is at work; one that is still in a stub, or will return
/// to it from a signal's handler, keeps it.
fn clear_leftovers(checker: &Checker<'_>, held: &Held, chunk: &mut [u8]) {
    for stub in &checker.plan.leftovers {
        let mut zone = Forbidden::default();
        let end = RuntimeAddr::new(stub.at.raw().saturating_add(STUB_BYTES));
        zone.add_range(stub.at, end, "stub");
        let free = |thread| check(checker, &zone, thread, chunk).is_none();
        let mut now = [0; stub::STUB_BYTES];
        if held.threads.iter().all(free) && checker.memory.read_exact(stub.at, &mut now).is_ok() && now == stub.found {
            let _ = checker.memory.write(stub.at, &stub.original);
        }
    }
}

/// The mapping is the same file's, and the bytes are the expected ones, at every place.
fn verify(memory: &Memory, plan: &Plan<'_>, space: &Space) -> Result<(), Act> {
    for write in &plan.writes {
        if !space.still_is(&write.mapping, write.at) {
            let (path, va) = (write.path.clone(), write.va);
            return Err(Act::Not(NotApplied::TextNotFromFile { path, va }));
        }
        let mut found = [0; JUMP_BYTES];
        // An address space that is gone (exit, exec) reads nothing.
        memory.read_exact(write.at, &mut found).map_err(|_| Act::Not(NotApplied::Executed))?;
        if found != write.expected {
            return Err(Act::Not(NotApplied::UnexpectedBytes {
                path: write.path.clone(),
                function: write.function.clone(),
                va: write.va,
                found: found.to_vec(),
            }));
        }
    }
    Ok(())
}

/// One write, read back.
fn put(memory: &Memory, write: &Write) -> Option<WriteFault> {
    if let Err(errno) = memory.write(write.at, &write.new) {
        return Some(WriteFault::Write { at: write.at, errno });
    }
    let mut found = [0; JUMP_BYTES];
    let same = memory.read_exact(write.at, &mut found).is_ok() && found == write.new;
    (!same).then_some(WriteFault::ReadBack { at: write.at })
}

/// All writes, each read back; or none.
fn write(memory: &Memory, writes: &[Write]) -> Result<(), Act> {
    for (index, write) in writes.iter().enumerate() {
        let fault = put(memory, write);
        if let Some(fault) = fault {
            undo(memory, writes.get(..=index).unwrap_or(writes))?;
            let forbidden =
                matches!(fault, WriteFault::Write { errno: Errno(libc::EIO | libc::EPERM | libc::EACCES), .. });
            // The very first write failing is how a hardened kernel says no: nothing was changed.
            return Err(if forbidden && index == 0 {
                Act::Not(NotApplied::TextWriteForbidden)
            } else {
                Act::RolledBack(fault)
            });
        }
    }
    Ok(())
}

fn undo(memory: &Memory, writes: &[Write]) -> Result<(), Act> {
    for write in writes.iter().rev() {
        let mut found = [0; JUMP_BYTES];
        let lost = |errno| Act::Lost(Lost::UndoFailed { at: write.at, errno });
        memory.read_exact(write.at, &mut found).map_err(lost)?;
        if found == write.expected {
            continue;
        }
        memory.write(write.at, &write.expected).map_err(lost)?;
        memory.read_exact(write.at, &mut found).map_err(lost)?;
        if found != write.expected {
            return Err(lost(Errno::EIO));
        }
    }
    Ok(())
}

/// What a check of a thread looks at besides the thread.
struct Checker<'a> {
    memory: &'a Memory,
    plan: &'a Plan<'a>,
    limits: &'a Limits,
    space: &'a Space,
    pid: i32,
}

/// Whether one thread is in a forbidden place, as far as can be told.
fn check(checker: &Checker<'_>, forbidden: &Forbidden, held: &HeldThread, chunk: &mut [u8]) -> Option<Blocked> {
    let Checker { memory, plan, limits, space, pid } = checker;
    let blocked = |function: String, why| Some(Blocked { tid: held.tid, function, why });
    // A kernel worker in the process's name (io_uring's, vhost's): it never runs user code,
    // and the kernel says so by giving it neither stack nor instruction pointer.
    if held.registers.is_some_and(|registers| registers.rip == 0 && registers.rsp == 0) {
        return None;
    }
    let thread = match describe(plan, limits, held, space, held.tid == *pid) {
        Ok(thread) => thread,
        Err(why) => return blocked(String::new(), why),
    };
    let mut check = ThreadCheck::new(forbidden, &plan.tables, &thread, limits.max_frames);
    loop {
        match check.poll() {
            Step::Done(None) => return None,
            Step::Done(Some(Finding { function, kind })) => return blocked(function, reason(kind)),
            Step::ReadMemory { at, len_bytes } => {
                let len = usize::try_from(len_bytes).unwrap_or(chunk.len()).min(chunk.len());
                let room = chunk.get_mut(..len).unwrap_or_default();
                let got = memory.read(at, room).unwrap_or(0);
                check.provide(room.get(..got).unwrap_or_default());
            }
        }
    }
}

fn reason(kind: FindingKind) -> BlockingReason {
    match kind {
        FindingKind::Executing { at } => BlockingReason::Executing { at },
        FindingKind::Frame { at } => BlockingReason::Frame { at },
        FindingKind::MaybeFrame { at } => BlockingReason::MaybeFrame { at },
        FindingKind::Unreadable { at } => BlockingReason::StackUnknown { stack_pointer: at },
    }
}

/// Registers, and the memory that may hold frames.
fn describe(
    plan: &Plan<'_>,
    limits: &Limits,
    held: &HeldThread,
    space: &Space,
    is_main: bool,
) -> Result<Thread, BlockingReason> {
    let Some(r) = &held.registers else { return Err(BlockingReason::DidNotStop) };
    let stack_pointer = RuntimeAddr::new(r.rsp);
    let unknown = BlockingReason::StackUnknown { stack_pointer };
    if r.cs != CODE_SEGMENT_64 || !r.rsp.is_multiple_of(8) {
        return Err(unknown);
    }
    let (_, current) = space.at(stack_pointer).ok_or_else(|| unknown.clone())?;
    let from = RuntimeAddr::new(r.rsp.saturating_sub(RED_ZONE_BYTES).max(current.start.raw()));
    let mut live = vec![Span { start: from, end: current.end }];
    let anchor = if is_main { plan.main_stack } else { Some(RuntimeAddr::new(r.fs_base)) };
    let on_own = anchor.is_some_and(|anchor| current.start <= anchor && anchor < current.end);
    let own = if on_own { Some(current) } else { anchor.and_then(|anchor| space.at(anchor)).map(|(_, span)| span) };
    match own {
        Some(own) if own == current => {}
        // A signal's alternate stack, or one that the program made: what it left behind counts too.
        Some(own) => live.push(own),
        None => return Err(unknown),
    }
    for span in &live {
        let bytes = span.end.raw().saturating_sub(span.start.raw());
        if bytes > limits.max_stack_bytes {
            return Err(BlockingReason::StackTooDeep { bytes });
        }
    }
    let general =
        [r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15];
    let registers = Registers { general, instruction_pointer: RuntimeAddr::new(r.rip) };
    Ok(Thread { tid: held.tid, registers, live, own_stack: own })
}

/// What is mapped where, asked while threads are stopped: by a query for one address
/// where the kernel has it (two microseconds), by reading all of `maps` where not.
struct Space {
    maps: File,
    parsed: Option<Vec<Mapping>>,
}

impl Space {
    fn open(process: &Process) -> Result<Self, crate::ReadError> {
        Ok(Self { maps: process.open_entry("maps", "maps", OFlags::RDONLY)?, parsed: None })
    }

    fn refresh(&mut self, process: &Process, limits: &Limits) -> Result<(), crate::ReadError> {
        if matches!(sys::mapping_at(&self.maps, 0), Err(Errno(libc::ENOTTY | libc::EINVAL))) {
            self.parsed = Some(process.mappings(limits)?);
        }
        Ok(())
    }

    /// The readable, writable kind of mapping that a stack is in, as (executable, span).
    fn at(&self, at: RuntimeAddr) -> Option<(bool, Span)> {
        if let Some(parsed) = &self.parsed {
            let mapping = maps::find(parsed, at).filter(|mapping| mapping.perms.write)?;
            return Some((mapping.perms.execute, Span { start: mapping.start, end: mapping.end }));
        }
        let found = sys::mapping_at(&self.maps, at.raw()).ok().filter(|found| found.flags & QUERY_WRITABLE != 0)?;
        let span = Span { start: RuntimeAddr::new(found.start), end: RuntimeAddr::new(found.end) };
        Some((found.flags & QUERY_EXECUTABLE != 0, span))
    }

    /// Whether `at` is still in private executable code of the same file at the same place.
    fn still_is(&self, mapping: &Mapping, at: RuntimeAddr) -> bool {
        let place = |start: u64, offset: u64| at.raw().wrapping_sub(start).wrapping_add(offset);
        let want = place(mapping.start.raw(), mapping.offset.raw());
        if let Some(parsed) = &self.parsed {
            return maps::find(parsed, at).is_some_and(|now| {
                now.same_file(mapping) && now.perms == mapping.perms && place(now.start.raw(), now.offset.raw()) == want
            });
        }
        sys::mapping_at(&self.maps, at.raw()).is_ok_and(|now| {
            now.inode == mapping.inode
                && (now.dev_major, now.dev_minor) == mapping.dev
                && now.flags & QUERY_EXECUTABLE != 0
                && now.flags & QUERY_WRITABLE == 0
                && place(now.start, now.offset) == want
        })
    }
}
