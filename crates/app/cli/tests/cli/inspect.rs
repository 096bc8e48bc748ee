use super::{command, fixture, salve, settings};

fn inspect(words: &[&str]) -> super::Ran {
    let file = fixture();
    let mut all = vec!["inspect", file.to_str().expect("text")];
    all.extend(words);
    salve(&all)
}

#[test]
fn a_patch_file_is_explained_to_a_reader() {
    let ran = inspect(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    settings().bind(|| insta::assert_snapshot!(ran.stdout));
}

#[test]
fn verbose_lists_where_each_reference_leads() {
    let ran = inspect(&["-v"]);
    assert!(ran.stdout.contains("0x5123 in parse_chunk -> old 0x9040"), "{}", ran.stdout);
}

#[test]
fn the_json_of_a_patch_file_has_its_documented_shape() {
    let ran = inspect(&["--json"]);
    assert_eq!(ran.code, 0);
    settings().bind(|| insta::assert_snapshot!(ran.stdout));
}

#[test]
fn one_image_can_be_picked_and_an_unknown_one_is_an_error_that_names_the_others() {
    let ran = inspect(&["--image", "/usr/bin/shifted"]);
    assert!(ran.stdout.contains("/usr/bin/shifted: refused") && !ran.stdout.contains("/usr/sbin/small: "));
    let ran = inspect(&["--image", "/usr/bin/other"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("hint: it holds /usr/sbin/small"), "{}", ran.stderr);
}

#[test]
fn nothing_is_coloured_when_nobody_looks() {
    let ran = inspect(&[]);
    assert!(!ran.stdout.contains('\u{1b}'));
    let forced = |name: &str| {
        let file = fixture();
        let mut command = command(&["inspect", file.to_str().expect("text")]);
        let output = command.env("CLICOLOR_FORCE", "1").env(name, "1").output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).contains('\u{1b}')
    };
    assert!(forced("NOTHING"), "colour can be asked for");
}
