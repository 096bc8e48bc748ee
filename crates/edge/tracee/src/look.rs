//! Looking at stopped threads: what they run, and what their stacks hold.

use crate::Errno;
use crate::home::CODE_SEGMENT_64;
use crate::limits::Limits;
use crate::maps::{self, Mapping};
use crate::memory::Memory;
use crate::outcome::BlockingReason;
use crate::process::Process;
use crate::stop::HeldThread;
use crate::sys::{self, MappingQuery};
use crate::transition::Blocked;
use core::cell::Cell;
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
/// `PROCMAP_QUERY_VMA_READABLE`, `_WRITABLE` and `_EXECUTABLE`.
const QUERY_READABLE: u64 = 1;
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

/// Threads whose stacks are read by one call, and how much of each.
const TOGETHER: usize = 16;
const SHALLOW_BYTES: usize = 4096;
/// What is read of a deeper stack at once.
const CHUNK_BYTES: usize = 64 << 10;
/// The room that [`check_all`] needs.
pub(crate) const ROOM_BYTES: usize = CHUNK_BYTES + TOGETHER * SHALLOW_BYTES;

/// The threads that are in a forbidden place, as far as can be told; and where each comes
/// out, as far as that is to be seen within so many frames more as `leave_frames` allows
/// where some are known already.
pub(crate) fn check_all(
    checker: &Checker<'_>,
    forbidden: &Forbidden,
    threads: &[HeldThread],
    room: &mut [u8],
    leave_frames: impl Fn(usize) -> usize,
) -> Vec<Blocked> {
    let (chunk, shallow) = room.split_at_mut(CHUNK_BYTES.min(room.len()));
    let mut blocking = Vec::new();
    for some in threads.chunks(TOGETHER) {
        let described: Vec<_> = some.iter().map(|held| (held.tid, checker.describe(held))).collect();
        let stacks: Vec<Span> = described.iter().filter_map(|(_, described)| shallow_stack(described)).collect();
        let mut read = read_together(checker.pid, &stacks, shallow);
        for (tid, described) in described {
            let ahead = shallow_stack(&described).and_then(|stack| {
                let (own, rest) = read?.split_at_checked(bytes(stack))?;
                read = Some(rest);
                Some((stack.start, own))
            });
            let frames = leave_frames(blocking.len());
            blocking.extend(checker.check(forbidden, tid, described, ahead, chunk, frames));
        }
    }
    blocking
}

fn bytes(span: Span) -> usize {
    usize::try_from(len(span) & !7).unwrap_or(usize::MAX)
}

/// The part of a thread's stack that is looked at first, where it is not deep.
fn shallow_stack(described: &Result<Option<Thread>, BlockingReason>) -> Option<Span> {
    let first = *described.as_ref().ok()?.as_ref()?.live.first()?;
    (bytes(first) <= SHALLOW_BYTES).then_some(first)
}

/// All of them one behind the other, or nothing: then each is read by itself.
fn read_together<'r>(pid: i32, stacks: &[Span], room: &'r mut [u8]) -> Option<&'r [u8]> {
    if stacks.len() < 2 {
        return None;
    }
    let parts: Vec<(u64, usize)> = stacks.iter().map(|stack| (stack.start.raw(), bytes(*stack))).collect();
    sys::read_together(pid, &parts, room)
}

impl Checker<'_> {
    /// `ahead`: what of its memory was read already, and from where.
    fn check(
        &self,
        forbidden: &Forbidden,
        tid: i32,
        described: Result<Option<Thread>, BlockingReason>,
        mut ahead: Option<(RuntimeAddr, &[u8])>,
        chunk: &mut [u8],
        leave_frames: usize,
    ) -> Option<Blocked> {
        let Checker { memory, tables, limits, pid, .. } = self;
        let blocked = |function: String, why, leaves_to| Some(Blocked { pid: *pid, tid, function, why, leaves_to });
        let thread = match described {
            Ok(thread) => thread?,
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
                        leaves_to = returns(self, forbidden, &thread);
                    }
                    return blocked(function, reason(kind), leaves_to);
                }
                Step::ReadMemory { at, len_bytes } => {
                    let len = usize::try_from(len_bytes).unwrap_or(chunk.len()).min(chunk.len());
                    if let Some((_, bytes)) = ahead.take_if(|(start, bytes)| *start == at && bytes.len() == len) {
                        check.provide(bytes);
                    } else {
                        let room = chunk.get_mut(..len).unwrap_or_default();
                        let got = memory.read(at, room).unwrap_or(0);
                        check.provide(room.get(..got).unwrap_or_default());
                    }
                }
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

