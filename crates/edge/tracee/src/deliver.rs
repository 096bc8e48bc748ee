//! Bringing payloads into a target: sealed memfds, handed over through a socket.
//!
//! The target has made a socket pair (`workshop`); this program took one end out of it by
//! `pidfd_getfd` and sends the descriptors. Then one borrowed thread receives them and
//! maps every piece of every payload, all in one run; where one cannot be mapped it takes
//! the others back before it ends. That works in every namespace, for it names no path
//! and no process.

use crate::Errno;
use crate::image::PAGE_BYTES;
use crate::payload::Payload;
use crate::program::{Descriptor, Else, Program, Row};
use crate::remote::{CLOSE, MMAP, MUNMAP, PWRITE, RECVMSG, RemoteError, Target};
use crate::slot::SLOT_BYTES;
use crate::workshop::{BYTE_AT, CONTROL_AT, FILES_AT, MAX_FILES, MESSAGE_AT, PROBE_AT, VECTOR_AT, Workshop};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use salve_elf::{LoadBias, RuntimeAddr};
use salve_patch::Access;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

/// What is mapped where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) at: RuntimeAddr,
    pub(crate) len_bytes: u64,
    pub(crate) protection: i32,
    pub(crate) offset: u64,
}

/// The page with the file's ELF header, then every segment.
pub(crate) fn pieces(payload: &Payload, old: LoadBias) -> Option<Vec<Piece>> {
    let bias = payload.bias(old);
    let first = payload.segments.first()?.new_va.in_process(bias);
    let mut pieces = vec![Piece {
        at: first.checked_sub(PAGE_BYTES)?,
        len_bytes: PAGE_BYTES,
        protection: libc::PROT_READ,
        offset: 0,
    }];
    for (segment, &offset) in payload.segments.iter().zip(&payload.offsets) {
        pieces.push(Piece {
            at: segment.new_va.in_process(bias),
            len_bytes: u64::try_from(segment.bytes.len()).ok()?,
            protection: match segment.access {
                Access::Read => libc::PROT_READ,
                Access::ReadExecute => libc::PROT_READ | libc::PROT_EXEC,
            },
            offset,
        });
    }
    Some(pieces)
}

/// A file to be handed over, and what of it is to be mapped.
pub(crate) struct Parcel<'a> {
    pub(crate) file: BorrowedFd<'a>,
    pub(crate) pieces: Vec<Piece>,
    /// The target keeps the descriptor: it is its own memory, and may be written through.
    pub(crate) memory: bool,
}

#[derive(Debug)]
pub(crate) enum DeliverError {
    /// Something came to lie where this parcel was to go: try another place.
    Taken {
        parcel: usize,
    },
    /// The kernel lets nobody write code through that descriptor.
    NotWritable,
    Remote(RemoteError),
}

impl From<RemoteError> for DeliverError {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}

/// Calls that [`deliver`] will make, with what is known of their arguments.
pub(crate) fn likely_calls(pieces: &[Piece]) -> Vec<Row> {
    let three = Descriptor::Is(3);
    let somewhere = 0x2a5a_0000_0000;
    let mut rows = vec![
        Row::new(RECVMSG, [0, somewhere, receive_flags(), 0, 0, 0]).of(three),
        Row::new(CLOSE, [0; 6]).of(three),
        Row::new(MUNMAP, [somewhere, PAGE_BYTES, 0, 0, 0, 0]),
    ];
    rows.extend(pieces.iter().map(|piece| map(piece, three)));
    rows
}

/// The most rows that the program for these needs.
pub(crate) fn rows(files: usize, pieces: usize) -> usize {
    pieces.saturating_mul(2).saturating_add(files.saturating_mul(2)).saturating_add(4)
}

fn map(piece: &Piece, file: Descriptor) -> Row {
    let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE).cast_unsigned();
    let protection = u64::from(piece.protection.cast_unsigned());
    let arguments = [piece.at.raw(), piece.len_bytes, protection, u64::from(flags), 0, piece.offset];
    Row { fifth: Some(file), wants: piece.at.raw(), ..Row::new(MMAP, arguments) }
}

fn receive_flags() -> u64 {
    u64::from((libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC).cast_unsigned())
}

