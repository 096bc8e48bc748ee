//! Takes a patch file in: foreign input, from a process that hostile bytes may have taken over.

use crate::error::{DeriverError, NotWhatWasAsked};
use crate::input::Handover;
use salve_elf::ContentHash;
use salve_patch::{ImageId, Limits, Origin, PackageId, PatchFile};
use salve_protocol::{DerivedSummary, ResourceLimits, SandboxReport, Side, Task};
use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};

/// A patch file that was read back, checked against the request.
#[derive(Debug)]
pub struct Derived {
    pub patch: PatchFile,
    /// The file, byte for byte as it is to be stored.
    pub patch_bytes: Vec<u8>,
    pub patch_sha256: ContentHash,
    pub summary: DerivedSummary,
    /// What the process that derived it had given up; what was missing is in `degraded`.
    pub sandbox: SandboxReport,
}

/// Reads the file that a dead process wrote, and believes nothing of it.
pub(crate) fn accept(
    asked: &Task,
    handover: &Handover<'_>,
    output: &OwnedFd,
    summary: DerivedSummary,
    sandbox: SandboxReport,
    limits: &ResourceLimits,
) -> Result<Derived, DeriverError> {
    let patch_bytes = read_output(output, limits.max_output_bytes)?;
    let have_bytes = u64::try_from(patch_bytes.len()).unwrap_or(u64::MAX);
    if have_bytes != summary.patch_len_bytes {
        return Err(NotWhatWasAsked::Length { said_bytes: summary.patch_len_bytes, have_bytes }.into());
    }
    let patch_sha256 = ContentHash::of(&patch_bytes);
    if patch_sha256 != summary.patch_sha256 {
        return Err(NotWhatWasAsked::Digest.into());
    }
    let patch =
        salve_patch::decode(&patch_bytes, &Limits::default()).map_err(|source| DeriverError::BadPatch { source })?;
    check(asked, handover, &patch)?;
    Ok(Derived { patch, patch_bytes, patch_sha256, summary, sandbox })
}

fn read_output(output: &OwnedFd, limit_bytes: u64) -> Result<Vec<u8>, DeriverError> {
    let failed = |source| DeriverError::ReadOutput { source };
    let stat = rustix::fs::fstat(output).map_err(failed)?;
    let len_bytes = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if len_bytes > limit_bytes {
        return Err(NotWhatWasAsked::Length { said_bytes: limit_bytes, have_bytes: len_bytes }.into());
    }
    let mut bytes = vec![0; usize::try_from(len_bytes).map_err(|_| failed(rustix::io::Errno::FBIG))?];
    let mut at = 0_usize;
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(output.as_fd(), rest, u64::try_from(at).unwrap_or(u64::MAX)) {
            Ok(0) => return Err(failed(rustix::io::Errno::IO)),
            Ok(read) => at = at.saturating_add(read),
            Err(rustix::io::Errno::INTR) => {}
            Err(source) => return Err(failed(source)),
        }
    }
    Ok(bytes)
}

/// What the caller can know without parsing a foreign file.
fn check(asked: &Task, handover: &Handover<'_>, patch: &PatchFile) -> Result<(), DeriverError> {
    let Task::Derive { old, new, created_by, .. } = asked else { return Err(DeriverError::UnexpectedAnswer) };
    if patch.created_by != *created_by {
        return Err(NotWhatWasAsked::CreatedBy.into());
    }
    if !origin_fits(&patch.origin, old, new) {
        return Err(NotWhatWasAsked::Origin.into());
    }
    for (side, ids) in [
        (old, patch.images.iter().map(|image| (&image.path, image.old.as_ref())).collect::<Vec<_>>()),
        (new, patch.images.iter().map(|image| (&image.path, image.new.as_ref())).collect()),
    ] {
        let Some(handed) = hashes(side, handover)? else { continue };
        let foreign =
            ids.iter().find(|(_, id)| id.is_some_and(|id: &ImageId| !handed.contains(&(id.sha256, id.len_bytes))));
        if let Some((path, _)) = foreign {
            return Err(NotWhatWasAsked::ForeignImage { image: (*path).clone() }.into());
        }
    }
    Ok(())
}

/// Packages are named exactly where both sides have one, and are those that the caller knew.
fn origin_fits(origin: &Origin, old: &Side, new: &Side) -> bool {
    let known = |side: &Side| match side {
        Side::Deb { .. } => Knowledge::InTheFile,
        Side::Files { package: Some(package), .. } => Knowledge::This(package.clone()),
        Side::Files { package: None, .. } => Knowledge::Nothing,
    };
    let (known_old, known_new) = (known(old), known(new));
    match origin {
        Origin::Packages { old, new, .. } => known_old.allows(old) && known_new.allows(new),
        Origin::Files { old: old_label, new: new_label } => {
            let either = matches!(known_old, Knowledge::Nothing) || matches!(known_new, Knowledge::Nothing);
            either && old_label == old.label() && new_label == new.label()
        }
    }
}

enum Knowledge {
    InTheFile,
    This(PackageId),
    Nothing,
}

