//! The calls by which a thread of the target takes over what this program sends it.
//!
//! One run makes a pair of sockets, waits for the message, receives the files, maps every
//! piece, and closes all but the descriptor of the target's own memory. So a target with one
//! thread never sees them. Another thread may open a file meanwhile, and count on its number:
//! what stays open for longer than a few calls gets a high number first.
//!
//! Whatever fails, the rows behind the end take everything back; and if this program dies the
//! thread waits no longer than a moment for its message.

use crate::deliver::{DeliverError, Parcel, Piece};
use crate::descriptors::FileId;
use crate::drive::Meanwhile;
use crate::fault;
use crate::image::PAGE_BYTES;
use crate::process::Process;
use crate::program::{Descriptor, Else, Program, Row};
use crate::remote::{CLOSE, FCNTL, Failed, MMAP, MUNMAP, POLL, PPOLL, PWRITE, RECVMSG, RemoteError, SOCKETPAIR, Sys};
use crate::slot::SLOT_BYTES;
use crate::workshop::{
    BYTE_AT, CONTROL_AT, DONE_AT, FILES_AT, MAX_FILES, MEMORY_AT, MESSAGE_AT, POLL_AT, PROBE_AT, SOCKETS_AT, TIME_AT,
    VECTOR_AT, Workshop, report,
};
use crate::{Errno, descriptors};
use core::time::Duration;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use salve_elf::RuntimeAddr;
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};

/// How long the target's thread waits for the message: this program may have died.
const MESSAGE_LIMIT: Duration = Duration::from_millis(100);
/// How long that thread may take to come to wait: it has one of many turns on a busy machine.
const SEND_LIMIT: Duration = Duration::from_secs(4);

/// Calls that will be made, with what is known of their arguments.
pub(crate) fn likely_calls(pieces: &[Piece], wait: Sys) -> Vec<Row> {
    let three = Descriptor::Is(3);
    let somewhere = 0x2a5a_0000_0000;
    let mut rows = vec![
        pair(somewhere),
        renumber(three, 40),
        wait_for_message(wait, somewhere, somewhere),
        receive(somewhere).of(three),
        Row::new(CLOSE, [0; 6]).of(three),
        Row::new(MUNMAP, [somewhere, PAGE_BYTES, 0, 0, 0, 0]),
    ];
    rows.extend(pieces.iter().map(|piece| map(piece, three)));
    rows
}

/// The most rows that the program for these needs.
pub(crate) fn rows(files: usize, pieces: usize) -> usize {
    pieces.saturating_mul(2).saturating_add(files.saturating_mul(2)).saturating_add(24)
}

/// Hands all parcels over and maps every piece, or none. `attempt` counts from zero.
pub(crate) fn hand_over(workshop: &mut Workshop<'_>, parcels: &[Parcel<'_>], attempt: u32) -> Result<(), DeliverError> {
    let process = workshop.target.process;
    if parcels.len() > MAX_FILES {
        let why = "more images than one message can carry".to_owned();
        return Err(RemoteError::Unsuitable(why).into());
    }
    let numbers = Numbers::unused(process, parcels.len(), attempt)?;
    let places = Places { workshop: workshop.word(0), wait: workshop.wait, slot: workshop.slot.at };
    let program = program(places, parcels, &numbers);
    write_message(workshop, parcels.len(), &numbers)?;
    if parcels.iter().any(|parcel| parcel.memory) {
        // A write that changes nothing, to the page of the stub, tells whether one may.
        let original = workshop.slot.original.last_chunk::<8>().copied().unwrap_or_default();
        workshop.write(PROBE_AT, &original)?;
    }
    let files: Vec<BorrowedFd<'_>> = parcels.iter().map(|parcel| parcel.file).collect();
    let deliver = || send(process, numbers.ours, &files);
    let meanwhile = Meanwhile { limit: SEND_LIMIT, attempt: &deliver };
    if let Err(failed) = workshop.run(&program, Some(&meanwhile))? {
        return Err(error(failed, &program, parcels));
    }
    let memory = parcels.iter().find(|parcel| parcel.memory).and_then(|parcel| FileId::of(parcel.file));
    workshop.memory = memory.map(|file| (numbers.memory, file));
    Ok(())
}

