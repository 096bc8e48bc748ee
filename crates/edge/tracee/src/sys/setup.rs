//! What a stopped thread has arranged with the kernel: restartable sequences, system calls
//! that are dispatched to itself, filters.

use super::{Result, plain, with};
use crate::Errno;
use libc::c_uint;

/// Missing in the C library's headers (`include/uapi/linux/ptrace.h`).
const PTRACE_SECCOMP_GET_FILTER: c_uint = 0x420c;
const PTRACE_GET_RSEQ_CONFIGURATION: c_uint = 0x420f;
const PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG: c_uint = 0x4211;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct RseqConfiguration {
    pub(crate) pointer: u64,
    pub(crate) size: u32,
    pub(crate) signature: u32,
    flags: u32,
    pad: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct UserDispatch {
    mode: u64,
    selector: u64,
    offset: u64,
    len: u64,
}

/// One instruction of classic BPF (`struct sock_filter`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct BpfInstruction {
    pub(crate) code: u16,
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) k: u32,
}

/// `Ok(None)` where the kernel knows no such request (before Linux 5.13).
pub(crate) fn rseq(tid: i32) -> Result<Option<RseqConfiguration>> {
    let mut configuration = RseqConfiguration::default();
    match with(PTRACE_GET_RSEQ_CONFIGURATION, tid, size_of::<RseqConfiguration>(), &raw mut configuration) {
        Ok(_) => Ok(Some(configuration)),
        Err(Errno(libc::EIO | libc::EINVAL)) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Whether system calls may be turned into signals (`PR_SET_SYSCALL_USER_DISPATCH`).
pub(crate) fn dispatches_system_calls(tid: i32) -> Result<bool> {
    let mut dispatch = UserDispatch::default();
    match with(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, size_of::<UserDispatch>(), &raw mut dispatch) {
        Ok(_) => Ok(dispatch.mode != 0),
        // The request is as old as Linux 6.4. Before, it cannot be asked; such a thread would
        // get a SIGSYS at its own handler, which is what it asked for.
        Err(Errno(libc::EIO | libc::EINVAL)) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Whether the thread is in no filter mode; `None` where the kernel does not tell
/// (it tells only those who may administer the system).
pub(crate) fn is_unfiltered(tid: i32) -> Option<bool> {
    match plain(PTRACE_SECCOMP_GET_FILTER, tid, 0, 0) {
        Ok(()) => Some(false),
        Err(Errno(libc::EINVAL)) => Some(true),
        Err(_) => None,
    }
}

/// The `index`-th filter, the newest first; `None` behind the last.
pub(crate) fn seccomp_filter(tid: i32, index: usize) -> Result<Option<Vec<BpfInstruction>>> {
    // BPF_MAXINSNS is 4096; the kernel writes no more than the length it tells.
    let mut program = vec![BpfInstruction::default(); 4096];
    match with(PTRACE_SECCOMP_GET_FILTER, tid, index, program.as_mut_ptr()) {
        Ok(len) => {
            program.truncate(usize::try_from(len).unwrap_or(0));
            Ok(Some(program))
        }
        Err(Errno(libc::ENOENT)) => Ok(None),
        Err(other) => Err(other),
    }
}
