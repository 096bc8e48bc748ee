//! All writes of a transition, made by a thread of the target itself.
//!
//! With every thread stopped and everything checked, one thread is sent through a table
//! of `pwrite64` to the target's own memory. From the moment its registers are set all
//! writes are made, whatever becomes of this program; before that, none is. One that
//! fails makes the thread take back what it did. So no mixture of old and new stays
//! behind (ADR 0015).
//!
//! If this program dies in that moment the kernel lets all other threads go, which might
//! then run into a jump that is half written. So they are sent to gates first, each with a
//! copy of its own, where they wait until the writes are done, and go home by themselves.
//! While this program lives, no gate is ever run.

use crate::Errno;
use crate::home::{self, CODE_SEGMENT_64};
use crate::memory::Memory;
use crate::outcome::{Committed, Lost, NotApplied, WriteFault};
use crate::process::{Process, Seccomp};
use crate::program::{Descriptor, Else, Program, Row};
use crate::remote::{PWRITE, Prepared, RemoteError, bell, repeats_by_syscall, restart_of};
use crate::spot::Bytes;
use crate::stop::{Held, HeldThread, Sent};
use crate::stub::{Bell, GATE_BYTES, assemble_gate, furnish};
use crate::sys;
use crate::workshop::{STATE_AT, Workshop, ZERO_AT};
use crate::write::{Act, Write, undo, write};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use libc::user_regs_struct;

/// How often a thread at a gate gives its processor away before it goes home anyway: a
/// quarter of a millisecond where nobody else wants it. Where many do each turn is long,
/// for this thread as for the one that it waits for; so the number is kept small.
const YIELDS: u64 = 512;
/// The same for one that may make no calls, and waits a handful of cycles a turn.
const PAUSES: u64 = 200_000;
/// Old and new bytes of one write.
const PAIR_BYTES: u64 = 16;
/// How long the writes may take: there is no way back, and the machine may be busy.
const RUN_LIMIT: Duration = Duration::from_secs(5);

/// A transition's writes, laid out in the target.
pub(crate) struct Commit<'a> {
    workshop: &'a Workshop<'a>,
    program: Program,
    /// No thread could make them in the end, and this program did.
    by_salve: AtomicBool,
    /// Threads with a system call filter, and whether all others are known to have none.
    filtered: Vec<i32>,
    all_unfiltered: bool,
    /// How each thread can tell that it is done.
    bells: Vec<(i32, Bell)>,
    /// Gates to be copied: one that makes calls, one that makes none.
    gates: ([u8; GATE_BYTES], [u8; GATE_BYTES]),
}

/// Rows that the program needs.
pub(crate) fn rows(writes: usize) -> usize {
    writes.saturating_mul(2).saturating_add(4)
}

/// Bytes behind the table.
pub(crate) fn data_bytes(writes: usize) -> u64 {
    u64::try_from(writes).unwrap_or(u64::MAX).saturating_mul(PAIR_BYTES)
}

/// Gates for so many threads, and for those that come to be meanwhile.
pub(crate) fn gates(threads: usize) -> usize {
    if threads > 1 { threads.saturating_mul(2).saturating_add(30) } else { 0 }
}

pub(crate) fn gates_bytes(gates: usize) -> u64 {
    let bytes = u64::try_from(gates.saturating_mul(GATE_BYTES)).unwrap_or(u64::MAX);
    bytes.checked_next_multiple_of(crate::image::PAGE_BYTES).unwrap_or(u64::MAX)
}

/// The calls that will be made, for filters to be judged by.
pub(crate) fn likely_calls() -> [Row; 1] {
    [Row::new(PWRITE, [3, 0x2a5a_0000_0000, 5, 0x5555_5555_0000, 0, 0])]
}

/// Gives the target its own copies of the pages that will be written, by writing what is
/// there: so no page is allocated while everything stands.
pub(crate) fn copy_pages(memory: &Memory, writes: &[Write]) -> Result<(), NotApplied> {
    for write in writes {
        let now = write.expected.now(|into| memory.read_exact(write.at, into).is_ok()).ok_or(NotApplied::Exited)?;
        if now != write.expected {
            return Ok(());
        }
        memory.write(write.at, &now).map_err(|errno| match errno.0 {
            libc::EIO | libc::EPERM | libc::EACCES => NotApplied::TextWriteForbidden,
            _ => NotApplied::Exited,
        })?;
    }
    Ok(())
}

