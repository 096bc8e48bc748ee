//! A patch file as a value to show.

use salve_elf::{ContentHash, Va, VaRange};
use salve_patch::{
    Access, DataWord, FixupKind, FunctionCounts, ImageId, ImageReport, ImportSlot, Livepatch, NoiseReport, NotHealed,
    Origin, PatchFile, Reader, Reason, ReferenceCounts, Requirement, RevertPolicy, Verdict,
};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PatchView {
    pub(crate) file: PathBuf,
    pub(crate) sha256: ContentHash,
    pub(crate) format_version: u32,
    pub(crate) created_by: String,
    pub(crate) origin: Origin,
    pub(crate) verdict: Verdict,
    /// What else the update changes; no livepatch carries it.
    pub(crate) not_healed: NotHealed,
    pub(crate) images: Vec<ImageView>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ImageView {
    pub(crate) path: String,
    pub(crate) old: Option<ImageId>,
    pub(crate) new: Option<ImageId>,
    pub(crate) verdict: Verdict,
    pub(crate) reasons: Vec<Reason>,
    pub(crate) functions: FunctionCounts,
    pub(crate) references: ReferenceCounts,
    pub(crate) noise: Vec<NoiseReport>,
    pub(crate) livepatch: Option<LivepatchView>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct LivepatchView {
    pub(crate) id: String,
    pub(crate) payload_bytes: u64,
    pub(crate) segments: Vec<SegmentView>,
    pub(crate) replaced: Vec<FunctionView>,
    /// Fields of the payload that are bound to the old image, and where each leads.
    pub(crate) bound: Vec<BoundView>,
    /// Symbols that the old image does not import and each process has to have.
    pub(crate) imports: Vec<ImportSlot>,
    /// Words of the old image's tables that change in place.
    pub(crate) words: Vec<DataWord>,
    /// Functions that stay and refer to them.
    pub(crate) readers: Vec<Reader>,
    pub(crate) requirements: Vec<Requirement>,
    pub(crate) revert: RevertPolicy,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct SegmentView {
    pub(crate) new_va: Va,
    pub(crate) access: Access,
    pub(crate) len_bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct FunctionView {
    pub(crate) name: String,
    pub(crate) old_ranges: Vec<VaRange>,
    pub(crate) new_ranges: Vec<VaRange>,
    /// Where the jump to the new code is written; `None` for a function without an old entry.
    pub(crate) detour_at: Option<Va>,
    pub(crate) may_overlap: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct BoundView {
    pub(crate) new_va: Va,
    /// The function of the payload that the field stands in, where one is known.
    pub(crate) from: Option<String>,
    pub(crate) old_target: Va,
    /// The old function that it leads to or into, where the patch file names one.
    pub(crate) to: Option<String>,
}

impl PatchView {
    pub(crate) fn of(patch: &PatchFile, file: &Path, sha256: ContentHash) -> Self {
        Self {
            file: file.to_path_buf(),
            sha256,
            format_version: patch.format_version,
            created_by: patch.created_by.clone(),
            origin: patch.origin.clone(),
            verdict: patch.verdict(),
            not_healed: patch.not_healed(),
            images: patch.images.iter().map(ImageView::of).collect(),
        }
    }
}

impl ImageView {
    pub(crate) fn of(report: &ImageReport) -> Self {
        Self {
            path: report.path.clone(),
            old: report.old.clone(),
            new: report.new.clone(),
            verdict: report.verdict,
            reasons: report.reasons.clone(),
            functions: report.functions,
            references: report.references,
            noise: report.noise.clone(),
            livepatch: report.livepatch.as_ref().map(|livepatch| LivepatchView::of(report, livepatch)),
        }
    }
}

impl LivepatchView {
    fn of(report: &ImageReport, livepatch: &Livepatch) -> Self {
        let segments: Vec<SegmentView> = livepatch
            .segments
            .iter()
            .map(|s| SegmentView {
                new_va: s.new_va,
                access: s.access,
                len_bytes: u64::try_from(s.bytes.len()).unwrap_or(u64::MAX),
            })
            .collect();
        let replaced = livepatch
            .replaced
            .iter()
            .map(|function| FunctionView {
                name: function.name.clone(),
                old_ranges: function.old_ranges.clone(),
                new_ranges: function.new_ranges.clone(),
                detour_at: livepatch
                    .detours
                    .iter()
                    .find(|detour| function.old_ranges.iter().any(|range| range.contains(detour.old_entry)))
                    .map(|detour| detour.old_va),
                may_overlap: function.may_overlap,
            })
            .collect();
        Self {
            id: report.livepatch_id().map(|id| id.to_string()).unwrap_or_default(),
            payload_bytes: segments.iter().map(|s| s.len_bytes).fold(0, u64::saturating_add),
            segments,
            replaced,
            bound: livepatch.fixups.iter().map(|fixup| bound(livepatch, fixup.new_va, fixup.kind)).collect(),
            imports: livepatch.imports.clone(),
            words: livepatch.words.clone(),
            readers: livepatch.readers.clone(),
            requirements: livepatch.requirements.clone(),
            revert: livepatch.revert,
        }
    }
}

fn bound(livepatch: &Livepatch, new_va: Va, kind: FixupKind) -> BoundView {
    let FixupKind::PcRel32 { old_target, .. } = kind;
    let named = |find: &dyn Fn(&salve_patch::ReplacedFunction) -> bool| {
        livepatch.replaced.iter().find(|function| find(function)).map(|function| function.name.clone())
    };
    BoundView {
        new_va,
        from: named(&|function| function.new_ranges.iter().any(|range| range.contains(new_va))),
        old_target,
        to: named(&|function| function.old_ranges.iter().any(|range| range.contains(old_target))),
    }
}