impl Checker<'_> {
    /// Registers, and the memory that may hold frames; `None`: it never runs user code.
    fn describe(&self, held: &HeldThread) -> Result<Option<Thread>, BlockingReason> {
        let Checker { main_stack, limits, space, .. } = self;
        let Some(r) = &held.registers else { return Err(BlockingReason::DidNotStop) };
        // A kernel worker in the process's name (io_uring's, vhost's): the kernel says so by giving
        // it neither stack nor instruction pointer.
        if r.rip == 0 && r.rsp == 0 {
            return Ok(None);
        }
        let stack_pointer = RuntimeAddr::new(r.rsp);
        let unknown = BlockingReason::StackUnknown { stack_pointer };
        if r.cs != CODE_SEGMENT_64 || !r.rsp.is_multiple_of(8) {
            return Err(unknown);
        }
        let anchor = if held.tid == self.pid { *main_stack } else { Some(RuntimeAddr::new(r.fs_base)) };
        let anchor = anchor.ok_or_else(|| unknown.clone())?;
        let mapping = space.at(stack_pointer).ok_or_else(|| unknown.clone())?;
        let current = space.upwards(mapping, anchor, limits.max_stack_bytes).ok_or_else(|| unknown.clone())?;
        let from = RuntimeAddr::new(r.rsp.saturating_sub(RED_ZONE_BYTES).max(current.start.raw()));
        let mut live = vec![Span { start: from, end: current.end }];
        let own = if holds(current, anchor) {
            current
        } else {
            // A signal's alternate stack, or one that the program made: what it left behind counts too.
            let top = space.at(anchor).ok_or_else(|| unknown.clone())?;
            let own = space.downwards(top, limits.max_stack_bytes).ok_or(unknown)?;
            live.push(own);
            own
        };
        for span in &live {
            let bytes = len(*span);
            if bytes > limits.max_stack_bytes {
                return Err(BlockingReason::StackTooDeep { bytes });
            }
        }
        let general = [
            r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14,
            r.r15,
        ];
        let registers = Registers { general, instruction_pointer: RuntimeAddr::new(r.rip) };
        Ok(Some(Thread { tid: held.tid, registers, live, own_stack: Some(own) }))
    }
}

fn holds(span: Span, at: RuntimeAddr) -> bool {
    span.start <= at && at < span.end
}

fn len(span: Span) -> u64 {
    span.end.raw().saturating_sub(span.start.raw())
}

/// One mapping, as far as it may be a part of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    span: Span,
    readable: bool,
    writable: bool,
    /// Device and inode; none of anonymous memory. What is shared and has no name has a file of its own.
    file: Option<((u32, u32), u64)>,
    offset: u64,
}

impl Piece {
    /// Whether both are parts of what was mapped at once, this one where `below` ends.
    fn continues(&self, below: &Self) -> bool {
        let follows = || below.offset.checked_add(len(below.span)) == Some(self.offset);
        self.readable && below.readable && self.file == below.file && (self.file.is_none() || follows())
    }
}

/// What is mapped where, asked while threads are stopped: by a query for one address
/// where the kernel has it (two microseconds), by reading all of `maps` where not.
pub(crate) struct Space {
    maps: File,
    /// Whether the kernel answers queries.
    answers: bool,
    /// What the last query found: neighbours are often asked for one after the other.
    last: Cell<Option<MappingQuery>>,
    parsed: Option<Vec<Mapping>>,
}

impl Space {
    pub(crate) fn open(process: &Process) -> Result<Self, crate::ReadError> {
        let maps = process.open_entry("maps", "maps", OFlags::RDONLY)?;
        let answers = !matches!(sys::mapping_at(&maps, 0), Err(Errno(libc::ENOTTY | libc::EINVAL)));
        Ok(Self { maps, answers, last: Cell::new(None), parsed: None })
    }

