//! A stopped thread: whether it may be sent away, with which stub, and sending it.

use super::bell::bit;
use super::calls::{PPOLL, RT_SIGPROCMASK, SCHED_YIELD, Sys, TKILL};
use super::{RemoteError, restart_of};
use crate::Errno;
use crate::drive::Sent;
use crate::home::{self, CODE_SEGMENT_64, Home};
use crate::memory::Memory;
use crate::outcome::{BlockingReason, NotApplied};
use crate::process::{Process, Seccomp};
use crate::program::Row;
use crate::seccomp::{self, Call};
use crate::stub::{self, AFTER_BELL, AFTER_CALL, AFTER_MASK, AFTER_SLEEP, AFTER_YIELD, Bell, Ending, Wait};
use crate::sys::{self, BpfInstruction, Shared};
use libc::user_regs_struct;
use salve_elf::RuntimeAddr;

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
        if home::steps(registers) {
            return Err(RemoteError::Late { tid, why: BlockingReason::Stepping });
        }
        if registers.rip == 0 && registers.rsp == 0 {
            return unsuitable("it is a worker of the kernel");
        }
        if !has_descriptors_of(process, tid) {
            return unsuitable("it has other descriptors than the first thread");
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
        let allows = |call, arguments, after| self.judge_one(call, arguments, at.raw().wrapping_add(after)).is_ok();
        let sleeps = allows(PPOLL, stub::wait_arguments(at), AFTER_SLEEP);
        let wait = match (sleeps, allows(SCHED_YIELD, [0; 6], AFTER_YIELD)) {
            (true, _) => Wait::Sleeping,
            (false, true) => Wait::Yielding,
            (false, false) => Wait::Spinning,
        };
        // A signal that the thread blocks may be waited for by others.
        self.bell = bell.filter(|bell| {
            let arguments = [u64::from(bell.tid.cast_unsigned()), u64::from(bell.signal.cast_unsigned()), 0, 0, 0, 0];
            self.mask & bit(bell.signal) == 0
                && self.judge_one(TKILL, arguments, at.raw().wrapping_add(AFTER_BELL)).is_ok()
        });
        stub::assemble(at, &self.home, self.mask, Ending { bell: self.bell, wait })
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

/// Whether a thread has the descriptors that `/proc/PID/fd` shows, the first thread's: one that
/// called `unshare(2)` has others under the same numbers. Where the kernel does not tell, only
/// the first thread is known to.
pub(super) fn has_descriptors_of(process: &Process, tid: i32) -> bool {
    let leader = process.pid();
    tid == leader || sys::share(Shared::Descriptors, leader, tid).unwrap_or(false)
}

pub(crate) fn repeats_by_syscall(memory: &Memory, home: &Home) -> Result<bool, Errno> {
    let mut instruction = [0; 2];
    memory.read_exact(RuntimeAddr::new(home.registers.rip), &mut instruction)?;
    Ok(instruction == [0x0f, 0x05])
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
