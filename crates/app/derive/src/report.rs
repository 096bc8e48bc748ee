//! Reports on images that were not analysed, with the reason.

use salve_patch::{Evidence, FunctionCounts, ImageId, ImageReport, Reason, ReferenceCounts, Verdict};

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
    code: &str,
    summary: impl Into<String>,
    seen: Vec<String>,
) -> ImageReport {
    let evidence = seen.into_iter().map(|seen| Evidence { function: None, old_va: None, new_va: None, seen }).collect();
    let (code, verdict) = (code.to_owned(), report.verdict);
    report.reasons.push(Reason { code, verdict, summary: summary.into(), evidence });
    report
}

/// Codes of the reasons that come from here. They are API, registered in `salve-verdict`.
pub(crate) mod code {
    pub(crate) const IDENTICAL: &str = "identical-file";
    pub(crate) const ADDED: &str = "image-added";
    pub(crate) const GONE: &str = "image-gone";
    pub(crate) const AMBIGUOUS: &str = "ambiguous-pairing";
    pub(crate) const SONAME_CHANGED: &str = "soname-changed";
    pub(crate) const MALFORMED: &str = "malformed-image";
    pub(crate) const STATIC: &str = "static-program";
    pub(crate) const DEFECT: &str = "analysis-failed";
}