/// Numbers that the target does not use, for what is open for longer than a few calls.
struct Numbers {
    ours: i32,
    theirs: i32,
    memory: i32,
}

impl Numbers {
    fn unused(process: &Process, files: usize, attempt: u32) -> Result<Self, RemoteError> {
        let [ours, theirs, memory] = descriptors::unused(process, files.saturating_add(2), attempt)?;
        Ok(Self { ours, theirs, memory })
    }
}

/// Where to go on when a call did not do what it should.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Goal {
    End,
    Next,
    /// One of the high numbers came to be in use: the first socket's, the second's, the memory's.
    InUse(usize),
    /// Takes back the mappings of so many pieces, and all else.
    Unmap(usize),
    CloseSockets,
}

/// A program whose rows say by name where they lead.
#[derive(Default)]
struct Draft {
    rows: Vec<(Row, Goal)>,
    starts: BTreeMap<Goal, usize>,
}

impl Draft {
    fn put(&mut self, row: Row, goal: Goal) {
        self.rows.push((row, goal));
    }

    fn starts(&mut self, goal: Goal) {
        self.starts.insert(goal, self.rows.len());
    }

    fn close(&mut self, files: impl IntoIterator<Item = Descriptor>) {
        for file in files {
            self.put(Row::new(CLOSE, [0; 6]).of(file), Goal::Next);
        }
    }

    /// A way that ends here: its last call is known by its row.
    fn ends(&mut self) {
        if let Some((row, goal)) = self.rows.last_mut() {
            // No result is wanted.
            (row.wants, *goal) = (1, Goal::End);
        }
    }

    fn program(self) -> Program {
        let starts = self.starts;
        let otherwise = |goal| match goal {
            Goal::Next => Else::Next,
            named => starts.get(&named).map_or(Else::End, |row| Else::Row(*row)),
        };
        Program { rows: self.rows.iter().map(|(row, goal)| Row { otherwise: otherwise(*goal), ..*row }).collect() }
    }
}

/// Where things lie in the target, and by which call it waits.
#[derive(Clone, Copy)]
struct Places {
    workshop: RuntimeAddr,
    wait: Sys,
    slot: RuntimeAddr,
}

