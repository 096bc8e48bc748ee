//! Reports on images that were not analysed, with the reason.

use salve_patch::{Evidence, FunctionCounts, ImageId, ImageReport, ReferenceCounts, Verdict};
use salve_verdict::registry::ReasonCode;

/// A report without any finding about functions.
pub(crate) fn plain(path: &str, old: Option<ImageId>, new: Option<ImageId>, verdict: Verdict) -> ImageReport {
    ImageReport {
        path: path.to_owned(),
        old,
        new,
        verdict,
        reasons: Vec::new(),
        functions: FunctionCounts::default(),
        references: ReferenceCounts::default(),
        noise: Vec::new(),
        livepatch: None,
    }
}

/// One reason that settles the verdict.
pub(crate) fn because(
    mut report: ImageReport,
    code: &ReasonCode,
    summary: impl Into<String>,
    seen: Vec<String>,
) -> ImageReport {
    let evidence = seen.into_iter().map(|seen| Evidence { function: None, old_va: None, new_va: None, seen }).collect();
    report.verdict = report.verdict.max(code.verdict);
    report.reasons.push(code.because(summary, evidence));
    report
}
