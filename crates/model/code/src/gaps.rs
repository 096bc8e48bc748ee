//! Where stretches that nothing describes divide.
//!
//! Between the functions of hand-written assembly lie tables, texts, and code without frame
//! descriptions, one behind the other. Where not everything in such a stretch is an
//! instruction, it is divided at every place that something leads to, and behind the code
//! that what is certainly code calls or jumps into: what is understood then is compared as
//! code, and what is not, as data.

use crate::ReferenceKind;
use crate::summary::{decode_at, in_order};
use iced_x86::{FlowControl, Instruction, OpKind};
use salve_elf::{Binding, Function, Image, ImageError, ImageLimits, Va, VaRange};
use std::collections::{BTreeMap, BTreeSet};

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
    let mut entered: BTreeSet<Va> = BTreeSet::new();
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
                let led_to = led_to(image, function.range).unwrap_or_default();
                targets.extend(led_to.iter().map(|(_, target)| *target));
                if is_code(function, &entered) {
                    let branches = led_to.iter().filter(|(kind, _)| is_branch(*kind));
                    entered.extend(branches.map(|(_, target)| *target));
                }
            }
        }
        targets.extend(
            unclear
                .iter()
                .filter(|range| entered.contains(&range.start()))
                .filter_map(|range| end_of_code(image, *range)),
        );
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

/// Where its instructions lead, and how; `None` if not all of it is.
fn led_to(image: &Image<'_>, range: VaRange) -> Option<Vec<(ReferenceKind, Va)>> {
    let (references, _) = in_order(image, range, image.read(range)?)?;
    Some(references.into_iter().map(|reference| (reference.kind, reference.target)).collect())
}

const fn is_branch(kind: ReferenceKind) -> bool {
    matches!(kind, ReferenceKind::Call | ReferenceKind::Jump)
}

/// Whether it is executed: because the image describes it, or because such code goes there.
fn is_code(function: &Function, entered: &BTreeSet<Va>) -> bool {
    function.is_described() || entered.contains(&function.range.start())
}

/// Behind the last instruction that execution from the start of a stretch comes to by steps and
/// direct jumps, where something that is no code follows: a text, or a table. `None` where it
/// leaves the stretch otherwise, where nobody knows where it goes, and where what lies
/// between those instructions is not all instructions.
fn end_of_code(image: &Image<'_>, range: VaRange) -> Option<Va> {
    let mut open = vec![range.start()];
    let mut reached: BTreeMap<Va, Va> = BTreeMap::new();
    while let Some(at) = open.pop() {
        if reached.contains_key(&at) {
            continue;
        }
        let instruction = decode_at(image, at).filter(|instruction| !instruction.is_invalid())?;
        let next = Va::new(instruction.next_ip());
        if next > range.end() {
            return None;
        }
        reached.insert(at, next);
        let (goes_on, jumps) = flow(&instruction)?;
        let is_near = matches!(instruction.op0_kind(), OpKind::NearBranch64);
        if instruction.flow_control() == FlowControl::Call
            && is_near
            && range.contains(Va::new(instruction.near_branch64()))
        {
            // It may learn from that where it is, and read or go on anywhere.
            return None;
        }
        open.extend(goes_on.then_some(next));
        open.extend(jumps.filter(|target| range.contains(*target)));
    }
    let end = reached.last_key_value().map(|(_, next)| *next)?;
    let code = VaRange::try_from((range.start(), end)).ok()?;
    in_order(image, code, image.read(code)?).map(|_| end)
}

/// Whether the next instruction may be executed, and where else execution may go on; `None` where nobody knows.
fn flow(instruction: &Instruction) -> Option<(bool, Option<Va>)> {
    let target = || Some(Va::new(instruction.near_branch64()));
    match instruction.flow_control() {
        FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall | FlowControl::Interrupt => {
            Some((true, None))
        }
        FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend => Some((true, target())),
        FlowControl::UnconditionalBranch => Some((false, target())),
        FlowControl::Return | FlowControl::Exception => Some((false, None)),
        FlowControl::IndirectBranch => None,
    }
}
