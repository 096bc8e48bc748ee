//! The waiting room: instructions that a program runs in the place of its entry
//! until it is released, or by itself after a while.

use super::{LaunchError, Release, memory};
use crate::Patcher;
use crate::memory::Memory;
use crate::process::Process;
use crate::slot::{SLOT_BYTES, slots};
use crate::sys;
use salve_elf::RuntimeAddr;
use std::os::unix::fs::FileExt as _;

/// `getauxval(3)`.
const AT_NULL: u64 = 0;
const AT_BASE: u64 = 7;
const AT_ENTRY: u64 = 9;
/// More arguments and variables than `execve(2)` takes.
const MAX_WORDS: u64 = 4 << 20;

/// Where each part of the code lies; `assemble` and its test agree on them.
const LOOP_AT: usize = 5;
const ENTRY_AT: usize = 46;
const EXIT_AT: usize = 57;
const STATUS_AT: usize = 58;
const NAP_AT: usize = 72;
const ROOM_BYTES: usize = 88;

/// One nap, and how many of them until a program goes on by itself: half a minute.
/// It does so at once when its helper is gone.
const NAP_NS: u64 = 100_000;
const NAPS: u32 = 200_000;

/// Where a process waits, and what was there before.
#[derive(Debug)]
pub(super) struct Room {
    at: RuntimeAddr,
    original: [u8; ROOM_BYTES],
    /// The place of `AT_ENTRY`'s value on the stack.
    entry_at: RuntimeAddr,
    entry: u64,
}

impl Room {
    /// Furnishes one in a process that has executed a program and not run it yet.
    pub(super) fn build(tid: i32, process: &Process, patcher: &Patcher) -> Result<Self, LaunchError> {
        let registers = sys::registers(tid).map_err(LaunchError::Trace)?;
        let memory = memory(process)?;
        let (entry_at, entry) = entry(&memory, RuntimeAddr::new(registers.rsp))?;
        let mappings = process.mappings(patcher.limits())?;
        let images = patcher.found(process, &mappings)?;
        let mut free = None;
        for image in &images {
            let Some(mapping) = image.any_mapping() else { continue };
            let file = process.open_mapped(mapping)?;
            let is_free = |(at, offset): &(RuntimeAddr, u64)| {
                let (mut now, mut original) = ([0; SLOT_BYTES], [0; SLOT_BYTES]);
                // Behind the file's end a page is zero, which `original` is already.
                let read = file.read_at(&mut original, *offset).is_ok();
                read && memory.read_exact(*at, &mut now).is_ok() && now == original
            };
            // Not the first: that is where a borrowed thread is sent.
            free = free.or_else(|| slots(image).into_iter().rev().find(is_free).map(|(at, _)| at));
        }
        let at = free.ok_or(LaunchError::NoRoom)?;
        let mut original = [0; ROOM_BYTES];
        memory.read_exact(at, &mut original).map_err(LaunchError::Memory)?;
        let room = Self { at, original, entry_at, entry };
        memory.write(at, &assemble(entry, helper(process)?)).map_err(LaunchError::Memory)?;
        if let Err(errno) = memory.write(entry_at, &at.raw().to_le_bytes()) {
            let _as_it_was = memory.write(at, &original);
            return Err(LaunchError::Memory(errno));
        }
        Ok(room)
    }

