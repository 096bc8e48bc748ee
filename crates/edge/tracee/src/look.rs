//! Looking at stopped threads: what they run, and what their stacks hold.

use crate::Errno;
use crate::limits::Limits;
use crate::maps::{self, Mapping};
use crate::memory::Memory;
use crate::outcome::BlockingReason;
use crate::process::Process;
use crate::stop::HeldThread;
use crate::sys;
use crate::transition::Blocked;
use rustix::fs::OFlags;
use salve_consistency::{Finding, FindingKind, Forbidden, Registers, Span, Step, Thread, ThreadCheck, UnwindTablesOf};
use salve_elf::RuntimeAddr;
use std::fs::File;

/// psABI §3.2.2: bytes below the stack pointer that a leaf function may use.
const RED_ZONE_BYTES: u64 = 128;
/// How far up a return address without unwinding is looked for, and how many breakpoints a
/// processor has for one thread.
const NEAR_BYTES: usize = 512;
const BREAKPOINTS: usize = 4;
const CODE_SEGMENT_64: u64 = 0x33;
/// `PROCMAP_QUERY_VMA_WRITABLE` and `_EXECUTABLE`.
const QUERY_WRITABLE: u64 = 2;
const QUERY_EXECUTABLE: u64 = 4;

/// What a check of a thread looks at besides the thread.
pub(crate) struct Checker<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) tables: &'a [UnwindTablesOf<'a>],
    /// An address in the main thread's stack that never moves.
    pub(crate) main_stack: Option<RuntimeAddr>,
    pub(crate) limits: &'a Limits,
    pub(crate) space: &'a Space,
    pub(crate) pid: i32,
}

/// Whether one thread is in a forbidden place, as far as can be told; and where it comes
/// out, as far as that is to be seen within `leave_frames` more frames.
pub(crate) fn check(
    checker: &Checker<'_>,
    forbidden: &Forbidden,
    held: &HeldThread,
    chunk: &mut [u8],
    leave_frames: usize,
) -> Option<Blocked> {
    let Checker { memory, tables, main_stack, limits, space, pid } = checker;
    let blocked =
        |function: String, why, leaves_to| Some(Blocked { pid: *pid, tid: held.tid, function, why, leaves_to });
    // A kernel worker in the process's name (io_uring's, vhost's): it never runs user code,
    // and the kernel says so by giving it neither stack nor instruction pointer.
    if held.registers.is_some_and(|registers| registers.rip == 0 && registers.rsp == 0) {
        return None;
    }
    let thread = match describe(*main_stack, limits, held, space, held.tid == *pid) {
        Ok(thread) => thread,
        Err(why) => return blocked(String::new(), why, Vec::new()),
    };
    let check = ThreadCheck::new(forbidden, tables, &thread, limits.max_frames);
    let mut check = check.telling_where_it_leaves(leave_frames);
    loop {
        match check.poll() {
            Step::Done(None) => return None,
            Step::Done(Some(Finding { function, kind, leaves_to })) => {
                let mut leaves_to = Vec::from_iter(leaves_to);
                if leaves_to.is_empty() && leave_frames > 0 && matches!(kind, FindingKind::Executing { .. }) {
                    leaves_to = returns(checker, forbidden, &thread);
                }
                return blocked(function, reason(kind), leaves_to);
            }
            Step::ReadMemory { at, len_bytes } => {
                let len = usize::try_from(len_bytes).unwrap_or(chunk.len()).min(chunk.len());
                let room = chunk.get_mut(..len).unwrap_or_default();
                let got = memory.read(at, room).unwrap_or(0);
                check.provide(room.get(..got).unwrap_or_default());
            }
        }
    }
}

/// The nearest return addresses on its stack, by their looks: a payload's functions have no
/// unwinding information here, and for a hint of where to wait none is needed.
fn returns(checker: &Checker<'_>, forbidden: &Forbidden, thread: &Thread) -> Vec<RuntimeAddr> {
    let from = thread.registers.stack_pointer();
    let mut bytes = [0_u8; NEAR_BYTES];
    let got = checker.memory.read(from, &mut bytes).unwrap_or(0);
    let (words, _) = bytes.get(..got).unwrap_or_default().as_chunks::<8>();
    let follows_call = |at: RuntimeAddr| {
        let mut before = [0_u8; 7];
        let start = RuntimeAddr::new(at.raw().wrapping_sub(7));
        checker.memory.read_exact(start, &mut before).is_ok() && ends_in_call(before)
    };
    let candidates = words.iter().map(|word| RuntimeAddr::new(u64::from_le_bytes(*word)));
    let outside = |at: &RuntimeAddr| {
        checker.tables.iter().any(|image| image.start <= *at && *at < image.end) && forbidden.word(at.raw()).is_none()
    };
    candidates.filter(outside).filter(|at| follows_call(*at)).take(BREAKPOINTS).collect()
}

/// `CALL rel32`, or `CALL r/m64` (opcode FF /2) in any of its lengths.
fn ends_in_call(before: [u8; 7]) -> bool {
    let [_, _, e8, ..] = before;
    let indirect = |len: usize| {
        let at = before.len().saturating_sub(len);
        matches!(before.get(at..), Some([0xff, modrm, ..]) if modrm >> 3 & 7 == 2)
    };
    e8 == 0xe8 || [2, 3, 4, 6, 7].into_iter().any(indirect)
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
    main_stack: Option<RuntimeAddr>,
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
    let anchor = if is_main { main_stack } else { Some(RuntimeAddr::new(r.fs_base)) };
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
pub(crate) struct Space {
    maps: File,
    parsed: Option<Vec<Mapping>>,
}

impl Space {
    pub(crate) fn open(process: &Process) -> Result<Self, crate::ReadError> {
        Ok(Self { maps: process.open_entry("maps", "maps", OFlags::RDONLY)?, parsed: None })
    }

    pub(crate) fn refresh(&mut self, process: &Process, limits: &Limits) -> Result<(), crate::ReadError> {
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
    pub(crate) fn still_is(&self, mapping: &Mapping, at: RuntimeAddr) -> bool {
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
