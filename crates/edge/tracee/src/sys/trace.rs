//! Becoming a thread's tracer, stopping it, its registers and its signals, letting it go.

use super::{Result, plain, with};
use core::mem::MaybeUninit;
use libc::{c_int, user_regs_struct};

/// Attaches without stopping. No option that outlives or ends with this program's death
/// in a way that a target notices: only the mark on system call stops.
pub(crate) fn seize(tid: i32) -> Result<()> {
    plain(libc::PTRACE_SEIZE, tid, 0, usize::try_from(libc::PTRACE_O_TRACESYSGOOD).unwrap_or(1))
}

pub(crate) fn interrupt(tid: i32) -> Result<()> {
    plain(libc::PTRACE_INTERRUPT, tid, 0, 0)
}

pub(crate) fn resume(tid: i32, signal: c_int) -> Result<()> {
    plain(libc::PTRACE_CONT, tid, 0, usize::try_from(signal).unwrap_or(0))
}

/// Leaves a thread in the stop of its whole process.
pub(crate) fn listen(tid: i32) -> Result<()> {
    plain(libc::PTRACE_LISTEN, tid, 0, 0)
}

pub(crate) fn detach(tid: i32) -> Result<()> {
    plain(libc::PTRACE_DETACH, tid, 0, 0)
}

pub(crate) fn registers(tid: i32) -> Result<user_regs_struct> {
    let mut registers = MaybeUninit::<user_regs_struct>::zeroed();
    with(libc::PTRACE_GETREGS, tid, 0, registers.as_mut_ptr())?;
    // SAFETY: the kernel filled it, and it is plain integers that were zero before.
    Ok(unsafe { registers.assume_init() })
}

pub(crate) fn set_registers(tid: i32, registers: &user_regs_struct) -> Result<()> {
    let mut copy = *registers;
    with(libc::PTRACE_SETREGS, tid, 0, &raw mut copy).map(|_| ())
}

/// `siginfo_t` as far as it says which descriptor a signal is about (`sigaction(2)`).
#[derive(Clone, Copy)]
#[repr(C)]
struct SignalInfo {
    signal: c_int,
    errno: c_int,
    code: c_int,
    pad: c_int,
    band: libc::c_long,
    descriptor: c_int,
    rest: [c_int; 25],
}

const _: () = assert!(size_of::<SignalInfo>() == size_of::<libc::siginfo_t>());
/// The highest of the codes that say what happened to a descriptor, `POLL_HUP`.
const LAST_DESCRIPTOR_CODE: c_int = 6;

/// The descriptor of this program that the signal before which a thread stands is about.
pub(crate) fn signal_descriptor(tid: i32) -> Result<Option<c_int>> {
    let mut info = MaybeUninit::<SignalInfo>::zeroed();
    with(libc::PTRACE_GETSIGINFO, tid, 0, info.as_mut_ptr())?;
    // SAFETY: the kernel filled it, and it is plain integers that were zero before.
    let info = unsafe { info.assume_init() };
    Ok((1..=LAST_DESCRIPTOR_CODE).contains(&info.code).then_some(info.descriptor))
}

pub(crate) fn signal_mask(tid: i32) -> Result<u64> {
    let mut mask = 0_u64;
    with(libc::PTRACE_GETSIGMASK, tid, size_of::<u64>(), &raw mut mask)?;
    Ok(mask)
}

pub(crate) fn set_signal_mask(tid: i32, mask: u64) -> Result<()> {
    let mut mask = mask;
    with(libc::PTRACE_SETSIGMASK, tid, size_of::<u64>(), &raw mut mask).map(|_| ())
}
