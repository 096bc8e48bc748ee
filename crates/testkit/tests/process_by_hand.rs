//! `salve apply`, `revert` and `status` on processes of our own, and all the
//! ways in which a process is not the one a patch is for.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::observe::{self, Text};
use salve_testkit::patchfile::{self, Derived};
use salve_testkit::salve::{Run, Salve, exit};
use salve_testkit::sleeper::Sleeper;
use salve_testkit::spinner::{Programs, Spinner};
use salve_testkit::victim::Source;
use salve_testkit::{not_run, steps, tools, tree};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const NOTHING: Vec<String> = Vec::new();

fn derive(salve: &Salve, old: &Path, new: &Path) -> Result<Derived> {
    let derived = patchfile::derive(salve, old, new)?;
    ensure!(derived.run.code == Some(exit::DONE), "{}{}", derived.run.stdout, derived.run.stderr);
    ensure!(!derived.only_image()?.changed().is_empty(), "nothing to apply: {}", derived.run.stdout);
    Ok(derived)
}

fn apply(salve: &Salve, patch: &Path, pid: u32, wait: &str) -> Result<Run> {
    let pid = pid.to_string();
    let words = ["apply", "--pid", &pid, "--wait", wait, "--accept", "direction-unknown"];
    salve.json(&words.iter().map(AsRef::as_ref).chain([patch.as_os_str()]).collect::<Vec<_>>())
}

fn revert(salve: &Salve, pid: u32, wait: &str) -> Result<Run> {
    salve.json(&["revert", "--pid", &pid.to_string(), "--wait", wait])
}

#[test]
fn a_call_of_a_changed_function_costs_one_direct_jump_more() -> Result<()> {
    if not_run::unless_root("counting instructions of a changed function") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = derive(&salve, &programs.old, &programs.new)?;
    let count = |victim: &Spinner, program: &Path| steps::of_call(victim.pid(), program, "answer");
    let newer = count(&Spinner::start(&programs.new, 1)?, &programs.new)?;
    let mut victim = Spinner::start(&programs.old, 1)?;
    let older = count(&victim, &programs.old)?;
    apply(&salve, &derived.file, victim.pid(), "30s")?.expect_code(exit::DONE)?;
    victim.wait_for_answer(true)?;
    let patched = count(&victim, &programs.old)?;
    // The old entry's `endbr64`, which is kept for who comes by a pointer, and the jump.
    assert_eq!(patched, newer + 2);
    revert(&salve, victim.pid(), "30s")?.expect_code(exit::DONE)?;
    victim.wait_for_answer(false)?;
    assert_eq!(count(&victim, &programs.old)?, older);
    Ok(())
}

#[test]
fn a_patch_goes_in_once_and_comes_out_without_a_trace_on_one_thread_and_on_ten() -> Result<()> {
    if not_run::unless_root("apply and revert by hand") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = derive(&salve, &programs.old, &programs.new)?;
    for threads in [1, 10] {
        let mut victim = Spinner::start(&programs.old, threads)?;
        let before = Text::of(victim.pid())?;
        victim.wait_for_answer(false)?;
        for _ in 0..3 {
            let run = apply(&salve, &derived.file, victim.pid(), "30s")?.expect_code(exit::DONE)?;
            assert_eq!(run.only_outcome()?.0, "applied");
            victim.wait_for_answer(true)?;
            assert_eq!(observe::writable_and_executable(victim.pid())?, NOTHING);
            assert_eq!(observe::tracer(victim.pid())?, 0);
            let patched = Text::of(victim.pid())?;
            let run = apply(&salve, &derived.file, victim.pid(), "30s")?.expect_code(exit::DONE)?;
            assert_eq!(run.only_outcome()?.0, "already-applied");
            assert_eq!(Text::of(victim.pid())?.differences_from(&patched), NOTHING);
            revert(&salve, victim.pid(), "30s")?.expect_code(exit::DONE)?;
            victim.wait_for_answer(false)?;
            assert_eq!(Text::of(victim.pid())?.changes_to(&before), NOTHING);
        }
        victim.must_run()?;
    }
    Ok(())
}

