//! Between patch files and planning: what an update is called, what it offers,
//! what a process carries of it.

use crate::carry::Ending;
use crate::event::{Event, EventLog, ImageRef, UpdateRef};
use crate::machine::processes::Seen;
use crate::plan::{Consent, Decision, Offer, OfferedImage, Runner, consent};
use crate::problem::Problem;
use core::cmp::Ordering;
use salve_elf::ContentHash;
use salve_patch::{Cves, ImageReport, Origin, PackageId, PatchFile};
use salve_tracee::{LivepatchState, Patcher};
use std::collections::BTreeSet;

/// What the changelogs name; unknown of plain files.
pub(crate) fn cves_of(patch: &PatchFile) -> Cves {
    match &patch.origin {
        Origin::Packages { cves, .. } => cves.clone(),
        Origin::Files { .. } => Cves::Unknown,
    }
}

pub(crate) fn update_of(patch: &PatchFile) -> UpdateRef {
    match &patch.origin {
        Origin::Packages { old, new, .. } => UpdateRef {
            source: new.source.clone(),
            old_version: Some(old.version.clone()),
            new_version: Some(new.version.clone()),
        },
        Origin::Files { old: _, new } => UpdateRef { source: new.clone(), old_version: None, new_version: None },
    }
}

pub(crate) fn offer<'a>(update: &'a UpdateRef, patch: &'a PatchFile) -> Offer<'a> {
    let images = patch
        .images
        .iter()
        .map(|image| OfferedImage {
            path: &image.path,
            old: image.old.as_ref().map(|old| old.sha256),
            new: image.new.as_ref().map(|new| new.sha256),
            verdict: image.verdict,
            reasons: &image.reasons,
            has_livepatch: image.livepatch.is_some(),
        })
        .collect();
    Offer { source: &update.source, new_version: update.new_version.as_deref(), images }
}

/// What planning needs of the processes. What one carries is read from it, by
/// content, if anything is offered to it at all; what cannot be read is not carried.
pub(crate) fn runners(patcher: &Patcher, seen: &[Seen], offers: &[Offer<'_>]) -> Vec<Runner> {
    let offered: BTreeSet<ContentHash> =
        offers.iter().flat_map(|offer| &offer.images).filter_map(|image| image.old).collect();
    seen.iter()
        .map(|process| {
            let images: Vec<(String, ContentHash)> =
                process.images.iter().map(|image| (image.path.to_string_lossy().into_owned(), image.sha256)).collect();
            let concerned = images.iter().any(|(_, content)| offered.contains(content));
            Runner { images, carries: if concerned { carried(patcher, process) } else { Vec::new() } }
        })
        .collect()
}

/// Old and new content of every livepatch that is applied in full. None where a Salve that
/// was killed left something besides: then it is applied again, which clears that away.
pub(crate) fn carried(patcher: &Patcher, process: &Seen) -> Vec<(ContentHash, ContentHash)> {
    let Ok(Some(open)) = process.reopen() else { return Vec::new() };
    let Ok(status) = patcher.status(&open) else { return Vec::new() };
    if status.leftover_stubs > 0 || status.leftover_workshops > 0 {
        return Vec::new();
    }
    let applied = status.livepatches.iter().filter(|livepatch| livepatch.state == LivepatchState::Applied);
    applied
        .flat_map(|livepatch| &livepatch.patch.images)
        .filter_map(|image| Some((image.old.as_ref()?.sha256, image.new.as_ref()?.sha256)))
        .collect()
}

/// How a decision that changes nothing is reported; `None` for the one that does.
pub(crate) fn ending_of(decision: &Decision) -> Option<(Ending, String, String)> {
    let listed = |codes: &BTreeSet<String>| codes.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let first = |codes: &BTreeSet<String>| codes.first().cloned().unwrap_or_else(|| "unexplained".into());
    Some(match decision {
        Decision::Apply => return None,
        Decision::Already => (Ending::AlreadyApplied, String::new(), String::new()),
        Decision::Unchanged => (Ending::Unchanged, String::new(), String::new()),
        Decision::NeedsAccept { codes } => {
            let options: Vec<String> = codes.iter().map(|code| format!("--accept {code}")).collect();
            let why = format!("review: {}; taken with {}", listed(codes), options.join(" "));
            (Ending::NeedsAccept, first(codes), why)
        }
        Decision::Refused { codes } => (Ending::Refused, first(codes), format!("refused: {}", listed(codes))),
        Decision::Ambiguous { why } => (Ending::Refused, "ambiguous".into(), why.clone()),
    })
}

/// Two versions of one package that have to lead forward.
pub(crate) fn check_forward(old: &PackageId, new: &PackageId) -> Result<(), Problem> {
    if old.name != new.name || old.architecture != new.architecture {
        let name = |id: &PackageId| format!("{} ({})", id.name, id.architecture);
        let what = format!("{} and {} are two different packages", name(old), name(new));
        return Err(Problem::refused("different-packages", what));
    }
    match salve_package::version::compare(&old.version, &new.version) {
        Some(Ordering::Less) => Ok(()),
        Some(Ordering::Equal) => {
            Err(Problem::refused("same-version", format!("{} is version {} on both sides", new.name, new.version))
                .hint("a rebuild under the same version has no direction"))
        }
        Some(Ordering::Greater) => Err(Problem::refused(
            "downgrade",
            format!("{} {} is older than {}: a downgrade is never applied", new.name, new.version, old.version),
        )
        .hint("to take a livepatch out again, use `salve revert`")),
        None => Err(Problem::refused(
            "unknown-direction",
            format!("versions {} and {} of {} cannot be compared", old.version, new.version, new.name),
        )),
    }
}

pub(crate) fn image_ref(image: &ImageReport) -> ImageRef {
    ImageRef {
        path: image.path.clone(),
        old_sha256: image.old.as_ref().map(|old| old.sha256),
        new_sha256: image.new.as_ref().map(|new| new.sha256),
    }
}

/// The verdict on one image, and whether it lets something in.
pub(crate) fn record_judged(log: &mut EventLog, update: &UpdateRef, image: &ImageReport, accepted: &[String]) {
    let codes: BTreeSet<String> = accepted.iter().cloned().collect();
    log.record(&Event::Judged {
        update: update.clone(),
        image: image_ref(image),
        verdict: image.verdict,
        reasons: image.reasons.clone(),
        accepted: accepted.to_vec(),
        taken: consent([(image.verdict, image.reasons.as_slice())], &codes) == Consent::Take,
        functions: image.functions,
    });
}