    /// Forgets what was seen before; to be called when the process stands.
    pub(crate) fn refresh(&mut self, process: &Process, limits: &Limits) -> Result<(), crate::ReadError> {
        self.last.set(None);
        if !self.answers {
            self.parsed = Some(process.mappings(limits)?);
        }
        Ok(())
    }

    fn query(&self, at: RuntimeAddr) -> Result<Option<MappingQuery>, Errno> {
        let holds = |found: &MappingQuery| found.start <= at.raw() && at.raw() < found.end;
        if let Some(found) = self.last.get().filter(holds) {
            return Ok(Some(found));
        }
        match sys::mapping_at(&self.maps, at.raw()) {
            Ok(found) => {
                self.last.set(Some(found));
                Ok(Some(found))
            }
            Err(Errno(libc::ENOENT)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// The writable mapping that holds `at`, as a stack's does.
    fn at(&self, at: RuntimeAddr) -> Option<Piece> {
        self.piece(at).ok()?.filter(|piece| piece.readable && piece.writable)
    }

    /// A stack upwards from a mapping until `anchor` is in it. A part of a stack that is locked, or
    /// of which something else was asked (`mlock(2)`, `madvise(2)`, `mprotect(2)`), is a mapping of
    /// its own; so whatever continues it belongs to it, as far as is looked at. `None` where it may
    /// go on in memory of another kind.
    fn upwards(&self, from: Piece, anchor: RuntimeAddr, most_bytes: u64) -> Option<Span> {
        let (mut stack, mut last) = (from.span, from);
        while !holds(stack, anchor) && len(stack) <= most_bytes {
            match self.piece(stack.end).ok()? {
                // What an image's file does not hold of its variables is anonymous.
                Some(next) if next.continues(&last) || next.readable && next.file.is_none() => {
                    (stack.end, last) = (next.span.end, next);
                }
                Some(next) if next.writable => return None,
                Some(_) | None => break,
            }
        }
        Some(stack)
    }

    /// The same downwards, to where it can be the stack no more.
    fn downwards(&self, from: Piece, most_bytes: u64) -> Option<Span> {
        let (mut stack, mut last) = (from.span, from);
        while len(stack) <= most_bytes {
            let Some(below) = stack.start.checked_sub(1) else { break };
            match self.piece(below).ok()? {
                Some(before) if last.continues(&before) => (stack.start, last) = (before.span.start, before),
                Some(before) if before.writable => return None,
                Some(_) | None => break,
            }
        }
        Some(stack)
    }

    /// The mapping that holds `at`.
    fn piece(&self, at: RuntimeAddr) -> Result<Option<Piece>, Errno> {
        if let Some(parsed) = &self.parsed {
            return Ok(maps::find(parsed, at).map(|found| Piece {
                span: Span { start: found.start, end: found.end },
                readable: found.perms.read,
                writable: found.perms.write,
                file: (found.inode != 0).then_some((found.dev, found.inode)),
                offset: found.offset.raw(),
            }));
        }
        Ok(self.query(at)?.map(|found| Piece {
            span: Span { start: RuntimeAddr::new(found.start), end: RuntimeAddr::new(found.end) },
            readable: found.flags & QUERY_READABLE != 0,
            writable: found.flags & QUERY_WRITABLE != 0,
            file: (found.inode != 0).then_some(((found.dev_major, found.dev_minor), found.inode)),
            offset: found.offset,
        }))
    }

    /// Whether `at` is still in the same file's private code or constants at the same place.
    pub(crate) fn still_is(&self, mapping: &Mapping, at: RuntimeAddr) -> bool {
        let place = |start: u64, offset: u64| at.raw().wrapping_sub(start).wrapping_add(offset);
        let want = place(mapping.start.raw(), mapping.offset.raw());
        if let Some(parsed) = &self.parsed {
            return maps::find(parsed, at).is_some_and(|now| {
                now.same_file(mapping) && now.perms == mapping.perms && place(now.start.raw(), now.offset.raw()) == want
            });
        }
        self.query(at).ok().flatten().is_some_and(|now| {
            now.inode == mapping.inode
                && (now.dev_major, now.dev_minor) == mapping.dev
                && (now.flags & QUERY_EXECUTABLE != 0) == mapping.perms.execute
                && now.flags & QUERY_WRITABLE == 0
                && place(now.start, now.offset) == want
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;
    const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

    /// Six pages between guards, of which the third and the fourth are a mapping of their own;
    /// `None` where the kernel refuses.
    fn guarded(flags: i32) -> Option<u64> {
        let len = 8 * PAGE;
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let at = unsafe { libc::mmap(core::ptr::null_mut(), len, libc::PROT_NONE, PRIVATE, -1, 0) };
        let inner = at.wrapping_byte_add(PAGE);
        let (usable, fixed) = (libc::PROT_READ | libc::PROT_WRITE, flags | libc::MAP_FIXED);
        // SAFETY: the inner part of that mapping, which nobody uses.
        let made = at != libc::MAP_FAILED && unsafe { libc::mmap(inner, 6 * PAGE, usable, fixed, -1, 0) } == inner;
        // SAFETY: two pages of it, which become a mapping of their own; their contents stay.
        let split = unsafe { libc::madvise(inner.wrapping_byte_add(2 * PAGE), 2 * PAGE, libc::MADV_DONTDUMP) } == 0;
        (made && split).then(|| u64::try_from(inner.addr()).ok())?
    }

    /// Another memory that is shared, in place of one page.
    fn replaced(at: RuntimeAddr) {
        let page = core::ptr::without_provenance_mut(usize::try_from(at.raw()).unwrap());
        let (usable, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a page of a mapping that the test made, and that nobody uses.
        assert_eq!(unsafe { libc::mmap(page, PAGE, usable, flags | libc::MAP_FIXED, -1, 0) }, page);
    }

    #[test]
    fn a_stack_of_several_mappings_is_one_and_ends_at_its_guards() {
        let process = Process::open(std::process::id().cast_signed()).unwrap();
        for flags in [PRIVATE, libc::MAP_SHARED | libc::MAP_ANONYMOUS] {
            let start = guarded(flags).unwrap();
            let at = |page: u64| RuntimeAddr::new(start + page * 4096);
            let whole = Some(Span { start: at(0), end: at(6) });
            let mut space = Space::open(&process).unwrap();
            for all_of_maps in [false, true] {
                space.answers &= !all_of_maps;
                space.refresh(&process, &Limits::default()).unwrap();
                let (low, high) = (space.at(at(1)).unwrap(), space.at(at(5)).unwrap());
                assert_eq!(low.span, Span { start: at(0), end: at(2) });
                assert_eq!(high.span, Span { start: at(4), end: at(6) });
                assert_eq!(space.upwards(low, at(5), 1 << 20), whole);
                assert_eq!(space.downwards(high, 1 << 20), whole);
                // As far as the anchor, as far as is looked at, and not over a guard.
                assert_eq!(space.upwards(low, at(1), 1 << 20), Some(low.span));
                assert_eq!(space.upwards(low, at(5), 1).unwrap().end, at(2));
                assert_eq!(space.upwards(low, at(100), 1 << 20), whole);
            }
        }
    }

    #[test]
    fn where_a_stack_may_go_on_in_other_memory_nobody_says_where_it_ends() {
        let process = Process::open(std::process::id().cast_signed()).unwrap();
        for flags in [PRIVATE, libc::MAP_SHARED | libc::MAP_ANONYMOUS] {
            let start = guarded(flags).unwrap();
            let at = |page: u64| RuntimeAddr::new(start + page * 4096);
            replaced(at(4));
            let mut space = Space::open(&process).unwrap();
            for all_of_maps in [false, true] {
                space.answers &= !all_of_maps;
                space.refresh(&process, &Limits::default()).unwrap();
                let (low, other, high) = (space.at(at(1)).unwrap(), space.at(at(4)).unwrap(), space.at(at(5)).unwrap());
                assert_eq!(space.upwards(low, at(100), 1 << 20), None);
                assert_eq!(space.upwards(low, at(3), 1 << 20).map(|stack| stack.end), Some(at(4)));
                assert_eq!(space.upwards(other, at(4), 1 << 20), Some(other.span));
                assert_eq!(space.downwards(other, 1 << 20), None);
                assert_eq!(space.downwards(high, 1 << 20), None);
            }
        }
    }
}
