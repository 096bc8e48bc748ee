//! The stop switch: one file, and no Salve changes anything more.

use anyhow::{Context as _, Result, anyhow};
use salve_testkit::observe::Text;
use salve_testkit::patchfile::{self, Derived};
use salve_testkit::salve::{Run, Salve, exit, texts};
use salve_testkit::sleeper::Sleeper;
use salve_testkit::spinner::{Programs, Spinner};
use salve_testkit::victim::{Source, packages};
use salve_testkit::{events, not_run, tree};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NOTHING: Vec<String> = Vec::new();

/// `salve` with a second switch at `off`, so that the machine's own stays as it is.
fn switched(salve: &Salve, off: &Path, words: &[&str]) -> Result<Run> {
    Run::of(salve.command(words).arg("--json").env("SALVE_OFF", off))
}

fn apply<'w>(derived: &'w Derived, pid: &'w str, wait: &'w str) -> Result<[&'w str; 8]> {
    let file = derived.file.to_str().context("a path that is no text")?;
    Ok(["apply", "--pid", pid, "--wait", wait, "--accept", "direction-unknown", file])
}

#[test]
fn while_it_is_off_nothing_is_applied_and_nothing_reverted_but_on_purpose() -> Result<()> {
    if not_run::unless_root("the stop switch") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = patchfile::derive(&salve, &programs.old, &programs.new)?;
    let mut victim = Spinner::start(&programs.old, 2)?;
    let pid = victim.pid().to_string();
    let before = Text::of(victim.pid())?;
    let directory = tree::scratch("switch")?;
    let off = directory.path().join("off");

    // By hand, as configuration management would.
    std::fs::write(&off, "change freeze until Monday\n")?;
    let run = switched(&salve, &off, &apply(&derived, &pid, "1s")?)?.expect_code(exit::REFUSED)?;
    assert_eq!(run.error_code()?.as_deref(), Some("off"));
    assert!(run.stdout.contains("change freeze until Monday"), "{}", run.stdout);
    let run = switched(&salve, &off, &["heal", "--pid", &pid])?.expect_code(exit::REFUSED)?;
    assert_eq!(run.error_code()?.as_deref(), Some("off"));
    switched(&salve, &off, &["heal", "--dry-run", "--pid", &pid])?.expect_code(exit::DONE)?;
    assert_eq!(Text::of(victim.pid())?.differences_from(&before), NOTHING);

    std::fs::remove_file(&off)?;
    switched(&salve, &off, &apply(&derived, &pid, "30s")?)?.expect_code(exit::DONE)?;
    let patched = Text::of(victim.pid())?;
    std::fs::write(&off, "")?;
    let run = switched(&salve, &off, &["revert", "--pid", &pid])?.expect_code(exit::REFUSED)?;
    assert_eq!(run.error_code()?.as_deref(), Some("off"));
    assert_eq!(Text::of(victim.pid())?.differences_from(&patched), NOTHING);
    let report = switched(&salve, &off, &["status", &pid])?.expect_code(exit::DONE)?.report()?;
    assert_eq!(report.pointer("/result/switch/state").and_then(|state| state.as_str()), Some("off"));
    switched(&salve, &off, &["revert", "--while-off", "--pid", &pid])?.expect_code(exit::DONE)?;
    assert_eq!(Text::of(victim.pid())?.changes_to(&before), NOTHING);
    victim.must_run()
}

