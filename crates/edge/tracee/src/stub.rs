//! The code that a borrowed thread runs: a list of system calls, and the way home.
//!
//! The stub lies in the unused tail of an r-x page. It works through a table of calls
//! (`program`) from the first to the last, comparing each result with the one that is
//! wanted and going on elsewhere in the table where it differs. Then it sends itself a
//! signal that is ignored, and waits a moment: while this program lives, it catches the
//! thread there and gives it its registers back.
//! If this program is gone, the thread goes on by itself: it restores its signal mask,
//! reloads every register that a call or the stub changes, and jumps to where it was.
//!
//! It uses no stack, changes no flag (`jrcxz`, `loop`, `lea` and `mov` do not), no vector
//! register, and needs no `ret`; so it is harmless at any instruction of the program.
//!
//! The second kind, the gate, holds a thread for as long as a word in memory says that
//! another thread is writing code, and no longer than a number of rounds.
//!
//! Rejected: a signal frame (`rt_sigreturn` forgets a restartable call, seen as
//! `EINTR`), single steps (the trap flag outlives the tracer), `int3`, one call for each
//! stop (the only thread of a process sees every one of them).

use crate::home::Home;
use libc::user_regs_struct;
use salve_elf::RuntimeAddr;

/// Code and data of the stub alone; a table may follow.
pub(crate) const STUB_BYTES: usize = 384;
const _: () = assert!(AFTER_MASK + 12 * 7 + 6 + 8 * (DATA_WORDS as u64) <= STUB_BYTES as u64);
/// Code and data of one gate.
pub(crate) const GATE_BYTES: usize = 320;

const RT_SIGPROCMASK: u8 = 14;
const SCHED_YIELD: u8 = 24;
const PPOLL: u32 = 271;
const TKILL: u8 = 200;
const SIG_BLOCK: u8 = 0;
const SIG_SETMASK: u8 = 2;
/// How long the wait at the end lasts: by the clock, for on a busy machine each round of
/// anything may take as long as everybody else's turns together.
const PARK_NANOSECONDS: u64 = 4_000_000;
/// Rounds of it where a filter forbids that. Each gives the processor away, for it may be the
/// one that this program needs to see that the table is done.
const YIELD_ROUNDS: u32 = 4_096;
/// The same where a filter forbids that as well.
const SPIN_ROUNDS: u32 = 20_000;

/// Words of data behind the code, in this order.
const DATA_WORDS: usize = 17;
const MASK_POINTER: usize = 0;
const HOME: usize = 13;
const MASK: usize = 14;
/// A `struct timespec`.
const PARK: usize = 15;
/// `mov reg, [rip + rel32]` for the words 1 to 12: rax, rdi, rsi, rdx, r10, r8, r9, rcx,
/// r11, rbx, r12, r13.
const LOADS: [[u8; 3]; 12] = [
    [0x48, 0x8b, 0x05],
    [0x48, 0x8b, 0x3d],
    [0x48, 0x8b, 0x35],
    [0x48, 0x8b, 0x15],
    [0x4c, 0x8b, 0x15],
    [0x4c, 0x8b, 0x05],
    [0x4c, 0x8b, 0x0d],
    [0x48, 0x8b, 0x0d],
    [0x4c, 0x8b, 0x1d],
    [0x48, 0x8b, 0x1d],
    [0x4c, 0x8b, 0x25],
    [0x4c, 0x8b, 0x2d],
];

/// One row of a table of calls, in words: number plus one (zero ends the table), address
/// of a 32-bit word that is added to the next word as first argument, second, third and
/// fourth argument, address of a 32-bit word that is the fifth, sixth argument, what to
/// add to the wanted result to get zero, address of the row to go on with where it is not.
pub(crate) const ROW_WORDS: usize = 10;

