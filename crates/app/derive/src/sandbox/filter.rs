//! The system calls that are left. Everything else kills the process.
//!
//! But for `openat`, which fails: glibc's allocator opens a file in `/proc`
//! (`vm.overcommit_memory`) when it gives memory of a thread back, and does
//! without where it cannot. Refused or killed, nothing is opened.
//!
//! No other call that names a path, a socket, a process or a new descriptor is in
//! the list; memory is never executable; only the channel, standard error and
//! the output can be written to. There is no `clone`: the workers stand before
//! the filter does.

use super::SandboxError;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

type BackendError = seccompiler::BackendError;

/// Needed whatever the arguments.
const FREELY: &[i64] = &[
    // Reading what was handed over.
    libc::SYS_pread64,
    libc::SYS_fstat,
    libc::SYS_close,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_madvise,
    // Threads that are there already.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    // The clock, where the vDSO does not answer, and seeds for hash tables.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    // Refused by the other filter.
    libc::SYS_openat,
    // The end, orderly or not.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Builds the filter and puts every thread of the process under it.
pub(super) fn install(writable: &[i32]) -> Result<(), SandboxError> {
    let own_pid = rustix::process::getpid().as_raw_nonzero().get();
    let built = |program: Result<BpfProgram, _>| program.map_err(|source| SandboxError::BuildFilter { source });
    // Both run on every call, and the stricter answer counts.
    for program in [built(refusals())?, built(program(writable, own_pid))?] {
        seccompiler::apply_filter_all_threads(&program).map_err(|source| SandboxError::InstallFilter { source })?;
    }
    Ok(())
}

/// What fails instead of killing. It has to be allowed by [`program`] to come to that.
fn refusals() -> Result<BpfProgram, BackendError> {
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let rules = BTreeMap::from([(libc::SYS_openat, Vec::new())]);
    SeccompFilter::new(rules, SeccompAction::Allow, refused, TargetArch::x86_64)?.try_into()
}

/// The filter for a process whose id is `own_pid` and that may write to `writable`.
fn program(writable: &[i32], own_pid: i32) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = FREELY.iter().map(|call| (*call, Vec::new())).collect();
    let not_executable = || masked(2, u64::from(libc::PROT_EXEC.cast_unsigned()), 0);
    let anonymous = u64::from(libc::MAP_ANONYMOUS.cast_unsigned());
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![not_executable()?, masked(3, anonymous, anonymous)?])?]);
    rules.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![not_executable()?])?]);
    // A fifth argument, a fixed place, is for nobody who is honest.
    let fixed = u64::from(libc::MREMAP_FIXED.cast_unsigned());
    rules.insert(libc::SYS_mremap, vec![SeccompRule::new(vec![masked(3, fixed, 0)?])?]);
    for call in [libc::SYS_write, libc::SYS_writev, libc::SYS_pwrite64] {
        let to_writable = writable.iter().map(|fd| SeccompRule::new(vec![equal(0, *fd)?])).collect::<Result<_, _>>()?;
        rules.insert(call, to_writable);
    }
    // The standard library asks whether a descriptor is open before it closes it, in debugging builds.
    rules.insert(libc::SYS_fcntl, vec![SeccompRule::new(vec![equal(1, libc::F_GETFD)?])?]);
    // `abort` signals its own thread.
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![equal(0, own_pid)?])?]);
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

fn equal(argument: u8, value: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(value.cast_unsigned()))
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}
