//! The registry of reason codes is API: unique, well-formed, and documented.

use salve_patch::Verdict;
use salve_verdict::registry::{self, ALL, Cause, ReasonCode};
use std::collections::BTreeSet;

const DOCUMENT: &str = include_str!("../../../../docs/reason-codes.md");

fn row(code: &ReasonCode) -> String {
    let verdict = format!("{:?}", code.verdict).to_lowercase();
    let cause = code.cause.map_or("–", Cause::name);
    format!("| `{}` | {verdict} | {cause} | {} |", code.code, code.meaning)
}

#[test]
fn every_code_is_documented_with_its_verdict_and_meaning_and_nothing_else_is() {
    let documented: BTreeSet<&str> = DOCUMENT.lines().filter(|l| l.starts_with("| `")).collect();
    let registered: BTreeSet<String> = ALL.iter().map(row).collect();
    let missing: Vec<&String> = registered.iter().filter(|r| !documented.contains(r.as_str())).collect();
    let stale: Vec<&&str> = documented.iter().filter(|d| !registered.contains(**d)).collect();
    assert!(missing.is_empty() && stale.is_empty(), "add: {missing:#?}\nremove: {stale:#?}");
}

#[test]
fn codes_are_unique_lower_case_words() {
    let unique: BTreeSet<&str> = ALL.iter().map(|c| c.code).collect();
    assert_eq!(unique.len(), ALL.len());
    for code in ALL {
        assert!(code.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", code.code);
        assert_eq!(registry::find(code.code).map(|c| c.code), Some(code.code));
    }
    assert!(registry::find("no-such-code").is_none());
}

#[test]
fn what_refuses_has_a_cause_and_nothing_else_does() {
    for code in ALL {
        assert_eq!(code.cause.is_some(), code.verdict == Verdict::Refused, "{}", code.code);
    }
}