/// `rbx` holds the row. `r12` gets a result that was not wanted, `r13` its row.
const CALLS: [u8; 76] = [
    0x48, 0x8b, 0x0b, //             0x00 next: mov rcx, [rbx]
    0xe3, 0x47, //                   0x03 jrcxz end
    0x48, 0x8d, 0x41, 0xff, //       0x05 lea rax, [rcx - 1]
    0x48, 0x8b, 0x7b, 0x08, //       0x09 mov rdi, [rbx + 8]
    0x8b, 0x3f, //                   0x0d mov edi, [rdi]
    0x48, 0x8b, 0x4b, 0x10, //       0x0f mov rcx, [rbx + 16]
    0x48, 0x8d, 0x3c, 0x0f, //       0x13 lea rdi, [rdi + rcx]
    0x48, 0x8b, 0x73, 0x18, //       0x17 mov rsi, [rbx + 24]
    0x48, 0x8b, 0x53, 0x20, //       0x1b mov rdx, [rbx + 32]
    0x4c, 0x8b, 0x53, 0x28, //       0x1f mov r10, [rbx + 40]
    0x4c, 0x8b, 0x43, 0x30, //       0x23 mov r8, [rbx + 48]
    0x45, 0x8b, 0x00, //             0x27 mov r8d, [r8]
    0x4c, 0x8b, 0x4b, 0x38, //       0x2a mov r9, [rbx + 56]
    0x0f, 0x05, //                   0x2e syscall
    0x48, 0x8b, 0x4b, 0x40, //       0x30 mov rcx, [rbx + 64]
    0x48, 0x8d, 0x0c, 0x01, //       0x34 lea rcx, [rcx + rax]
    0xe3, 0x0c, //                   0x38 jrcxz wanted
    0x49, 0x89, 0xc4, //             0x3a mov r12, rax
    0x49, 0x89, 0xdd, //             0x3d mov r13, rbx
    0x48, 0x8b, 0x5b, 0x48, //       0x40 mov rbx, [rbx + 72]
    0xeb, 0xba, //                   0x44 jmp next
    0x48, 0x8d, 0x5b, 0x50, //       0x46 wanted: lea rbx, [rbx + 80]
    0xeb, 0xb4, //                   0x4a jmp next
];
/// Behind a call of the table: what a filter sees as the instruction pointer.
pub(crate) const AFTER_CALL: u64 = 0x30;
/// From here on the table is done.
pub(crate) const PARK_AT: u64 = 0x4c;
/// From here on registers are reloaded.
pub(crate) const PARK_END: u64 = PARK_AT + 48;
/// Behind the call that rings.
pub(crate) const AFTER_BELL: u64 = PARK_AT + 17;
/// Behind the call of the wait: `ppoll`, or `sched_yield`.
pub(crate) const AFTER_SLEEP: u64 = AFTER_BELL + 30;
/// See [`AFTER_SLEEP`].
pub(crate) const AFTER_YIELD: u64 = AFTER_BELL + 12;
/// Behind the call that restores the mask.
pub(crate) const AFTER_MASK: u64 = PARK_END + 30;

/// Code with references to the words of data behind it.
#[derive(Default)]
struct Code {
    bytes: Vec<u8>,
    references: Vec<(usize, usize)>,
}

impl Code {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// An instruction that ends in the displacement of a word of the data.
    fn refer(&mut self, opcode: &[u8], word: usize) {
        self.put(opcode);
        self.references.push((self.bytes.len(), word));
        self.put(&[0; 4]);
    }

    /// `mov eax, number; mov edi, how`.
    fn number_and_how(&mut self, how: u8) {
        self.put(&[0xb8, RT_SIGPROCMASK, 0, 0, 0, 0xbf, how, 0, 0, 0]);
    }

    /// So many rounds of seven bytes, in 31.
    fn rounds(&mut self, rounds: u32, round: [u8; 7]) {
        // mov ebx, rounds; next: the round
        self.put(&[0xbb]);
        self.put(&rounds.to_le_bytes());
        self.put(&round);
        // mov rcx, rbx; lea rbx, [rbx - 1]; jrcxz out; jmp next
        self.put(&[0x48, 0x89, 0xd9, 0x48, 0x8d, 0x5b, 0xff, 0xe3, 0x02, 0xeb, 0xee]);
        self.put(&[0x90; 8]);
    }

    fn restore_mask(&mut self) {
        self.number_and_how(SIG_SETMASK);
        self.refer(&[0x48, 0x8b, 0x35], MASK_POINTER);
        // mov edx, 0; mov r10d, 8; syscall
        self.put(&[0xba, 0, 0, 0, 0, 0x41, 0xba, 8, 0, 0, 0, 0x0f, 0x05]);
    }

    fn go_home(&mut self) {
        for (word, load) in (1_usize..).zip(LOADS) {
            self.refer(&load, word);
        }
        // jmp [rip + rel32]
        self.refer(&[0xff, 0x25], HOME);
    }

