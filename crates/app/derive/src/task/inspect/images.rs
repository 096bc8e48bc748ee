//! One function of two images.

use super::listing::{Names, disassemble};
use crate::pairing::{self, Candidate, Pairing, Versions};
use crate::side::LoadedImage;
use crate::task::Work;
use salve_code::Plt;
use salve_elf::{Binding, Image, ImageLimits, Va};
use salve_match::{ImageDiff, diff};
use salve_protocol::{AssemblyView, Failure, FailureKind, Side};
use std::rc::Rc;

pub(super) fn view(
    work: &Work<'_>,
    function: &str,
    image: Option<&str>,
    old: &Side,
    new: &Side,
) -> Result<AssemblyView, Failure> {
    let mut sides = work.load(vec![old.clone(), new.clone()])?.into_iter();
    let (Some(old), Some(new)) = (sides.next(), sides.next()) else {
        return Err(Failure::new(FailureKind::Internal).because("a side is missing"));
    };
    let pairs = pairs(&old.images, &new.images);
    let wanted = |path: &str| image.is_none_or(|wanted| wanted == path);
    let mut found = Vec::new();
    for (old, new) in pairs.into_iter().filter(|(_, new)| wanted(&new.path)) {
        if let Some(view) = work.pool.run(|| view_of_pair(function, old, new))? {
            found.push(view);
        }
    }
    let names = found.iter().map(|view| view.image.clone()).collect();
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(FailureKind::NoSuchFunction { function: function.to_owned() }.into()),
        (Some(view), true) => Ok(view),
        (Some(_), false) => {
            let kind = FailureKind::AmbiguousFunction { function: function.to_owned(), images: names };
            Err(Failure::new(kind).hint("name the image too"))
        }
    }
}

fn pairs<'a>(old: &'a [LoadedImage], new: &'a [LoadedImage]) -> Vec<(&'a LoadedImage, &'a LoadedImage)> {
    if let ([old], [new]) = (old, new) {
        return vec![(old, new)];
    }
    let candidates =
        |side: &'a [LoadedImage]| -> Vec<Candidate<'a>> { side.iter().map(LoadedImage::candidate).collect() };
    let versions = Versions::default();
    pairing::pair(&candidates(old), &candidates(new), (&versions, &versions))
        .into_iter()
        .filter_map(|pairing| match pairing {
            Pairing::Pair { old: o, new: n } => Some((old.get(o)?, new.get(n)?)),
            Pairing::OldOnly(_) | Pairing::NewOnly(_) | Pairing::Ambiguous { .. } | Pairing::SonameChanged { .. } => {
                None
            }
        })
        .collect()
}

/// `None` where neither image has such a function.
fn view_of_pair(function: &str, old: &LoadedImage, new: &LoadedImage) -> Result<Option<AssemblyView>, Failure> {
    let limits = ImageLimits::default();
    let (Ok(old_image), Ok(new_image)) =
        (salve_code::parse(&old.bytes, &limits), salve_code::parse(&new.bytes, &limits))
    else {
        return old.failure().or_else(|| new.failure()).map_or(Ok(None), Err);
    };
    let named = |image: &Image<'_>| image.functions().iter().position(|f| f.display_name() == function);
    let (mut old_index, mut new_index) = (named(&old_image), named(&new_image));
    if old_index.is_none() && new_index.is_none() {
        return Ok(None);
    }
    let diff = diff(&old_image, &new_image);
    // The counterpart may have no name, or another one: an address.
    if let Some(counterpart) = new_index.and_then(|new| diff.old_of(new)) {
        old_index = Some(counterpart);
    } else if let Some(counterpart) = old_index.and_then(|old| diff.new_of(old)) {
        new_index = Some(counterpart);
    }
    let old_names = Rc::new(names(&old_image, &|index| display(&old_image, index)));
    let new_names = Rc::new(names(&new_image, &|index| name_of_new(&diff, &old_image, &new_image, index)));
    let mut notes = Vec::new();
    let mut listing = |image: &Image<'_>, index: Option<usize>, names: &Rc<Names>, side: &str| {
        let function = index.and_then(|index| image.functions().get(index));
        if let Some(part) = function.and_then(|f| Some((f.range.start(), image.read(f.range)?))) {
            disassemble(&[part], names)
        } else {
            notes.push(format!("the {side} image has no such function"));
            Vec::new()
        }
    };
    let old_lines = listing(&old_image, old_index, &old_names, "old");
    let new_lines = listing(&new_image, new_index, &new_names, "new");
    Ok(Some(super::view(&new.path, function, old_lines, new_lines, notes)))
}

fn display(image: &Image<'_>, index: usize) -> Option<String> {
    image.functions().get(index).map(salve_elf::Function::display_name)
}

/// A function goes by one name on both sides: its old counterpart's.
fn name_of_new(diff: &ImageDiff<'_, '_>, old: &Image<'_>, new: &Image<'_>, index: usize) -> Option<String> {
    match diff.old_of(index) {
        Some(counterpart) => display(old, counterpart),
        None => display(new, index),
    }
}

/// Functions, stubs and slots of imports, and symbols of an image.
pub(super) fn names(image: &Image<'_>, function_name: &dyn Fn(usize) -> Option<String>) -> Names {
    let mut names = Names::new();
    let symbol_at = |slot: Va| match image.reloc_at(slot)?.binding {
        Binding::Symbol { symbol, .. } | Binding::Copy { symbol } => Some(image.symbols().get(symbol)?.display_name()),
        Binding::Relative { .. } | Binding::Indirect { .. } | Binding::ThreadLocal { .. } => None,
    };
    for reloc in image.relocs() {
        if let Some(symbol) = symbol_at(reloc.at) {
            names.insert(reloc.at, format!("{symbol}@got"));
        }
    }
    for symbol in image.symbols().iter().filter(|symbol| symbol.defined) {
        names.insert(symbol.value, symbol.display_name());
    }
    for (index, function) in image.functions().iter().enumerate() {
        if let Some(name) = function_name(index) {
            names.insert(function.range.start(), name);
        }
    }
    for stub in Plt::of(image).stubs() {
        if let Some(symbol) = symbol_at(stub.slot) {
            names.insert(stub.entry, format!("{symbol}@plt"));
        }
    }
    names
}