#[test]
fn a_run_that_waits_changes_nothing_once_it_is_switched_off() -> Result<()> {
    if not_run::unless_root("the stop switch while a run waits") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let mut sleeper = Sleeper::start()?;
    let derived = patchfile::derive(&salve, &sleeper.old(), &sleeper.newer())?;
    let pid = sleeper.pid();
    let before = Text::of(pid)?;
    sleeper.sleep()?;
    let directory = tree::scratch("switch")?;
    let (off, log) = (directory.path().join("off"), directory.path().join("events.jsonl"));
    let began = Instant::now();
    let waiting = {
        let salve = salve.clone().events_to(&log);
        let (off, file) = (off.clone(), derived.file.clone());
        std::thread::spawn(move || {
            let pid = pid.to_string();
            let words = ["apply", "--pid", &pid, "--wait", "120s", "--accept", "direction-unknown"];
            Run::of(salve.command(&words).arg(file).arg("--json").env("SALVE_OFF", off))
        })
    };
    std::thread::sleep(Duration::from_millis(700));
    std::fs::write(&off, "now")?;
    let run = waiting.join().map_err(|_| anyhow!("the thread broke"))??.expect_code(exit::REFUSED)?;
    assert_eq!(run.only_outcome()?, ("not-applied".to_owned(), Some("off".to_owned())));
    assert!(began.elapsed() < Duration::from_secs(60), "it waited on");
    let log = events::read(&log)?;
    let codes: Vec<&str> = log.iter().flat_map(|event| texts(event, "code")).collect();
    assert!(codes.contains(&"off"), "{log:?}");
    // Nothing stands in the way any more, and nothing comes of it.
    sleeper.go_on()?;
    sleeper.wait_for_got(100)?;
    assert_eq!(Text::of(pid)?.changes_to(&before), NOTHING);
    sleeper.must_run()
}

/// The real place, in a mount namespace where `/etc` is a directory of the test's.
#[test]
fn off_and_on_are_events_with_who_did_it_and_why() -> Result<()> {
    if not_run::unless_root("salve off and salve on") {
        return Ok(());
    }
    let directory = tree::scratch("switch")?;
    let (etc, log) = (directory.path().join("etc"), directory.path().join("events.jsonl"));
    std::fs::create_dir(&etc)?;
    let salve = Salve::built()?;
    let inside = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc && exec \"$@\""]).arg(&etc);
        Run::of(command.arg(salve.program()).args(words).args(["--json", "--events"]).arg(&log))
    };
    inside(&["off", "--why", "pager at 3 a.m."])?.expect_code(exit::DONE)?;
    let file = etc.join("salve/off");
    let said = std::fs::read_to_string(&file)?;
    assert!(said.contains("uid 0") && said.contains("pager at 3 a.m."), "{said}");
    let report = inside(&["status"])?.expect_code(exit::DONE)?.report()?;
    assert_eq!(report.pointer("/result/switch/path").and_then(|path| path.as_str()), Some("/etc/salve/off"));
    let again = inside(&["off", "--why", "me too"])?.expect_code(exit::DONE)?.report()?;
    assert_eq!(again.pointer("/result/changed").and_then(serde_json::Value::as_bool), Some(false));
    assert_eq!(std::fs::read_to_string(&file)?, said, "who was first stays on record");
    inside(&["on"])?.expect_code(exit::DONE)?;
    assert!(!file.exists());
    let log = events::read(&log)?;
    let named = |name: &str| log.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    assert_eq!(named("switched-off").len(), 1, "{log:?}");
    assert_eq!(named("switched-off")[0]["why"], "pager at 3 a.m.");
    assert_eq!(named("switched-off")[0]["actor"]["uid"], 0);
    assert!(named("switched-on")[0]["said"].as_str().is_some_and(|said| said.contains("pager")), "{log:?}");
    Ok(())
}

