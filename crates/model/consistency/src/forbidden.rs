//! Where no thread may be: zones of addresses, each with a function's name.

use salve_elf::{LoadBias, RuntimeAddr, Va, VaRange};
use salve_patch::{Livepatch, ReplacedFunction};

/// Addresses that belong to one part of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    pub start: RuntimeAddr,
    pub end: RuntimeAddr,
    /// Index into the names of the [`Forbidden`].
    function: usize,
    /// The start may be seen: a thread there has executed nothing of the function,
    /// and will take the new way. True for an entry that gets a detour.
    start_is_free: bool,
    /// Another address in it of which the same holds: the detour behind an `endbr64`.
    also_free: Option<RuntimeAddr>,
}

/// All zones of a transition, over all its images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forbidden {
    names: Vec<String>,
    zones: Vec<Zone>,
    lowest: u64,
    highest: u64,
}

/// How many bytes a detour overwrites.
const DETOUR_BYTES: u64 = 5;

impl Forbidden {
    /// What must not be in use when the detours of `livepatch` are written: its
    /// replaced functions, and of those that may overlap the overwritten bytes.
    pub fn add_apply(&mut self, livepatch: &Livepatch, old: LoadBias) {
        for function in &livepatch.replaced {
            if !function.may_overlap {
                self.add_function(function, livepatch, old);
            }
        }
        self.add_overwritten(livepatch, old);
        self.add_readers(livepatch, old);
    }

    /// What must not be in use when the detours are taken away and the payload is
    /// unmapped (`whole_payload`) or kept. `payload` is the payload's bias.
    pub fn add_revert(&mut self, livepatch: &Livepatch, old: LoadBias, payload: LoadBias, whole_payload: bool) {
        for function in &livepatch.replaced {
            if function.may_overlap && !whole_payload {
                continue;
            }
            let name = self.name(&function.name);
            for &range in &function.new_ranges {
                self.push(range, payload, name, false, None);
            }
        }
        if whole_payload {
            let name = self.name("payload");
            for segment in &livepatch.segments {
                if let (salve_patch::Access::ReadExecute, Some(range)) = (segment.access, segment.range()) {
                    self.push(range, payload, name, false, None);
                }
            }
        }
        self.add_overwritten(livepatch, old);
        self.add_readers(livepatch, old);
    }

    /// Any range of addresses; both ends count as inside.
    pub fn add_range(&mut self, start: RuntimeAddr, end: RuntimeAddr, name: &str) {
        let function = self.name(name);
        self.insert(Zone { start, end, function, start_is_free: false, also_free: None });
    }

    fn add_function(&mut self, function: &ReplacedFunction, livepatch: &Livepatch, old: LoadBias) {
        let name = self.name(&function.name);
        for &range in &function.old_ranges {
            let detour = livepatch.detours.iter().find(|detour| detour.old_entry == range.start());
            let also_free = detour.map(|detour| detour.old_va.in_process(old));
            self.push(range, old, name, detour.is_some(), also_free);
        }
    }

    /// Who reads words that change might have one of before and one of after.
    fn add_readers(&mut self, livepatch: &Livepatch, old: LoadBias) {
        for reader in &livepatch.readers {
            let name = self.name(&reader.name);
            self.push(reader.old_range, old, name, false, None);
        }
    }

    fn add_overwritten(&mut self, livepatch: &Livepatch, old: LoadBias) {
        for detour in &livepatch.detours {
            let name = self.name(&detour.function);
            // Less one byte: the address behind the jump is not overwritten, and a
            // zone counts its end as inside.
            let Some(range) = VaRange::new(detour.old_va, DETOUR_BYTES.saturating_sub(1)) else { continue };
            self.push(range, old, name, true, None);
        }
    }

    fn push(&mut self, range: VaRange, bias: LoadBias, function: usize, free: bool, also_free: Option<RuntimeAddr>) {
        let place = |va: Va| va.in_process(bias);
        let (start, end) = (place(range.start()), place(range.end()));
        self.insert(Zone { start, end, function, start_is_free: free, also_free });
    }

    fn insert(&mut self, zone: Zone) {
        self.lowest = if self.zones.is_empty() { zone.start.raw() } else { self.lowest.min(zone.start.raw()) };
        self.highest = self.highest.max(zone.end.raw());
        self.zones.push(zone);
    }

    fn name(&mut self, name: &str) -> usize {
        if let Some(index) = self.names.iter().position(|known| known == name) {
            return index;
        }
        self.names.push(name.to_owned());
        self.names.len().saturating_sub(1)
    }

