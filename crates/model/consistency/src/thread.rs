//! The check of one thread, as a state machine that asks for memory.

use crate::forbidden::Forbidden;
use crate::memory::{LINE_BYTES, Memory};
use crate::tables::UnwindTablesOf;
use crate::unwind::{Frame, RSP, Stop, Unwound, step};
use salve_elf::RuntimeAddr;

/// Bytes of stack asked for at once.
const CHUNK_BYTES: u64 = 64 << 10;

/// General registers in DWARF's order (psABI figure 3.36), and the instruction pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    pub general: [u64; 16],
    pub instruction_pointer: RuntimeAddr,
}

impl Registers {
    pub fn stack_pointer(&self) -> RuntimeAddr {
        RuntimeAddr::new(self.general.get(RSP).copied().unwrap_or(0))
    }
}

/// A run of memory, `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: RuntimeAddr,
    pub end: RuntimeAddr,
}

impl Span {
    fn contains(&self, at: u64) -> bool {
        self.start.raw() <= at && at <= self.end.raw()
    }
}

/// A stopped thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    pub tid: i32,
    pub registers: Registers,
    /// All memory that may hold its frames: from below the stack pointer (less the
    /// red zone) to the stack's end, and, when it runs on another stack than its
    /// own, all of its own as well. Starts are multiples of eight.
    pub live: Vec<Span>,
    /// The thread's own stack. A chain of frames is only complete when it ends there.
    pub own_stack: Option<Span>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub function: String,
    pub kind: FindingKind,
    /// Where the thread comes out of the replaced functions, if strict unwinding shows it and
    /// it was asked for.
    pub leaves_to: Option<RuntimeAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// The instruction pointer is inside.
    Executing { at: RuntimeAddr },
    /// A frame of a complete chain is inside.
    Frame { at: RuntimeAddr },
    /// A word lies inside, and no complete chain of frames proves that it is stale.
    MaybeFrame { at: RuntimeAddr },
    /// The memory could not be read.
    Unreadable { at: RuntimeAddr },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Hand these bytes to [`ThreadCheck::provide`].
    ReadMemory { at: RuntimeAddr, len_bytes: u64 },
    /// `None`: the thread uses no replaced function.
    Done(Option<Finding>),
}

enum State {
    Scan {
        span: usize,
        at: RuntimeAddr,
    },
    Unwind(Walk),
    /// It was found; where does it come out?
    Leave {
        finding: Finding,
        walk: Walk,
        until: usize,
    },
    Done(Option<Finding>),
}

/// A way along the frames of a thread, outwards.
struct Walk {
    frame: Box<Frame>,
    depth: usize,
    last_cfa: u64,
    want: Option<RuntimeAddr>,
}

enum Walked {
    On,
    Outermost { stack_pointer: u64 },
    Lost,
}

impl Walk {
    fn of(registers: &Registers) -> Self {
        let general = registers.general.map(Some);
        let frame = Frame { pc: registers.instruction_pointer, exact: true, registers: general };
        Self { frame: Box::new(frame), depth: 0, last_cfa: 0, want: None }
    }

    /// One frame further, or what memory that takes.
    fn step(&mut self, images: &[UnwindTablesOf<'_>], memory: &Memory, max_frames: usize) -> Walked {
        if self.depth >= max_frames {
            return Walked::Lost;
        }
        let stack_pointer = |frame: &Frame| frame.registers.get(RSP).copied().flatten();
        match step(&self.frame, images, memory) {
            Ok(Unwound::Caller(caller)) => {
                self.last_cfa = stack_pointer(&caller).unwrap_or(0);
                self.depth = self.depth.saturating_add(1);
                self.frame = caller;
                Walked::On
            }
            Ok(Unwound::Outermost) => {
                Walked::Outermost { stack_pointer: stack_pointer(&self.frame).unwrap_or(self.last_cfa) }
            }
            Err(Stop::Memory(missing)) => {
                self.want = Some(missing.0);
                Walked::On
            }
            Err(Stop::Unproven) => Walked::Lost,
        }
    }
}

/// Decides whether one thread is inside a replaced function.
pub struct ThreadCheck<'a> {
    forbidden: &'a Forbidden,
    images: &'a [UnwindTablesOf<'a>],
    thread: &'a Thread,
    max_frames: usize,
    /// Frames behind a finding that are looked at for where the thread comes out.
    leave_frames: usize,
    state: State,
    /// The first suspicious word: function and word.
    suspicious: Option<(usize, u64)>,
    memory: Memory,
}