/// The program for these parcels.
fn program(places: Places, parcels: &[Parcel<'_>], numbers: &Numbers) -> Program {
    let word = |offset: u64| RuntimeAddr::new(places.workshop.raw().wrapping_add(offset));
    let socket = |n: u64| Descriptor::At(word(SOCKETS_AT.wrapping_add(n.wrapping_mul(4))));
    let file = |index: usize| {
        let into = u64::try_from(index).unwrap_or(0).wrapping_mul(4);
        Descriptor::At(word(FILES_AT.wrapping_add(into)))
    };
    let files = || (0..parcels.len()).map(file);
    let [ours, theirs, kept] = [numbers.ours, numbers.theirs, numbers.memory].map(Descriptor::Is);
    let memory = parcels.iter().position(|parcel| parcel.memory);
    let pieces =
        || parcels.iter().enumerate().flat_map(|(index, parcel)| parcel.pieces.iter().map(move |p| (index, p)));

    let mut draft = Draft::default();
    draft.put(pair(word(SOCKETS_AT).raw()), Goal::End);
    draft.put(renumber(socket(0), numbers.ours), Goal::InUse(0));
    draft.close([socket(0)]);
    draft.put(renumber(socket(1), numbers.theirs), Goal::InUse(1));
    draft.close([socket(1)]);
    draft.put(wait_for_message(places.wait, word(POLL_AT).raw(), word(TIME_AT).raw()), Goal::CloseSockets);
    draft.put(receive(word(MESSAGE_AT).raw()).of(theirs), Goal::CloseSockets);
    if let Some(index) = memory {
        draft.put(renumber(file(index), numbers.memory), Goal::InUse(2));
    }
    for (done, (index, piece)) in pieces().enumerate() {
        draft.put(map(piece, file(index)), Goal::Unmap(done));
    }
    if memory.is_some() {
        let into = places.slot.raw().wrapping_add(PROBE_INTO);
        let probe = Row::new(PWRITE, [0, word(PROBE_AT).raw(), 8, into, 0, 0]).of(kept);
        draft.put(Row { wants: 8, ..probe }, Goal::Unmap(pieces().count()));
    }
    draft.close(files().chain([theirs, ours]));
    draft.put(report(word(DONE_AT)), Goal::End);

    draft.starts(Goal::InUse(0));
    draft.close([socket(0), socket(1)]);
    draft.ends();
    draft.starts(Goal::InUse(1));
    draft.close([socket(1), ours]);
    draft.ends();
    draft.starts(Goal::InUse(2));
    draft.close(files().chain([theirs, ours]));
    draft.ends();
    let pieces: Vec<&Piece> = pieces().map(|(_, piece)| piece).collect();
    for (before, piece) in pieces.iter().enumerate().rev() {
        draft.starts(Goal::Unmap(before.saturating_add(1)));
        draft.put(Row::new(MUNMAP, [piece.at.raw(), piece.len_bytes, 0, 0, 0, 0]), Goal::Next);
    }
    draft.starts(Goal::Unmap(0));
    draft.close(memory.map(|_| kept).into_iter().chain(files()));
    draft.starts(Goal::CloseSockets);
    draft.close([theirs, ours]);
    draft.program()
}

/// It may go well when it is tried again.
fn disturbed(how: &str) -> DeliverError {
    RemoteError::Unsuitable(how.to_owned()).into()
}

/// What a call that failed says of the delivery.
fn error(failed: Failed, program: &Program, parcels: &[Parcel<'_>]) -> DeliverError {
    let Some(row) = program.rows.get(failed.row) else { return failed.error(program).into() };
    let maps = program.rows.iter().take(failed.row).filter(|row| row.sys == MMAP).count();
    let taken = failed.result >= 0 || failed.result.saturating_neg() == i64::from(libc::EEXIST);
    match row.sys {
        PWRITE => DeliverError::NotWritable,
        // The ways of numbers in use end so, and nothing else does.
        CLOSE => disturbed("a number that it did not use came to be in use"),
        POLL | PPOLL if failed.result == 0 => disturbed("its message did not come in time"),
        MMAP if taken => {
            let parcel_of =
                parcels.iter().enumerate().flat_map(|(index, parcel)| parcel.pieces.iter().map(move |_| index));
            parcel_of
                .into_iter()
                .nth(maps)
                .map_or_else(|| failed.error(program).into(), |parcel| DeliverError::Taken { parcel })
        }
        _ => failed.error(program).into(),
    }
}

fn pair(into: u64) -> Row {
    let kind = u64::from((libc::SOCK_DGRAM | libc::SOCK_CLOEXEC).cast_unsigned());
    Row::new(SOCKETPAIR, [u64::from(libc::AF_UNIX.cast_unsigned()), kind, 0, into, 0, 0])
}

/// Gives a file another number, if that is free; never one that is in use.
fn renumber(file: Descriptor, number: i32) -> Row {
    let (how, number) = (u64::from(libc::F_DUPFD_CLOEXEC.cast_unsigned()), u64::from(number.cast_unsigned()));
    Row { wants: number, ..Row::new(FCNTL, [0, how, number, 0, 0, 0]).of(file) }
}

fn wait_for_message(wait: Sys, poll_at: u64, time_at: u64) -> Row {
    let limit = if wait == PPOLL { time_at } else { u64::try_from(MESSAGE_LIMIT.as_millis()).unwrap_or(0) };
    Row { wants: 1, ..Row::new(wait, [poll_at, 1, limit, 0, 8, 0]) }
}

/// One byte of data comes with the descriptors.
fn receive(message_at: u64) -> Row {
    let flags = u64::from((libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC).cast_unsigned());
    Row { wants: 1, ..Row::new(RECVMSG, [0, message_at, flags, 0, 0, 0]) }
}

fn map(piece: &Piece, file: Descriptor) -> Row {
    let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE).cast_unsigned();
    let protection = u64::from(piece.protection.cast_unsigned());
    let arguments = [piece.at.raw(), piece.len_bytes, protection, u64::from(flags), 0, piece.offset];
    Row { fifth: Some(file), wants: piece.at.raw(), ..Row::new(MMAP, arguments) }
}

const PROBE_INTO: u64 = SLOT_BYTES as u64 - 8;

/// Sends the files if the sockets are there. Best effort: a message that does not come is missed
/// by the thread that waits for it.
fn send(process: &Process, ours: i32, files: &[BorrowedFd<'_>]) -> bool {
    match pidfd_getfd(process.pidfd(), ours, PidfdGetfdFlags::empty()) {
        Ok(socket) => {
            if is_pair(&socket) {
                let _ = send_through(&socket, files);
            }
            true
        }
        Err(_not_there_yet) => false,
    }
}

/// Whether it is one of the sockets that were just made there.
fn is_pair(socket: &OwnedFd) -> bool {
    sockopt::socket_domain(socket) == Ok(rustix::net::AddressFamily::UNIX)
        && sockopt::socket_type(socket) == Ok(rustix::net::SocketType::DGRAM)
}

fn send_through(socket: &OwnedFd, files: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [core::mem::MaybeUninit::uninit(); 24 + 4 * MAX_FILES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(Errno(libc::ENOBUFS));
    }
    fault::step();
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(b"p")], &mut control, flags).map(drop).map_err(Errno::from)
}

