//! What Salve needs inside a target while it works there: a page or more to write in, and
//! a descriptor of the target's own memory.
//!
//! The workshop is one anonymous mapping, readable and writable, at a random place in a
//! range that nothing else uses; so one that a killed Salve left behind is recognised,
//! and what lies in it says which descriptor belongs to it (`tidy`). It is opened by one
//! borrowing and closed by one, and what comes between takes one borrowing as well.

use crate::descriptors::FileId;
use crate::drive::Meanwhile;
use crate::image::PAGE_BYTES;
use crate::program::{Descriptor, Else, Program, Row};
use crate::remote::{self, CLOSE, Failed, MMAP, MUNMAP, RT_SIGPROCMASK, RemoteError, Sys, Target, Task};
use crate::slot::Slot;
use core::time::Duration;
use salve_elf::RuntimeAddr;

/// Workshops lie in here: far from programs, libraries, heaps and stacks, and from where
/// sanitizers and Go keep their own.
pub(crate) const RANGE: core::ops::Range<u64> = 0x2a5a_0000_0000..0x2b5a_0000_0000;
pub(crate) const MAGIC: &[u8; 16] = b"salve workshop 2";
/// Most descriptors that one message carries.
pub(crate) const MAX_FILES: usize = 64;
pub(crate) const MAX_BYTES: u64 = 64 << 20;

/// Where each thing is. The words that the target's own calls fill come to be non-zero.
pub(crate) const DONE_AT: u64 = 0x10;
/// Not zero while code is being written; gates wait for it.
pub(crate) const STATE_AT: u64 = 0x18;
/// The sockets' first numbers, which nobody uses any more when a program has ended.
pub(crate) const SOCKETS_AT: u64 = 0x20;
/// Stays zero.
pub(crate) const ZERO_AT: u64 = 0x28;
pub(crate) const PROBE_AT: u64 = 0x30;
/// `struct pollfd`.
pub(crate) const POLL_AT: u64 = 0x38;
pub(crate) const MESSAGE_AT: u64 = 0x40;
pub(crate) const VECTOR_AT: u64 = 0x80;
pub(crate) const BYTE_AT: u64 = 0x90;
/// The number of the memory descriptor.
pub(crate) const MEMORY_AT: u64 = 0x98;
pub(crate) const CONTROL_AT: u64 = 0xa0;
/// The first descriptor that came, behind the header of the control message.
pub(crate) const FILES_AT: u64 = CONTROL_AT + 16;
/// `struct timespec`.
pub(crate) const TIME_AT: u64 = 0x1c0;
pub(crate) const TABLE_AT: u64 = 0x200;
const _: () = assert!(FILES_AT + 4 * (MAX_FILES as u64) <= TIME_AT);

/// How much has to fit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    /// Rows of the longest program.
    pub(crate) rows: usize,
    /// Bytes behind the longest table.
    pub(crate) data_bytes: u64,
    /// Threads that may be held at gates.
    pub(crate) gates: usize,
}

impl Sizes {
    fn table_bytes(self) -> u64 {
        Program::len_bytes(self.rows).saturating_add(self.data_bytes).next_multiple_of(8)
    }

    fn len_bytes(self) -> u64 {
        let masks = u64::try_from(self.gates).unwrap_or(u64::MAX).saturating_mul(8);
        let all = TABLE_AT.saturating_add(self.table_bytes()).saturating_add(masks);
        all.checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX)
    }
}

pub(crate) struct Workshop<'a> {
    pub(crate) target: &'a Target<'a>,
    pub(crate) slot: Slot,
    at: RuntimeAddr,
    sizes: Sizes,
    pub(crate) wait: Sys,
    /// The descriptor of its own memory, while it has one: under which number, and which file.
    pub(crate) memory: Option<(i32, FileId)>,
    pub(crate) gates: Option<(RuntimeAddr, u64)>,
    /// The longest time that a thread was borrowed.
    pub(crate) longest: Duration,
}

