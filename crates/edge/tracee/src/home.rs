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
const INTERRUPTED_FOR_NOTHING: [u64; 23] = [
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
    307, // sendmmsg, likewise, before the first message
    42,  // connect, likewise; made again it goes on with the connection that is under way
    208, // io_getevents
    333, // io_pgetevents
    69,  // msgsnd
    70,  // msgrcv
    426, // io_uring_enter, where it submitted nothing
    23,  // select, where it cannot write down how much of its timeout is left
    270, // pselect6, likewise
    271, // ppoll, likewise
];

/// Calls of which the same is true on a socket that has a timeout, and of other files is not
/// known: a driver may have begun something.
const INTERRUPTED_ON_A_SOCKET: [u64; 8] = [
    0,   // read
    1,   // write
    19,  // readv
    20,  // writev
    327, // preadv2
    328, // pwritev2
    40,  // sendfile
    275, // splice
];

const IOCTL: u64 = 16;
const FALLOCATE: u64 = 285;
const SPLICE: u64 = 275;
/// `FALLOC_FL_COLLAPSE_RANGE` and `_INSERT_RANGE`, which move what lies behind.
const MOVES: u64 = 0x08 | 0x20;
const TCSBRK: u64 = 0x5409;
const SECCOMP_IOCTL_NOTIF_RECV: u64 = 0xc050_2100;

/// Whether nothing was done by a call that returned `EINTR`.
fn did_nothing(registers: &user_regs_struct, is_socket: impl Fn(u64) -> bool) -> bool {
    match registers.orig_rax {
        IOCTL => match registers.rsi & 0xffff_ffff {
            // `tcdrain(3)`; without an argument it sends a break.
            TCSBRK => registers.rdx != 0,
            request => request == SECCOMP_IOCTL_NOTIF_RECV,
        },
        FALLOCATE => registers.rsi & MOVES == 0,
        number if INTERRUPTED_ON_A_SOCKET.contains(&number) => {
            is_socket(registers.rdi) || (number == SPLICE && is_socket(registers.rdx))
        }
        number => INTERRUPTED_FOR_NOTHING.contains(&number),
    }
}

fn in_system_call(registers: &user_regs_struct) -> bool {
    registers.orig_rax.cast_signed() >= 0
}

/// The registers with which to let a stopped thread go. A call that an interruption
/// alone ended with `EINTR` is marked as the kernel marks one that is repeated
/// unless a handler runs: the kernel then does what is right, signal or no signal.
pub(crate) fn mended(registers: &user_regs_struct, is_socket: impl Fn(u64) -> bool) -> Option<user_regs_struct> {
    let interrupted =
        in_system_call(registers) && registers.rax.cast_signed() == EINTR && did_nothing(registers, is_socket);
    interrupted.then(|| user_regs_struct { rax: ERESTARTNOHAND.cast_unsigned(), ..*registers })
}

/// The same for a call that the kernel would go on with by `restart_syscall`: made again from
/// the start, with all of its timeout, unless a handler runs.
pub(crate) fn made_again(registers: &user_regs_struct) -> Option<user_regs_struct> {
    let restarts = in_system_call(registers) && registers.rax.cast_signed() == ERESTART_RESTARTBLOCK;
    (restarts && !goes_on(registers)).then(|| user_regs_struct { rax: ERESTARTNOHAND.cast_unsigned(), ..*registers })
}

/// Whether it was going on with an interrupted call already: only the kernel knows which that was.
pub(crate) fn goes_on(registers: &user_regs_struct) -> bool {
    registers.orig_rax == RESTART_SYSCALL && registers.rax.cast_signed() == ERESTART_RESTARTBLOCK
}

/// What the kernel would do on the way back to user space, done in the registers, which were
/// mended before.
pub(crate) fn home(registers: &user_regs_struct) -> Home {
    let registers = *registers;
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
    fn a_call_with_a_timeout_is_made_again_unless_only_the_kernel_knows_which_it_is() {
        let again = made_again(&registers(35, -516)).unwrap();
        assert_eq!((again.orig_rax, again.rax.cast_signed()), (35, ERESTARTNOHAND));
        let going_on = registers(219, -516);
        assert!(goes_on(&going_on) && made_again(&going_on).is_none());
        assert!(made_again(&registers(35, 0)).is_none() && !goes_on(&registers(219, 0)));
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

    fn mends(registers: &user_regs_struct) -> bool {
        let mended = mended(registers, |descriptor| descriptor == 7);
        assert!(mended.is_none_or(|mended| mended.rax.cast_signed() == -514 && home(&mended).repeats));
        mended.is_some()
    }

    #[test]
    fn a_wait_that_an_interruption_ended_is_repeated_and_an_open_is_not() {
        for call in [232, 42, 307, 426, 23, 270, 271] {
            assert!(mends(&registers(call, -4)), "{call}");
        }
        assert!(!mends(&registers(2, -4)));
        assert!(!mends(&registers(-1, -4)));
        assert!(!mends(&registers(232, 1)));
    }

    #[test]
    fn what_a_read_or_a_write_did_is_known_of_sockets_only() {
        let on = |call, first, third| user_regs_struct { rdi: first, rdx: third, ..registers(call, -4) };
        for call in [0, 1, 19, 20, 327, 328, 40, 275] {
            assert!(mends(&on(call, 7, 8)), "{call}");
            assert!(!mends(&on(call, 8, 8)), "{call}");
        }
        assert!(mends(&on(275, 8, 7)));
        assert!(!mends(&on(1, 8, 7)));
    }

    #[test]
    fn a_call_of_many_kinds_is_repeated_where_its_kind_does_nothing_first() {
        let on = |call, second, third| user_regs_struct { rsi: second, rdx: third, ..registers(call, -4) };
        assert!(mends(&on(16, 0x5409, 1)));
        assert!(!mends(&on(16, 0x5409, 0)));
        assert!(mends(&on(16, 0xffff_ffff_c050_2100, 0x1000)));
        assert!(!mends(&on(16, 0xae80, 0)));
        assert!(mends(&on(285, 0, 0)));
        assert!(!mends(&on(285, 8, 0)));
    }
}
