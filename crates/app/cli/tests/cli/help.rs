use super::{command, salve};

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let ran = salve(&["--help"]);
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.is_empty());
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn heals_help_says_what_the_verdicts_mean() {
    let ran = salve(&["heal", "--help"]);
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn every_command_that_judges_explains_the_verdicts_in_the_same_words() {
    for name in ["derive", "inspect", "heal"] {
        let help = salve(&[name, "--help"]).stdout;
        assert!(help.contains("It is not a proof that the two programs mean the same."), "{name}");
        assert!(help.contains("It does not say \"not affected\"."), "{name}");
    }
}

#[test]
fn completions_and_manual_pages_come_from_the_same_command_line() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = salve(&["completions", shell]);
        assert_eq!(ran.code, 0, "{shell}");
        assert!(ran.stdout.contains("candidate"), "{shell}");
    }
    assert!(salve(&["man"]).stdout.contains(".TH salve"));
    let dir = tempfile::tempdir().expect("a directory for the test");
    let path = dir.path().to_str().expect("text");
    assert_eq!(salve(&["man", "--dir", path]).code, 0);
    let heal = std::fs::read_to_string(dir.path().join("salve-heal.1")).expect("a page for heal");
    assert!(heal.contains(&format!("salve {}", env!("CARGO_PKG_VERSION"))), "whose page it is: {heal}");
    for section in ["VERDICTS", "\"EXIT STATUS\"", "FILES", "\"SEE ALSO\""] {
        assert!(heal.contains(&format!(".SH {section}\n")), "{section}: {heal}");
    }
    assert_eq!(salve(&["man", "--dir", "/nonexistent"]).code, 1);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    use std::process::Stdio;
    let mut child =
        command(&["completions", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
