//! Where an interrupted thread goes on, without the kernel's help.

use libc::user_regs_struct;

pub(crate) const RESTART_SYSCALL: u64 = 219;
/// `__USER_CS`: 64-bit code.
pub(crate) const CODE_SEGMENT_64: u64 = 0x33;

/// `X86_EFLAGS_TF`, which the kernel shows where the program itself has set it.
const TRAP_FLAG: u64 = 0x100;

/// Whether a thread traps after each instruction, as it asked for: with its signals blocked,
/// in a stub or in a gate, the first trap would kill its process.
pub(crate) fn steps(registers: &user_regs_struct) -> bool {
    registers.eflags & TRAP_FLAG != 0
}

/// Where a thread goes on, in registers that need no help of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Home {
    pub(crate) registers: user_regs_struct,
    /// The thread repeats its system call: the two bytes before its instruction
    /// pointer have to be `syscall`.
    pub(crate) repeats: bool,
}

/// The kernel's own codes for an interrupted call (`include/linux/errno.h`).
const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;
pub(crate) const ERESTARTNOHAND: i64 = -514;
const ERESTART_RESTARTBLOCK: i64 = -516;
const EINTR: i64 = -4;

/// Calls that return `EINTR` for a stop that no signal caused, and that did
/// nothing before they return it, so that they may be made again.
const INTERRUPTED_FOR_NOTHING: [u64; 17] = [
    232, // epoll_wait
    281, // epoll_pwait
    441, // epoll_pwait2
    128, // rt_sigtimedwait
    65,  // semop
    220, // semtimedop
    45,  // recvfrom, with a receive timeout
    47,  // recvmsg, likewise
    299, // recvmmsg, likewise
    43,  // accept, likewise
    288, // accept4, likewise
    44,  // sendto, with a send timeout
    46,  // sendmsg, likewise
    208, // io_getevents
    333, // io_pgetevents
    69,  // msgsnd
    70,  // msgrcv
];

fn in_system_call(registers: &user_regs_struct) -> bool {
    registers.orig_rax.cast_signed() >= 0
}

/// The registers with which to let a stopped thread go. A call that an interruption
/// alone ended with `EINTR` is marked as the kernel marks one that is repeated
/// unless a handler runs: the kernel then does what is right, signal or no signal.
pub(crate) fn mended(registers: &user_regs_struct) -> Option<user_regs_struct> {
    let interrupted = in_system_call(registers)
        && registers.rax.cast_signed() == EINTR
        && INTERRUPTED_FOR_NOTHING.contains(&registers.orig_rax);
    interrupted.then(|| user_regs_struct { rax: ERESTARTNOHAND.cast_unsigned(), ..*registers })
}

/// The same for a call that the kernel would go on with by `restart_syscall`: made again from
/// the start, with all of its timeout, unless a handler runs.
pub(crate) fn made_again(registers: &user_regs_struct) -> Option<user_regs_struct> {
    let restarts = in_system_call(registers) && registers.rax.cast_signed() == ERESTART_RESTARTBLOCK;
    restarts.then(|| user_regs_struct { rax: ERESTARTNOHAND.cast_unsigned(), ..*registers })
}

/// What the kernel would do on the way back to user space, done in the registers.
pub(crate) fn home(registers: &user_regs_struct) -> Home {
    let registers = mended(registers).unwrap_or(*registers);
    let again = |number| Home {
        registers: user_regs_struct {
            rax: number,
            rip: registers.rip.wrapping_sub(2),
            orig_rax: u64::MAX,
            ..registers
        },
        repeats: true,
    };
    match registers.rax.cast_signed() {
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND if in_system_call(&registers) => again(registers.orig_rax),
        ERESTART_RESTARTBLOCK if in_system_call(&registers) => again(RESTART_SYSCALL),
        _ => Home { registers: user_regs_struct { orig_rax: u64::MAX, ..registers }, repeats: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(orig_rax: i64, rax: i64) -> user_regs_struct {
        // SAFETY: plain integers, for which zero is a value.
        let mut registers: user_regs_struct = unsafe { core::mem::zeroed() };
        (registers.orig_rax, registers.rax, registers.rip) = (orig_rax.cast_unsigned(), rax.cast_unsigned(), 0x1000);
        registers
    }

    #[test]
    fn a_restart_block_goes_home_through_restart_syscall() {
        let home = home(&registers(35, -516));
        assert_eq!((home.registers.rax, home.registers.rip, home.repeats), (219, 0xffe, true));
    }

    #[test]
    fn a_call_that_may_not_be_restarted_is_made_again() {
        let again = made_again(&registers(7, -516)).unwrap();
        assert_eq!((again.rax.cast_signed(), again.orig_rax), (-514, 7));
        assert_eq!(home(&again).registers.rax, 7);
        assert!(made_again(&registers(7, -514)).is_none() && made_again(&registers(-1, -516)).is_none());
    }

    #[test]
    fn a_call_that_is_restarted_goes_home_with_its_own_number() {
        for code in [-512, -513, -514] {
            let home = home(&registers(202, code));
            assert_eq!((home.registers.rax, home.registers.rip), (202, 0xffe));
        }
    }

    #[test]
    fn user_code_goes_home_as_it_was_whatever_is_in_rax() {
        let home = home(&registers(-1, -512));
        assert_eq!((home.registers.rax.cast_signed(), home.registers.rip, home.repeats), (-512, 0x1000, false));
    }

    #[test]
    fn an_epoll_wait_that_an_interruption_ended_is_repeated_and_a_read_is_not() {
        assert_eq!(mended(&registers(232, -4)).map(|r| r.rax.cast_signed()), Some(-514));
        assert!(mended(&registers(0, -4)).is_none());
        assert!(mended(&registers(-1, -4)).is_none());
        assert_eq!(home(&registers(232, -4)).registers.rax, 232);
    }
}