#[test]
fn a_process_whose_first_thread_has_ended_is_told_and_is_in_nobodys_way() -> Result<()> {
    if not_run::unless_root("a process whose first thread has ended") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = derive(&salve, &programs.old, &programs.new)?;
    let outlived = tools::compile("outlived.c", programs.directory())?;
    let mut outlived = Killed(Command::new(outlived).spawn()?);
    let number = outlived.0.id().to_string();
    let state = || std::fs::read_to_string(format!("/proc/{number}/status"));
    while !state()?.contains("State:\tZ") {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let mut victim = Spinner::start(&programs.old, 2)?;
    apply(&salve, &derived.file, victim.pid(), "30s")?.expect_code(exit::DONE)?;
    victim.wait_for_answer(true)?;
    revert(&salve, victim.pid(), "30s")?.expect_code(exit::DONE)?;
    victim.wait_for_answer(false)?;
    let named = apply(&salve, &derived.file, outlived.0.id(), "1s")?.expect_code(exit::REFUSED)?;
    assert_eq!(named.error_code()?.as_deref(), Some("first-thread-ended"));
    let dry = salve.run(&["heal", "--dry-run"])?;
    assert!(dry.stdout.contains("[first-thread-ended]"), "{}{}", dry.stdout, dry.stderr);
    // Of all processes, one cannot be looked at: the others are changed, and that is said.
    let words = ["apply", "--all", "--accept", "direction-unknown"].map(AsRef::as_ref);
    let all = salve.json(&[&words[..], &[derived.file.as_os_str()]].concat())?.expect_code(exit::REFUSED)?;
    assert_eq!(all.only_outcome()?.0, "applied");
    victim.wait_for_answer(true)?;
    let all = salve.json(&["revert", "--all"])?.expect_code(exit::REFUSED)?.report()?;
    let ends = all.pointer("/result/processes").and_then(Value::as_array).context("no processes")?;
    let end = |pid: u32| ends.iter().find(|end| end.pointer("/process/pid") == Some(&Value::from(pid)));
    assert_eq!(end(victim.pid()).and_then(|end| end.get("outcome")), Some(&Value::from("reverted")));
    assert_eq!(end(outlived.0.id()).and_then(|end| end.get("code")), Some(&Value::from("first-thread-ended")));
    victim.wait_for_answer(false)?;
    assert!(outlived.0.try_wait()?.is_none(), "it runs on");
    victim.must_run()
}

/// Ends with the test, however that ends.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_dry_run_of_revert_names_what_would_come_out_and_changes_nothing() -> Result<()> {
    if not_run::unless_root("a dry run of revert") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = derive(&salve, &programs.old, &programs.new)?;
    let mut victim = Spinner::start(&programs.old, 1)?;
    let pid = victim.pid().to_string();
    let foresee = ["revert", "--dry-run", "--pid", &pid];
    assert_eq!(salve.json(&foresee)?.expect_code(exit::DONE)?.only_outcome()?.0, "nothing-to-revert");
    apply(&salve, &derived.file, victim.pid(), "30s")?.expect_code(exit::DONE)?;
    let patched = Text::of(victim.pid())?;
    let run = salve.json(&foresee)?.expect_code(exit::DONE)?;
    assert_eq!(run.only_outcome()?.0, "planned");
    let report = run.report()?;
    let named = report.pointer("/result/processes/0/livepatches/0").and_then(Value::as_str).context("a livepatch")?;
    assert_eq!(report.pointer("/result/dry_run"), Some(&Value::Bool(true)));
    assert_eq!(report.pointer("/event_log/written"), Some(&Value::from(0)), "a dry run decides nothing");
    assert_eq!(Text::of(victim.pid())?.differences_from(&patched), NOTHING);
    let told = salve.run(&foresee)?.expect_code(exit::DONE)?;
    assert!(told.stdout.contains("would be reverted") && told.stdout.contains(named), "{}", told.stdout);
    victim.wait_for_answer(true)?;
    victim.must_run()
}