impl<'a> Commit<'a> {
    /// Lays out everything that can be laid out before the stop.
    pub(crate) fn prepare(
        workshop: &'a Workshop<'a>,
        process: &Process,
        writes: &[Write],
    ) -> Result<Option<Self>, RemoteError> {
        let Some(file) = workshop.memory_now().map(Descriptor::Is) else { return Ok(None) };
        let count = writes.len();
        let data_at = crate::workshop::TABLE_AT.wrapping_add(Program::len_bytes(rows(count)));
        let bytes_at = |index: usize, half: u64| {
            let into = data_bytes(index).wrapping_add(half);
            workshop.word(data_at.wrapping_add(into)).raw()
        };
        let put = |index: usize, half: u64, write: &Write| {
            Row::new(PWRITE, [0, bytes_at(index, half), count_of(write), write.at.raw(), 0, 0]).of(file)
        };
        let mut program = Program::default();
        // What comes behind the writes: one row, then the way back for each.
        let back = |index: usize| {
            Else::Row(count.saturating_add(1).saturating_add(count.saturating_sub(1).saturating_sub(index)))
        };
        for (index, write) in writes.iter().enumerate() {
            program.push(Row { wants: count_of(write), otherwise: back(index), ..put(index, 8, write) });
        }
        let state = workshop.word(STATE_AT).raw();
        let clear = Row::new(PWRITE, [0, workshop.word(ZERO_AT).raw(), 8, state, 0, 0]).of(file);
        let clear = Row { wants: 8, otherwise: Else::Next, ..clear };
        // No result is wanted: the table ends here.
        program.push(Row { wants: 1, otherwise: Else::End, ..clear });
        for (index, write) in writes.iter().enumerate().rev() {
            program.push(Row { wants: count_of(write), otherwise: Else::Next, ..put(index, 0, write) });
        }
        program.push(clear);
        let mut data = Vec::new();
        for write in writes {
            for bytes in [write.expected, write.new] {
                data.extend_from_slice(&bytes.padded());
            }
        }
        workshop.write(data_at, &data)?;
        workshop.write(crate::workshop::TABLE_AT, &program.table(workshop.table_at()))?;
        let Threads { filtered, all_unfiltered, bells } = threads(workshop, process);
        if let Some((at, len_bytes)) = workshop.gates {
            // The pages of the gates, too, are the target's own before it is stopped.
            let nothing = vec![0xcc; usize::try_from(len_bytes).unwrap_or(0)];
            workshop.target.memory.write(at, &nothing).map_err(crate::remote::forbidden)?;
        }
        Ok(Some(Self {
            workshop,
            program,
            by_salve: AtomicBool::new(false),
            filtered,
            all_unfiltered,
            bells,
            gates: (assemble_gate(true), assemble_gate(false)),
        }))
    }

