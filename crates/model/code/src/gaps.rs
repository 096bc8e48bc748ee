//! Where stretches that nothing describes divide.
//!
//! Between the functions of hand-written assembly lie tables, texts, and code without frame
//! descriptions, one behind the other. Where not everything in such a stretch is an
//! instruction, it is divided at every place that something leads to: what is understood
//! then is compared as code, and what is not, as data.

use crate::summary::in_order;
use salve_elf::{Binding, Image, ImageError, ImageLimits, Va, VaRange};

/// What a round makes clear leads to more.
const ROUNDS: usize = 4;

/// An image, divided where what lies between its functions is not all instructions.
pub fn parse<'a>(bytes: &'a [u8], limits: &ImageLimits) -> Result<Image<'a>, ImageError> {
    let mut image = Image::parse(bytes, limits)?;
    divide(&mut image);
    Ok(image)
}

fn divide(image: &mut Image<'_>) {
    let mut known: Vec<VaRange> = Vec::new();
    let mut targets: Vec<Va> = Vec::new();
    for round in 0..ROUNDS {
        let unclear: Vec<VaRange> = image
            .functions()
            .iter()
            .filter(|f| !f.is_described())
            .filter(|f| led_to(image, f.range).is_none())
            .map(|f| f.range)
            .collect();
        if unclear.is_empty() {
            return;
        }
        if round == 0 {
            targets.extend(image.relocs().iter().filter_map(|reloc| match reloc.binding {
                Binding::Relative { target } | Binding::Indirect { resolver: target } => Some(target),
                Binding::Symbol { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. } => None,
            }));
            targets.extend(image.symbols().iter().filter(|symbol| symbol.defined).map(|symbol| symbol.value));
        }
        for function in image.functions() {
            if known.binary_search_by_key(&function.range.start(), |range| range.start()).is_err() {
                targets.extend(led_to(image, function.range).into_iter().flatten());
            }
        }
        let is_unclear = |range: &VaRange| unclear.binary_search_by_key(&range.start(), |range| range.start()).is_ok();
        known = image.functions().iter().map(|f| f.range).filter(|range| !is_unclear(range)).collect();
        let is_inside = |at: &Va| {
            let next = unclear.partition_point(|range| range.start() < *at);
            next.checked_sub(1).and_then(|i| unclear.get(i)).is_some_and(|range| range.contains(*at))
        };
        let mut inside: Vec<Va> = targets.iter().copied().filter(is_inside).collect();
        inside.sort_unstable();
        inside.dedup();
        if inside.is_empty() {
            return;
        }
        image.divide_gaps(&inside);
    }
}

/// Where its instructions lead; `None` if not all of it is.
fn led_to(image: &Image<'_>, range: VaRange) -> Option<Vec<Va>> {
    let (references, _) = in_order(image, range, image.read(range)?)?;
    Some(references.into_iter().map(|reference| reference.target).collect())
}
