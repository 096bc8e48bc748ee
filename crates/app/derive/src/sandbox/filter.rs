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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails to set up has failed")]
mod tests {
    //! Runs the finished filters on system calls, as the kernel would.

    use super::*;
    use seccompiler::sock_filter;

    const OWN_PID: i32 = 4242;
    const OUTPUT: i32 = 7;
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    const AUDIT_ARCH_I386: u32 = 0x4000_0003;

    /// What the kernel does about a call: the strictest of the filters' answers (seccomp(2)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Answer {
        Allow,
        Errno(u32),
        Kill,
    }

    fn answer(call: i64, arguments: [u64; 6]) -> Answer {
        answer_on(AUDIT_ARCH_X86_64, call, arguments)
    }

    fn answer_on(arch: u32, call: i64, arguments: [u64; 6]) -> Answer {
        let programs = [refusals().unwrap(), program(&[0, 2, OUTPUT], OWN_PID).unwrap()];
        let answers = programs.map(|program| interpret(&program, arch, call, arguments));
        match answers {
            [Answer::Kill, _] | [_, Answer::Kill] => Answer::Kill,
            [Answer::Errno(errno), _] | [_, Answer::Errno(errno)] => Answer::Errno(errno),
            [Answer::Allow, Answer::Allow] => Answer::Allow,
        }
    }

    /// `struct seccomp_data`: call, architecture, instruction pointer, six arguments.
    fn data(arch: u32, call: i64, arguments: [u64; 6]) -> Vec<u8> {
        let mut bytes = u32::try_from(call).unwrap().to_le_bytes().to_vec();
        bytes.extend(arch.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        for argument in arguments {
            bytes.extend(argument.to_le_bytes());
        }
        bytes
    }

    /// The part of classic BPF that the compiler emits; anything else fails the test.
    fn interpret(program: &[sock_filter], arch: u32, call: i64, arguments: [u64; 6]) -> Answer {
        let data = data(arch, call, arguments);
        let (mut accumulator, mut at) = (0_u32, 0_usize);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
            match step.code {
                // BPF_LD | BPF_W | BPF_ABS
                0x20 => {
                    let from = step.k as usize;
                    accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
                }
                // BPF_ALU | BPF_AND | BPF_K
                0x54 => accumulator &= step.k,
                // BPF_JMP | BPF_JA
                0x05 => at += step.k as usize,
                // BPF_JMP | BPF_JEQ | BPF_K, JGT, JGE
                0x15 => at += jump(accumulator == step.k),
                0x25 => at += jump(accumulator > step.k),
                0x35 => at += jump(accumulator >= step.k),
                // BPF_RET | BPF_K
                0x06 => {
                    return match step.k & 0xffff_0000 {
                        libc::SECCOMP_RET_ALLOW => Answer::Allow,
                        libc::SECCOMP_RET_ERRNO => Answer::Errno(step.k & 0xffff),
                        libc::SECCOMP_RET_KILL_PROCESS => Answer::Kill,
                        other => unreachable!("action {other:#x}"),
                    };
                }
                other => unreachable!("instruction {other:#x}"),
            }
        }
    }

    fn with(index: usize, value: i32) -> [u64; 6] {
        let mut arguments = [0; 6];
        arguments[index] = u64::from(value.cast_unsigned());
        arguments
    }

    #[test]
    fn every_call_that_is_not_listed_kills() {
        let judged_by_arguments = [
            libc::SYS_mmap,
            libc::SYS_mprotect,
            libc::SYS_mremap,
            libc::SYS_write,
            libc::SYS_writev,
            libc::SYS_pwrite64,
            libc::SYS_fcntl,
            libc::SYS_tgkill,
        ];
        // Past the last call of any kernel, and the same numbers of the x32 ABI.
        for call in (0..1024).chain(0x4000_0000..0x4000_0400) {
            if judged_by_arguments.contains(&call) {
                continue;
            }
            let expected = match call {
                libc::SYS_openat => Answer::Errno(1),
                listed if FREELY.contains(&listed) => Answer::Allow,
                _ => Answer::Kill,
            };
            assert_eq!(answer(call, [0; 6]), expected, "system call {call}");
        }
    }

    #[test]
    fn nothing_that_reaches_out_is_listed() {
        let reach_out = [
            libc::SYS_open,
            libc::SYS_openat2,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_sendmsg,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_kill,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_getfd,
            libc::SYS_io_uring_setup,
            libc::SYS_memfd_create,
            libc::SYS_prctl,
            libc::SYS_seccomp,
            libc::SYS_bpf,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_ioctl,
            libc::SYS_dup,
            libc::SYS_setresuid,
            libc::SYS_prlimit64,
            libc::SYS_unlinkat,
            libc::SYS_ftruncate,
        ];
        for call in reach_out {
            assert_eq!(answer(call, [0; 6]), Answer::Kill, "system call {call}");
        }
    }

    #[test]
    fn calls_of_another_architecture_kill() {
        // 3 is `close` for x86-64 and `read` for i386.
        assert_eq!(answer_on(AUDIT_ARCH_X86_64, 3, [0; 6]), Answer::Allow);
        assert_eq!(answer_on(AUDIT_ARCH_I386, 3, [0; 6]), Answer::Kill);
    }

    #[test]
    fn only_the_channel_the_errors_and_the_output_can_be_written_to() {
        for call in [libc::SYS_write, libc::SYS_writev, libc::SYS_pwrite64] {
            for fd in -1..64 {
                let expected = if [0, 2, OUTPUT].contains(&fd) { Answer::Allow } else { Answer::Kill };
                assert_eq!(answer(call, with(0, fd)), expected, "call {call} on descriptor {fd}");
            }
        }
    }

    #[test]
    fn memory_is_never_executable_and_never_a_file() {
        let anonymous = u64::from((libc::MAP_ANONYMOUS | libc::MAP_PRIVATE).cast_unsigned());
        for protection in 0..8_u64 {
            let expected = if protection & 4 == 0 { Answer::Allow } else { Answer::Kill };
            assert_eq!(answer(libc::SYS_mmap, [0, 4096, protection, anonymous, 0, 0]), expected);
            assert_eq!(answer(libc::SYS_mprotect, [0, 4096, protection, 0, 0, 0]), expected);
        }
        let file = u64::from(libc::MAP_PRIVATE.cast_unsigned());
        assert_eq!(answer(libc::SYS_mmap, [0, 4096, 1, file, 5, 0]), Answer::Kill);
        let moved = u64::from((libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED).cast_unsigned());
        assert_eq!(answer(libc::SYS_mremap, [0, 4096, 8192, moved, 0, 0]), Answer::Kill);
    }

    #[test]
    fn only_its_own_threads_can_be_signalled() {
        assert_eq!(answer(libc::SYS_tgkill, with(0, OWN_PID)), Answer::Allow);
        assert_eq!(answer(libc::SYS_tgkill, with(0, 1)), Answer::Kill);
        assert_eq!(answer(libc::SYS_fcntl, with(1, libc::F_GETFD)), Answer::Allow);
        assert_eq!(answer(libc::SYS_fcntl, with(1, libc::F_SETFL)), Answer::Kill);
        assert_eq!(answer(libc::SYS_fcntl, with(1, libc::F_DUPFD)), Answer::Kill, "F_DUPFD is 0, F_GETFD is 1");
    }
}
