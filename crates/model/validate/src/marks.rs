//! Two marks for every byte of the new image's code: "an instruction starts here"
//! and "something leads here". When all code was read, nothing may be led to that
//! does not start an instruction.

use crate::image::Image;
use core::cell::Cell;
use salve_elf::{Va, VaRange};

pub(crate) struct Marks {
    sections: Vec<Section>,
}

struct Section {
    range: VaRange,
    starts: Vec<Cell<u64>>,
    wanted: Vec<Cell<u64>>,
}

impl Marks {
    pub(crate) fn new(image: &Image<'_>) -> Self {
        let blank = |bytes: usize| vec![Cell::new(0); bytes.div_ceil(64)];
        let sections = image.sections.iter().filter(|s| s.is_code());
        let sections = sections
            .map(|s| Section { range: s.range, starts: blank(s.data.len()), wanted: blank(s.data.len()) })
            .collect();
        Self { sections }
    }

    pub(crate) fn starts(&self, at: Va) {
        self.set(at, |section| &section.starts);
    }

    pub(crate) fn wanted(&self, at: Va) {
        self.set(at, |section| &section.wanted);
    }

    pub(crate) fn is_start(&self, at: Va) -> bool {
        let bit = self.place(at).and_then(|(section, word, bit)| Some(section.starts.get(word)?.get() >> bit & 1));
        bit == Some(1)
    }

    /// The first place that is led to and starts no instruction. The place after a
    /// `lock` prefix is one too: glibc jumps over the prefix when there is one thread.
    pub(crate) fn dangling(&self, image: &Image<'_>) -> Option<Va> {
        self.sections.iter().find_map(|section| section.dangling(self, image))
    }

    fn place(&self, at: Va) -> Option<(&Section, usize, u32)> {
        let section = self.sections.iter().find(|s| s.range.contains(at))?;
        let offset = at.raw().checked_sub(section.range.start().raw())?;
        let word = usize::try_from(offset / 64).ok()?;
        Some((section, word, u32::try_from(offset % 64).ok()?))
    }

    fn set(&self, at: Va, which: impl Fn(&Section) -> &Vec<Cell<u64>>) {
        if let Some((section, word, bit)) = self.place(at)
            && let Some(word) = which(section).get(word)
        {
            word.set(word.get() | 1 << bit);
        }
    }
}

impl Section {
    fn dangling(&self, marks: &Marks, image: &Image<'_>) -> Option<Va> {
        for (index, (starts, wanted)) in self.starts.iter().zip(&self.wanted).enumerate() {
            let mut left = wanted.get() & !starts.get();
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                let offset = u64::try_from(index).ok()?.checked_mul(64)?.checked_add(u64::from(bit))?;
                let at = self.range.start().checked_add(offset)?;
                let before = at.checked_sub(1);
                let after_lock = before.is_some_and(|b| marks.is_start(b) && image.array::<1>(b) == Some([0xf0]));
                if !after_lock {
                    return Some(at);
                }
            }
        }
        None
    }
}
