//! Where stubs go, and those that killed runs left behind.

use crate::image::{Found, PAGE_BYTES};
use crate::memory::Memory;
use crate::outcome::NotApplied;
use crate::process::Process;
use crate::remote::{RemoteError, Target, forbidden};
use crate::stub;
use salve_elf::{RuntimeAddr, Va};
use std::os::unix::fs::FileExt;

/// The stub, and a short table behind it. Four of five segments have that much unused
/// tail; the C library's and the dynamic loader's, which every process has, do by far.
pub(crate) const SLOT_BYTES: usize = 640;

/// A place for the stub: unused bytes behind the code of an image, as its file has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) at: RuntimeAddr,
    pub(crate) original: [u8; SLOT_BYTES],
}

impl Slot {
    /// Finds one, and gives the target its own copy of the page while nothing waits for it.
    pub(crate) fn take(target: &Target<'_>) -> Result<Self, RemoteError> {
        let slot = target.images.iter().find_map(|image| Self::find_in(target, image));
        let slot = slot.ok_or(RemoteError::Not(NotApplied::NoStubRoom))?;
        target.memory.write(slot.at, &slot.original).map_err(forbidden)?;
        Ok(slot)
    }

    /// Where a table goes that lies in the slot itself.
    pub(crate) fn table_at(&self) -> RuntimeAddr {
        let stub_bytes = u64::try_from(stub::STUB_BYTES).unwrap_or(u64::MAX);
        RuntimeAddr::new(self.at.raw().wrapping_add(stub_bytes))
    }

    /// Slots that differ from the file are still in use by a thread whose tracer died.
    fn find_in(target: &Target<'_>, image: &Found) -> Option<Self> {
        let file = target.process.open_mapped(image.any_mapping()?).ok()?;
        for (at, offset) in slots(image) {
            let (mut now, mut original) = ([0; SLOT_BYTES], [0; SLOT_BYTES]);
            let len = file.read_at(&mut original, offset).ok()?;
            // Behind the file's end a page is zero, which `original` is already.
            let _ = len;
            target.memory.read_exact(at, &mut now).ok()?;
            if now == original {
                return Some(Self { at, original });
            }
        }
        None
    }
}

/// Every place for a stub in an image: address, and offset in its file.
pub(crate) fn slots(image: &Found) -> Vec<(RuntimeAddr, u64)> {
    let (Some(elf), Some(bias)) = (image.file.elf.as_ref(), image.bias()) else { return Vec::new() };
    let slot_bytes = u64::try_from(SLOT_BYTES).unwrap_or(u64::MAX);
    let mut found = Vec::new();
    for load in elf.loads.iter().filter(|load| load.executable && load.file_bytes == load.memory_bytes) {
        let places = || -> Option<Vec<(RuntimeAddr, u64)>> {
            let end = load.va.checked_add(load.file_bytes)?;
            let first = end.checked_next_multiple_of(16)?;
            let page_end = end.checked_next_multiple_of(PAGE_BYTES)?;
            let room = page_end.checked_sub(first)?.checked_div(slot_bytes)?;
            (0..room)
                .map(|index| {
                    let va = first.checked_add(index.checked_mul(slot_bytes)?)?;
                    let offset = load.offset.checked_add(va.checked_sub(load.va)?)?;
                    Some((Va::new(va).in_process(bias), offset))
                })
                .collect()
        };
        found.extend(places().unwrap_or_default().into_iter().filter(|(at, _)| image.text_holds(*at)));
    }
    found
}

/// A stub that a killed Salve left behind: where, and what belongs there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    pub(crate) at: RuntimeAddr,
    pub(crate) found: [u8; SLOT_BYTES],
    pub(crate) original: [u8; SLOT_BYTES],
}

/// All stubs that were left behind in these images.
pub(crate) fn leftovers(process: &Process, memory: &Memory, images: &[Found]) -> Vec<Leftover> {
    let mut all = Vec::new();
    for image in images {
        let mut file = None;
        for (at, offset) in slots(image) {
            let (mut found, mut original) = ([0; SLOT_BYTES], [0; SLOT_BYTES]);
            if memory.read_exact(at, &mut found).is_err() || !stub::looks_like_stub(&found) {
                continue;
            }
            if file.is_none() {
                file = image.any_mapping().and_then(|mapping| process.open_mapped(mapping).ok());
            }
            if file.as_ref().is_some_and(|file| file.read_at(&mut original, offset).is_ok()) {
                all.push(Leftover { at, found, original });
            }
        }
    }
    all
}
