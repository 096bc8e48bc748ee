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
    Scan { span: usize, at: RuntimeAddr },
    Unwind { frame: Box<Frame>, depth: usize, last_cfa: u64, want: Option<RuntimeAddr> },
    Done(Option<Finding>),
}

/// Decides whether one thread is inside a replaced function.
pub struct ThreadCheck<'a> {
    forbidden: &'a Forbidden,
    images: &'a [UnwindTablesOf<'a>],
    thread: &'a Thread,
    max_frames: usize,
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
            state: State::Done(None),
            suspicious: None,
            memory: Memory::default(),
        };
        check.state = match forbidden.executing(at) {
            Some(function) => State::Done(Some(check.finding(function, FindingKind::Executing { at }))),
            None => check.scan_from(0),
        };
        for &word in &thread.registers.general {
            check.suspect(word);
        }
        check
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
                State::Unwind { want: Some(at), .. } => {
                    return Step::ReadMemory { at: *at, len_bytes: LINE_BYTES };
                }
                State::Unwind { want: None, .. } => self.unwind(),
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
                    self.state = State::Done(Some(Finding {
                        function: String::new(),
                        kind: FindingKind::Unreadable { at: here },
                    }));
                    return;
                }
                let len = u64::try_from(words.len()).unwrap_or(0).saturating_mul(8);
                *at = RuntimeAddr::new(here.raw().saturating_add(len));
                for word in words {
                    self.suspect(u64::from_le_bytes(*word));
                }
            }
            State::Unwind { want, .. } => match want.take() {
                Some(at) if u64::try_from(bytes.len()) == Ok(LINE_BYTES) => self.memory.insert(at, bytes),
                _ => self.state = State::Done(self.maybe()),
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
        let registers = self.thread.registers;
        let frame = Frame { pc: registers.instruction_pointer, exact: true, registers: registers.general.map(Some) };
        State::Unwind { frame: Box::new(frame), depth: 0, last_cfa: 0, want: None }
    }

    fn unwind(&mut self) {
        let State::Unwind { frame, depth, last_cfa, want } = &mut self.state else { return };
        if let Some(function) = self.forbidden.executing(frame.lookup()) {
            let at = frame.pc;
            let kind = FindingKind::Frame { at };
            self.state = State::Done(Some(self.finding(function, kind)));
            return;
        }
        if *depth >= self.max_frames {
            self.state = State::Done(self.maybe());
            return;
        }
        match step(frame, self.images, &self.memory) {
            Ok(Unwound::Caller(caller)) => {
                *last_cfa = caller.registers.get(RSP).copied().flatten().unwrap_or(0);
                *depth = depth.saturating_add(1);
                *frame = caller;
            }
            Ok(Unwound::Outermost) => {
                let stack_pointer = frame.registers.get(RSP).copied().flatten().unwrap_or(*last_cfa);
                let home = self.thread.own_stack.is_some_and(|own| own.contains(stack_pointer));
                self.state = State::Done(if home { None } else { self.maybe() });
            }
            Err(Stop::Memory(missing)) => *want = Some(missing.0),
            Err(Stop::Unproven) => self.state = State::Done(self.maybe()),
        }
    }

    fn maybe(&self) -> Option<Finding> {
        let (function, word) = self.suspicious?;
        Some(self.finding(function, FindingKind::MaybeFrame { at: RuntimeAddr::new(word) }))
    }

    fn finding(&self, function: usize, kind: FindingKind) -> Finding {
        Finding { function: self.forbidden.function_name(function).to_owned(), kind }
    }
}

#[cfg(test)]
#[path = "thread_tests.rs"]
mod tests;
