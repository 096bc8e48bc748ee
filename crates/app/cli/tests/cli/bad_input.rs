use super::{fixture, salve};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory for the test"))
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }
}

/// Exit code and error code of reading `path` as a patch file.
fn inspect(path: &std::path::Path) -> (i32, String) {
    let ran = salve(&["inspect", "--json", path.to_str().expect("text")]);
    let code = ran.json()["error"]["code"].as_str().unwrap_or("none").to_owned();
    assert!(ran.code == 0 || ran.stderr.starts_with("error: "), "{}", ran.stderr);
    (ran.code, code)
}

#[test]
fn what_is_no_patch_file_has_its_error_and_is_never_waited_for() {
    let dir = Dir::new();
    let fifo = dir.0.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs");
    assert!(made.success());
    let good = std::fs::read(fixture()).expect("the fixture");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let cases = [
        (dir.0.path().join("missing"), "cannot-open"),
        (dir.0.path().to_path_buf(), "not-a-file"),
        (fifo, "not-a-file"),
        (PathBuf::from("/dev/null"), "not-a-file"),
        (dir.file("empty", b""), "not-a-patch"),
        (dir.file("text", b"hello"), "not-a-patch"),
        (PathBuf::from(env!("CARGO_BIN_EXE_salve")), "not-a-patch"),
        (dir.file("cut", &good[..good.len() / 2]), "not-a-patch"),
        (dir.file("longer", &[good.as_slice(), b"x"].concat()), "not-a-patch"),
        (dir.file("flipped", &flipped), "not-a-patch"),
    ];
    for (path, code) in cases {
        assert_eq!(inspect(&path), (1, code.to_owned()), "{}", path.display());
    }
    assert_eq!(inspect(&fixture()), (0, "none".to_owned()));
}

#[test]
fn an_error_says_what_why_and_what_next_on_standard_error_only() {
    let ran = salve(&["inspect", "/nonexistent/x.salve"]);
    assert!(ran.stdout.is_empty());
    assert_eq!(
        ran.stderr,
        "error: cannot open /nonexistent/x.salve\n  caused by: No such file or directory (os error 2)\nhint: is the path right?\n"
    );
}

#[test]
fn a_patch_file_that_others_can_write_is_not_applied() {
    let dir = Dir::new();
    let path = dir.file("x.salve", &std::fs::read(fixture()).expect("the fixture"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("mode");
    let ran = salve(&["apply", path.to_str().expect("text"), "--all", "--json", "--events", "/dev/null"]);
    assert_eq!((ran.code, ran.json()["error"]["code"].as_str()), (3, Some("not-yours")));
}

#[test]
fn what_is_neither_package_nor_program_is_not_derived_from() {
    let dir = Dir::new();
    let text = dir.file("text", b"#!/bin/sh\n");
    let text = text.to_str().expect("text");
    let ran = salve(&["derive", text, text, "--json", "--events", "/dev/null"]);
    assert_eq!((ran.code, ran.json()["error"]["code"].as_str()), (1, Some("not-recognised")));
    let empty = dir.0.path().join("tree");
    std::fs::create_dir(&empty).expect("made");
    let empty = empty.to_str().expect("text");
    let ran = salve(&["derive", empty, empty, "--json", "--events", "/dev/null"]);
    assert_eq!((ran.code, ran.json()["error"]["code"].as_str()), (3, Some("no-images")));
}