impl<'a> ThreadCheck<'a> {
    pub fn new(
        forbidden: &'a Forbidden,
        images: &'a [UnwindTablesOf<'a>],
        thread: &'a Thread,
        max_frames: usize,
    ) -> Self {
        let at = thread.registers.instruction_pointer;
        let mut check = Self {
            forbidden,
            images,
            thread,
            max_frames,
            leave_frames: 0,
            state: State::Done(None),
            suspicious: None,
            memory: Memory::default(),
        };
        check.state = match forbidden.executing(at) {
            Some(function) => {
                let finding = check.finding(function, FindingKind::Executing { at });
                State::Leave { finding, walk: Walk::of(&thread.registers), until: 0 }
            }
            None => check.scan_from(0),
        };
        for &word in &thread.registers.general {
            check.suspect(word);
        }
        check
    }

    /// Also finds [`Finding::leaves_to`], looking so many frames further.
    #[must_use]
    pub fn telling_where_it_leaves(mut self, leave_frames: usize) -> Self {
        self.leave_frames = leave_frames;
        self
    }

    pub fn poll(&mut self) -> Step {
        loop {
            match &mut self.state {
                State::Done(finding) => return Step::Done(finding.clone()),
                State::Scan { span, at } => {
                    let end = self.thread.live.get(*span).map_or(*at, |span| span.end);
                    let left = end.raw().saturating_sub(at.raw()) & !7;
                    if left > 0 {
                        return Step::ReadMemory { at: *at, len_bytes: left.min(CHUNK_BYTES) };
                    }
                    let next = span.saturating_add(1);
                    self.state = self.scan_from(next);
                }
                State::Unwind(Walk { want: Some(at), .. }) | State::Leave { walk: Walk { want: Some(at), .. }, .. } => {
                    return Step::ReadMemory { at: *at, len_bytes: LINE_BYTES };
                }
                State::Unwind(_) => self.unwind(),
                State::Leave { .. } => self.leave(),
            }
        }
    }

    /// The bytes that [`Self::poll`] asked for; fewer mean that the rest cannot be read.
    pub fn provide(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Done(_) => {}
            State::Scan { at, .. } => {
                let here = *at;
                let (words, _) = bytes.as_chunks::<8>();
                if words.is_empty() {
                    let kind = FindingKind::Unreadable { at: here };
                    self.state = State::Done(Some(Finding { function: String::new(), kind, leaves_to: None }));
                    return;
                }
                let len = u64::try_from(words.len()).unwrap_or(0).saturating_mul(8);
                *at = RuntimeAddr::new(here.raw().saturating_add(len));
                for word in words {
                    self.suspect(u64::from_le_bytes(*word));
                }
            }
            State::Unwind(walk) | State::Leave { walk, .. } => match walk.want.take() {
                Some(at) if u64::try_from(bytes.len()) == Ok(LINE_BYTES) => self.memory.insert(at, bytes),
                _ => self.lost(),
            },
        }
    }

    fn suspect(&mut self, word: u64) {
        if self.suspicious.is_none()
            && let Some(function) = self.forbidden.word(word)
        {
            self.suspicious = Some((function, word));
        }
    }

    /// The scan of the next span, or what follows the last.
    fn scan_from(&self, span: usize) -> State {
        if let Some(next) = self.thread.live.get(span) {
            return State::Scan { span, at: next.start };
        }
        if self.suspicious.is_none() {
            return State::Done(None);
        }
        State::Unwind(Walk::of(&self.thread.registers))
    }

    fn unwind(&mut self) {
        let State::Unwind(walk) = &mut self.state else { return };
        if let Some(function) = self.forbidden.executing(walk.frame.lookup()) {
            let kind = FindingKind::Frame { at: walk.frame.pc };
            let finding = self.finding(function, kind);
            if let State::Unwind(walk) = core::mem::replace(&mut self.state, State::Done(None)) {
                let until = walk.depth;
                self.state = State::Leave { finding, walk, until };
            }
            return;
        }
        match walk.step(self.images, &self.memory, self.max_frames) {
            Walked::On => {}
            Walked::Outermost { stack_pointer } => {
                let home = self.thread.own_stack.is_some_and(|own| own.contains(stack_pointer));
                self.state = State::Done(if home { None } else { self.maybe() });
            }
            Walked::Lost => self.lost(),
        }
    }

    /// From a frame that was found to the first that is in no replaced function again, and on:
    /// the last such is where it is out of all of them.
    fn leave(&mut self) {
        let State::Leave { finding, walk, until } = &mut self.state else { return };
        if self.forbidden.executing(walk.frame.lookup()).is_some() {
            finding.leaves_to = None;
        } else if finding.leaves_to.is_none() {
            finding.leaves_to = Some(walk.frame.pc);
        }
        match walk.step(self.images, &self.memory, until.saturating_add(self.leave_frames)) {
            Walked::On => {}
            Walked::Outermost { .. } | Walked::Lost => self.lost(),
        }
    }

    /// The walk ends here.
    fn lost(&mut self) {
        self.state = State::Done(match core::mem::replace(&mut self.state, State::Done(None)) {
            State::Leave { finding, .. } => Some(finding),
            _ => self.maybe(),
        });
    }

    fn maybe(&self) -> Option<Finding> {
        let (function, word) = self.suspicious?;
        Some(self.finding(function, FindingKind::MaybeFrame { at: RuntimeAddr::new(word) }))
    }

    fn finding(&self, function: usize, kind: FindingKind) -> Finding {
        Finding { function: self.forbidden.function_name(function).to_owned(), kind, leaves_to: None }
    }
}

#[cfg(test)]
#[path = "thread_tests.rs"]
mod tests;
