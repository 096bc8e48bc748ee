//! The analysis of one pair of images: parse, match, judge, compose, validate.
//!
//! Called on a worker, inside the sandbox, once for every pair whose contents
//! differ. Pure: it sees two byte strings and knows nothing of files.

use salve_compose::{claims, compose};
use salve_elf::{ImageError, ImageLimits};
use salve_match::{NoiseContext, diff};
use salve_patch::{
    Claims, Evidence, FunctionCounts, ImageId, ImageReport, Livepatch, Reason, ReferenceCounts, Verdict,
};
use salve_verdict::{Judgement, judge, registry};

/// What is known of a pair besides its bytes.
#[derive(Clone, Debug)]
pub struct PairContext {
    pub old_id: ImageId,
    pub new_id: ImageId,
    /// Versions of the package, where they are known.
    pub old_version: Option<String>,
    pub new_version: Option<String>,
}

/// The verdict on one image and its livepatch. Both byte strings have parsed as
/// images a dynamic linker binds; a panic in here becomes a refusal.
pub fn derive_image(path: &str, old: &[u8], new: &[u8], context: &PairContext) -> ImageReport {
    let mut report = ImageReport {
        path: path.to_owned(),
        old: Some(context.old_id.clone()),
        new: Some(context.new_id.clone()),
        verdict: Verdict::Refused,
        reasons: Vec::new(),
        functions: FunctionCounts::default(),
        references: ReferenceCounts::default(),
        noise: Vec::new(),
        livepatch: None,
    };
    let limits = ImageLimits::default();
    let parse = |side: &str, bytes| {
        salve_code::parse(bytes, &limits).map_err(|error: ImageError| {
            registry::MALFORMED_IMAGE.because(format!("the {side} image cannot be read: {error}"), Vec::new())
        })
    };
    let (old_image, new_image) = match rayon::join(|| parse("old", old), || parse("new", new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(reason), _) | (_, Err(reason)) => {
            report.reasons.push(reason);
            return report;
        }
    };
    let diff = diff(&old_image, &new_image);
    let versions = context.old_version.clone().zip(context.new_version.clone());
    let judgement = judge(&diff, &NoiseContext { versions });
    report.functions = judgement.functions;
    report.verdict = judgement.verdict();
    match report.verdict {
        // Refused: what composing finds too is still evidence. Unchanged: the
        // claim that nothing changed is proven like any other.
        Verdict::Refused => {
            if !rebuilt(&judgement)
                && let Err(reasons) = compose(&diff, &judgement)
            {
                report.reasons.extend(reasons);
            }
        }
        Verdict::Unchanged | Verdict::Safe | Verdict::Review => match compose(&diff, &judgement) {
            Err(reasons) => report.reasons.extend(reasons),
            Ok(composed) => match proven(old, new, &composed.livepatch, &claims(&diff, &judgement)) {
                // Nothing has to be understood to see that nothing differs.
                Err(_) if report.verdict == Verdict::Unchanged && salve_validate::loads_the_same(old, new) => {}
                Err(reason) => report.reasons.push(reason),
                Ok(references) => {
                    report.references = references;
                    report.livepatch = carries(&composed.livepatch).then_some(composed.livepatch);
                }
            },
        },
    }
    report.noise = judgement.noise;
    report.reasons.extend(judgement.reasons);
    report.reasons.sort_by(|a, b| b.verdict.cmp(&a.verdict).then_with(|| a.code.cmp(&b.code)));
    if report.reasons.iter().any(|r| r.verdict == Verdict::Refused) {
        report.verdict = Verdict::Refused;
        report.livepatch = None;
    }
    report
}

/// What the validator says, and whether a patch file could hold the livepatch: one
/// that it could not is refused alone, and does not take its siblings with it.
fn proven(old: &[u8], new: &[u8], livepatch: &Livepatch, claims: &Claims) -> Result<ReferenceCounts, Reason> {
    let proof =
        salve_validate::validate(old, new, livepatch, claims).map_err(|invalid| not_validated(&invalid.to_string()))?;
    if carries(livepatch) {
        livepatch.check().map_err(|fault| not_validated(&fault.to_string()))?;
    }
    Ok(proof.references)
}

fn carries(livepatch: &Livepatch) -> bool {
    !livepatch.segments.is_empty()
}

fn rebuilt(judgement: &Judgement) -> bool {
    judgement.reasons.iter().any(|r| r.code == registry::REBUILT.code)
}

fn not_validated(why: &str) -> Reason {
    let seen = vec![Evidence { function: None, old_va: None, new_va: None, seen: why.to_owned() }];
    registry::NOT_VALIDATED.because("the validator could not prove the livepatch", seen)
}