/// `struct msghdr`, `struct iovec` and an empty control buffer with -1 for each descriptor;
/// `struct pollfd` and a time limit; and what a later command has to know.
fn write_message(workshop: &Workshop<'_>, files: usize, numbers: &Numbers) -> Result<(), RemoteError> {
    let at = |offset: u64| workshop.word(offset).raw();
    let len = u64::try_from(files).unwrap_or(0).saturating_mul(4).next_multiple_of(8).saturating_add(16);
    let message: [u64; 7] = [0, 0, at(VECTOR_AT), 1, at(CONTROL_AT), len, 0];
    let vector: [u64; 2] = [at(BYTE_AT), 1];
    let mut control = vec![0_u64; 2];
    control.resize(usize::try_from(len / 8).unwrap_or(2), u64::MAX);
    let events = u64::from(libc::POLLIN.cast_unsigned()) << 32;
    let poll = [u64::from(numbers.theirs.cast_unsigned()) | events];
    let time = [MESSAGE_LIMIT.as_secs(), u64::from(MESSAGE_LIMIT.subsec_nanos())];
    let memory = [u64::from(numbers.memory.cast_unsigned())];
    let words: [(u64, &[u64]); 6] = [
        (POLL_AT, &poll),
        (MESSAGE_AT, &message),
        (VECTOR_AT, &vector),
        (MEMORY_AT, &memory),
        (CONTROL_AT, &control),
        (TIME_AT, &time),
    ];
    for (offset, words) in words {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        workshop.write(offset, &bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::os::fd::AsFd as _;

    const BASE: RuntimeAddr = RuntimeAddr::new(0x10_0000);
    const OWN: [i32; 4] = [0, 1, 2, 5];
    const NUMBERS: Numbers = Numbers { ours: 40, theirs: 41, memory: 42 };

    /// A target as far as the program changes it, in which one call goes wrong.
    struct Model {
        open: BTreeSet<i32>,
        mapped: BTreeSet<u64>,
        words: BTreeMap<u64, i32>,
        files: usize,
        failing: Option<usize>,
        reported: bool,
    }

    impl Model {
        fn lowest(&mut self, from: i32) -> i32 {
            let number = (from..1024).find(|number| !self.open.contains(number)).unwrap();
            self.open.insert(number);
            number
        }

        fn receive(&mut self) {
            for index in 0..self.files {
                let (at, number) = (BASE.raw() + FILES_AT + 4 * index as u64, self.lowest(0));
                self.words.insert(at, number);
            }
        }

        fn call(&mut self, row: &Row, fails: bool) -> i64 {
            let first = match row.first {
                Some(Descriptor::Is(number)) => number,
                Some(Descriptor::At(at)) => self.words.get(&at.raw()).copied().unwrap_or(-1),
                None => -1,
            };
            let [map_at, _, number, _, _, _] = row.arguments;
            match row.sys {
                // Somebody took that number meanwhile: the kernel gives the next one.
                FCNTL if fails => i64::from(self.lowest(i32::try_from(number).unwrap() + 1)),
                POLL if fails => 0,
                CLOSE => {
                    if self.open.remove(&first) {
                        0
                    } else {
                        -9
                    }
                }
                _ if fails => -12,
                SOCKETPAIR => {
                    for offset in [0, 4] {
                        let number = self.lowest(0);
                        self.words.insert(BASE.raw() + SOCKETS_AT + offset, number);
                    }
                    0
                }
                FCNTL => i64::from(self.lowest(i32::try_from(number).unwrap())),
                RECVMSG => {
                    self.receive();
                    1
                }
                MMAP => {
                    assert!(self.mapped.insert(map_at));
                    map_at.cast_signed()
                }
                MUNMAP => {
                    assert!(self.mapped.remove(&map_at), "{map_at:#x} is not mapped");
                    0
                }
                POLL => 1,
                PWRITE => 8,
                _report => {
                    self.reported = true;
                    0
                }
            }
        }

        /// Runs the program as the stub does.
        fn run(mut self, program: &Program) -> Self {
            let mut at = 0;
            while let Some(row) = program.rows.get(at) {
                let result = self.call(row, self.failing == Some(at));
                at = match row.otherwise {
                    _ if result == row.wants.cast_signed() => at + 1,
                    Else::Next => at + 1,
                    Else::Row(row) => row,
                    Else::End | Else::At(_) => break,
                };
            }
            self
        }
    }

    #[test]
    fn whichever_call_fails_nothing_of_the_targets_is_closed_and_nothing_stays() {
        let file = File::open("/").unwrap();
        let piece = |at: u64| Piece { at: RuntimeAddr::new(at), len_bytes: 4096, protection: 1, offset: 0 };
        let parcel = |pieces: &[u64], memory| {
            let pieces = pieces.iter().copied().map(piece).collect();
            Parcel { file: file.as_fd(), pieces, memory }
        };
        let parcels = [parcel(&[0x1000, 0x3000], false), parcel(&[], true), parcel(&[0x8000], false)];
        let places = Places { workshop: BASE, wait: POLL, slot: RuntimeAddr::new(0x5000) };
        let program = program(places, &parcels, &NUMBERS);
        let run = |failing| {
            let (open, mapped, words) = (BTreeSet::from(OWN), BTreeSet::new(), BTreeMap::new());
            Model { open, mapped, words, files: parcels.len(), failing, reported: false }.run(&program)
        };
        let whole = run(None);
        assert!(whole.reported && whole.mapped.len() == 3);
        assert_eq!(whole.open.difference(&BTreeSet::from(OWN)).collect::<Vec<_>>(), [&NUMBERS.memory]);
        let end = program.rows.iter().position(|row| row.sys == crate::remote::RT_SIGPROCMASK).unwrap();
        for (at, row) in program.rows.iter().enumerate().take(end).filter(|(_, row)| row.sys != CLOSE) {
            let after = run(Some(at));
            assert!(!after.reported && after.mapped.is_empty(), "after row {at}, {}", row.sys.1);
            let more: Vec<i32> = after.open.difference(&BTreeSet::from(OWN)).copied().collect();
            // The number that came instead is known to nobody.
            let stays = usize::from(row.sys == FCNTL);
            assert!(BTreeSet::from(OWN).is_subset(&after.open) && more.len() == stays, "{at} {}: {more:?}", row.sys.1);
        }
    }
}
