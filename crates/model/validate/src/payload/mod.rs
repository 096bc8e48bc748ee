//! The payload: what it holds, and where each of its references leads once placed.
//!
//! It is placed at two distances from the old image, as it would be in two
//! processes, and every instruction of every carried function is read where it
//! would run. A field that leads to the same old address from both places is bound
//! to the old image; one that moves along is bound to the payload itself.

mod bound;
mod contents;
mod function;
mod held;
mod inside;
mod tables;

use crate::brought;
use crate::correspond::{Correspondence, Where};
use crate::decode::{Decoder, Field, Use};
use crate::imports::Imports;
use crate::invalid::Invalid;
use crate::lockstep::Seen;
use crate::segments::{check_shape, distances};
use salve_elf::LoadBias;
use salve_patch::{Distance, Fixup, Livepatch, PlacedSegment, ReferenceCounts};

/// The old image is taken to be where its file says.
const OLD_BIAS: LoadBias = LoadBias::new(0);

pub(crate) struct Payload<'c, 'a> {
    map: &'c Correspondence<'a>,
    decoder: &'c Decoder,
    livepatch: &'c Livepatch,
    placed: [(Distance, Vec<PlacedSegment>); 2],
    references: ReferenceCounts,
    /// Fix-ups not met yet, in order.
    fixups: &'c [Fixup],
    imports: Imports<'c>,
}

impl<'c, 'a> Payload<'c, 'a> {
    pub(crate) fn new(
        map: &'c Correspondence<'a>,
        decoder: &'c Decoder,
        livepatch: &'c Livepatch,
    ) -> Result<Self, Invalid> {
        check_shape(&livepatch.segments)?;
        for two in livepatch.fixups.windows(2) {
            if let [a, b] = two
                && a.new_va >= b.new_va
            {
                return Err(Invalid::StrayFixup { at: b.new_va });
            }
        }
        let [a, b] = distances(map);
        let placed = [(a, livepatch.place(a)?), (b, livepatch.place(b)?)];
        let references = ReferenceCounts::default();
        let imports = Imports::new(map, &livepatch.imports)?;
        Ok(Self { map, decoder, livepatch, placed, references, fixups: &livepatch.fixups, imports })
    }

    /// Proves the payload; returns its references by where they lead, and its bytes.
    pub(crate) fn check(mut self, seen: &mut Seen) -> Result<(ReferenceCounts, u64), Invalid> {
        let mut bytes = 0_u64;
        brought::check_order(self.map, self.livepatch)?;
        for segment in &self.livepatch.segments {
            bytes = bytes.saturating_add(self.check_contents(segment)?);
        }
        for range in &self.map.index.carried {
            self.check_function(*range, seen)?;
        }
        if let Some(stray) = self.fixups.first() {
            return Err(Invalid::StrayFixup { at: stray.new_va });
        }
        self.check_tables(seen)?;
        self.check_words(seen)?;
        self.imports.check_all_used()?;
        Ok((self.references, bytes))
    }

    fn count(&mut self, found: Where) {
        let counter = match found {
            Where::Code => &mut self.references.old_code,
            Where::Data => &mut self.references.old_data,
            Where::Import => &mut self.references.imports,
            Where::Number => return,
        };
        *counter = counter.saturating_add(1);
    }
}

fn is_control(field: Field) -> bool {
    matches!(field.role, Use::Jump | Use::Call)
}
