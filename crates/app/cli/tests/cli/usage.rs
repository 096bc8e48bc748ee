use super::salve;

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2_and_prints_no_data() {
    let cases: &[&[&str]] = &[
        &[],
        &["mend"],
        &["derive", "one"],
        &["heal", "--candidate", "--from", "x.deb"],
        &["heal", "--was", "x.deb"],
        &["heal", "--wait", "soon"],
        &["heal", "--wait", "-3s"],
        &["heal", "--accept", "Struct Layout"],
        &["heal", "--pid", "0"],
        &["heal", "--pid", "99999999999"],
        &["apply", "x.salve"],
        &["apply", "x.salve", "--pid", "1", "--all"],
        &["revert"],
        &["status", "one"],
        &["inspect", "x.salve", "--new", "x.deb"],
        &["--quiet", "--verbose", "status"],
        &["completions", "csh"],
    ];
    for words in cases {
        let ran = salve(words);
        assert_eq!(ran.code, 2, "{words:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{words:?}");
        assert!(!ran.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn with_json_a_usage_error_is_a_document_too() {
    let ran = salve(&["heal", "--wait", "soon", "--json"]);
    assert_eq!(ran.code, 2);
    let document = ran.json();
    assert_eq!(document["exit"]["code"], 2);
    assert_eq!(document["error"]["code"], "usage");
    assert!(document["result"].is_null());
}

#[test]
fn two_sides_of_different_kinds_are_wrong_usage() {
    let ran = salve(&["derive", "--json", "/", "/proc/self/exe", "-o", "/nonexistent/never-written"]);
    assert_eq!((ran.code, ran.json()["error"]["code"].as_str()), (2, Some("different-kinds")));
}
