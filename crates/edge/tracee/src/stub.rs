//! The code that a borrowed thread runs: one system call, and the way home.
//!
//! The stub lies in the unused tail of an r-x page. A thread is pointed at its
//! first instruction with a call's number and arguments in its registers. While
//! this program lives, it catches the thread at the end of the call. If this
//! program is gone, the thread goes on by itself: it restores its signal mask,
//! reloads every register that a system call or the stub changes, and jumps to
//! where it was. It uses no stack, changes no flag, no vector register, and
//! needs no `ret`; so it is harmless at any instruction of the program.
//!
//! Rejected: a signal frame (`rt_sigreturn` forgets a restartable call, seen as
//! `EINTR`), single steps (the trap flag outlives the tracer), `int3`.

use libc::user_regs_struct;

/// Code and data. 96 % of executable segments have that much unused tail.
pub(crate) const STUB_BYTES: usize = 192;
/// The address behind the first `syscall`: where a caught thread stands.
pub(crate) const AFTER_CALL: u64 = 2;
const DATA_AT: usize = 0x68;

const RT_SIGPROCMASK: u8 = 14;
const RESTART_SYSCALL: u64 = 219;

/// `syscall; mov eax, 14; mov edi, SIG_SETMASK; lea rsi, [mask]; mov edx, 0; mov r10d, 8; syscall`.
/// Only `mov` and `lea`: they leave the flags alone.
const CODE: [u8; 0x20] = [
    0x0f,
    0x05, //
    0xb8,
    RT_SIGPROCMASK,
    0,
    0,
    0, //
    0xbf,
    2,
    0,
    0,
    0, //
    0x48,
    0x8d,
    0x35,
    0x55,
    0,
    0,
    0, // 0x13 + 0x55 = DATA_AT
    0xba,
    0,
    0,
    0,
    0, //
    0x41,
    0xba,
    8,
    0,
    0,
    0, //
    0x0f,
    0x05,
];

/// The start of each `mov reg, [rip + rel32]`, in the order of the data:
/// rax, rdi, rsi, rdx, r10, r8, r9, rcx, r11.
const LOADS: [[u8; 3]; 9] = [
    [0x48, 0x8b, 0x05],
    [0x48, 0x8b, 0x3d],
    [0x48, 0x8b, 0x35],
    [0x48, 0x8b, 0x15],
    [0x4c, 0x8b, 0x15],
    [0x4c, 0x8b, 0x05],
    [0x4c, 0x8b, 0x0d],
    [0x48, 0x8b, 0x0d],
    [0x4c, 0x8b, 0x1d],
];

/// Whether `bytes` begin like a stub: one that a killed Salve left behind.
pub(crate) fn looks_like_stub(bytes: &[u8]) -> bool {
    bytes.starts_with(&CODE)
}

/// The stub for a thread that was stopped with `registers` and `mask`.
pub(crate) fn assemble(home: &Home, mask: u64) -> [u8; STUB_BYTES] {
    let registers = &home.registers;
    let data = [
        mask,
        registers.rax,
        registers.rdi,
        registers.rsi,
        registers.rdx,
        registers.r10,
        registers.r8,
        registers.r9,
        registers.rcx,
        registers.r11,
        registers.rip,
    ];
    let mut code = CODE.to_vec();
    // The mask is data word 0, the loads take words 1 to 9, the jump word 10.
    for (word, load) in (1_usize..).zip(LOADS) {
        code.extend_from_slice(&load);
        let rel = relative(code.len(), word);
        code.extend_from_slice(&rel);
    }
    code.extend_from_slice(&[0xff, 0x25]);
    let rel = relative(code.len(), 10);
    code.extend_from_slice(&rel);
    code.resize(DATA_AT, 0xcc);
    code.extend(data.iter().flat_map(|word| word.to_le_bytes()));
    let mut stub = [0xcc; STUB_BYTES];
    for (to, from) in stub.iter_mut().zip(code) {
        *to = from;
    }
    stub
}

/// The displacement, stored at `field_at`, that leads to a word of the data.
fn relative(field_at: usize, word: usize) -> [u8; 4] {
    let to = DATA_AT.saturating_add(word.saturating_mul(8));
    let next = field_at.saturating_add(4);
    u32::try_from(to.saturating_sub(next)).unwrap_or(0).to_le_bytes()
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

    #[test]
    fn displacements_lead_to_the_data() {
        let mut registers = registers(-1, 7);
        (registers.r11, registers.rip) = (11, 0x5555);
        let stub = assemble(&home(&registers), 0xabcd);
        assert!(looks_like_stub(&stub));
        let word = |at: usize| u64::from_le_bytes(stub[at..at + 8].try_into().unwrap());
        // lea rsi, [rip + rel32] at 0x0c: the next instruction is at 0x13.
        let rel = u32::from_le_bytes(stub[0x0f..0x13].try_into().unwrap());
        assert_eq!(word(0x13 + rel as usize), 0xabcd);
        // mov rax at 0x20, mov r11 at 0x20 + 8 * 7, jmp behind it.
        let rel = u32::from_le_bytes(stub[0x23..0x27].try_into().unwrap());
        assert_eq!(word(0x27 + rel as usize), 7);
        let rel = u32::from_le_bytes(stub[0x5b..0x5f].try_into().unwrap());
        assert_eq!(word(0x5f + rel as usize), 11);
        assert_eq!(stub[0x5f..0x61], [0xff, 0x25]);
        let rel = u32::from_le_bytes(stub[0x61..0x65].try_into().unwrap());
        assert_eq!(word(0x65 + rel as usize), 0x5555);
    }
}
