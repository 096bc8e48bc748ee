//! What is applied to a process, read from the process itself, by content.

use crate::image::{Found, PAGE_BYTES, read_image};
use crate::maps::Mapping;
use crate::memory::Memory;
use crate::patcher::Patcher;
use crate::present::Present;
use crate::process::{Process, ProcessId, ReadError};
use crate::slot::{SLOT_BYTES, slots};
use crate::spot::{AtSpot, Kind};
use crate::stub;
use crate::tidy::Leftovers;
use rustix::fs::OFlags;
use salve_elf::{LoadBias, RuntimeAddr, Va};
use salve_patch::{LivepatchId, PatchFile, RevertPolicy};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// All that the content of a process says about livepatches in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessStatus {
    pub id: ProcessId,
    pub livepatches: Vec<LivepatchStatus>,
    /// Payload-like mappings that are not what Salve would have delivered.
    pub unreadable: Vec<UnreadablePayload>,
    /// Text that differs from its file and that no livepatch here explains.
    pub modified_text: Vec<ModifiedText>,
    /// Stubs left behind by a Salve that was killed while it had borrowed a thread; harmless.
    pub leftover_stubs: usize,
    /// Working memory left behind by a Salve that was killed; harmless, and cleaned up by the
    /// next apply or revert.
    pub leftover_workshops: usize,
}

