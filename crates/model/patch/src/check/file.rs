//! The file as a whole: where it is from, and what it says of every image.

use super::name::name;
use super::{Invalid, version};
use crate::{ImageReport, MAX_NAMED, NotHealed, Origin, PatchFile, Verdict, layout};
use salve_elf::ContentHash;
use std::collections::BTreeMap;

/// Checks all that one file says.
pub(crate) fn patch_file(patch: &PatchFile) -> Result<(), Invalid> {
    version::check(patch)?;
    name("created_by", &patch.created_by)?;
    origin(&patch.origin)?;
    version::check_list(patch)?;
    patch.not_healed.as_ref().map_or(Ok(()), not_healed)?;
    let mut seen: BTreeMap<ContentHash, (usize, &ImageReport)> = BTreeMap::new();
    let (mut livepatches, mut segments) = (0_usize, 0_usize);
    for (image, report) in patch.images.iter().enumerate() {
        self::image(image, report)?;
        let (Some(found), Some(old)) = (&report.livepatch, &report.old) else { continue };
        version::check_members(patch.format_version, image, found)?;
        found.check().map_err(|fault| Invalid::Livepatch { livepatch: livepatches, fault })?;
        if let Some((earlier, other)) = seen.insert(old.sha256, (image, report))
            && (&other.livepatch, &other.new) != (&report.livepatch, &report.new)
        {
            return Err(Invalid::AmbiguousImage { image, earlier });
        }
        livepatches = livepatches.saturating_add(1);
        segments = segments.saturating_add(found.segments.len());
    }
    if livepatches > layout::MAX_LANES {
        return Err(Invalid::TooMany { count: livepatches });
    }
    if segments > layout::MAX_SEGMENTS {
        return Err(Invalid::TooMany { count: segments });
    }
    Ok(())
}

fn origin(origin: &Origin) -> Result<(), Invalid> {
    match origin {
        Origin::Packages { old, new, .. } => [old, new].into_iter().try_for_each(|package| {
            name("package name", &package.name)?;
            name("source name", &package.source)?;
            name("package version", &package.version)?;
            name("package architecture", &package.architecture)
        }),
        Origin::Files { old, new } => {
            name("old file", old)?;
            name("new file", new)
        }
    }
}

/// Each class once, in order; no group names more than it counts.
fn not_healed(list: &NotHealed) -> Result<(), Invalid> {
    let ordered = match list {
        NotHealed::Unknown { present } => present.is_sorted_by(|a, b| a.class < b.class),
        NotHealed::Known { groups } => {
            for group in groups {
                let named = group.named.len();
                let counted = u64::try_from(named).is_ok_and(|named| named <= group.files);
                if !counted || named > MAX_NAMED || !group.named.is_sorted_by(|a, b| a.path < b.path) {
                    return Err(Invalid::NotHealed);
                }
                group.named.iter().try_for_each(|file| name("path of what is not healed", &file.path))?;
            }
            groups.is_sorted_by(|a, b| a.class < b.class)
        }
    };
    if ordered { Ok(()) } else { Err(Invalid::NotHealed) }
}

fn image(image: usize, report: &ImageReport) -> Result<(), Invalid> {
    let verdict = report.verdict;
    name("image path", &report.path)?;
    for id in [&report.old, &report.new].into_iter().flatten() {
        id.soname.as_deref().map_or(Ok(()), |soname| name("soname", soname))?;
    }
    if report.old.is_none() && report.new.is_none() {
        return Err(Invalid::NoImage { image });
    }
    let wants_livepatch = match verdict {
        Verdict::Unchanged | Verdict::Refused => false,
        Verdict::Safe | Verdict::Review => true,
    };
    if wants_livepatch != report.livepatch.is_some() {
        return Err(Invalid::LivepatchAgainstVerdict { image, verdict });
    }
    if wants_livepatch {
        match (&report.old, &report.new) {
            (Some(old), Some(new)) if old.sha256 != new.sha256 => {}
            _ => return Err(Invalid::LivepatchWithoutPair { image }),
        }
    }
    reasons(image, report)
}

/// A reason may not be graver than the verdict, and a grave verdict has a reason.
fn reasons(image: usize, report: &ImageReport) -> Result<(), Invalid> {
    let verdict = report.verdict;
    for reason in &report.reasons {
        name("reason code", &reason.code)?;
        if reason.verdict >= Verdict::Review && reason.verdict > verdict {
            return Err(Invalid::VerdictTooMild { image, verdict, code: reason.code.clone() });
        }
    }
    let explained = report.reasons.iter().any(|reason| reason.verdict == verdict);
    if verdict >= Verdict::Review && !explained { Err(Invalid::NoReason { image, verdict }) } else { Ok(()) }
}
