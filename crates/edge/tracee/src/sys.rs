//! `ptrace(2)`, `waitpid(2)` and what else the kernel has to be asked for without a safe
//! wrapper: one unsafe operation each, with typed results.
//!
//! This is all the unsafe code there is, but for a timer (`alarm`) and for breakpoints
//! (`breakpoint`). Every call names a thread by number and
//! hands the kernel pointers to local values only, so no call can break the
//! memory of this program, whatever the number means.

mod compare;
mod follow;
mod memory;
mod own;
mod peek;
mod setup;
mod socket;
mod trace;
mod wait;

pub(crate) use compare::{Shared, order, share};
pub(crate) use follow::{Followed, followed, seize_to_follow};
pub(crate) use memory::{MappingQuery, mapping_at, read_together};
pub(crate) use own::{await_end, be_real_time, end_at_once, fork};
pub(crate) use setup::{BpfInstruction, dispatches_system_calls, is_unfiltered, rseq, seccomp_filter};
pub(crate) use socket::low_water;
pub(crate) use trace::{
    detach, interrupt, listen, registers, resume, seize, set_registers, set_signal_mask, signal_descriptor, signal_mask,
};
pub(crate) use wait::{Event, poll, wait, wait_for_any};

use crate::Errno;
use crate::fault;
use libc::{c_uint, c_void};

type Result<T> = core::result::Result<T, Errno>;

fn check(result: libc::c_long) -> Result<libc::c_long> {
    if result == -1 { Err(Errno::of(&std::io::Error::last_os_error())) } else { Ok(result) }
}

fn plain(request: c_uint, tid: i32, address: usize, data: usize) -> Result<()> {
    fault::step();
    // SAFETY: requests made through here take numbers only; the kernel reads or writes no memory of ours.
    let result = unsafe { libc::ptrace(request, tid, address, data) };
    check(result).map(|_| ())
}

fn with<T>(request: c_uint, tid: i32, address: usize, data: *mut T) -> Result<libc::c_long> {
    fault::step();
    // SAFETY: `data` points to a live local of the type that the request is documented to fill or read.
    let result = unsafe { libc::ptrace(request, tid, address, data.cast::<c_void>()) };
    check(result)
}
