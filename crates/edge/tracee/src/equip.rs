//! Opening a workshop with all that one transition needs in it.

use crate::commit;
use crate::deliver::{self, DeliverError, Parcel, Piece};
use crate::handover;
use crate::image::PAGE_BYTES;
use crate::memory;
use crate::outcome::NotApplied;
use crate::remote::{POLL, PPOLL, PWRITE, RemoteError, Sys, Target};
use crate::tidy::ROOM_NAME;
use crate::workshop::{Sizes, Workshop};
use rustix::fs::{MemfdFlags, SealFlags};
use salve_elf::RuntimeAddr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

/// What a transition will do in its workshop.
pub(crate) struct Need<'a> {
    /// Of all payloads that will be delivered, as far as is known.
    pub(crate) pieces: &'a [Piece],
    pub(crate) files: usize,
    pub(crate) writes: usize,
    /// Mappings that may be taken away at the end.
    pub(crate) ranges: usize,
}

/// What a target needs to make its writes by itself.
pub(crate) struct Kit {
    memory: File,
    room: Option<(File, u64)>,
}

/// One write is one call already: only more than one needs a kit.
fn wants_kit(need: &Need<'_>) -> bool {
    need.writes > 1
}

pub(crate) fn open<'a>(target: &'a Target<'a>, need: &Need<'_>) -> Result<(Workshop<'a>, Option<Kit>), RemoteError> {
    let threads = target.process.threads(target.limits)?.len();
    let gates = if wants_kit(need) { commit::gates(threads) } else { 0 };
    let rows = handover::rows(need.files.saturating_add(2), need.pieces.len().saturating_add(2))
        .max(commit::rows(need.writes))
        .max(need.ranges.saturating_add(8));
    let sizes = Sizes { rows, data_bytes: commit::data_bytes(need.writes), gates };
    let open = |wait: Sys, writes: bool| {
        let mut later = handover::likely_calls(need.pieces, wait);
        later.extend(commit::likely_calls().into_iter().filter(|_| writes));
        Workshop::open(target, sizes, wait, &later)
    };
    // A filter may know only one of them; `ppoll` leaves a call alone that the thread sleeps in.
    let open = |writes: bool| match open(PPOLL, writes) {
        Err(RemoteError::Not(NotApplied::SeccompForbids { call })) if call == PPOLL.1 => open(POLL, writes),
        other => other,
    };
    if !wants_kit(need) {
        return Ok((open(false)?, None));
    }
    match open(true) {
        Ok(workshop) => Ok((workshop, kit(target, gates)?)),
        // It may not write: then this program does.
        Err(RemoteError::Not(NotApplied::SeccompForbids { call })) if call == PWRITE.1 => Ok((open(false)?, None)),
        Err(error) => Err(error),
    }
}

fn kit(target: &Target<'_>, gates: usize) -> Result<Option<Kit>, RemoteError> {
    let Ok(memory) = memory::another(target.process) else { return Ok(None) };
    let room = if gates == 0 {
        None
    } else {
        let len_bytes = commit::gates_bytes(gates);
        let failed = |error: std::io::Error| RemoteError::Unsuitable(format!("no file for the gates: {error}"));
        Some((room(len_bytes).map_err(failed)?, len_bytes))
    };
    Ok(Some(Kit { memory, room }))
}

/// An empty file that nobody can change; each target has its own copy of its pages.
fn room(len_bytes: u64) -> Result<File, std::io::Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create(ROOM_NAME, flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create(ROOM_NAME, flags))?;
    rustix::fs::ftruncate(&fd, len_bytes)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(File::from(fd))
}

/// Hands over payloads and kit. Without the kit, where the kernel lets nobody write code
/// through a descriptor of its own.
pub(crate) fn deliver(
    workshop: &mut Workshop<'_>,
    payloads: &[(&File, Vec<Piece>)],
    kit: Option<&Kit>,
) -> Result<(), DeliverError> {
    let room_at = workshop.behind();
    let parcels = |kit: Option<&Kit>| -> Vec<(Vec<Piece>, bool)> {
        let mut all: Vec<_> = payloads.iter().map(|(_, pieces)| (pieces.clone(), false)).collect();
        if let Some(kit) = kit {
            all.push((Vec::new(), true));
            if let Some((_, len_bytes)) = kit.room {
                let protection = libc::PROT_READ | libc::PROT_EXEC;
                all.push((vec![Piece { at: room_at, len_bytes, protection, offset: 0 }], false));
            }
        }
        all
    };
    let attempt = |workshop: &mut Workshop<'_>, kit: Option<&Kit>| {
        let parcels: Vec<Parcel<'_>> = files(payloads, kit)
            .into_iter()
            .zip(parcels(kit))
            .map(|(file, (pieces, memory))| Parcel { file, pieces, memory })
            .collect();
        if parcels.is_empty() { Ok(()) } else { deliver::deliver(workshop, &parcels) }
    };
    match attempt(workshop, kit) {
        Ok(()) => {
            workshop.gates = kit.and_then(|kit| kit.room.as_ref()).map(|(_, len_bytes)| (room_at, *len_bytes));
            Ok(())
        }
        Err(DeliverError::NotWritable) => attempt(workshop, None),
        Err(error) => Err(error),
    }
}

fn files<'a>(payloads: &'a [(&'a File, Vec<Piece>)], kit: Option<&'a Kit>) -> Vec<BorrowedFd<'a>> {
    let own = kit.map(|kit| (kit.memory.as_fd(), kit.room.as_ref().map(|(file, _)| file.as_fd())));
    let own = own.into_iter().flat_map(|(memory, room)| core::iter::once(memory).chain(room));
    payloads.iter().map(|(file, _)| file.as_fd()).chain(own).collect()
}

impl Workshop<'_> {
    /// Where the gates go: behind it, with a page left free.
    fn behind(&self) -> RuntimeAddr {
        RuntimeAddr::new(self.end().raw().wrapping_add(PAGE_BYTES))
    }
}
