//! Bringing a payload into a target: a sealed memfd, handed over through a socket.
//!
//! The target makes a socket pair; this program takes one end out of it by
//! `pidfd_getfd`, sends the descriptor, and the target receives and maps it. That
//! works in every namespace, for it names no path and no process. The calls are
//! spread over several short borrowings, so that no thread is held for long.
//! Being killed half way leaks a page, descriptors or a mapping in the target;
//! a later run finds the mapping by its content.

use crate::Errno;
use crate::image::PAGE_BYTES;
use crate::outcome::NotApplied;
use crate::payload::Payload;
use crate::remote::{self, Borrowed, CLOSE, MMAP, MUNMAP, RECVMSG, RemoteError, SOCKETPAIR, Sys, Target};
use core::time::Duration;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use salve_elf::{LoadBias, RuntimeAddr};
use salve_patch::Access;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

/// Mappings made in one borrowing. A call costs the thread about ten microseconds, and
/// it may be the only thread there is.
const MAPS_AT_ONCE: usize = 2;
/// Where in the scratch page each thing is.
const SOCKETS_AT: u64 = 0;
const MESSAGE_AT: u64 = 64;
const VECTOR_AT: u64 = 128;
const CONTROL_AT: u64 = 192;
const BYTE_AT: u64 = 256;
/// `CMSG_SPACE(sizeof(int))`, and where in it the descriptor is.
const CONTROL_BYTES: u64 = 24;
const DESCRIPTOR_AT: u64 = CONTROL_AT + 16;

#[derive(Debug)]
pub(crate) enum DeliverError {
    /// Something came to lie where the payload was to go: try another place.
    Taken,
    Remote(RemoteError),
}

impl From<RemoteError> for DeliverError {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}

/// What is mapped where: address, length, protection, offset in the file.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: RuntimeAddr,
    len_bytes: u64,
    protection: i32,
    offset: u64,
}

