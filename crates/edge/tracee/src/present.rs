//! The payloads that are in a process, and how far each is in force.

use crate::image::Found;
use crate::limits::Limits;
use crate::maps::Mapping;
use crate::memory::Memory;
use crate::payload::Payload;
use crate::process::{Process, ReadError};
use crate::spot::{AtSpot, Bytes, Spot, at_spot, changed, spots};
use crate::status::UnreadablePayload;
use salve_elf::LoadBias;
use std::io::Read;

/// A payload found mapped, with the image that it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Present {
    pub(crate) payload: Payload,
    /// Index into the process's images.
    pub(crate) image: usize,
    pub(crate) old: LoadBias,
    /// Every mapping of the payload's file.
    pub(crate) mappings: Vec<Mapping>,
}

impl Present {
    /// Finds and checks every payload in the process. What is no proper payload, or
    /// lies elsewhere than it says, comes back as unreadable.
    pub(crate) fn find(
        process: &Process,
        mappings: &[Mapping],
        images: &[Found],
        limits: &Limits,
    ) -> Result<(Vec<Self>, Vec<UnreadablePayload>), ReadError> {
        let (mut present, mut unreadable) = (Vec::new(), Vec::new());
        let mut seen: Vec<&Mapping> = Vec::new();
        for mapping in mappings.iter().filter(|mapping| mapping.is_payload()) {
            if seen.iter().any(|known| known.same_file(mapping)) {
                continue;
            }
            seen.push(mapping);
            let all: Vec<Mapping> = mappings.iter().filter(|other| other.same_file(mapping)).cloned().collect();
            match Self::read(process, mapping, images, limits)? {
                Ok((payload, image, old)) => present.push(Self { payload, image, old, mappings: all }),
                Err(why) => unreadable.push(UnreadablePayload { at: mapping.start, name: mapping.path.clone(), why }),
            }
        }
        Ok((present, unreadable))
    }

    fn read(
        process: &Process,
        mapping: &Mapping,
        images: &[Found],
        limits: &Limits,
    ) -> Result<Result<(Payload, usize, LoadBias), String>, ReadError> {
        // What cannot be opened may be a livepatch in force: nothing can be said without it.
        let file = process.open_mapped(mapping)?;
        let mut bytes = Vec::new();
        if let Err(error) = file.take(limits.max_payload_bytes.saturating_add(1)).read_to_end(&mut bytes) {
            return Ok(Err(error.to_string()));
        }
        let decode = salve_patch::Limits { max_file_bytes: limits.max_payload_bytes, ..salve_patch::Limits::default() };
        let payload = match Payload::parse(&bytes, &decode) {
            Ok(payload) => payload,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let home = Self::home(&payload, mapping, images);
        Ok(home.and_then(|(image, old)| {
            let writes = payload.livepatch().and_then(|livepatch| spots(livepatch, old));
            writes.ok_or_else(|| "it says that it writes what no livepatch does".to_owned())?;
            Ok((payload, image, old))
        }))
    }

    /// The image that it was made for, at the distance that it was made for.
    fn home(payload: &Payload, mapping: &Mapping, images: &[Found]) -> Result<(usize, LoadBias), String> {
        let old = payload.image().and_then(|image| image.old.as_ref()).ok_or("it names no old image")?;
        let made_for = |index: &usize, image: &Found| {
            let bias = image.bias().filter(|_| image.image.sha256 == old.sha256)?;
            let offset = mapping.offset.raw();
            let place = payload.segments.iter().zip(&payload.offsets).find(|(_, at)| **at == offset);
            let at = match place {
                Some((segment, _)) => segment.new_va.in_process(payload.bias(bias)),
                // The header's page stands right before the first segment.
                None => payload.segments.first()?.new_va.in_process(payload.bias(bias)).checked_sub(4096)?,
            };
            (at == mapping.start).then_some((*index, bias))
        };
        images
            .iter()
            .enumerate()
            .find_map(|(index, image)| made_for(&index, image))
            .ok_or_else(|| "the image it was made for is not mapped at its distance".to_owned())
    }

    /// Every spot that it writes to, with what it holds when it is in force.
    pub(crate) fn spots(&self) -> Vec<(Spot<'_>, Bytes)> {
        let Some(livepatch) = self.payload.livepatch() else { return Vec::new() };
        let changed = changed(livepatch, &self.payload.jumps, self.payload.distance, self.old);
        spots(livepatch, self.old).unwrap_or_default().into_iter().zip(changed).collect()
    }

    /// What stands at every spot, in their order.
    pub(crate) fn state(&self, memory: &Memory) -> Result<Vec<AtSpot>, ReadError> {
        self.spots().iter().map(|(spot, changed)| at_spot(memory, spot, Some(*changed))).collect()
    }
}