impl Knowledge {
    fn allows(&self, package: &PackageId) -> bool {
        match self {
            Self::InTheFile => true,
            Self::This(known) => known == package,
            Self::Nothing => false,
        }
    }
}

/// Identities of the files of a side; `None` for a package, whose contents only the deriver sees.
fn hashes(side: &Side, handover: &Handover<'_>) -> Result<Option<BTreeSet<(ContentHash, u64)>>, DeriverError> {
    match side {
        Side::Deb { .. } => Ok(None),
        Side::Files { files, .. } => {
            files.iter().map(|file| handover.hash(file.file, &file.path)).collect::<Result<_, _>>().map(Some)
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails to set up has failed")]
mod tests {
    use super::*;
    use crate::{FileInput, SideInput};
    use salve_patch::{Cves, FORMAT_VERSION, FunctionCounts, ImageReport, NotHealed, ReferenceCounts, Verdict};
    use std::fs::File;

    fn package(version: &str) -> PackageId {
        let text = str::to_owned;
        PackageId { name: text("p"), source: text("p"), version: text(version), architecture: text("amd64") }
    }

    fn side(file: &File, package: Option<PackageId>) -> SideInput<'_> {
        let files = vec![FileInput { path: "/x".to_owned(), file: file.as_fd() }];
        SideInput::Files { files, package, changelog: None, contents: None, label: "label".to_owned() }
    }

    fn id(bytes: &[u8]) -> ImageId {
        let len_bytes = u64::try_from(bytes.len()).unwrap();
        ImageId { sha256: ContentHash::of(bytes), len_bytes, build_id: None, soname: None }
    }

    fn patch(origin: Origin, old: ImageId, new: ImageId) -> PatchFile {
        let report = ImageReport {
            path: "/x".to_owned(),
            old: Some(old),
            new: Some(new),
            verdict: Verdict::Unchanged,
            reasons: Vec::new(),
            functions: FunctionCounts::default(),
            references: ReferenceCounts::default(),
            noise: Vec::new(),
            livepatch: None,
        };
        let not_healed = Some(NotHealed::Unknown { present: Vec::new() });
        let created_by = "me".to_owned();
        PatchFile { format_version: FORMAT_VERSION, created_by, origin, not_healed, images: vec![report] }
    }

    /// What a caller that handed over this crate's two files and knew these packages says to a patch.
    fn said(packages: (Option<PackageId>, Option<PackageId>), patch: &PatchFile) -> Option<NotWhatWasAsked> {
        let (old, new) = (File::open("Cargo.toml").unwrap(), File::open("src/result.rs").unwrap());
        let mut handover = Handover::new();
        let (old, new) =
            (handover.side(&side(&old, packages.0)).unwrap(), handover.side(&side(&new, packages.1)).unwrap());
        let output = salve_protocol::Descriptor(2);
        let asked = Task::Derive { old, new, output, created_by: "me".to_owned() };
        match check(&asked, &handover, patch) {
            Ok(()) => None,
            Err(DeriverError::NotWhatWasAsked(why)) => Some(why),
            Err(other) => unreachable!("{other:?}"),
        }
    }

    fn files() -> Origin {
        Origin::Files { old: "label".to_owned(), new: "label".to_owned() }
    }

    fn ids() -> (ImageId, ImageId) {
        (id(&std::fs::read("Cargo.toml").unwrap()), id(&std::fs::read("src/result.rs").unwrap()))
    }

    #[test]
    fn a_patch_for_what_was_handed_over_is_accepted() {
        let (old, new) = ids();
        assert_eq!(said((None, None), &patch(files(), old, new)), None);
    }

    #[test]
    fn a_patch_for_an_image_that_was_not_handed_over_is_not_believed() {
        let (old, new) = ids();
        let foreign = Some(NotWhatWasAsked::ForeignImage { image: "/x".to_owned() });
        assert_eq!(said((None, None), &patch(files(), id(b"libc"), new.clone())), foreign);
        assert_eq!(said((None, None), &patch(files(), old.clone(), id(b"other"))), foreign);
        assert_eq!(said((None, None), &patch(files(), new, old)), foreign, "the sides are not to be swapped");
    }

    #[test]
    fn a_patch_of_another_origin_or_maker_is_not_believed() {
        let (old, new) = ids();
        let packages =
            |old: &str, new: &str| Origin::Packages { old: package(old), new: package(new), cves: Cves::Unknown };
        let known = || (Some(package("1")), Some(package("2")));
        let wrong = Some(NotWhatWasAsked::Origin);
        let with = |origin| patch(origin, old.clone(), new.clone());
        assert_eq!(said(known(), &with(packages("1", "2"))), None);
        assert_eq!(said(known(), &with(packages("0", "2"))), wrong);
        assert_eq!(said(known(), &with(files())), wrong, "known packages are not to be forgotten");
        assert_eq!(said((None, None), &with(packages("1", "2"))), wrong, "nor unknown ones made up");
        let mut other = with(files());
        other.created_by = "you".to_owned();
        assert_eq!(said((None, None), &other), Some(NotWhatWasAsked::CreatedBy));
    }
}
