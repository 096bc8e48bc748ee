//! The moment in which a process changes: stop, check, write, verify, let go.
//!
//! Everything that can be prepared is in the [`Plan`]; while threads are stopped
//! there is no choice left but go or not. Nothing is logged, no file is read but
//! those of `/proc/PID` that were open before.

use crate::Errno;
use crate::commit::Commit;
use crate::limits::Limits;
use crate::look::{Checker, Space, check};
use crate::maps::Mapping;
use crate::memory::Memory;
use crate::outcome::{Blocking, BlockingReason, Lost, NotApplied, WriteFault};
use crate::process::Process;
use crate::stop::{Held, StopError};
use core::time::Duration;
use salve_consistency::{Forbidden, UnwindTablesOf};
use salve_elf::{RuntimeAddr, Va};

pub(crate) const JUMP_BYTES: usize = 5;
/// How long all may be held for the sake of threads that only pass through.
const PATIENCE: Duration = Duration::from_micros(500);

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
    /// Makes the writes inside the target, where there is more than one.
    pub(crate) commit: Option<Commit<'a>>,
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
    let _hurried = crate::wait::hurry();
    let mut held = match Held::stop_all(process, limits) {
        Ok(held) => held,
        Err(error) => return not_stopped(error, limits),
    };
    let mut result = act(process, memory, plan, limits, &mut held, &mut space, &mut chunk);
    while let Err(Act::Blocked(blocking)) = &result {
        let Some(tids) = passing(blocking, &held).filter(|_| held.elapsed() < PATIENCE) else { break };
        match held.nudge(process, limits, &tids) {
            Ok(()) => result = act(process, memory, plan, limits, &mut held, &mut space, &mut chunk),
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
        // Its threads went, and it is there: another program runs in it now.
        (Err(Act::Lost(Lost::Exited)), _) => Tried::Lost(Lost::Executed),
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
    let _hurried = crate::wait::hurry();
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

pub(crate) enum Act {
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
    held: &mut Held,
    space: &mut Space,
    chunk: &mut [u8],
) -> Result<(), Act> {
    // The pidfd and the `/proc` directory are this very process's, whatever its number
    // means by now; the memory is that of the program it ran when it was looked at.
    process.still_there().map_err(|_| Act::Not(NotApplied::Exited))?;
    space.refresh(process, limits).map_err(|_| Act::Not(NotApplied::Exited))?;
    verify(memory, plan, space)?;
    let checker =
        Checker { memory, tables: &plan.tables, main_stack: plan.main_stack, limits, space, pid: process.pid() };
    let mut blocking = Vec::new();
    for thread in &held.threads {
        if let Some(blocked) = check(&checker, &plan.forbidden, thread, chunk) {
            blocking.push(blocked);
        }
    }
    if !blocking.is_empty() {
        return Err(Act::Blocked(blocking));
    }
    match &plan.commit {
        Some(commit) => commit.run(process, memory, &plan.writes, held),
        None => write(memory, &plan.writes),
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
pub(crate) fn write(memory: &Memory, writes: &[Write]) -> Result<(), Act> {
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

pub(crate) fn undo(memory: &Memory, writes: &[Write]) -> Result<(), Act> {
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
