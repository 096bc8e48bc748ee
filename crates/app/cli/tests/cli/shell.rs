//! Completions in a real bash, and manual pages as man(1) shows them.

use super::salve;
use salve_testkit::needs::{self, Need};
use salve_testkit::not_run;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What bash offers after these words, the last of which is being typed.
fn offered(script: &Path, words: &[&str]) -> BTreeSet<String> {
    // As bash itself does it: the function that was registered, with the words and which of them it is.
    let complete = r#"
        source "$1" || exit 9; shift
        [[ "$(complete -p salve)" =~ \ -F\ ([^ ]+)\  ]] || exit 8
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        "${BASH_REMATCH[1]}" salve "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut command = Command::new("bash");
    command.args(["--norc", "--noprofile", "-c", complete, "bash"]).arg(script).args(words);
    let output = command.output().expect("bash runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{words:?}: {} {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The commands that `--help` lists.
fn commands() -> Vec<String> {
    let help = salve(&["--help"]).stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Further lines of a description stand further in.
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let names: Vec<String> = names.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect();
    assert!(names.len() > 8 && names.contains(&"heal".to_owned()), "{names:?} of {help}");
    names
}

/// The long options that `--help` of a command lists, each at the beginning of its line.
fn options(words: &[&str]) -> BTreeSet<String> {
    let help = salve(&[words, &["--help"]].concat()).stdout;
    let named = |line: &str| {
        let line = line.trim_start();
        let line = line
            .split_once(", ")
            .filter(|(short, _)| short.len() == 2 && short.starts_with('-'))
            .map_or(line, |(_, long)| long);
        let rest = line.strip_prefix("--")?;
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
        Some(format!("--{}", rest.get(..end)?))
    };
    let options: BTreeSet<String> = help.lines().filter_map(named).collect();
    assert!(options.contains("--json") && options.contains("--help"), "{options:?} of {help}");
    options
}

#[test]
fn bash_completes_every_command_and_every_option_that_help_names() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let script = dir.path().join("salve");
    fs::write(&script, salve(&["completions", "bash"]).stdout).expect("written");
    let first = offered(&script, &["salve", ""]);
    for command in commands() {
        assert!(first.contains(&command), "{command} is not among {first:?}");
        let there = offered(&script, &["salve", &command, "--"]);
        let missing: Vec<String> = options(&[&command]).difference(&there).cloned().collect();
        assert!(missing.is_empty(), "{command}: {missing:?} are not among {there:?}");
    }
    let of_root = offered(&script, &["salve", "--"]);
    assert!(options(&[]).is_subset(&of_root), "{of_root:?}");
    assert_eq!(offered(&script, &["salve", "he"]), ["heal".to_owned()].into());
    assert_eq!(offered(&script, &["salve", "heal", "--dry"]), ["--dry-run".to_owned()].into());
    let shells = offered(&script, &["salve", "completions", ""]);
    assert!(shells.contains("fish") && shells.contains("zsh"), "{shells:?}");
    // A value that is a file: bash is asked for the files that are there.
    let there = dir.path().to_str().expect("text");
    let files = offered(&script, &["salve", "status", "--html", &format!("{there}/sal")]);
    assert_eq!(files, [format!("{there}/salve")].into());
}

#[test]
fn man_shows_every_page_without_a_warning_and_each_has_what_help_names() {
    if let Err(error) = needs::ensure(&[Need::ManualReader]) {
        return not_run::record("manual pages as man(1) shows them", &format!("{error:#}"));
    }
    let dir = tempfile::tempdir().expect("a directory for the test");
    assert_eq!(salve(&["man", "--dir", dir.path().to_str().expect("text")]).code, 0);
    let shown = |name: &str| {
        let mut man = Command::new("man");
        man.args(["--warnings", "--local-file"]).arg(dir.path().join(format!("{name}.1")));
        // Wide, so that no name is broken at a line's end.
        man.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "400").env_remove("MANPAGER").env_remove("MANOPT");
        let output = man.output().expect("man runs");
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && warnings.is_empty(), "{name}: {} {warnings}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let of_all = shown("salve");
    let mut pages = 1;
    for command in commands() {
        assert!(of_all.contains(&format!("salve-{command}(1)")), "{command} is not in salve(1): {of_all}");
        let page = shown(&format!("salve-{command}"));
        let heads: Vec<&str> = page.lines().filter(|line| line.trim_start().starts_with('-')).collect();
        for option in options(&[&command]) {
            let told = heads.iter().any(|line| line.split([' ', ',', '=']).any(|word| word == option));
            assert!(told, "{option} is not in salve-{command}(1): {page}");
        }
        pages += 1;
    }
    let written = fs::read_dir(dir.path()).expect("a directory").count();
    assert!(written >= pages, "{written} pages were written, {pages} looked at");
}