    /// Code, then data, in `N` bytes; what is left over traps.
    fn finish<const N: usize>(mut self, data: [u64; DATA_WORDS]) -> [u8; N] {
        let data_at = N.saturating_sub(DATA_WORDS.saturating_mul(8));
        self.bytes.resize(data_at, 0xcc);
        for (at, word) in &self.references {
            let to = data_at.saturating_add(word.saturating_mul(8));
            let next = at.saturating_add(4);
            let rel = u32::try_from(to.saturating_sub(next)).unwrap_or(0).to_le_bytes();
            if let Some(field) = self.bytes.get_mut(*at..next) {
                field.copy_from_slice(&rel);
            }
        }
        self.put(data.map(u64::to_le_bytes).as_flattened());
        let mut stub = [0xcc; N];
        for (to, from) in stub.iter_mut().zip(self.bytes) {
            *to = from;
        }
        stub
    }
}

fn data(home: &Home, mask_at: u64, mask: u64) -> [u64; DATA_WORDS] {
    let (seconds, nanoseconds) = (0, PARK_NANOSECONDS);
    let user_regs_struct { rax, rdi, rsi, rdx, r10, r8, r9, rcx, r11, rbx, r12, r13, rip, .. } = home.registers;
    [mask_at, rax, rdi, rsi, rdx, r10, r8, r9, rcx, r11, rbx, r12, r13, rip, mask, seconds, nanoseconds]
}

/// How a thread lets it be known that its table is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// A signal that it sends to itself, and its own number as it knows it. While it is
    /// traced it stops there; if not, the signal is one that is ignored.
    pub(crate) bell: Option<Bell>,
    pub(crate) wait: Wait,
}

/// How it waits to be caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// In `ppoll`, which of all calls with a timeout is the one that leaves alone what the kernel
    /// remembers of a call that it interrupted before.
    Sleeping,
    /// In rounds of `sched_yield`.
    Yielding,
    /// Without a call.
    Spinning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bell {
    pub(crate) signal: i32,
    pub(crate) tid: i32,
}

/// The stub, to lie at `at`, for a thread that goes `home` with `mask`.
pub(crate) fn assemble(at: RuntimeAddr, home: &Home, mask: u64, ending: Ending) -> [u8; STUB_BYTES] {
    let mut code = Code::default();
    code.put(&CALLS);
    match ending.bell {
        // mov eax, 200; mov edi, tid; mov esi, signal; syscall
        Some(Bell { signal, tid }) => {
            code.put(&[0xb8, TKILL, 0, 0, 0, 0xbf]);
            code.put(&tid.to_le_bytes());
            code.put(&[0xbe]);
            code.put(&signal.to_le_bytes());
            code.put(&[0x0f, 0x05]);
        }
        None => code.put(&[0x90; 17]),
    }
    match ending.wait {
        Wait::Sleeping => {
            // mov eax, 271; mov edi, 0; mov esi, 0; lea rdx, [time]; mov r10d, 0; syscall
            code.put(&[0xb8]);
            code.put(&PPOLL.to_le_bytes());
            code.put(&[0xbf, 0, 0, 0, 0, 0xbe, 0, 0, 0, 0]);
            code.refer(&[0x48, 0x8d, 0x15], PARK);
            code.put(&[0x41, 0xba, 0, 0, 0, 0, 0x0f, 0x05, 0x90]);
        }
        Wait::Yielding => code.rounds(YIELD_ROUNDS, [0xb8, SCHED_YIELD, 0, 0, 0, 0x0f, 0x05]),
        // As many bytes of pause.
        Wait::Spinning => code.rounds(SPIN_ROUNDS, [0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90, 0x90]),
    }
    code.restore_mask();
    code.go_home();
    let mask_at = at.raw().wrapping_add(word_at(STUB_BYTES, MASK));
    code.finish(data(home, mask_at, mask))
}

/// What a stub at `at` waits with in `ppoll`.
pub(crate) fn wait_arguments(at: RuntimeAddr) -> [u64; 6] {
    [0, 0, at.raw().wrapping_add(word_at(STUB_BYTES, PARK)), 0, 0, 0]
}

