//! Binding a livepatch to a place: pure arithmetic, no process.

use crate::{Access, FixupKind, Livepatch, OwnAddress};
use salve_elf::{LoadBias, RuntimeAddr, Va};

/// How far the payload's bias lies from the old image's bias, in bytes:
/// `payload bias - old bias`. A multiple of the page size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Distance(i64);

impl Distance {
    pub const fn new(bytes: i64) -> Self {
        Self(bytes)
    }

    pub const fn bytes(self) -> i64 {
        self.0
    }

    /// The bias at which the payload is mapped, given the old image's.
    pub const fn payload_bias(self, old: LoadBias) -> LoadBias {
        LoadBias::new(old.raw().wrapping_add_signed(self.0))
    }
}

/// A segment with every fix-up applied: byte for byte what is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedSegment {
    pub new_va: Va,
    pub access: Access,
    pub bytes: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("target {old_target} is out of reach of the field at {new_va} at distance {distance:#x}")]
    OutOfReach { new_va: Va, old_target: Va, distance: i64 },
    #[error("fix-up at {new_va} lies in no segment")]
    FixupOutside { new_va: Va },
    #[error("{found} addresses for {need} words")]
    Addresses { found: usize, need: usize },
    #[error("word at {new_va} lies in no segment")]
    WordOutside { new_va: Va },
    #[error("detour target {new_target} is out of reach of {old_va} at distance {distance:#x}")]
    DetourOutOfReach { old_va: Va, new_target: Va, distance: i64 },
}

impl Livepatch {
    /// The payload as it has to be mapped at `distance` from the old image, with an address
    /// for every import and every pointer in their order; for what is in the payload, as if
    /// it were in the old image. Depends on nothing else, so processes
    /// that agree on these share pages.
    pub fn place_bound(&self, distance: Distance, addresses: &[RuntimeAddr]) -> Result<Vec<PlacedSegment>, PlaceError> {
        if addresses.len() != self.bound_words().count() {
            return Err(PlaceError::Addresses { found: addresses.len(), need: self.bound_words().count() });
        }
        let mut placed = self.place(distance)?;
        for ((new_va, own), address) in self.bound_words().zip(addresses) {
            let slot = placed.iter_mut().find_map(|s| field(s, new_va, 8)).ok_or(PlaceError::WordOutside { new_va })?;
            let address = match own {
                Some(OwnAddress::Payload(_)) => address.wrapping_offset(distance.bytes()),
                Some(OwnAddress::Old(_)) | None => *address,
            };
            slot.copy_from_slice(&address.raw().to_le_bytes());
        }
        Ok(placed)
    }

    /// Words that get an address in each process, imports first; and where that is, if it is
    /// the image's own.
    pub fn bound_words(&self) -> impl Iterator<Item = (Va, Option<OwnAddress>)> {
        let imports = self.imports.iter().map(|import| (import.new_va, import.own));
        imports.chain(self.pointers.iter().map(|pointer| (pointer.new_va, Some(pointer.to))))
    }

    /// The same with all of these words left empty.
    pub fn place(&self, distance: Distance) -> Result<Vec<PlacedSegment>, PlaceError> {
        let mut placed: Vec<PlacedSegment> = self
            .segments
            .iter()
            .map(|s| PlacedSegment { new_va: s.new_va, access: s.access, bytes: s.bytes.clone() })
            .collect();
        for fixup in &self.fixups {
            let FixupKind::PcRel32 { new_next, old_target } = fixup.kind;
            // old_bias + old_target - (old_bias + distance + new_next)
            #[expect(clippy::arithmetic_side_effects, reason = "three 64-bit terms cannot overflow 128 bits")]
            let value = i128::from(old_target.raw()) - i128::from(new_next.raw()) - i128::from(distance.bytes());
            let value = i32::try_from(value).map_err(|_| PlaceError::OutOfReach {
                new_va: fixup.new_va,
                old_target,
                distance: distance.bytes(),
            })?;
            let field = placed
                .iter_mut()
                .find_map(|s| field(s, fixup.new_va, 4))
                .ok_or(PlaceError::FixupOutside { new_va: fixup.new_va })?;
            field.copy_from_slice(&value.to_le_bytes());
        }
        Ok(placed)
    }

    /// The five bytes (`e9 rel32`) that each detour writes at `distance`, in the order of `detours`.
    pub fn jumps(&self, distance: Distance) -> Result<Vec<[u8; 5]>, PlaceError> {
        self.detours
            .iter()
            .map(|detour| {
                #[expect(clippy::arithmetic_side_effects, reason = "four 64-bit terms cannot overflow 128 bits")]
                let value = i128::from(detour.new_target.raw()) + i128::from(distance.bytes())
                    - (i128::from(detour.old_va.raw()) + 5);
                let value = i32::try_from(value).map_err(|_| PlaceError::DetourOutOfReach {
                    old_va: detour.old_va,
                    new_target: detour.new_target,
                    distance: distance.bytes(),
                })?;
                let [a, b, c, d] = value.to_le_bytes();
                Ok([0xe9, a, b, c, d])
            })
            .collect()
    }

    /// From the first to past the last byte of the payload, in addresses of the new image.
    pub fn span(&self) -> Option<(Va, Va)> {
        let first = self.segments.first()?.new_va;
        let last = self.segments.last()?;
        Some((first, last.range()?.end()))
    }

    /// The distance a payload has when it lies at `at` for its first segment.
    pub fn distance_at(&self, first_segment_at: RuntimeAddr, old: LoadBias) -> Option<Distance> {
        let (first, _) = self.span()?;
        let payload_bias = LoadBias::between(first, first_segment_at);
        Some(Distance(payload_bias.raw().wrapping_sub(old.raw()).cast_signed()))
    }
}

fn field(segment: &mut PlacedSegment, at: Va, len: usize) -> Option<&mut [u8]> {
    let offset = usize::try_from(at.raw().checked_sub(segment.new_va.raw())?).ok()?;
    segment.bytes.get_mut(offset..offset.checked_add(len)?)
}