    /// Whether its only thread naps inside.
    pub(super) fn is_occupied(&self, process: &Process) -> bool {
        let pid = process.pid();
        let Ok(text) = process.read_entry(&format!("task/{pid}/syscall"), "syscall", 512) else { return false };
        let text = String::from_utf8_lossy(&text);
        let mut words = text.split_ascii_whitespace();
        let number = words.next().and_then(|word| word.parse::<i64>().ok());
        let rip = words.last().and_then(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
        number == Some(libc::SYS_nanosleep) && rip.is_some_and(|rip| self.holds(rip))
    }

    fn holds(&self, rip: u64) -> bool {
        let room_bytes = u64::try_from(ROOM_BYTES).unwrap_or(u64::MAX);
        rip.checked_sub(self.at.raw()).is_some_and(|into| into < room_bytes)
    }

    /// Sends the stopped thread out, and takes the room away behind it.
    pub(super) fn leave(&self, process: &Process, how: Release) -> Result<(), LaunchError> {
        let pid = process.pid();
        let mut registers = sys::registers(pid).map_err(LaunchError::Trace)?;
        if !self.holds(registers.rip) {
            // It went on by itself, or a signal's handler runs (the program has set none).
            return Err(LaunchError::Late);
        }
        let memory = memory(process)?;
        // No system call is to be started again.
        registers.orig_rax = u64::MAX;
        registers.rax = 0;
        registers.rip = match how {
            Release::Start => self.entry,
            Release::End { status } => {
                memory.write(self.part(STATUS_AT), &u32::from(status).to_le_bytes()).map_err(LaunchError::Memory)?;
                self.part(EXIT_AT).raw()
            }
        };
        memory.write(self.entry_at, &self.entry.to_le_bytes()).map_err(LaunchError::Memory)?;
        sys::set_registers(pid, &registers).map_err(LaunchError::Trace)?;
        match how {
            Release::Start => memory.write(self.at, &self.original).map_err(LaunchError::Memory),
            Release::End { .. } => Ok(()),
        }
    }

    fn part(&self, offset: usize) -> RuntimeAddr {
        RuntimeAddr::new(self.at.raw().wrapping_add(u64::try_from(offset).unwrap_or(0)))
    }
}

/// Makes a stopped thread end its process with its next instruction. What it stands
/// on is overwritten in its own copy of the page: it never runs anything else again.
pub(super) fn end_here(process: &Process, status: u8) -> Result<(), LaunchError> {
    let pid = process.pid();
    let mut registers = sys::registers(pid).map_err(LaunchError::Trace)?;
    let code = [0xbf, status, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];
    memory(process)?.write(RuntimeAddr::new(registers.rip), &code).map_err(LaunchError::Memory)?;
    registers.orig_rax = u64::MAX;
    registers.rax = 0;
    sys::set_registers(pid, &registers).map_err(LaunchError::Trace)
}

/// Finds `AT_ENTRY` on the stack of a program that has just been executed (psABI
/// §3.4.1: argument count, arguments, null, environment, null, auxiliary vector).
fn entry(memory: &Memory, stack: RuntimeAddr) -> Result<(RuntimeAddr, u64), LaunchError> {
    let mut words = Words { memory, next: stack.raw(), left: MAX_WORDS };
    let arguments = words.next()?;
    for _ in 0..arguments {
        words.next()?;
    }
    if words.next()? != 0 {
        return Err(LaunchError::Stack);
    }
    while words.next()? != 0 {}
    let (mut entry, mut interpreter) = (None, 0);
    loop {
        let (kind, at, value) = (words.next()?, words.next, words.next()?);
        match kind {
            AT_NULL => break,
            AT_ENTRY => entry = Some((RuntimeAddr::new(at), value)),
            AT_BASE => interpreter = value,
            _other => {}
        }
    }
    if interpreter == 0 {
        return Err(LaunchError::Static);
    }
    entry.ok_or(LaunchError::Stack)
}

struct Words<'a> {
    memory: &'a Memory,
    next: u64,
    left: u64,
}

impl Words<'_> {
    fn next(&mut self) -> Result<u64, LaunchError> {
        self.left = self.left.checked_sub(1).ok_or(LaunchError::Stack)?;
        let word = self.memory.word(RuntimeAddr::new(self.next)).map_err(|_| LaunchError::Stack)?;
        self.next = self.next.checked_add(8).ok_or(LaunchError::Stack)?;
        Ok(word)
    }
}