#[test]
fn what_is_applied_already_is_told_in_a_line() -> Result<()> {
    if not_run::unless_root("an apply by hand, told twice") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = derive(&salve, &programs.old, &programs.new)?;
    let victim = Spinner::start(&programs.old, 1)?;
    let (pid, file) = (victim.pid().to_string(), derived.file.to_str().context("a path in UTF-8")?);
    let words = ["apply", "--pid", &pid, "--accept", "direction-unknown", file];
    let first = salve.run(&words)?.expect_code(exit::DONE)?;
    let again = salve.run(&words)?.expect_code(exit::DONE)?;
    assert!(first.stdout.contains("functions:") && !again.stdout.contains("functions:"), "{}", again.stdout);
    assert!(again.stdout.contains("patched already"), "{}", again.stdout);
    let wordy = salve.run(&[&words[..], &["--verbose"]].concat())?.expect_code(exit::DONE)?;
    assert!(wordy.stdout.contains("functions:"), "{}", wordy.stdout);
    Ok(())
}

#[test]
fn all_consents_are_asked_for_at_once() -> Result<()> {
    let salve = Salve::built()?;
    let directory = tempfile::tempdir()?;
    let [old, new] = Source::named("data_in_code_large.c")?.programs(directory.path(), &[])?;
    let derived = derive(&salve, &old, &new)?;
    assert_eq!(derived.only_image()?.verdict(), "review");
    let (pid, file) = (std::process::id().to_string(), derived.file.to_str().context("a path in UTF-8")?);
    let refused = salve.run(&["apply", "--pid", &pid, file])?.expect_code(exit::REFUSED)?;
    for code in derived.only_image()?.deciding_codes().into_iter().chain(["direction-unknown"]) {
        assert!(refused.stderr.contains(&format!("--accept {code}")), "{code}: {}", refused.stderr);
    }
    Ok(())
}

#[test]
fn a_revert_that_names_another_livepatch_says_which_one_the_process_carries() -> Result<()> {
    if not_run::unless_root("a revert that names another livepatch") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = derive(&salve, &programs.old, &programs.new)?;
    let mut victim = Spinner::start(&programs.old, 1)?;
    apply(&salve, &derived.file, victim.pid(), "30s")?.expect_code(exit::DONE)?;
    let pid = victim.pid().to_string();
    let other = "0123456789abcdef";
    let run = salve.json(&["revert", "--pid", &pid, other])?.expect_code(exit::DONE)?;
    let end = &run.report()?["result"]["processes"][0];
    assert_eq!((end["outcome"].as_str(), end["code"].as_str()), (Some("nothing-to-revert"), Some("other-livepatch")));
    assert!(end["why"].as_str().is_some_and(|why| why.starts_with("it carries ")), "{end}");
    victim.wait_for_answer(true)?;
    revert(&salve, victim.pid(), "30s")?.expect_code(exit::DONE)?;
    let run = salve.json(&["revert", "--pid", &pid, other])?.expect_code(exit::DONE)?;
    assert_eq!(run.report()?["result"]["processes"][0]["code"], Value::Null);
    Ok(())
}

#[test]
fn two_plain_files_prove_no_direction_and_are_applied_only_when_a_person_says_so() -> Result<()> {
    if not_run::unless_root("direction unknown") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = derive(&salve, &programs.old, &programs.new)?;
    let victim = Spinner::start(&programs.old, 1)?;
    let before = Text::of(victim.pid())?;
    let pid = victim.pid().to_string();
    let run = salve.json(&["apply".as_ref(), derived.file.as_os_str(), "--pid".as_ref(), pid.as_ref()])?;
    let run = run.expect_code(exit::REFUSED)?;
    assert_eq!(run.error_code()?.as_deref(), Some("direction-unknown"));
    assert_eq!(Text::of(victim.pid())?.differences_from(&before), NOTHING);
    Ok(())
}

#[test]
fn a_dry_run_of_apply_shows_the_plan_and_changes_nothing() -> Result<()> {
    if not_run::unless_root("a dry run of apply") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = derive(&salve, &programs.old, &programs.new)?;
    let mut victim = Spinner::start(&programs.old, 2)?;
    let before = Text::of(victim.pid())?;
    let pid = victim.pid().to_string();
    let words = ["apply", "--dry-run", "--pid", &pid, "--accept", "direction-unknown"];
    let words: Vec<_> = words.iter().map(AsRef::as_ref).chain([derived.file.as_os_str()]).collect();
    // A change freeze does not keep a plan from being shown.
    let off = derived.file.with_extension("off");
    std::fs::write(&off, "")?;
    let run = Run::of(salve.command(&words).arg("--json").env("SALVE_OFF", &off))?.expect_code(exit::DONE)?;
    assert_eq!(run.only_outcome()?.0, "planned");
    let report = run.report()?;
    assert_eq!(report.pointer("/result/dry_run"), Some(&Value::Bool(true)));
    assert_eq!(report.pointer("/event_log/written"), Some(&Value::from(0)), "a dry run decides nothing");
    assert_eq!(Text::of(victim.pid())?.differences_from(&before), NOTHING);
    victim.wait_for_answer(false)?;
    victim.must_run()
}