    /// The function that `word` lies in, taking it for a return address or an
    /// interrupted instruction pointer: `end` counts as inside.
    pub fn word(&self, word: u64) -> Option<usize> {
        // Nearly every word of a stack fails here.
        if word.wrapping_sub(self.lowest) > self.highest.wrapping_sub(self.lowest) {
            return None;
        }
        self.find(word, true)
    }

    /// The function that is executing if the instruction pointer is `at`.
    pub(crate) fn executing(&self, at: RuntimeAddr) -> Option<usize> {
        self.find(at.raw(), false)
    }

    fn find(&self, word: u64, end_is_inside: bool) -> Option<usize> {
        let inside = |zone: &&Zone| {
            let (start, end) = (zone.start.raw(), zone.end.raw());
            let within = start <= word && (word < end || (end_is_inside && word == end));
            let free = (zone.start_is_free && word == start) || zone.also_free.is_some_and(|free| free.raw() == word);
            within && !free
        };
        self.zones.iter().find(inside).map(|zone| zone.function)
    }

    pub(crate) fn function_name(&self, index: usize) -> &str {
        self.names.get(index).map_or("", String::as_str)
    }

    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use salve_patch::{Detour, Reader, RevertPolicy};

    fn livepatch(may_overlap: bool) -> Livepatch {
        let range = |start, len| VaRange::new(Va::new(start), len).unwrap();
        Livepatch {
            segments: vec![],
            fixups: vec![],
            detours: vec![Detour {
                function: "f".into(),
                old_entry: Va::new(0x1000),
                old_va: Va::new(0x1004),
                expected: vec![0; 5],
                new_target: Va::new(0x2000),
            }],
            replaced: vec![ReplacedFunction {
                name: "f".into(),
                old_ranges: vec![range(0x1000, 0x40), range(0x3000, 0x10)],
                new_ranges: vec![range(0x2000, 0x50)],
                may_overlap,
            }],
            imports: vec![],
            pointers: vec![],
            words: vec![],
            readers: vec![],
            requirements: vec![],
            revert: RevertPolicy::Unmap,
            unwind: salve_patch::Unwind::default(),
        }
    }

    #[test]
    fn a_word_at_the_entry_or_at_the_detour_is_free_and_one_at_the_end_is_not() {
        let mut forbidden = Forbidden::default();
        forbidden.add_apply(&livepatch(false), LoadBias::new(0));
        let hit = |word: u64| forbidden.word(word).is_some();
        assert!(!hit(0x0fff) && !hit(0x1000) && !hit(0x1004) && !hit(0x1041));
        assert!(hit(0x1001) && hit(0x1005) && hit(0x103f) && hit(0x1040));
        // A cold part has no detour: a thread at its start is inside.
        assert!(hit(0x3000) && hit(0x3010) && !hit(0x3011));
    }

    #[test]
    fn an_instruction_pointer_at_the_end_is_in_the_next_function() {
        let mut forbidden = Forbidden::default();
        forbidden.add_apply(&livepatch(false), LoadBias::new(0x10_0000));
        let executing = |at| forbidden.executing(RuntimeAddr::new(at)).is_some();
        assert!(!executing(0x10_1000) && executing(0x10_1008) && !executing(0x10_1040));
    }

    #[test]
    fn a_function_that_may_overlap_forbids_only_the_overwritten_bytes() {
        let mut forbidden = Forbidden::default();
        forbidden.add_apply(&livepatch(true), LoadBias::new(0));
        let hit = |word: u64| forbidden.word(word).is_some();
        assert!(!hit(0x1004) && hit(0x1005) && hit(0x1008) && !hit(0x1009) && !hit(0x1030));
    }

    #[test]
    fn who_reads_words_that_change_may_not_run_in_either_direction() {
        let reader = Reader { name: "g".into(), old_range: VaRange::new(Va::new(0x4000), 0x20).unwrap() };
        let livepatch = Livepatch { readers: vec![reader], ..livepatch(false) };
        let (mut there, mut back) = (Forbidden::default(), Forbidden::default());
        there.add_apply(&livepatch, LoadBias::new(0));
        back.add_revert(&livepatch, LoadBias::new(0), LoadBias::new(0x100_0000), false);
        for forbidden in [there, back] {
            let hit = |word: u64| forbidden.word(word).is_some();
            assert!(hit(0x4000) && hit(0x4001) && hit(0x4020) && !hit(0x4021) && !hit(0x3fff));
        }
    }

    #[test]
    fn a_revert_forbids_the_new_function_entry_included() {
        let mut forbidden = Forbidden::default();
        forbidden.add_revert(&livepatch(false), LoadBias::new(0), LoadBias::new(0x100_0000), false);
        assert!(forbidden.word(0x100_2000).is_some() && forbidden.word(0x100_2050).is_some());
        assert!(forbidden.word(0x100_2051).is_none() && forbidden.word(0x1010).is_none());
    }
}