/// Whom the room asks for. In another process namespace our number means somebody
/// else or nobody; there it asks for itself, and its time limit is all it has.
fn helper(process: &Process) -> Result<i32, LaunchError> {
    let numbers = process.status(None)?.field("NSpid").map(|line| line.split_ascii_whitespace().count());
    let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let alike = own.map(|line| line.split_ascii_whitespace().count()) == numbers;
    // Zero is the process group of whoever asks: it is there.
    Ok(if alike { i32::try_from(std::process::id()).unwrap_or(0) } else { 0 })
}

/// The code. At a program's entry only `rsp` and `rdx` mean something (psABI §3.4.1);
/// system calls keep both.
fn assemble(entry: u64, helper: i32) -> [u8; ROOM_BYTES] {
    let mut code = [0xcc; ROOM_BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        let end = at.saturating_add(bytes.len());
        if let Some(place) = code.get_mut(at..end) {
            place.copy_from_slice(bytes);
        }
    };
    let [n0, n1, n2, n3] = NAPS.to_le_bytes();
    put(0, &[0xbb, n0, n1, n2, n3]); // mov ebx, NAPS
    let [h0, h1, h2, h3] = helper.to_le_bytes();
    put(LOOP_AT, &[0x48, 0x8d, 0x3d, 60, 0, 0, 0]); // lea rdi, [rip + NAP_AT]
    put(12, &[0x31, 0xf6]); // xor esi, esi
    put(14, &[0xb8, 35, 0, 0, 0]); // mov eax, SYS_nanosleep
    put(19, &[0x0f, 0x05]); // syscall
    put(21, &[0xbf, h0, h1, h2, h3]); // mov edi, HELPER; the second argument is 0 still
    put(26, &[0xb8, 62, 0, 0, 0]); // mov eax, SYS_kill
    put(31, &[0x0f, 0x05]); // syscall
    put(33, &[0x83, 0xf8, 0xfd]); // cmp eax, -ESRCH
    put(36, &[0x74, 0x06]); // je to the entry
    put(38, &[0xff, 0xcb]); // dec ebx
    put(40, &[0x75, 0xdb]); // jnz LOOP_AT
    put(42, &[0x66, 0x90, 0x49, 0xbb]); // nop; mov r11, ENTRY
    put(ENTRY_AT, &entry.to_le_bytes());
    put(54, &[0x41, 0xff, 0xe3]); // jmp r11
    put(EXIT_AT, &[0xbf, 0, 0, 0, 0]); // mov edi, STATUS
    put(62, &[0xb8, 231, 0, 0, 0]); // mov eax, SYS_exit_group
    put(67, &[0x0f, 0x05]); // syscall
    put(NAP_AT, &0_u64.to_le_bytes());
    put(NAP_AT.saturating_add(8), &NAP_NS.to_le_bytes());
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rooms_code_is_what_its_comments_say() {
        let code = assemble(0x1122_3344_5566_7788, 4711);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("room");
        std::fs::write(&file, code).unwrap();
        let mut command = std::process::Command::new("objdump");
        command.args(["-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--no-show-raw-insn"]);
        let text = command.arg(&file).output().unwrap().stdout;
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<String> = text
            .lines()
            .filter_map(|line| line.split_once(":\t"))
            .map(|(at, code)| format!("{}: {}", at.trim(), code.split_whitespace().collect::<Vec<_>>().join(" ")))
            .collect();
        assert_eq!(
            lines[..18],
            [
                "0: mov ebx,0x30d40",
                "5: lea rdi,[rip+0x3c] # 0x48",
                "c: xor esi,esi",
                "e: mov eax,0x23",
                "13: syscall",
                "15: mov edi,0x1267",
                "1a: mov eax,0x3e",
                "1f: syscall",
                "21: cmp eax,0xfffffffd",
                "24: je 0x2c",
                "26: dec ebx",
                "28: jne 0x5",
                "2a: xchg ax,ax",
                "2c: movabs r11,0x1122334455667788",
                "36: jmp r11",
                "39: mov edi,0x0",
                "3e: mov eax,0xe7",
                "43: syscall",
            ]
        );
    }
}
