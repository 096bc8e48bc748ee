//! Procedure linkage table stubs, by the slot they jump through.
//!
//! All layouts that x86-64 linkers emit (lazy, `-z now`, with and without
//! `endbr64`, `.plt.sec`, `.plt.got`) have in common that a stub jumps through
//! one GOT slot (psABI §5.2); which symbol it is for is the slot's relocation.

use crate::summary::decode;
use iced_x86::{FlowControl, Instruction};
use salve_elf::{AddressIndex, Image, SectionRole, Va};

/// One stub and the slot it jumps through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PltStub {
    pub entry: Va,
    pub slot: Va,
}

/// All stubs of an image, sorted by entry.
#[derive(Clone, Debug)]
pub struct Plt {
    stubs: Vec<PltStub>,
    /// Of their entries.
    index: AddressIndex,
}

impl Plt {
    pub fn of(image: &Image<'_>) -> Self {
        let mut stubs = Vec::new();
        for section in image.sections().iter().filter(|s| s.role == SectionRole::Plt) {
            let Some(mut decoder) = decode(image, section.range) else { continue };
            let mut instruction = Instruction::default();
            while decoder.can_decode() {
                decoder.decode_out(&mut instruction);
                let through_slot =
                    instruction.flow_control() == FlowControl::IndirectBranch && instruction.is_ip_rel_memory_operand();
                if !through_slot {
                    continue;
                }
                let slot = Va::new(instruction.ip_rel_memory_address());
                if image.reloc_at(slot).is_some() {
                    stubs.push(PltStub { entry: Va::new(instruction.ip()).page_floor(8), slot });
                }
            }
        }
        stubs.sort_by_key(|s| s.entry);
        let index = AddressIndex::new(stubs.iter().map(|stub| stub.entry));
        Self { stubs, index }
    }

    pub fn stubs(&self) -> &[PltStub] {
        &self.stubs
    }

    /// The slot that the stub at exactly `entry` jumps through.
    pub fn slot_of(&self, entry: Va) -> Option<Va> {
        let part = self.stubs.get(self.index.around(entry))?;
        part.binary_search_by_key(&entry, |stub| stub.entry)
            .ok()
            .and_then(|index| part.get(index))
            .map(|stub| stub.slot)
    }
}