/// The page with the file's ELF header, then every segment.
fn pieces(payload: &Payload, old: LoadBias) -> Option<Vec<Piece>> {
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

/// Maps the whole payload, and compares every byte of it. Returns the longest borrowing.
pub(crate) fn deliver(
    target: &Target<'_>,
    payload: &Payload,
    file: &File,
    old: LoadBias,
) -> Result<Duration, DeliverError> {
    let pieces = pieces(payload, old).ok_or_else(|| bad(payload))?;
    let mut longest = Duration::ZERO;
    let (scratch, held) = remote::borrow(target, |thread| {
        judge_all(thread, &pieces)?;
        let scratch =
            thread.call(MMAP, [0, PAGE_BYTES, prot(libc::PROT_READ | libc::PROT_WRITE), anonymous(), u64::MAX, 0])?;
        let kind = u64::from((libc::SOCK_DGRAM | libc::SOCK_CLOEXEC).cast_unsigned());
        let family = u64::from(libc::AF_UNIX.cast_unsigned());
        match thread.call(SOCKETPAIR, [family, kind, 0, scratch.wrapping_add(SOCKETS_AT), 0, 0]) {
            Ok(_) => Ok(scratch),
            Err(error) => {
                let _ = thread.call(MUNMAP, [scratch, PAGE_BYTES, 0, 0, 0, 0]);
                Err(error)
            }
        }
    })?;
    longest = longest.max(held);
    let scratch = RuntimeAddr::new(scratch);
    let received = receive(target, scratch, file, &mut longest);
    let mapped = match &received {
        Ok(descriptor) => map_all(target, &pieces, *descriptor, &mut longest),
        Err(_) => Ok(()),
    };
    let cleaned = remote::borrow(target, |thread| {
        if let Ok(descriptor) = &received {
            thread.call(CLOSE, [*descriptor, 0, 0, 0, 0, 0])?;
        }
        thread.call(MUNMAP, [scratch.raw(), PAGE_BYTES, 0, 0, 0, 0])
    });
    received?;
    mapped?;
    let (_, held) = cleaned?;
    longest = longest.max(held);
    if !is_intact(target, payload, old) {
        unmap(target, payload, old)?;
        return Err(DeliverError::Taken);
    }
    Ok(longest)
}

fn bad(payload: &Payload) -> RemoteError {
    let path = payload.image().map(|image| image.path.clone()).unwrap_or_default();
    RemoteError::Not(NotApplied::BadLivepatch { path, why: "its segments have no place".to_owned() })
}

fn prot(protection: i32) -> u64 {
    u64::from(protection.cast_unsigned())
}

fn anonymous() -> u64 {
    prot(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
}

fn fixed() -> u64 {
    prot(libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE)
}

/// Every call that will be made, with what is known of its arguments, before the first is made.
fn judge_all(thread: &Borrowed, pieces: &[Piece]) -> Result<(), RemoteError> {
    let somewhere = 0x7f00_0000_0000;
    let calls: [(Sys, [u64; 6]); 5] = [
        (MMAP, [0, PAGE_BYTES, prot(libc::PROT_READ | libc::PROT_WRITE), anonymous(), u64::MAX, 0]),
        (SOCKETPAIR, [1, prot(libc::SOCK_DGRAM | libc::SOCK_CLOEXEC), 0, somewhere, 0, 0]),
        (RECVMSG, [3, somewhere, receive_flags(), 0, 0, 0]),
        (CLOSE, [3, 0, 0, 0, 0, 0]),
        (MUNMAP, [somewhere, PAGE_BYTES, 0, 0, 0, 0]),
    ];
    for (call, arguments) in calls {
        thread.judge(call, arguments)?;
    }
    pieces.iter().try_for_each(|piece| thread.judge(MMAP, arguments(piece, 3)))
}

fn arguments(piece: &Piece, descriptor: u64) -> [u64; 6] {
    [piece.at.raw(), piece.len_bytes, prot(piece.protection), fixed(), descriptor, piece.offset]
}

fn receive_flags() -> u64 {
    prot(libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC)
}

/// Hands the file over; the target's number for it. Both sockets are closed in any case.
fn receive(
    target: &Target<'_>,
    scratch: RuntimeAddr,
    file: &File,
    longest: &mut Duration,
) -> Result<u64, DeliverError> {
    let at = |offset: u64| RuntimeAddr::new(scratch.raw().wrapping_add(offset));
    let gone = |_: Errno| RemoteError::Gone;
    let ours = target.memory.half_word(at(SOCKETS_AT)).map_err(gone)?;
    let theirs = target.memory.half_word(at(SOCKETS_AT.wrapping_add(4))).map_err(gone)?;
    let sent = take_socket(target, ours)
        .and_then(|socket| send(&socket, file))
        .map_err(|errno| RemoteError::Call { call: "pidfd_getfd or sendmsg", errno });
    write_message(target, scratch).map_err(gone)?;
    let received = sent.and_then(|()| {
        let message = at(MESSAGE_AT).raw();
        remote::borrow(target, |thread| thread.call(RECVMSG, [number(theirs), message, receive_flags(), 0, 0, 0]))
    });
    let closed = remote::borrow(target, |thread| {
        thread.call(CLOSE, [number(ours), 0, 0, 0, 0, 0])?;
        thread.call(CLOSE, [number(theirs), 0, 0, 0, 0, 0])
    });
    let ((received, held), (_, held_to_close)) = (received?, closed?);
    *longest = (*longest).max(held).max(held_to_close);
    let descriptor = target.memory.half_word(at(DESCRIPTOR_AT)).map_err(gone)?;
    // One byte of data, and a descriptor: a security module may have dropped the latter.
    if received != 1 || descriptor < 0 {
        return Err(RemoteError::Call { call: RECVMSG.1, errno: Errno(libc::EBADF) }.into());
    }
    Ok(number(descriptor))
}

fn number(descriptor: i32) -> u64 {
    u64::from(descriptor.cast_unsigned())
}

fn take_socket(target: &Target<'_>, descriptor: i32) -> Result<OwnedFd, Errno> {
    Ok(pidfd_getfd(target.process.pidfd(), descriptor, PidfdGetfdFlags::empty())?)
}

fn send(socket: &OwnedFd, file: &File) -> Result<(), Errno> {
    let mut space = [core::mem::MaybeUninit::uninit(); 64];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [file.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno(libc::ENOBUFS));
    }
    sendmsg(socket, &[IoSlice::new(b"p")], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// `struct msghdr`, `struct iovec` and an empty control buffer with -1 for a descriptor.
fn write_message(target: &Target<'_>, scratch: RuntimeAddr) -> Result<(), Errno> {
    let at = |offset: u64| scratch.raw().wrapping_add(offset);
    let message: [u64; 7] = [0, 0, at(VECTOR_AT), 1, at(CONTROL_AT), CONTROL_BYTES, 0];
    let vector: [u64; 2] = [at(BYTE_AT), 1];
    let control: [u64; 3] = [0, 0, u64::MAX];
    for (offset, words) in [(MESSAGE_AT, &message[..]), (VECTOR_AT, &vector), (CONTROL_AT, &control)] {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        target.memory.write(RuntimeAddr::new(at(offset)), &bytes)?;
    }
    Ok(())
}

/// Maps every piece, or none.
fn map_all(target: &Target<'_>, pieces: &[Piece], descriptor: u64, longest: &mut Duration) -> Result<(), DeliverError> {
    let mut done: Vec<Piece> = Vec::new();
    for some in pieces.chunks(MAPS_AT_ONCE) {
        let outcome = remote::borrow(target, |thread| {
            for (index, piece) in some.iter().enumerate() {
                let mapped = thread.call(MMAP, arguments(piece, descriptor));
                let clean = |thread: &mut Borrowed| {
                    for earlier in some.iter().take(index) {
                        let _ = thread.call(MUNMAP, [earlier.at.raw(), earlier.len_bytes, 0, 0, 0, 0]);
                    }
                };
                match mapped {
                    Ok(at) if at == piece.at.raw() => {}
                    // A kernel that does not know MAP_FIXED_NOREPLACE takes it for a hint.
                    Ok(elsewhere) => {
                        let _ = thread.call(MUNMAP, [elsewhere, piece.len_bytes, 0, 0, 0, 0]);
                        clean(thread);
                        return Ok(false);
                    }
                    Err(RemoteError::Call { errno: Errno(libc::EEXIST), .. }) => {
                        clean(thread);
                        return Ok(false);
                    }
                    Err(error) => {
                        clean(thread);
                        return Err(error);
                    }
                }
            }
            Ok(true)
        });
        match outcome {
            Ok((true, held)) => {
                *longest = (*longest).max(held);
                done.extend_from_slice(some);
            }
            Ok((false, _)) => {
                unmap_pieces(target, &done)?;
                return Err(DeliverError::Taken);
            }
            Err(error) => {
                let _ = unmap_pieces(target, &done);
                return Err(error.into());
            }
        }
    }
    Ok(())
}

/// Takes a payload out of the target again. Nothing may lead into it any more.
pub(crate) fn unmap(target: &Target<'_>, payload: &Payload, old: LoadBias) -> Result<(), RemoteError> {
    unmap_pieces(target, &pieces(payload, old).unwrap_or_default())
}

fn unmap_pieces(target: &Target<'_>, pieces: &[Piece]) -> Result<(), RemoteError> {
    for some in pieces.chunks(MAPS_AT_ONCE) {
        remote::borrow(target, |thread| {
            some.iter()
                .try_for_each(|piece| thread.call(MUNMAP, [piece.at.raw(), piece.len_bytes, 0, 0, 0, 0]).map(|_| ()))
        })?;
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