/// Where a word of the data is.
fn word_at(len: usize, word: usize) -> u64 {
    let from_end = DATA_WORDS.saturating_sub(word).saturating_mul(8);
    u64::try_from(len.saturating_sub(from_end)).unwrap_or(0)
}

/// A gate: blocks all signals, waits while the word at `rbx` is not zero and the count
/// in `r12` lasts, restores the mask, which it keeps at `mask_at`, and goes home.
///
/// `calls`: whether it may make system calls. If not, it does no more than wait.
///
/// All gates of a kind are the same code: this one, made beforehand, is given a thread's
/// own data by [`furnish`].
pub(crate) fn assemble_gate(calls: bool) -> [u8; GATE_BYTES] {
    let mut code = Code::default();
    if calls {
        code.number_and_how(SIG_BLOCK);
        code.refer(&[0x48, 0x8d, 0x35], MASK);
        code.refer(&[0x48, 0x8b, 0x15], MASK_POINTER);
        // mov r10d, 8; syscall
        code.put(&[0x41, 0xba, 8, 0, 0, 0, 0x0f, 0x05]);
    }
    // next: mov rcx, [rbx]; jrcxz go; mov rcx, r12; lea r12, [r12 - 1]; jrcxz go
    let (to_go, pause): (u8, &[u8]) =
        if calls { (0x13, &[0xb8, SCHED_YIELD, 0, 0, 0, 0x0f, 0x05]) } else { (0x0e, &[0xf3, 0x90]) };
    code.put(&[0x48, 0x8b, 0x0b, 0xe3, to_go, 0x4c, 0x89, 0xe1, 0x4d, 0x8d, 0x64, 0x24, 0xff]);
    code.put(&[0xe3, to_go.wrapping_sub(10)]);
    code.put(pause);
    // jmp next
    code.put(&[0xeb, if calls { 0xe8 } else { 0xed }]);
    if calls {
        code.restore_mask();
    }
    code.go_home();
    code.finish([0; DATA_WORDS])
}

/// Makes a copy of a gate one for a thread that goes `home`.
pub(crate) fn furnish(gate: &mut [u8; GATE_BYTES], home: &Home, mask_at: RuntimeAddr) {
    const DATA_AT: usize = GATE_BYTES - 8 * DATA_WORDS;
    let (_, room) = gate.split_at_mut(DATA_AT);
    for (to, word) in room.chunks_exact_mut(8).zip(data(home, mask_at.raw(), u64::MAX)) {
        to.copy_from_slice(&word.to_le_bytes());
    }
}

/// Whether `bytes` begin like a stub: one that a killed Salve left behind.
pub(crate) fn looks_like_stub(bytes: &[u8]) -> bool {
    bytes.starts_with(&CALLS)
}

#[cfg(test)]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "offsets of a few hundred bytes"
)]
mod tests {
    use super::*;
    use crate::home::home;

    fn registers() -> user_regs_struct {
        // SAFETY: plain integers, for which zero is a value.
        let mut registers: user_regs_struct = unsafe { core::mem::zeroed() };
        (registers.orig_rax, registers.rax, registers.r11, registers.rip) = (u64::MAX, 7, 11, 0x5555);
        registers
    }

    /// Where each forward and backward jump of eight bits leads, checked against the
    /// starts of instructions.
    fn instruction_starts(code: &[u8], lens: &[usize]) -> Vec<usize> {
        let mut at = 0;
        let mut starts = Vec::new();
        for len in lens {
            starts.push(at);
            at += len;
        }
        assert_eq!(at, code.len());
        starts
    }

    #[test]
    fn jumps_of_the_call_loop_lead_to_instructions() {
        let lens = [3, 2, 4, 4, 2, 4, 4, 4, 4, 4, 4, 3, 4, 2, 4, 4, 2, 3, 3, 4, 2, 4, 2];
        let starts = instruction_starts(&CALLS, &lens);
        let target = |at: usize| (at as i64 + 2 + i64::from(CALLS[at + 1] as i8)) as usize;
        assert_eq!(target(0x03), PARK_AT as usize);
        assert_eq!(target(0x38), 0x46);
        assert_eq!(target(0x44), 0);
        assert_eq!(target(0x4a), 0);
        assert!(starts.contains(&0x46));
        assert_eq!(AFTER_CALL as usize, 0x2e + 2);
    }

