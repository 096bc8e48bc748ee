//! Looking at threads, asleep or stopped, for calls that a stop cuts short.

use super::call::{Amount, Call, Cut, Kind, kind};
use super::notes::Asleep;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::open_file::{self, Kind as File, Socket};
use crate::outcome::BlockingReason;
use crate::process::{Process, ReadError};
use crate::stop::HeldThread;
use crate::transition::Blocked;
use core::fmt;
use libc::user_regs_struct;
use salve_elf::RuntimeAddr;

/// `pipe(7)`: so many bytes are written to a pipe at once or not at all.
const PIPE_BUF: u64 = 4096;
/// `MAX_RW_COUNT` of `include/linux/fs.h`: no call moves more.
const MOST_BYTES: u64 = 0x7fff_f000;
const VECTOR_BYTES: u64 = 16;
/// `recvmmsg(2)`, which makes the next call of its socket fail with the kernel's own code.
const RECVMMSG: u64 = 299;

/// A system call, and how much it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub call: &'static str,
    pub amount: Option<u64>,
    /// What `amount` counts: `bytes`, `messages`, `events`.
    pub unit: &'static str,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.amount {
            Some(amount) => write!(f, "{} of {amount} {}", self.call, self.unit),
            None => f.write_str(self.call),
        }
    }
}

/// A call that came back with less than it was asked for when its thread was stopped. It may
/// have done so without that as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutShort {
    pub tid: i32,
    /// The thread's name (`/proc/PID/task/TID/comm`).
    pub comm: String,
    pub asked: Asked,
    pub done: u64,
}

impl fmt::Display for CutShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tid, comm, asked, done } = self;
        write!(f, "thread {tid} ({comm}) was stopped in a {asked}, which came back with {done}")
    }
}

/// The threads of a process that sleep in such a call, or did lately and run now; none where
/// calls may be cut short. Those that stand already are past theirs.
pub(crate) fn find(
    process: &Process,
    memory: &Memory,
    limits: &Limits,
    standing: &[HeldThread],
) -> Result<Vec<Blocked>, ReadError> {
    if limits.may_cut_transfers {
        return Ok(Vec::new());
    }
    let stands = |tid: i32| standing.iter().any(|thread| thread.tid == tid && thread.registers.is_some());
    let blocked = |tid: i32| {
        let Asleep { asked, returns_to } = in_transfer(process, memory, tid)?;
        let (pid, function, why) = (process.pid(), String::new(), BlockingReason::Transfer(asked));
        Some(Blocked { pid, tid, function, why, leaves_to: vec![returns_to] })
    };
    Ok(process.threads(limits)?.into_iter().filter(|tid| !stands(*tid)).filter_map(blocked).collect())
}

/// The same of one thread.
pub(crate) fn of_thread(process: &Process, memory: &Memory, limits: &Limits, tid: i32) -> Option<Asked> {
    if limits.may_cut_transfers { None } else { in_transfer(process, memory, tid).map(|asleep| asleep.asked) }
}

/// Whether it sleeps in the call in which it was found.
pub(crate) fn is_still_in(process: &Process, blocked: &Blocked) -> bool {
    let text = process.read_entry(&format!("task/{}/syscall", blocked.tid), "syscall", 512).unwrap_or_default();
    Call::of_entry(&text).is_some_and(|call| blocked.leaves_to.contains(&call.returns_to))
}

/// One that was found in a transfer counts as seen in it now: it was not seen to leave it.
pub(crate) fn keep_in_mind(process: &Process, blocked: &Blocked) {
    if let (BlockingReason::Transfer(asked), Some(returns_to)) = (&blocked.why, blocked.leaves_to.first()) {
        process.notes().saw(blocked.tid, Asleep { asked: *asked, returns_to: *returns_to });
    }
}

enum Seen {
    Transfer(Asleep),
    /// In another call, where it is past any transfer.
    Elsewhere,
    Running,
}

fn in_transfer(process: &Process, memory: &Memory, tid: i32) -> Option<Asleep> {
    match look(process, memory, tid) {
        Seen::Transfer(asleep) => {
            process.notes().saw(tid, asleep);
            Some(asleep)
        }
        Seen::Elsewhere => None,
        Seen::Running => process.notes().lately(tid),
    }
}

