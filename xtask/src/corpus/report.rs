//! The report: what became of each image, and what a package as a whole is.

use salve_verdict::registry::{self, Cause};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub packages: Vec<Package>,
}

/// One pair.
#[derive(Debug, Serialize)]
pub(crate) struct Package {
    pub name: String,
    pub source: String,
    pub old: String,
    pub new: String,
    /// Why there is no verdict, where there is none.
    pub failure: Option<String>,
    /// Deriving the two packages, from start to end.
    pub took_ms: f64,
    pub peak_kib: u64,
    pub images: Vec<Image>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Image {
    pub path: String,
    pub verdict: String,
    pub functions: Functions,
    pub references: u64,
    pub reasons: Vec<Reason>,
    /// The two files together.
    pub len_bytes: u64,
    /// Deriving this image by itself; `None` where the files are the same or one is missing.
    pub alone: Option<Cost>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cost {
    pub took_ms: f64,
    pub peak_kib: u64,
    /// 4 × the two images + 64 MiB.
    pub bound_kib: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Functions {
    pub old: u64,
    pub new: u64,
    pub identical: u64,
    pub noise: u64,
    pub changed: u64,
    pub added: u64,
    pub gone: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Reason {
    pub code: String,
    pub verdict: String,
    pub summary: String,
    /// What was seen first, and where.
    pub evidence: Option<String>,
}

/// What became of an image or of a whole package, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Unchanged,
    Healable,
    AfterReview,
    Inherent,
    Limit,
    Failed,
}

impl Outcome {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Healable => "healable",
            Self::AfterReview => "healable after review",
            Self::Inherent => "refused (inherent)",
            Self::Limit => "refused (limit of Salve)",
            Self::Failed => "failed",
        }
    }
}

impl Package {
    /// Images of one update change together: the package is what its worst image is.
    /// One refused image that is inherent rules it out, whatever else could be mended.
    pub(crate) fn outcome(&self) -> Outcome {
        if self.failure.is_some() {
            return Outcome::Failed;
        }
        let outcomes = || self.images.iter().map(Image::outcome);
        match outcomes().max() {
            Some(Outcome::Limit) if outcomes().any(|o| o == Outcome::Inherent) => Outcome::Inherent,
            worst => worst.unwrap_or(Outcome::Unchanged),
        }
    }
}

impl Image {
    pub(crate) fn outcome(&self) -> Outcome {
        match self.verdict.as_str() {
            "unchanged" => Outcome::Unchanged,
            "safe" => Outcome::Healable,
            "review" => Outcome::AfterReview,
            "refused" if self.refusals().any(|r| cause(&r.code) == Some(Cause::Inherent)) => Outcome::Inherent,
            "refused" => Outcome::Limit,
            _ => Outcome::Failed,
        }
    }

    pub(crate) fn refusals(&self) -> impl Iterator<Item = &Reason> {
        self.reasons.iter().filter(|reason| reason.verdict == "refused")
    }
}

/// Whose fault a refusal with this code is. An unknown code counts as a limit.
pub(crate) fn cause(code: &str) -> Option<Cause> {
    registry::find(code).map_or(Some(Cause::Limit), |found| found.cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(verdict: &str, codes: &[&str]) -> Image {
        let reason = |code: &&str| Reason {
            code: (*code).to_owned(),
            verdict: verdict.to_owned(),
            summary: String::new(),
            evidence: None,
        };
        Image {
            path: String::new(),
            verdict: verdict.to_owned(),
            functions: Functions::default(),
            references: 0,
            reasons: codes.iter().map(reason).collect(),
            len_bytes: 0,
            alone: None,
        }
    }

    fn package(images: Vec<Image>) -> Package {
        let name = String::new;
        let (package_name, source, old, new) = (name(), name(), name(), name());
        Package { name: package_name, source, old, new, failure: None, took_ms: 0.0, peak_kib: 0, images }
    }

    #[test]
    fn a_package_is_what_its_worst_image_is_and_inherent_if_any_cause_is() {
        assert_eq!(package(vec![]).outcome(), Outcome::Unchanged);
        let (same, safe, review) = (image("unchanged", &[]), image("safe", &[]), image("review", &["startup-code"]));
        assert_eq!(package(vec![same, safe]).outcome(), Outcome::Healable);
        assert_eq!(package(vec![review, image("unchanged", &[])]).outcome(), Outcome::AfterReview);
        let (limit, inherent) = (image("refused", &["new-import"]), image("refused", &["new-import", "struct-layout"]));
        assert_eq!(limit.outcome(), Outcome::Limit);
        assert_eq!(inherent.outcome(), Outcome::Inherent);
        assert_eq!(package(vec![limit, inherent]).outcome(), Outcome::Inherent);
        assert_eq!(image("refused", &["no-such-code"]).outcome(), Outcome::Limit);
        assert_eq!(image("odd", &[]).outcome(), Outcome::Failed);
    }
}