#[test]
fn a_patch_for_another_image_with_the_same_build_id_is_not_applied() -> Result<()> {
    if not_run::unless_root("a forged build-id") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let id = "-Wl,--build-id=0x1111111111111111111111111111111111111111";
    let programs = Programs::compile(&[id])?;
    let other = Programs::compile(&[id, "-DOTHER", "-fno-inline", "-O1"])?;
    let derived = derive(&salve, &programs.old, &programs.new)?;
    let mut victim = Spinner::start(&other.old, 2)?;
    let before = Text::of(victim.pid())?;
    let run = apply(&salve, &derived.file, victim.pid(), "1s")?.expect_code(exit::REFUSED)?;
    assert_eq!(run.only_outcome()?, ("not-applied".to_owned(), Some("image-not-mapped".to_owned())));
    assert_eq!(Text::of(victim.pid())?.differences_from(&before), NOTHING);
    victim.must_run()
}

#[test]
fn a_patch_file_with_a_flipped_byte_touches_no_process() -> Result<()> {
    if not_run::unless_root("a flipped patch") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = derive(&salve, &programs.old, &programs.new)?;
    let victim = Spinner::start(&programs.old, 1)?;
    let before = Text::of(victim.pid())?;
    let good = std::fs::read(&derived.file)?;
    for part in 1..12 {
        let mut bytes = good.clone();
        let at = good.len() * part / 12;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1;
        }
        std::fs::write(&derived.file, &bytes)?;
        let run = apply(&salve, &derived.file, victim.pid(), "1s")?.expect_code(exit::FAILED)?;
        assert_eq!(run.error_code()?.as_deref(), Some("not-a-patch"), "byte {at}");
    }
    assert_eq!(Text::of(victim.pid())?.differences_from(&before), NOTHING);
    Ok(())
}

#[test]
fn who_may_not_trace_a_process_changes_nothing_in_it() -> Result<()> {
    if not_run::unless_root("without permission") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = derive(&salve, &programs.old, &programs.new)?;
    let victim = Spinner::start(&programs.old, 1)?;
    let before = Text::of(victim.pid())?;
    // The build directory may lie where nobody may look.
    let here = tree::scratch("nobody")?;
    for program in ["salve", "salve-derive"] {
        let from = salve.program().with_file_name(program);
        std::fs::copy(&from, here.path().join(program)).with_context(|| from.display().to_string())?;
    }
    let patch = here.path().join("patch.salve");
    std::fs::copy(&derived.file, &patch)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(here.path().join("salve"));
    command.args(["apply", "--json", "--accept", "direction-unknown", "--events", "/dev/null", "--pid"]);
    let run = Run::of(command.arg(victim.pid().to_string()).arg(&patch))?.expect_code(exit::FAILED)?;
    let report = run.report()?;
    let codes = salve_testkit::salve::texts(&report, "code");
    assert!(codes.contains(&"no-permission"), "{}", run.stdout);
    assert_eq!(Text::of(victim.pid())?.differences_from(&before), NOTHING);
    Ok(())
}

fn derive_sleeper(salve: &Salve, sleeper: &Sleeper) -> Result<Derived> {
    derive(salve, &sleeper.old(), &sleeper.newer())
}

