use super::{fixture, salve, settings};
use salve_testkit::not_run;
use std::process::{Child, Command};

struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().expect("sleep runs"))
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ends_either_way = self.0.kill();
        let _ends_either_way = self.0.wait();
    }
}

/// What differs from run to run.
fn process_settings() -> insta::Settings {
    let mut settings = settings();
    for field in ["pid", "start_ticks", "took_ms"] {
        settings.add_filter(&format!(r#""{field}": \d+"#), format!(r#""{field}": "[NUMBER]""#));
    }
    settings.add_filter(r#""program": "[^"]*sleep""#, r#""program": "[SLEEP]""#);
    // What the archive has for the C library of the machine that tests, if it knows an archive.
    settings.add_filter(r#"(?s)"not_installed": \{.*?\n    \}"#, r#""not_installed": "[ARCHIVE]""#);
    settings
}

#[test]
fn a_process_that_does_not_run_the_image_is_left_as_it_is() {
    if not_run::unless_root("apply to a process that does not run the image") {
        return;
    }
    let sleeper = Sleeper::start();
    let pid = sleeper.pid();
    let file = fixture();
    let words = ["apply", file.to_str().expect("text"), "--pid", &pid, "--events", "/dev/null"];
    let ran = salve(&words);
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("left: not applied"), "{}", ran.stdout);
    let ran = salve(&[words.as_slice(), &["--json"]].concat());
    assert_eq!(ran.code, 3);
    let processes = &ran.json()["result"]["processes"];
    process_settings().bind(|| insta::assert_snapshot!(serde_json::to_string_pretty(processes).expect("JSON")));
}

#[test]
fn nobody_who_runs_the_image_is_nothing_to_do() {
    if not_run::unless_root("nobody who runs the image") {
        return;
    }
    let file = fixture();
    let ran = salve(&["apply", file.to_str().expect("text"), "--all", "--events", "/dev/null"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("no process runs what this patch file is for"));
}

#[test]
fn a_process_without_livepatches_has_a_plain_status_and_nothing_to_revert() {
    if not_run::unless_root("the status of a plain process") {
        return;
    }
    let sleeper = Sleeper::start();
    let ran = salve(&["status", &sleeper.pid()]);
    let plain = "exposed: nothing; no process that was looked at runs older code than the disk has\n\
                 no process carries a livepatch (1 looked at)";
    // What the archive has for its C library is this machine's own.
    let of_the_archive = |line: &&str| line.starts_with("not installed: ") || line.contains("that are not installed");
    let said: Vec<&str> = ran.stdout.lines().filter(|line| !of_the_archive(line)).collect();
    assert_eq!((ran.code, said.join("\n").as_str()), (0, plain));
    // Named as `apply` and `revert` have it.
    let named = salve(&["status", "--pid", &sleeper.pid()]);
    assert_eq!((named.code, named.stdout), (ran.code, ran.stdout));
    let (alone, named) = (salve(&["debug", &sleeper.pid()]), salve(&["debug", "-p", &sleeper.pid()]));
    assert_eq!((named.code, named.stdout), (alone.code, alone.stdout));
    let both = salve(&["debug", "-p", &sleeper.pid(), &sleeper.pid()]);
    assert!(both.code == 2 && both.stderr.contains("cannot be used with"), "{}", both.stderr);
    let page = salve(&["status", "-p", &sleeper.pid(), "--html", "/dev/null"]);
    assert!(page.code == 2 && page.stderr.contains("cannot be used with"), "{}", page.stderr);
    let nobody = salve(&["debug"]);
    assert!(nobody.code == 2 && nobody.stderr.contains("required"), "{}", nobody.stderr);
    let ran = salve(&["status", &sleeper.pid(), "--json"]);
    process_settings().bind(|| insta::assert_snapshot!(ran.stdout));
    let ran = salve(&["revert", "--pid", &sleeper.pid(), "--json", "--events", "/dev/null"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    process_settings().bind(|| insta::assert_snapshot!(ran.stdout));
}

#[test]
fn a_process_that_is_not_there_is_an_error_where_it_was_named() {
    let mut gone = Sleeper::start();
    let _it_ends = gone.0.kill();
    let _it_ended = gone.0.wait();
    let pid = gone.pid();
    let file = fixture();
    let apply = ["apply", file.to_str().expect("text"), "--pid", &pid];
    let status = ["status", &pid];
    let revert = ["revert", "--pid", &pid];
    for words in [apply.as_slice(), &status, &revert] {
        let ran = salve(&[words, &["--json", "--events", "/dev/null"]].concat());
        assert_eq!((ran.code, ran.json()["error"]["code"].as_str()), (1, Some("no-such-process")), "{words:?}");
    }
}

#[test]
fn process_1_and_salves_own_line_are_never_touched_even_when_named() {
    if not_run::unless_root("protected processes") {
        return;
    }
    // Its own parent is this test.
    let own = std::process::id().to_string();
    let file = fixture();
    let ran = salve(&["apply", file.to_str().expect("text"), "--pid", &own, "--json", "--events", "/dev/null"]);
    assert_eq!(ran.code, 3);
}

#[test]
fn a_livepatch_that_nobody_carries_cannot_be_reverted() {
    if !not_run::unless_root("a livepatch that nobody carries") {
        let ran = salve(&["revert", "--all", "0123456789abcdef", "--json", "--events", "/dev/null"]);
        assert_eq!((ran.code, ran.json()["error"]["code"].as_str()), (1, Some("no-such-livepatch")));
    }
    let ran = salve(&["revert", "--all", "neither-id-nor-file", "--json", "--events", "/dev/null"]);
    assert_eq!((ran.code, ran.json()["error"]["code"].as_str()), (1, Some("cannot-open")));
}