fn look(process: &Process, memory: &Memory, tid: i32) -> Seen {
    let text = process.read_entry(&format!("task/{tid}/syscall"), "syscall", 512).unwrap_or_default();
    let Some(call) = Call::of_entry(&text) else {
        return if text.starts_with(b"running") { Seen::Running } else { Seen::Elsewhere };
    };
    let Some(kind) = kind(&call) else { return Seen::Elsewhere };
    let asked = asked(memory, &kind);
    if can_be_cut(process, tid, &kind, asked.amount) {
        Seen::Transfer(Asleep { asked, returns_to: call.returns_to })
    } else {
        Seen::Elsewhere
    }
}

/// Keeps with the process what the stop of this thread has cut short.
pub(crate) fn tell(process: &Process, memory: &Memory, tid: i32, registers: &user_regs_struct) {
    let Some(kind) = Call::of_registers(registers).and_then(|call| kind(&call)) else { return };
    let done = registers.rax;
    if done.cast_signed() <= 0 {
        return;
    }
    let asked = asked(memory, &kind);
    if asked.amount.is_none_or(|asked| done >= asked) {
        return;
    }
    let waits = |file| !open_file::never_waits(tid, file);
    let was_cut = match kind.cut {
        Cut::Running | Cut::Always => true,
        Cut::Writing(file) | Cut::Filling(file) | Cut::IntoSocket(file) => {
            waits(file) && can_be_cut(process, tid, &kind, asked.amount)
        }
        Cut::Reading { file, .. } if open_file::kind(tid, file) == Some(File::Endless) => true,
        Cut::Reading { file, .. } => waits(file) && can_be_cut(process, tid, &kind, asked.amount),
    };
    if !was_cut {
        return;
    }
    if registers.orig_rax == RECVMMSG {
        open_file::forget_interruption(process, tid, registers.rdi);
    }
    process.notes().was_cut_short(CutShort { tid, comm: process.thread_name(tid), asked, done });
}

fn asked(memory: &Memory, kind: &Kind) -> Asked {
    let (amount, unit) = match kind.amount {
        Amount::Bytes(bytes) => (Some(bytes.min(MOST_BYTES)), "bytes"),
        Amount::Vectors { at, count } => (vectors(memory, at, count), "bytes"),
        Amount::Message(at) => (message(memory, at), "bytes"),
        Amount::Messages(count) => (Some(count), "messages"),
        Amount::Events(count) => (Some(count), "events"),
        Amount::None => (None, ""),
    };
    Asked { call: kind.name, amount, unit }
}

/// The lengths of so many `struct iovec`, in all.
fn vectors(memory: &Memory, at: RuntimeAddr, count: u64) -> Option<u64> {
    let mut bytes = vec![0; usize::try_from(count.checked_mul(VECTOR_BYTES)?).ok()?];
    memory.read_exact(at, &mut bytes).ok()?;
    let (words, _) = bytes.as_chunks::<8>();
    let lens = words.iter().skip(1).step_by(2).map(|word| u64::from_le_bytes(*word));
    Some(lens.fold(0, u64::saturating_add).min(MOST_BYTES))
}

/// The same of a `struct msghdr`.
fn message(memory: &Memory, at: RuntimeAddr) -> Option<u64> {
    let vectors_at = memory.word(at.checked_add(16)?).ok()?;
    let count = memory.word(at.checked_add(24)?).ok()?;
    vectors(memory, RuntimeAddr::new(vectors_at), count.min(1024))
}

/// Whether the call can have moved a part of what it was asked for, and no more.
fn can_be_cut(process: &Process, tid: i32, kind: &Kind, amount: Option<u64>) -> bool {
    // What is not known is taken to be much.
    let amount = amount.unwrap_or(u64::MAX);
    let socket = |file| open_file::socket(process, tid, file);
    match kind.cut {
        Cut::Always => true,
        Cut::Running => false,
        Cut::Filling(file) => !open_file::never_waits(tid, file),
        Cut::IntoSocket(file) => open_file::kind(tid, file) == Some(File::Socket),
        Cut::Writing(file) => match open_file::kind(tid, file) {
            Some(File::Pipe) => amount > PIPE_BUF,
            Some(File::Socket) => {
                socket(file).is_none_or(|Socket { stream, whole_bytes, .. }| stream && amount > whole_bytes)
            }
            // A terminal whose output is held, for one.
            Some(File::Device) | None => amount > 1,
            Some(File::Endless | File::Other) => false,
        },
        Cut::Reading { file, all } => match open_file::kind(tid, file) {
            Some(File::Socket) => socket(file)
                .is_none_or(|Socket { stream, low_water, .. }| stream && amount > 1 && (all || low_water > 1)),
            Some(File::Pipe | File::Device | File::Endless | File::Other) => false,
            None => all && amount > 1,
        },
    }
}