    /// All writes, read back; or none.
    pub(crate) fn run(&self, process: &Process, memory: &Memory, writes: &[Write], held: &mut Held) -> Result<(), Act> {
        // All threads stand: what the descriptor is now it is until they go on.
        let own = self.workshop.memory_now().is_some();
        let Some((chosen, mut prepared)) = self.choose(process, memory, held).filter(|_| own) else {
            self.by_salve.store(true, Ordering::Relaxed);
            return write(memory, writes);
        };
        let slot = &self.workshop.slot;
        let gone = |_: Errno| Act::Not(NotApplied::Exited);
        let bell = self.bells.iter().find(|(tid, _)| *tid == chosen).map(|(_, bell)| *bell);
        memory.write(slot.at, &prepared.stub(slot.at, bell)).map_err(gone)?;
        self.close_gates(memory, held, chosen).map_err(gone)?;
        memory.write(self.workshop.word(STATE_AT), &1_u64.to_le_bytes()).map_err(gone)?;
        let tid = chosen;
        let astray = || {
            let why = "it did not come to the end of its writes in time".to_owned();
            Act::Lost(Lost::BorrowedThread { tid, why })
        };
        let sent = prepared.send(slot.at, self.workshop.table_at()).map_err(|errno| match errno.0 {
            libc::ESRCH => gone(errno),
            _ => astray(),
        })?;
        let state_at = self.workshop.word(STATE_AT);
        let done = || memory.word(state_at).is_ok_and(|word| word == 0);
        let driven = sent.drive(None, &done, RUN_LIMIT);
        if let Some(thread) = held.threads.iter_mut().find(|thread| thread.tid == tid) {
            thread.sent = Sent::Back;
        }
        let driven = match driven {
            Ok(driven) => driven,
            // It went home by itself and ended, before anybody looked.
            Err(RemoteError::Gone) if done() => {
                memory.write(slot.at, &slot.original).map_err(|_| Act::Lost(Lost::Exited))?;
                return verify(memory, writes, Errno::EIO);
            }
            Err(RemoteError::Gone) => return Err(Act::Lost(Lost::Exited)),
            Err(RemoteError::Lost(why)) => return Err(Act::Lost(why)),
            Err(_) => return Err(astray()),
        };
        let errno = driven.caught().map_or(Errno::EIO, error_of);
        driven.restore().map_err(|error| match error {
            RemoteError::Lost(why) => Act::Lost(why),
            _gone => Act::Lost(Lost::Exited),
        })?;
        memory.write(slot.at, &slot.original).map_err(|_| Act::Lost(Lost::Exited))?;
        verify(memory, writes, errno)
    }

    /// Who made the writes, or was to make them.
    pub(crate) fn by(commit: Option<&Self>) -> Committed {
        match commit {
            Some(commit) if !commit.by_salve.load(Ordering::Relaxed) => Committed::ByTarget,
            _ => Committed::BySalve,
        }
    }

    /// The thread that makes the writes: one that runs, if there is one.
    fn choose(&self, process: &Process, memory: &Memory, held: &Held) -> Option<(i32, Prepared)> {
        let in_user_space =
            |thread: &&HeldThread| thread.registers.is_some_and(|registers| registers.orig_rax.cast_signed() < 0);
        let running = held.threads.iter().filter(in_user_space);
        let others = held.threads.iter().filter(|thread| !in_user_space(thread));
        running.chain(others).find_map(|thread| {
            let prepared = Prepared::of(process, memory, thread.tid, thread.registers.as_ref()?).ok()?;
            prepared.judge(self.workshop.slot.at, self.program.rows.iter()).ok()?;
            Some((thread.tid, prepared))
        })
    }

