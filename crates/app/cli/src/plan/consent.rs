//! What a verdict, and the codes that the caller accepts, let into a process.

use salve_patch::{Reason, Verdict};
use std::collections::BTreeSet;

/// What may be done with the images of one update in one process, all together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    /// No code changes in them.
    Nothing,
    /// Every image that changes may be changed.
    Take,
    /// Every reference is proven; these codes have to be accepted by a person first.
    Accept { codes: BTreeSet<String> },
    /// Nothing accepts these.
    Refused { codes: BTreeSet<String> },
}

/// Judges all images of one update that one process maps: they change in one
/// transition, so the gravest decides.
///
/// The stated verdict and the reasons are read both: a verdict that is milder
/// than one of its reasons is not believed.
pub(crate) fn consent<'a>(
    images: impl IntoIterator<Item = (Verdict, &'a [Reason])>,
    accepted: &BTreeSet<String>,
) -> Consent {
    let mut codes = BTreeSet::new();
    let mut refused = BTreeSet::new();
    let mut any = false;
    for (stated, reasons) in images {
        let gravest = reasons.iter().map(|reason| reason.verdict).max().map_or(stated, |most| most.max(stated));
        let of = |grave: Verdict| reasons.iter().filter(move |r| r.verdict == grave).map(|r| r.code.clone());
        match gravest {
            Verdict::Unchanged => {}
            Verdict::Safe => any = true,
            Verdict::Review => {
                any = true;
                let mut named = of(Verdict::Review).peekable();
                if named.peek().is_none() {
                    // A review that names nothing cannot be accepted by name.
                    refused.insert("unexplained".to_owned());
                }
                codes.extend(named.filter(|code| !accepted.contains(code)));
            }
            Verdict::Refused => {
                let mut named = of(Verdict::Refused).peekable();
                if named.peek().is_none() {
                    refused.insert("unexplained".to_owned());
                }
                refused.extend(named);
            }
        }
    }
    if !refused.is_empty() {
        Consent::Refused { codes: refused }
    } else if !codes.is_empty() {
        Consent::Accept { codes }
    } else if any {
        Consent::Take
    } else {
        Consent::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(code: &str, verdict: Verdict) -> Reason {
        Reason { code: code.into(), verdict, summary: String::new(), evidence: Vec::new() }
    }

    fn set(codes: &[&str]) -> BTreeSet<String> {
        codes.iter().map(|code| (*code).to_owned()).collect()
    }

    type Case<'a> = (Vec<(Verdict, &'a [Reason])>, &'a [&'a str], Consent);

    #[test]
    fn the_gravest_image_decides_for_all() {
        let once = [reason("runs-once", Verdict::Review)];
        let order = [reason("ordering", Verdict::Review)];
        let layout = [reason("struct-layout", Verdict::Refused)];
        let none: [Reason; 0] = [];
        let cases: Vec<Case<'_>> = vec![
            (vec![], &[], Consent::Nothing),
            (vec![(Verdict::Unchanged, &none)], &[], Consent::Nothing),
            (vec![(Verdict::Unchanged, &none), (Verdict::Safe, &none)], &[], Consent::Take),
            (vec![(Verdict::Review, &once)], &[], Consent::Accept { codes: set(&["runs-once"]) }),
            (vec![(Verdict::Review, &once)], &["runs-once"], Consent::Take),
            (vec![(Verdict::Review, &once)], &["ordering"], Consent::Accept { codes: set(&["runs-once"]) }),
            (
                vec![(Verdict::Review, &once), (Verdict::Review, &order)],
                &["runs-once"],
                Consent::Accept { codes: set(&["ordering"]) },
            ),
            (
                vec![(Verdict::Refused, &layout)],
                &["struct-layout"],
                Consent::Refused { codes: set(&["struct-layout"]) },
            ),
            (
                vec![(Verdict::Safe, &none), (Verdict::Refused, &layout)],
                &[],
                Consent::Refused { codes: set(&["struct-layout"]) },
            ),
            // milder than its reasons: not believed
            (vec![(Verdict::Safe, &layout)], &[], Consent::Refused { codes: set(&["struct-layout"]) }),
            (vec![(Verdict::Safe, &once)], &[], Consent::Accept { codes: set(&["runs-once"]) }),
            // without a reason: cannot be accepted
            (vec![(Verdict::Review, &none)], &["unexplained"], Consent::Refused { codes: set(&["unexplained"]) }),
            (vec![(Verdict::Refused, &none)], &[], Consent::Refused { codes: set(&["unexplained"]) }),
        ];
        for (images, accepted, expected) in cases {
            let shown = format!("{images:?} accepting {accepted:?}");
            assert_eq!(consent(images, &set(accepted)), expected, "{shown}");
        }
    }
}