/// Hands all parcels over and maps every piece, or none.
pub(crate) fn deliver(workshop: &mut Workshop<'_>, parcels: &[Parcel<'_>]) -> Result<(), DeliverError> {
    send(workshop, parcels)?;
    let files_at = workshop.word(FILES_AT).raw();
    let file_at = |index: usize| {
        let into = u64::try_from(index).unwrap_or(0).wrapping_mul(4);
        Descriptor::At(RuntimeAddr::new(files_at.wrapping_add(into)))
    };
    let mut program = Program::default();
    // One byte of data comes with the descriptors.
    let message = workshop.word(MESSAGE_AT).raw();
    let receive = Row::new(RECVMSG, [0, message, receive_flags(), 0, 0, 0]).of(Descriptor::Is(workshop.theirs));
    program.push(Row { wants: 1, ..receive });
    let mut maps: Vec<(usize, Piece)> = Vec::new();
    for (index, parcel) in parcels.iter().enumerate() {
        for piece in &parcel.pieces {
            maps.push((index, *piece));
            program.push(map(piece, file_at(index)));
        }
    }
    for (index, _) in parcels.iter().enumerate().filter(|(_, parcel)| parcel.memory) {
        // A write that changes nothing, to the page of the stub, tells whether one may.
        let last = RuntimeAddr::new(workshop.slot.at.raw().wrapping_add(PROBE_INTO));
        let original = workshop.slot.original.last_chunk::<8>().copied().unwrap_or_default();
        workshop.write(PROBE_AT, &original)?;
        let probe = Row::new(PWRITE, [0, workshop.word(PROBE_AT).raw(), 8, last.raw(), 0, 0]).of(file_at(index));
        program.push(Row { wants: 8, ..probe });
    }
    for (index, _) in parcels.iter().enumerate().filter(|(_, parcel)| !parcel.memory) {
        program.push(Row { otherwise: Else::Next, ..Row::new(CLOSE, [0; 6]).of(file_at(index)) });
    }
    program.push(workshop.report());
    add_way_back(&mut program, &maps, parcels.len(), file_at);
    match workshop.run(&program)? {
        Ok(()) => {
            let memory = parcels.iter().position(|parcel| parcel.memory).map(file_at);
            if let Some(Descriptor::At(at)) = memory {
                workshop.memory = Some(at);
            }
            Ok(())
        }
        Err(failed) => {
            let row = program.rows.get(failed.row);
            if row.is_some_and(|row| row.sys == PWRITE) {
                return Err(DeliverError::NotWritable);
            }
            let taken = failed.result >= 0 || failed.result.saturating_neg() == i64::from(libc::EEXIST);
            match failed.row.checked_sub(1).and_then(|index| maps.get(index)) {
                Some((parcel, _)) if taken => Err(DeliverError::Taken { parcel: *parcel }),
                _ => Err(failed.error(&program).into()),
            }
        }
    }
}

const PROBE_INTO: u64 = SLOT_BYTES as u64 - 8;

/// Rows behind the end, in which everything that was done is taken back, and where each
/// row that may fail goes on.
fn add_way_back(program: &mut Program, maps: &[(usize, Piece)], files: usize, file_at: impl Fn(usize) -> Descriptor) {
    let first = program.rows.len();
    for (_, piece) in maps.iter().rev() {
        let unmap = Row::new(MUNMAP, [piece.at.raw(), piece.len_bytes, 0, 0, 0, 0]);
        program.push(Row { otherwise: Else::Next, ..unmap });
    }
    for index in 0..files {
        program.push(Row { otherwise: Else::Next, ..Row::new(CLOSE, [0; 6]).of(file_at(index)) });
    }
    let undo_all = first.saturating_add(maps.len());
    for (index, row) in program.rows.iter_mut().take(first).enumerate() {
        if row.sys == MMAP {
            // Row `index` maps piece `index - 1`; what came before it is to be unmapped.
            row.otherwise = Else::Row(undo_all.saturating_sub(index.saturating_sub(1)));
        } else if row.sys == PWRITE {
            row.otherwise = Else::Row(first);
        }
    }
}

fn send(workshop: &Workshop<'_>, parcels: &[Parcel<'_>]) -> Result<(), RemoteError> {
    let files: Vec<BorrowedFd<'_>> = parcels.iter().map(|parcel| parcel.file).collect();
    if files.len() > MAX_FILES {
        return Err(RemoteError::Unsuitable("more images than one message can carry".to_owned()));
    }
    write_message(workshop, files.len())?;
    let failed = |errno: Errno| RemoteError::Call { call: "sendmsg", errno };
    let mut space = [core::mem::MaybeUninit::uninit(); 24 + 4 * MAX_FILES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(failed(Errno(libc::ENOBUFS)));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(&workshop.socket, &[IoSlice::new(b"p")], &mut control, flags).map_err(|errno| failed(errno.into()))?;
    Ok(())
}

/// `struct msghdr`, `struct iovec` and an empty control buffer with -1 for each descriptor.
fn write_message(workshop: &Workshop<'_>, files: usize) -> Result<(), RemoteError> {
    let at = |offset: u64| workshop.word(offset).raw();
    let len = u64::try_from(files).unwrap_or(0).saturating_mul(4).next_multiple_of(8).saturating_add(16);
    let message: [u64; 7] = [0, 0, at(VECTOR_AT), 1, at(CONTROL_AT), len, 0];
    let vector: [u64; 2] = [at(BYTE_AT), 1];
    let mut control = vec![0_u64; 2];
    control.resize(usize::try_from(len / 8).unwrap_or(2), u64::MAX);
    for (offset, words) in [(MESSAGE_AT, &message[..]), (VECTOR_AT, &vector), (CONTROL_AT, &control)] {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        workshop.write(offset, &bytes)?;
    }
    Ok(())
}

/// Whether every byte of every segment in the target is the payload's, and nothing may write there.
pub(crate) fn is_intact(target: &Target<'_>, payload: &Payload, old: LoadBias) -> bool {
    let bias = payload.bias(old);
    let Ok(mappings) = target.process.mappings(target.limits) else { return false };
    payload.segments.iter().all(|segment| {
        let at = segment.new_va.in_process(bias);
        let mut found = vec![0; segment.bytes.len()];
        let executable = segment.access == Access::ReadExecute;
        let mapped = crate::maps::find(&mappings, at).is_some_and(|mapping| {
            mapping.is_payload()
                && mapping.perms.execute == executable
                && mapping.perms.read
                && !mapping.perms.write
                && mapping.covers(at, segment.bytes.len())
        });
        mapped && target.memory.read_exact(at, &mut found).is_ok() && found == segment.bytes
    })
}