    /// Sends every other thread to a gate of its own.
    fn close_gates(&self, memory: &Memory, held: &mut Held, chosen: i32) -> Result<(), Errno> {
        let Some((room, len_bytes)) = self.workshop.gates else { return Ok(()) };
        let gate_bytes = u64::try_from(GATE_BYTES).unwrap_or(u64::MAX);
        let count = usize::try_from(len_bytes.checked_div(gate_bytes).unwrap_or(0)).unwrap_or(0);
        let mut sites: Vec<(u64, bool)> = Vec::new();
        let mut code = Vec::with_capacity(held.threads.len().saturating_mul(GATE_BYTES));
        let mut sent: Vec<(usize, user_regs_struct)> = Vec::new();
        for (index, thread) in held.threads.iter().enumerate().filter(|(_, thread)| thread.tid != chosen) {
            let Some(registers) = thread.registers else { continue };
            let elsewhere = registers.cs != CODE_SEGMENT_64 || registers.rip == 0 || home::steps(&registers);
            if sent.len() >= count || elsewhere {
                continue;
            }
            let home = home::home(&at_home(memory, thread.tid, &registers)?);
            if home.repeats && !repeats(memory, &home, &mut sites)? {
                continue;
            }
            let calls = self.all_unfiltered && !self.filtered.contains(&thread.tid);
            let gate = u64::try_from(sent.len()).unwrap_or(0).wrapping_mul(gate_bytes);
            let mut copy = if calls { self.gates.0 } else { self.gates.1 };
            furnish(&mut copy, &home, self.workshop.mask_at(sent.len()));
            code.extend_from_slice(&copy);
            let registers = user_regs_struct {
                rip: room.raw().wrapping_add(gate),
                orig_rax: u64::MAX,
                rbx: self.workshop.word(STATE_AT).raw(),
                r12: if calls { YIELDS } else { PAUSES },
                ..registers
            };
            sent.push((index, registers));
        }
        if !code.is_empty() {
            memory.write(room, &code)?;
        }
        for (index, registers) in sent {
            let Some(thread) = held.threads.get_mut(index) else { continue };
            match sys::set_registers(thread.tid, &registers) {
                Ok(()) => thread.sent = Sent::Away,
                // Killed meanwhile, with its process.
                Err(Errno(libc::ESRCH)) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// What a thread that is let go by our death goes on with. One that was stopped inside a
/// restartable sequence has to begin it anew, and the kernel, which would see to that, does
/// not know it in a gate. No call is made inside of one.
fn at_home(memory: &Memory, tid: i32, registers: &user_regs_struct) -> Result<user_regs_struct, Errno> {
    let in_user_space = registers.orig_rax.cast_signed() < 0;
    let restart = if in_user_space { restart_of(memory, tid, registers.rip)? } else { None };
    Ok(user_regs_struct { rip: restart.unwrap_or(registers.rip), ..*registers })
}

/// Whether a thread repeats its call by a `syscall` instruction; asked once for each place.
fn repeats(memory: &Memory, home: &home::Home, sites: &mut Vec<(u64, bool)>) -> Result<bool, Errno> {
    let at = home.registers.rip;
    if let Some((_, known)) = sites.iter().find(|(site, _)| *site == at) {
        return Ok(*known);
    }
    let repeats = repeats_by_syscall(memory, home)?;
    sites.push((at, repeats));
    Ok(repeats)
}

fn error_of(registers: &user_regs_struct) -> Errno {
    i32::try_from(registers.r12.cast_signed().saturating_neg())
        .ok()
        .filter(|code| (1..4096).contains(code))
        .map_or(Errno::EIO, Errno)
}

/// What the thread left behind: all that is new, or all that was there before.
fn verify(memory: &Memory, writes: &[Write], errno: Errno) -> Result<(), Act> {
    let mut near = memory.near();
    let now: Vec<Option<Bytes>> =
        writes.iter().map(|write| write.new.now(|into| near.read_into(write.at, into).is_ok())).collect();
    let Some((at, _)) = writes
        .iter()
        .map(|write| write.at)
        .zip(&now)
        .zip(writes)
        .find_map(|((at, now), write)| (*now != Some(write.new)).then_some((at, now)))
    else {
        return Ok(());
    };
    if now.iter().all(Option::is_none) {
        return Err(Act::Lost(Lost::Exited));
    }
    undo(memory, writes)?;
    Err(Act::RolledBack(WriteFault::Write { at, errno }))
}

fn count_of(write: &Write) -> u64 {
    u64::try_from(write.new.len()).unwrap_or(0)
}

/// What is known of the threads before they are stopped.
#[derive(Default)]
struct Threads {
    filtered: Vec<i32>,
    all_unfiltered: bool,
    bells: Vec<(i32, Bell)>,
}

fn threads(workshop: &Workshop<'_>, process: &Process) -> Threads {
    let Ok(tids) = process.threads(workshop.target.limits) else { return Threads::default() };
    let mut known = Threads { all_unfiltered: true, ..Threads::default() };
    for tid in tids {
        let status = match process.status(Some(tid)) {
            Ok(status) => status,
            Err(crate::ReadError::Exited) => continue,
            Err(_) => return Threads { all_unfiltered: false, ..known },
        };
        match status.seccomp() {
            Ok(Seccomp::Off) => {}
            Ok(Seccomp::Filter | Seccomp::Strict) => known.filtered.push(tid),
            Err(_) => known.all_unfiltered = false,
        }
        known.bells.extend(bell(&status).map(|bell| (tid, bell)));
    }
    known
}
