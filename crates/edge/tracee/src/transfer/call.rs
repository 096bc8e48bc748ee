//! Which calls can be cut short, by their numbers and arguments alone.

use libc::user_regs_struct;
use salve_elf::RuntimeAddr;

/// A system call that a thread is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) number: u64,
    pub(super) arguments: [u64; 6],
    /// Where it comes back to user space.
    pub(super) returns_to: RuntimeAddr,
}

impl Call {
    /// Of `proc_pid_syscall(5)`; `None` of a thread that runs, or sleeps in no call.
    pub(super) fn of_entry(text: &[u8]) -> Option<Self> {
        let mut words = core::str::from_utf8(text).ok()?.split_ascii_whitespace();
        let number = words.next()?.parse().ok()?;
        let mut values = words.map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = values.next()??;
        }
        let _stack_pointer = values.next()??;
        Some(Self { number, arguments, returns_to: RuntimeAddr::new(values.next()??) })
    }

    /// Of a thread that was stopped on its way out of it.
    pub(super) fn of_registers(registers: &user_regs_struct) -> Option<Self> {
        (registers.orig_rax.cast_signed() >= 0).then_some(Self {
            number: registers.orig_rax,
            arguments: [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9],
            returns_to: RuntimeAddr::new(registers.rip),
        })
    }
}

/// How much it was asked for, or where in its memory that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    Bytes(u64),
    /// So many `struct iovec`.
    Vectors {
        at: RuntimeAddr,
        count: u64,
    },
    /// A `struct msghdr`.
    Message(RuntimeAddr),
    Messages(u64),
    Events(u64),
    None,
}

/// On what it depends whether it can be cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// What it writes to.
    Writing(u64),
    /// What it reads from, and whether it waits for all of it.
    Reading {
        file: u64,
        all: bool,
    },
    /// Not where this never makes anybody wait.
    Filling(u64),
    /// Where this is a socket: otherwise it gives what there is.
    IntoSocket(u64),
    Always,
    /// It does not sleep, and so is seen too late only.
    Running,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) amount: Amount,
    pub(super) cut: Cut,
}

const MSG_DONTWAIT: u64 = 0x40;
const MSG_WAITALL: u64 = 0x100;
const MSG_WAITFORONE: u64 = 0x1_0000;
const SPLICE_F_NONBLOCK: u64 = 2;
/// `UIO_MAXIOV`: as many vectors or messages are looked at.
const MOST: u64 = 1024;
/// `getrandom(2)`: so much comes whole.
const RANDOM_BYTES: u64 = 256;

/// What it is, if it can be cut short at all.
pub(super) fn kind(call: &Call) -> Option<Kind> {
    let [file, second, third, fourth, fifth, sixth] = call.arguments;
    let kind = |name, amount, cut| Some(Kind { name, amount, cut });
    let vectors = Amount::Vectors { at: RuntimeAddr::new(second), count: third.min(MOST) };
    let message = Amount::Message(RuntimeAddr::new(second));
    let reading = Cut::Reading { file, all: false };
    let receiving = |flags: u64| Cut::Reading { file, all: flags & MSG_WAITALL != 0 };
    let several = |count: u64| (count & u64::from(u32::MAX)).min(MOST);
    match call.number {
        0 => kind("read", Amount::Bytes(third), reading),
        19 => kind("readv", vectors, reading),
        327 => kind("preadv2", vectors, reading),
        1 => kind("write", Amount::Bytes(third), Cut::Writing(file)),
        20 => kind("writev", vectors, Cut::Writing(file)),
        328 => kind("pwritev2", vectors, Cut::Writing(file)),
        44 if fourth & MSG_DONTWAIT == 0 => kind("sendto", Amount::Bytes(third), Cut::Writing(file)),
        46 if third & MSG_DONTWAIT == 0 => kind("sendmsg", message, Cut::Writing(file)),
        307 if fourth & MSG_DONTWAIT == 0 && several(third) > 1 => {
            kind("sendmmsg", Amount::Messages(several(third)), Cut::Filling(file))
        }
        45 if fourth & MSG_DONTWAIT == 0 => kind("recvfrom", Amount::Bytes(third), receiving(fourth)),
        47 if third & MSG_DONTWAIT == 0 => kind("recvmsg", message, receiving(third)),
        299 if fourth & (MSG_DONTWAIT | MSG_WAITFORONE) == 0 && several(third) > 1 => {
            kind("recvmmsg", Amount::Messages(several(third)), Cut::Filling(file))
        }
        40 => kind("sendfile", Amount::Bytes(fourth), Cut::Filling(file)),
        275 if sixth & SPLICE_F_NONBLOCK == 0 => kind("splice", Amount::Bytes(fifth), Cut::IntoSocket(third)),
        326 => kind("copy_file_range", Amount::Bytes(fifth), Cut::Always),
        318 if second > RANDOM_BYTES => kind("getrandom", Amount::Bytes(second), Cut::Running),
        208 if second > 1 => kind("io_getevents", Amount::Events(second), Cut::Always),
        333 if second > 1 => kind("io_pgetevents", Amount::Events(second), Cut::Always),
        // Only of a socket that lingers, which cannot be seen any more.
        3 => kind("close", Amount::None, Cut::Always),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_as_the_kernel_tells_it() {
        let text = b"1 0x5 0x7f00 0x80000 0x0 0x1 0xffff 0x7ffd1000 0x7f1234\n";
        let call = Call::of_entry(text).unwrap();
        assert_eq!((call.number, call.arguments), (1, [5, 0x7f00, 0x80000, 0, 1, 0xffff]));
        assert_eq!(call.returns_to, RuntimeAddr::new(0x007f_1234));
        for text in
            [&b"running\n"[..], b"-1 0x7ffd1000 0x7f1234\n", b"1 0x5 0x7f00\n", b"", b"\xff", b"1 5 6 7 8 9 10 11 12"]
        {
            assert_eq!(Call::of_entry(text), None);
        }
    }

    fn cut(number: u64, arguments: [u64; 6]) -> Option<(Amount, Cut)> {
        let call = Call { number, arguments, returns_to: RuntimeAddr::new(0) };
        kind(&call).map(|kind| (kind.amount, kind.cut))
    }

    #[test]
    fn who_need_not_wait_or_takes_what_there_is_cannot_be_cut_short() {
        assert_eq!(cut(44, [3, 0, 9, 0, 0, 0]), Some((Amount::Bytes(9), Cut::Writing(3))));
        assert_eq!(cut(44, [3, 0, 9, 0x40, 0, 0]), None);
        assert_eq!(cut(45, [3, 0, 9, 0x100, 0, 0]), Some((Amount::Bytes(9), Cut::Reading { file: 3, all: true })));
        assert_eq!(cut(299, [3, 0, 4, 0, 0, 0]), Some((Amount::Messages(4), Cut::Filling(3))));
        assert_eq!(cut(299, [3, 0, 1, 0, 0, 0]), None);
        assert_eq!(cut(299, [3, 0, 4, 0x1_0000, 0, 0]), None);
        assert_eq!(cut(275, [3, 0, 4, 0, 9, 0]), Some((Amount::Bytes(9), Cut::IntoSocket(4))));
        assert_eq!(cut(275, [3, 0, 4, 0, 9, 2]), None);
        assert_eq!(cut(208, [3, 1, 4, 0, 0, 0]), None);
        assert_eq!(cut(318, [0, 256, 0, 0, 0, 0]), None);
        assert_eq!(cut(232, [3, 0, 9, 0, 0, 0]), None);
    }
}
