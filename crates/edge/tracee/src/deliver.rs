//! Bringing payloads into a target: sealed memfds, handed over through a socket.
//!
//! A thread of the target makes a socket pair, this program takes one end out of it by
//! `pidfd_getfd` and sends the descriptors, and the thread receives them and maps every
//! piece of every payload, all in one run (`handover`); where one cannot be mapped it takes
//! the others back before it ends. That works in every namespace, for it names no path
//! and no process.

use crate::handover;
use crate::image::PAGE_BYTES;
use crate::payload::Payload;
use crate::remote::{RemoteError, Target};
use crate::workshop::Workshop;
use salve_elf::{LoadBias, RuntimeAddr};
use salve_patch::Access;
use std::os::fd::BorrowedFd;

/// How often a delivery is tried that was disturbed.
const TRIES: u32 = 6;

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

/// Hands all parcels over and maps every piece, or none.
pub(crate) fn deliver(workshop: &mut Workshop<'_>, parcels: &[Parcel<'_>]) -> Result<(), DeliverError> {
    let disturbed =
        |ended: &_| matches!(ended, Err(DeliverError::Remote(RemoteError::Unsuitable(_) | RemoteError::Unseen { .. })));
    let mut ended = handover::hand_over(workshop, parcels, 0);
    for attempt in 1..TRIES {
        if !disturbed(&ended) {
            break;
        }
        ended = handover::hand_over(workshop, parcels, attempt);
    }
    ended
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