#[test]
fn a_thread_asleep_in_a_replaced_function_defers_the_transition_both_ways() -> Result<()> {
    if not_run::unless_root("a deferred transition") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let mut sleeper = Sleeper::start()?;
    let derived = derive_sleeper(&salve, &sleeper)?;
    let pid = sleeper.pid();
    let before = Text::of(pid)?;

    sleeper.sleep()?;
    let run = apply(&salve, &derived.file, pid, "500ms")?.expect_code(exit::INCOMPLETE)?;
    assert_eq!(run.only_outcome()?.0, "deferred");
    let report = run.report()?;
    let blocking = salve_testkit::salve::values(&report, "blocking");
    let functions: Vec<&str> = blocking.iter().flat_map(|b| salve_testkit::salve::texts(b, "function")).collect();
    assert!(functions.contains(&"wait_for_work"), "{}", run.stdout);
    let threads = blocking.iter().flat_map(|b| salve_testkit::salve::values(b, "tid"));
    assert!(threads.clone().count() > 0 && threads.clone().all(|tid| tid.as_u64() == Some(u64::from(pid))));
    assert_eq!(Text::of(pid)?.changes_to(&before), NOTHING);

    sleeper.go_on()?;
    apply(&salve, &derived.file, pid, "30s")?.expect_code(exit::DONE)?;
    sleeper.wait_for_got(200)?;

    sleeper.sleep()?;
    revert(&salve, pid, "500ms")?.expect_code(exit::INCOMPLETE)?;
    sleeper.go_on()?;
    sleeper.wait_for_got(200)?;
    revert(&salve, pid, "30s")?.expect_code(exit::DONE)?;
    sleeper.wait_for_got(100)?;
    assert_eq!(Text::of(pid)?.changes_to(&before), NOTHING);
    sleeper.must_run()
}

#[test]
fn a_process_that_dies_while_it_is_waited_for_is_told_as_gone() -> Result<()> {
    if not_run::unless_root("a process that dies halfway") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let mut sleeper = Sleeper::start()?;
    let derived = derive_sleeper(&salve, &sleeper)?;
    let pid = sleeper.pid();
    sleeper.sleep()?;
    let file = derived.file.clone();
    let applying = std::thread::spawn(move || apply(&salve, &file, pid, "30s"));
    std::thread::sleep(std::time::Duration::from_millis(400));
    sleeper.kill()?;
    let run = applying.join().map_err(|_| anyhow::anyhow!("the thread broke"))??.expect_code(exit::DONE)?;
    assert_eq!(run.only_outcome()?.0, "gone");
    Ok(())
}

#[test]
fn status_says_what_is_in_a_process_without_any_state_file() -> Result<()> {
    if not_run::unless_root("status") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = derive(&salve, &programs.old, &programs.new)?;
    let victim = Spinner::start(&programs.old, 1)?;
    let pid = victim.pid().to_string();
    let inspected = derived.inspected.as_ref().context("no inspection")?;
    let livepatch = inspected.pointer("/result/images/0/livepatch/id").and_then(|id| id.as_str()).context("no id")?;
    let mentions = |run: &Run| run.stdout.contains(livepatch);
    assert!(!mentions(&salve.json(&["status", &pid])?.expect_code(exit::DONE)?));
    apply(&salve, &derived.file, victim.pid(), "30s")?.expect_code(exit::DONE)?;
    // Another HOME, no environment: nothing but the process itself can tell.
    let bare = Run::of(salve.command(&["status", &pid, "--json"]).env_clear().env("HOME", "/nonexistent"))?;
    assert!(mentions(&bare.clone().expect_code(exit::DONE)?), "{}", bare.stdout);
    // One that was started since runs the old code, and is named.
    let later = Spinner::start(&programs.old, 1)?;
    let without = |report: &Value| -> Vec<u64> {
        let named = report.pointer("/result/without").and_then(Value::as_array).into_iter().flatten();
        let processes = named.filter_map(|one| one.get("processes").and_then(Value::as_array)).flatten();
        processes.filter_map(|process| process.get("pid").and_then(Value::as_u64)).collect()
    };
    let host = salve.json(&["status"])?.expect_code(exit::DONE)?.report()?;
    assert!(without(&host).contains(&u64::from(later.pid())) && !without(&host).contains(&u64::from(victim.pid())));
    apply(&salve, &derived.file, later.pid(), "30s")?.expect_code(exit::DONE)?;
    let host = salve.json(&["status"])?.expect_code(exit::DONE)?.report()?;
    assert!(!without(&host).contains(&u64::from(later.pid())), "{host}");
    revert(&salve, victim.pid(), "30s")?.expect_code(exit::DONE)?;
    assert!(!mentions(&salve.json(&["status", &pid])?.expect_code(exit::DONE)?));
    Ok(())
}