    #[test]
    fn displacements_of_the_stub_lead_to_the_data() {
        let at = RuntimeAddr::new(0x10_0000);
        let bell = Some(Bell { signal: 23, tid: 7 });
        for wait in [Wait::Sleeping, Wait::Yielding, Wait::Spinning] {
            let stub = assemble(at, &home(&registers()), 0xabcd, Ending { bell, wait });
            assert!(looks_like_stub(&stub));
            check(at, wait, &stub);
        }
    }

    fn check(at: RuntimeAddr, wait: Wait, stub: &[u8]) {
        let word = |at: usize| u64::from_le_bytes(stub[at..at + 8].try_into().unwrap());
        let rel = |at: usize| u32::from_le_bytes(stub[at..at + 4].try_into().unwrap()) as usize;
        // The wait, then mov rsi, [rip + rel32] behind two instructions of five bytes.
        let mask = PARK_END as usize;
        let after = |offset: u64| &stub[offset as usize - 2..offset as usize];
        match wait {
            Wait::Sleeping => {
                assert_eq!(after(AFTER_SLEEP), [0x0f, 0x05]);
                let time = AFTER_BELL as usize + 15;
                assert_eq!(stub[time..time + 3], [0x48, 0x8d, 0x15]);
                let time = time + 7 + rel(time + 3);
                assert_eq!((word(time), word(time + 8)), (0, PARK_NANOSECONDS));
            }
            Wait::Yielding => assert_eq!(after(AFTER_YIELD), [0x0f, 0x05]),
            Wait::Spinning => assert_eq!(after(AFTER_YIELD), [0x90, 0x90]),
        }
        if wait != Wait::Sleeping {
            // The way out leads behind the jump to the next round, and that to its first byte.
            let out = AFTER_YIELD as usize + 7;
            assert_eq!(stub[out..out + 4], [0xe3, 0x02, 0xeb, 0xee]);
            assert_eq!(out + 4 - 0x12, AFTER_BELL as usize + 5);
            assert_eq!(stub[out + 4..mask], [0x90; 8]);
        }
        assert_eq!(stub[mask + 10..mask + 13], [0x48, 0x8b, 0x35]);
        let pointer = word(mask + 17 + rel(mask + 13));
        assert_eq!(word((pointer - at.raw()) as usize), 0xabcd);
        let loads = AFTER_MASK as usize;
        assert_eq!(stub[loads - 2..loads], [0x0f, 0x05]);
        assert_eq!(word(loads + 7 + rel(loads + 3)), 7);
        let r11 = loads + 7 * 8;
        assert_eq!(word(r11 + 7 + rel(r11 + 3)), 11);
        let jump = loads + 7 * 12;
        assert_eq!(stub[jump..jump + 2], [0xff, 0x25]);
        assert_eq!(word(jump + 6 + rel(jump + 2)), 0x5555);
    }

    #[test]
    fn jumps_of_a_gate_lead_to_its_end_and_its_beginning() {
        for calls in [true, false] {
            let mut gate = assemble_gate(calls);
            furnish(&mut gate, &home(&registers()), RuntimeAddr::new(0x77));
            let word = |at: usize| u64::from_le_bytes(gate[at..at + 8].try_into().unwrap());
            let rel = |at: usize| u32::from_le_bytes(gate[at..at + 4].try_into().unwrap()) as usize;
            let next = if calls { 32 } else { 0 };
            let target = |at: usize| (at as i64 + 2 + i64::from(gate[at + 1] as i8)) as usize;
            let go = if calls { next + 24 } else { next + 19 };
            assert_eq!((gate[next + 3], target(next + 3)), (0xe3, go));
            assert_eq!((gate[next + 13], target(next + 13)), (0xe3, go));
            assert_eq!((gate[go - 2], target(go - 2)), (0xeb, next));
            let first = if calls { 0xb8 } else { 0x48 };
            assert_eq!(gate[go], first);
            let jump = go + if calls { 30 } else { 0 } + 7 * 12;
            assert_eq!(gate[jump..jump + 2], [0xff, 0x25]);
            assert_eq!(word(jump + 6 + rel(jump + 2)), 0x5555);
            if calls {
                // lea rsi, [all signals] and mov rdx, [where the mask is kept].
                assert_eq!(word(17 + rel(13)), u64::MAX);
                assert_eq!(word(24 + rel(20)), 0x77);
            }
        }
    }
}