impl ProcessStatus {
    /// Whether a Salve that was killed left something that [`crate::Patcher::revert`], with
    /// any selection, takes away.
    pub fn has_leftovers(&self) -> bool {
        let orphan = |one: &LivepatchStatus| {
            let may_go = |image: &salve_patch::ImageReport| {
                image.livepatch.as_ref().is_some_and(|livepatch| livepatch.revert == RevertPolicy::Unmap)
            };
            one.state == LivepatchState::Reverted && one.patch.images.iter().any(may_go)
        };
        self.leftover_stubs > 0 || self.leftover_workshops > 0 || self.livepatches.iter().any(orphan)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivepatchStatus {
    pub livepatch: LivepatchId,
    pub state: LivepatchState,
    /// Path of the mapped image, as the process sees it.
    pub mapped_path: OsString,
    /// Where the payload's first segment lies.
    pub payload_at: RuntimeAddr,
    pub payload_bytes: u64,
    /// The patch file that the payload carries: origin, and one image with its report and livepatch.
    pub patch: PatchFile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivepatchState {
    /// Every detour is there.
    Applied,
    /// Some are: whoever wrote them was killed in between. Apply finishes, revert undoes.
    Partial { present: usize, total: usize },
    /// None is; the payload is still mapped.
    Reverted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadablePayload {
    pub at: RuntimeAddr,
    pub name: OsString,
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModifiedText {
    pub path: OsString,
    /// First differing byte, as the file states it.
    pub va: Va,
    /// How many differ from there to the last difference in the same page.
    pub len_bytes: u64,
}

pub(crate) fn read(patcher: &Patcher, process: &Process) -> Result<ProcessStatus, ReadError> {
    let limits = patcher.limits();
    let memory = Memory::open_to_read(process)?;
    let mappings = process.mappings(limits)?;
    let images = patcher.found(process, &mappings)?;
    let (present, unreadable) = Present::find(process, &mappings, &images, limits)?;
    let mut livepatches = Vec::new();
    let mut jumps = Vec::new();
    for one in present {
        let state = one.state(&memory)?;
        let (total, there) = (state.len(), state.iter().filter(|&&at| at == AtSpot::Changed).count());
        let spots = one.spots();
        let in_force = spots.iter().zip(&state).filter(|(_, state)| **state == AtSpot::Changed);
        jumps.extend(in_force.filter(|((spot, _), _)| spot.kind == Kind::Detour).map(|((spot, _), _)| spot.at));
        let first = one.payload.segments.first().map(|segment| segment.new_va.in_process(one.payload.bias(one.old)));
        livepatches.push(LivepatchStatus {
            livepatch: one.payload.id,
            state: match there {
                0 => LivepatchState::Reverted,
                all if all == total => LivepatchState::Applied,
                present => LivepatchState::Partial { present, total },
            },
            mapped_path: images.get(one.image).map(|image| image.image.path.clone()).unwrap_or_default(),
            payload_at: first.unwrap_or(RuntimeAddr::new(0)),
            payload_bytes: one.payload.len_bytes(),
            patch: one.payload.patch,
        });
    }
    let leftovers = Leftovers::find(process, &memory, &mappings, &images);
    let mut status = ProcessStatus {
        id: process.id(),
        livepatches,
        unreadable,
        modified_text: Vec::new(),
        leftover_stubs: 0,
        leftover_workshops: leftovers.workshops.len().max(leftovers.rooms.len()),
    };
    let pagemap = process.open_entry("pagemap", "pagemap", OFlags::RDONLY)?;
    for image in &images {
        let Some(bias) = image.bias() else { continue };
        Text { process, memory: &memory, pagemap: &pagemap, image, bias, jumps: &jumps }
            .compare(limits, &mut status)?;
    }
    Ok(status)
}

/// The code of one image in a process, to be compared with its file.
struct Text<'a> {
    process: &'a Process,
    memory: &'a Memory,
    pagemap: &'a File,
    image: &'a Found,
    bias: LoadBias,
    jumps: &'a [RuntimeAddr],
}

impl Text<'_> {
    /// Only pages that are no longer the file's own are compared: a page that was
    /// written has become an anonymous one (`proc_pid_pagemap(5)`).
    fn compare(&self, limits: &crate::Limits, status: &mut ProcessStatus) -> Result<(), ReadError> {
        let mut file = None;
        for mapping in self.image.text().filter(|mapping| !mapping.perms.shared) {
            for page in copied_pages(self.pagemap, mapping) {
                let bytes = match &file {
                    Some(bytes) => bytes,
                    None => file.insert(read_image(&self.process.open_mapped(mapping)?, limits)?),
                };
                let into = page.raw().wrapping_sub(mapping.start.raw());
                let offset = usize::try_from(mapping.offset.raw().wrapping_add(into)).unwrap_or(usize::MAX);
                let original = bytes.get(offset..).unwrap_or_default();
                self.compare_page(page, original, status)?;
            }
        }
        Ok(())
    }

    fn compare_page(&self, page: RuntimeAddr, original: &[u8], status: &mut ProcessStatus) -> Result<(), ReadError> {
        let mut now = vec![0; usize::try_from(PAGE_BYTES).unwrap_or(0)];
        self.memory.read_exact(page, &mut now).map_err(|_| ReadError::Exited)?;
        let stubs: Vec<RuntimeAddr> = slots(self.image)
            .into_iter()
            .map(|(at, _)| at)
            .filter(|at| at.page_floor(PAGE_BYTES) == page)
            .filter(|at| {
                let into = usize::try_from(at.raw().wrapping_sub(page.raw())).unwrap_or(usize::MAX);
                now.get(into..).is_some_and(stub::looks_like_stub)
            })
            .collect();
        status.leftover_stubs = status.leftover_stubs.saturating_add(stubs.len());
        let within = |at: RuntimeAddr, starts: &[RuntimeAddr], len: u64| {
            starts.iter().any(|start| at.raw().wrapping_sub(start.raw()) < len)
        };
        // Behind the file's end a page is zero.
        let file = original.iter().copied().chain(core::iter::repeat(0));
        let stub_bytes = u64::try_from(SLOT_BYTES).unwrap_or(0);
        let mut differing = (0_u64..)
            .zip(now.iter().zip(file))
            .filter(|(_, (now, file))| **now != *file)
            .map(|(into, _)| RuntimeAddr::new(page.raw().wrapping_add(into)))
            .filter(|&at| !within(at, self.jumps, 5) && !within(at, &stubs, stub_bytes));
        if let Some(first) = differing.next() {
            let last = differing.last().unwrap_or(first);
            status.modified_text.push(ModifiedText {
                path: self.image.image.path.clone(),
                va: first.in_file(self.bias),
                len_bytes: last.raw().wrapping_sub(first.raw()).saturating_add(1),
            });
        }
        Ok(())
    }
}

/// Pages of a private file mapping that are present or swapped and no longer the file's.
fn copied_pages(pagemap: &File, mapping: &Mapping) -> Vec<RuntimeAddr> {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const OF_FILE: u64 = 1 << 61;
    let first = mapping.start.raw().checked_div(PAGE_BYTES).unwrap_or(0);
    let pages = mapping.len_bytes().checked_div(PAGE_BYTES).unwrap_or(0);
    let mut entries = vec![0_u8; usize::try_from(pages.saturating_mul(8)).unwrap_or(0)];
    let len = pagemap.read_at(&mut entries, first.saturating_mul(8)).unwrap_or(0);
    let (words, _) = entries.get(..len).unwrap_or_default().as_chunks::<8>();
    (first..)
        .zip(words)
        .filter(|(_, word)| {
            let entry = u64::from_le_bytes(**word);
            entry & (PRESENT | SWAPPED) != 0 && entry & OF_FILE == 0
        })
        .map(|(page, _)| RuntimeAddr::new(page.saturating_mul(PAGE_BYTES)))
        .collect()
}