/// By its program, its directory, its user or its group; and everybody while the list
/// cannot be understood.
#[test]
fn whom_the_hosts_list_names_is_left_alone_and_can_be_reverted_all_the_same() -> Result<()> {
    if not_run::unless_root("the list of processes to leave alone") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = patchfile::derive(&salve, &programs.old, &programs.new)?;
    let mut victim = Spinner::start(&programs.old, 2)?;
    let pid = victim.pid().to_string();
    let before = Text::of(victim.pid())?;
    let directory = tree::scratch("leave")?;
    let list = directory.path().join("leave");
    let listed = |words: &[&str]| Run::of(salve.command(words).arg("--json").env("SALVE_LEAVE", &list));
    let program = programs.old.display().to_string();
    let within = format!("{}/", programs.old.parent().context("no directory")?.display());

    for (line, code) in [
        (format!("path {program}"), "listed-path"),
        (format!("path {within} # all of it"), "listed-path"),
        ("user root".to_owned(), "listed-user"),
        ("group 0".to_owned(), "listed-group"),
        ("pth /bin/true".to_owned(), "list-not-understood"),
        ("user nobody-has-this-name".to_owned(), "list-not-understood"),
    ] {
        std::fs::write(&list, format!("# ours\n{line}\n"))?;
        let run = listed(&apply(&derived, &pid, "1s")?)?.expect_code(exit::REFUSED)?;
        assert_eq!(run.only_outcome()?, ("refused".to_owned(), Some(code.to_owned())), "{line}: {}", run.stdout);
        assert_eq!(Text::of(victim.pid())?.differences_from(&before), NOTHING);
        let report = listed(&["status", &pid])?.expect_code(exit::DONE)?.report()?;
        let left = report.pointer("/result/processes/0/left_alone/code").and_then(|code| code.as_str());
        assert_eq!(left, Some(code), "{line}");
    }

    std::fs::write(&list, format!("path {program}2\nuser 65533\n"))?;
    listed(&apply(&derived, &pid, "30s")?)?.expect_code(exit::DONE)?;
    assert_ne!(Text::of(victim.pid())?.differences_from(&before), NOTHING);
    std::fs::write(&list, format!("path {program}\n"))?;
    listed(&["revert", "--pid", &pid])?.expect_code(exit::DONE)?;
    assert_eq!(Text::of(victim.pid())?.changes_to(&before), NOTHING);
    victim.must_run()
}

/// `salve run` starts nothing while it is off, or starts it as it is where that was asked
/// for; and what a command that runs already starts is looked at again each time.
#[test]
fn while_it_is_off_a_command_is_not_started_or_started_as_it_is() -> Result<()> {
    if not_run::unless_root("salve run and the stop switch") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let directory = tree::scratch("switch")?;
    let [old, new] = Source::named("started.c")?.programs(directory.path(), &[])?;
    let [was, from] = packages(directory.path(), &old, &new)?;
    let derived = patchfile::derive(&salve, &was, &from)?;
    let (off, log) = (directory.path().join("off"), directory.path().join("events.jsonl"));
    let under = |options: &[&str], command: &[&str]| {
        let mut run = Command::new(salve.program());
        run.args(["run", "--patch"]).arg(&derived.file).arg("--events").arg(&log).args(options);
        Run::of(run.arg("--").args(command).env("SALVE_OFF", &off).stdin(Stdio::null()))
    };
    let program = old.to_str().context("a path that is no text")?;
    let answers = |run: &Run| -> Vec<String> {
        run.stdout.lines().filter_map(|line| line.strip_prefix("answer ")).map(str::to_owned).collect()
    };
    let made = directory.path().join("made");
    let made = made.to_str().context("a path that is no text")?;

    std::fs::write(&off, "change freeze\n")?;
    let run = under(&[], &[program, "7", made])?.expect_code(exit::REFUSED)?;
    assert!(run.stderr.contains("change freeze") && !Path::new(made).exists(), "{}", run.stderr);
    let run = under(&["--unpatched-ok"], &[program, "7", made])?.expect_code(7)?;
    assert_eq!(answers(&run), ["100"; 3], "{}", run.stdout);
    assert!(run.stderr.contains("started without the livepatch"), "{}", run.stderr);
    assert_eq!(events::named(&events::read(&log)?, "applied").len(), 0);

    // Switched off between two children: the second one does not start.
    std::fs::remove_file(&off)?;
    std::fs::remove_file(made)?;
    let script = format!("{program} 7; echo now > {}; {program} 7 {made}; echo ended $?", off.display());
    let run = under(&["--children"], &["sh", "-c", &script])?.expect_code(exit::DONE)?;
    assert_eq!(answers(&run), ["200"; 3], "{}", run.stdout);
    assert!(run.stdout.contains("ended 3") && !Path::new(made).exists(), "{}{}", run.stdout, run.stderr);
    let log = events::read(&log)?;
    assert_eq!(events::named(&log, "applied").len(), 1);
    let codes: Vec<&str> = events::named(&log, "not-applied").iter().flat_map(|event| texts(event, "code")).collect();
    assert_eq!(codes, ["off"], "{log:?}");
    Ok(())
}
