//! One function of a patch file: the new code out of the payload, the old code
//! out of the old image where that is at hand.

use super::listing::{Names, disassemble};
use crate::task::Work;
use crate::{fault, input};
use rustix::fd::AsFd as _;
use salve_elf::{Image, ImageLimits, Va};
use salve_patch::{Distance, FixupKind, ImageReport, Limits, Livepatch, PatchFile, PlacedSegment, ReplacedFunction};
use salve_protocol::{AssemblyView, Descriptor, Failure, FailureKind, Side};
use std::rc::Rc;

/// Names of replaced functions that a hint lists.
const MAX_HINTED: usize = 20;

pub(super) fn view(
    work: &Work<'_>,
    function: &str,
    image: Option<&str>,
    patch: Descriptor,
    old: Option<&Side>,
) -> Result<AssemblyView, Failure> {
    let file = crate::side::descriptor(&work.descriptors, patch)?;
    let bytes = input::read_whole(file.as_fd(), work.limits.max_output_bytes)
        .map_err(|error| fault::unreadable("patch file", &error))?;
    let patch = salve_patch::decode(&bytes, &Limits::default())
        .map_err(|error| Failure::new(FailureKind::BadPatch).caused_by(&error))?;
    drop(bytes);
    let (report, livepatch, replaced) = find(&patch, function, image)?;
    let mut notes = Vec::new();
    let old_bytes = if let Some(side) = old {
        old_image(work, side, report, &mut notes)?
    } else {
        notes.push("the old code is in the old image, which was not given".to_owned());
        None
    };
    let limits = ImageLimits::default();
    let old_image = old_bytes.as_deref().and_then(|bytes| Image::parse(bytes, &limits).ok());
    let names = Rc::new(names(livepatch, old_image.as_ref()));
    // The payload as it would be mapped at the old image's own addresses:
    // what leads out of it then shows the old image's addresses.
    let placed =
        livepatch.place(Distance::new(0)).map_err(|error| Failure::new(FailureKind::BadPatch).caused_by(&error))?;
    let new_parts: Vec<(Va, &[u8])> =
        replaced.new_ranges.iter().filter_map(|range| Some((range.start(), payload(&placed, *range)?))).collect();
    let old_parts: Vec<(Va, &[u8])> = old_image
        .iter()
        .flat_map(|image| replaced.old_ranges.iter().filter_map(|range| Some((range.start(), image.read(*range)?))))
        .collect();
    let (old_lines, new_lines) = (disassemble(&old_parts, &names), disassemble(&new_parts, &names));
    Ok(super::view(&report.path, function, old_lines, new_lines, notes))
}

/// The one replaced function of that name.
fn find<'a>(
    patch: &'a PatchFile,
    function: &str,
    image: Option<&str>,
) -> Result<(&'a ImageReport, &'a Livepatch, &'a ReplacedFunction), Failure> {
    let wanted = |report: &ImageReport| image.is_none_or(|image| image == report.path);
    let all = || patch.livepatches().filter(|(report, _)| wanted(report));
    let mut found: Vec<_> = all()
        .flat_map(|(report, livepatch)| livepatch.replaced.iter().map(move |replaced| (report, livepatch, replaced)))
        .filter(|(.., replaced)| replaced.name == function)
        .collect();
    let images = found.iter().map(|(report, ..)| report.path.clone()).collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => {
            let kind = FailureKind::AmbiguousFunction { function: function.to_owned(), images };
            Err(Failure::new(kind).hint("name the image too"))
        }
        (None, _) => {
            let known: Vec<&str> =
                all().flat_map(|(_, livepatch)| &livepatch.replaced).map(|r| r.name.as_str()).collect();
            let shown = known.iter().take(MAX_HINTED).copied().collect::<Vec<_>>().join(", ");
            let hint = match known.len() {
                0 => "the patch file carries no livepatch; with both images any function can be shown".to_owned(),
                many if many > MAX_HINTED => format!("it replaces {shown} and others"),
                _ => format!("it replaces {shown}; with both images any function can be shown"),
            };
            Err(Failure::new(FailureKind::NoSuchFunction { function: function.to_owned() }).hint(hint))
        }
    }
}

/// The image that the patch is for, out of what was given.
fn old_image(
    work: &Work<'_>,
    side: &Side,
    report: &ImageReport,
    notes: &mut Vec<String>,
) -> Result<Option<Vec<u8>>, Failure> {
    let loaded = work.load(vec![side.clone()])?;
    let wanted = report.old.as_ref().map(|id| id.sha256);
    let found = loaded.into_iter().flat_map(|side| side.images).find(|image| Some(image.sha256) == wanted);
    if found.is_none() {
        notes.push("the old image that was given is not the one that the patch is for".to_owned());
    }
    Ok(found.map(|image| image.bytes))
}

fn payload(placed: &[PlacedSegment], range: salve_elf::VaRange) -> Option<&[u8]> {
    placed.iter().find_map(|segment| {
        let from = usize::try_from(range.start().raw().checked_sub(segment.new_va.raw())?).ok()?;
        let len = usize::try_from(range.len_bytes()).ok()?;
        segment.bytes.get(from..from.checked_add(len)?)
    })
}

/// Names of the old image's places, as far as it is at hand, and of the payload's functions.
fn names(livepatch: &Livepatch, old: Option<&Image<'_>>) -> Names {
    let mut names = match old {
        Some(image) => {
            super::images::names(image, &|index| image.functions().get(index).map(salve_elf::Function::display_name))
        }
        None => Names::new(),
    };
    for detour in &livepatch.detours {
        names.insert(detour.old_entry, detour.function.clone());
    }
    // A place of the payload may have the address of another in the old image;
    // what a fix-up leads to is the old image's, all else of this kind is the payload's.
    let leads_out = |va: Va| {
        livepatch.fixups.iter().any(|fixup| match fixup.kind {
            FixupKind::PcRel32 { old_target, .. } => old_target == va,
        })
    };
    for replaced in &livepatch.replaced {
        if let Some(start) = replaced.new_ranges.first().map(|range| range.start())
            && !leads_out(start)
        {
            names.insert(start, replaced.name.clone());
        }
    }
    names
}