impl<'a> Workshop<'a> {
    /// Opens one; `later` are calls of later programs, judged before the first call is made.
    /// `wait` is the call by which its programs wait.
    pub(crate) fn open(target: &'a Target<'a>, sizes: Sizes, wait: Sys, later: &[Row]) -> Result<Self, RemoteError> {
        let at = somewhere(sizes.len_bytes())?;
        let slot = Slot::take(target)?;
        let word = |offset: u64| RuntimeAddr::new(at.raw().wrapping_add(offset));
        let mut program = Program::default();
        let protection = (libc::PROT_READ | libc::PROT_WRITE).cast_unsigned();
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE).cast_unsigned();
        let map = [at.raw(), sizes.len_bytes(), u64::from(protection), u64::from(flags), u64::MAX, 0];
        program.push(Row { wants: at.raw(), ..Row::new(MMAP, map) });
        program.push(report(word(DONE_AT)));
        let done = || target.memory.word(word(DONE_AT)).is_ok_and(|word| word != 0);
        let task = Task { program: &program, table: None, tail: None, later, meanwhile: None, done: &done };
        let (ended, held) = remote::run(target, &slot, &task)?;
        if let Err(failed) = ended {
            if failed.row > 0 {
                let _ = unmap_from_slot(target, &slot, at, sizes.len_bytes());
            }
            return Err(failed.error(&program));
        }
        target.memory.write(at, MAGIC).map_err(|_| RemoteError::Gone)?;
        Ok(Self { target, slot, at, sizes, wait, memory: None, gates: None, longest: held })
    }

    pub(crate) fn word(&self, offset: u64) -> RuntimeAddr {
        RuntimeAddr::new(self.at.raw().wrapping_add(offset))
    }

    pub(crate) fn end(&self) -> RuntimeAddr {
        self.word(self.sizes.len_bytes())
    }

    pub(crate) fn table_at(&self) -> RuntimeAddr {
        self.word(TABLE_AT)
    }

    /// Where a gate keeps its thread's mask.
    pub(crate) fn mask_at(&self, gate: usize) -> RuntimeAddr {
        let into = u64::try_from(gate).unwrap_or(0).wrapping_mul(8);
        self.word(TABLE_AT.wrapping_add(self.sizes.table_bytes()).wrapping_add(into))
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), RemoteError> {
        remote::nobody_astray(self.target)?;
        self.target.memory.write(self.word(offset), bytes).map_err(|_| RemoteError::Gone)
    }

    /// The number of the memory descriptor, as long as it stands for that: the target may have
    /// closed it, and opened another file since.
    pub(crate) fn memory_now(&self) -> Option<i32> {
        let (number, file) = self.memory?;
        (FileId::under(self.target.process, number) == Some(file)).then_some(number)
    }

    /// Runs a program to its report.
    pub(crate) fn run(
        &mut self,
        program: &Program,
        meanwhile: Option<&Meanwhile<'_>>,
    ) -> Result<Result<(), Failed>, RemoteError> {
        self.write(DONE_AT, &[0; 8])?;
        self.write(TABLE_AT, &program.table(self.table_at()))?;
        let done_at = self.word(DONE_AT);
        let done = || self.target.memory.word(done_at).is_ok_and(|word| word != 0);
        let task = Task { program, table: Some(self.table_at()), tail: None, later: &[], meanwhile, done: &done };
        let (ended, held) = remote::run(self.target, &self.slot, &task)?;
        self.longest = self.longest.max(held);
        Ok(ended)
    }

    /// Closes it, and unmaps these ranges first: address and length in bytes.
    pub(crate) fn close(self, ranges: &[(RuntimeAddr, u64)]) -> Result<Duration, RemoteError> {
        let mut program = Program::default();
        if let Some(number) = self.memory_now() {
            program.push(Row { otherwise: Else::Next, ..Row::new(CLOSE, [0; 6]).of(Descriptor::Is(number)) });
        }
        for (at, len_bytes) in ranges.iter().chain(self.gates.as_ref()) {
            let unmap = Row::new(MUNMAP, [at.raw(), *len_bytes, 0, 0, 0, 0]);
            program.push(Row { otherwise: Else::Next, ..unmap });
        }
        let held = clear(self.target, &self.slot, program, self.at, self.sizes.len_bytes())?;
        Ok(self.longest.max(held))
    }
}

/// The last row of a good end: the kernel itself says so in memory. `rt_sigprocmask` with nothing
/// but a place for the present mask, which is not zero. Its result never is the wanted one, so it
/// ends the program.
pub(crate) fn report(at: RuntimeAddr) -> Row {
    Row { wants: 1, ..Row::new(RT_SIGPROCMASK, [0, 0, at.raw(), 8, 0, 0]) }
}

/// Runs the rows of `program` from a workshop at `at`, then unmaps that.
pub(crate) fn clear(
    target: &Target<'_>,
    slot: &Slot,
    mut program: Program,
    at: RuntimeAddr,
    len_bytes: u64,
) -> Result<Duration, RemoteError> {
    let table_at = RuntimeAddr::new(at.raw().wrapping_add(TABLE_AT));
    // The last row goes on in the slot: this table is gone by then.
    let nothing = Row::new(RT_SIGPROCMASK, [0, 0, 0, 8, 0, 0]);
    program.push(Row { wants: 1, otherwise: Else::At(slot.table_at()), ..nothing });
    let mut tail = Program::default();
    tail.push(Row::new(MUNMAP, [at.raw(), len_bytes, 0, 0, 0, 0]));
    remote::nobody_astray(target)?;
    target.memory.write(table_at, &program.table(table_at)).map_err(|_| RemoteError::Gone)?;
    let done = || target.memory.word(at).is_err();
    let task =
        Task { program: &program, table: Some(table_at), tail: Some(&tail), later: &[], meanwhile: None, done: &done };
    remote::run(target, slot, &task).map(|(_, held)| held)
}

fn unmap_from_slot(target: &Target<'_>, slot: &Slot, at: RuntimeAddr, len_bytes: u64) -> Result<(), RemoteError> {
    let mut program = Program::default();
    program.push(Row::new(MUNMAP, [at.raw(), len_bytes, 0, 0, 0, 0]));
    let done = || target.memory.word(at).is_err();
    let task = Task { program: &program, table: None, tail: None, later: &[], meanwhile: None, done: &done };
    remote::run(target, slot, &task).map(|_| ())
}

/// A random place for so many bytes.
fn somewhere(len_bytes: u64) -> Result<RuntimeAddr, RemoteError> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| RemoteError::Unsuitable(format!("no random number: {errno}")))?;
    let pages = RANGE.end.saturating_sub(RANGE.start).saturating_sub(len_bytes).checked_div(PAGE_BYTES).unwrap_or(0);
    let page = u64::from_le_bytes(random).checked_rem(pages);
    match page {
        Some(page) if len_bytes <= MAX_BYTES => {
            Ok(RuntimeAddr::new(RANGE.start.wrapping_add(page.wrapping_mul(PAGE_BYTES))))
        }
        _ => Err(RemoteError::Unsuitable("the transition is too large".to_owned())),
    }
}
