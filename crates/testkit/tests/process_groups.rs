//! Processes that share memory or were forked from one another change together: all of
//! them in one stop, or none.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::observe::Text;
use salve_testkit::patchfile::{self, Derived};
use salve_testkit::running::Running;
use salve_testkit::salve::{Run, Salve, exit, values};
use salve_testkit::spinner::{Programs, Spinner};
use salve_testkit::together::Together;
use salve_testkit::victim::{Source, packages};
use salve_testkit::{events, not_run, tree};
use serde_json::Value;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

const NOTHING: Vec<String> = Vec::new();

/// The program with the contract, in both versions, and the patch.
struct Scene {
    salve: Salve,
    directory: TempDir,
    old: PathBuf,
    derived: Derived,
}

/// One that asks and one that answers.
struct Pair {
    asks: Running,
    answers: u32,
    state: PathBuf,
}

impl Scene {
    fn new() -> Result<Self> {
        let directory = tree::scratch("groups")?;
        let salve = Salve::built()?.events_to(&directory.path().join("events"));
        let [old, new] = Source::named("shared_contract.c")?.programs(directory.path(), &[])?;
        let derived = patchfile::derive(&salve, &old, &new)?;
        ensure!(derived.run.code == Some(exit::DONE), "{}{}", derived.run.stdout, derived.run.stderr);
        Ok(Self { salve, directory, old, derived })
    }

    fn start(&self, name: &str, how: &str) -> Result<Pair> {
        let state = self.directory.path().join(name);
        std::fs::write(&state, "g")?;
        let log = self.directory.path().join(name).with_extension("out");
        let mut asks = Running::start(Command::new(&self.old).arg(how).arg(&state), log)?;
        let line = asks.wait_for_line("child ")?;
        let answers = line.strip_prefix("child ").context("no number")?.parse()?;
        asks.wait_for_line("got 100")?;
        Ok(Pair { asks, answers, state })
    }

    fn command(&self, words: &[&str]) -> Result<Run> {
        let words = words.iter().map(AsRef::as_ref).chain([self.derived.file.as_os_str()]);
        self.salve.json(&words.collect::<Vec<_>>())
    }

    fn apply(&self, targets: &[&str], wait: &str) -> Result<Run> {
        // The verdict sees that a number changed alike in two functions: a protocol, perhaps.
        let codes = ["direction-unknown", "constant-renumbered", "field-encoding", "field-meaning", "shared-state"];
        let accepted = codes.map(|code| ["--accept", code]);
        let words = ["apply", "--wait", wait];
        self.command(&words.iter().chain(accepted.as_flattened()).chain(targets).copied().collect::<Vec<_>>())
    }

    fn revert(&self, targets: &[&str], wait: &str) -> Result<Run> {
        let words = ["revert", "--wait", wait];
        self.command(&words.iter().chain(targets).copied().collect::<Vec<_>>())
    }
}

impl Pair {
    fn pids(&self) -> Vec<u64> {
        let mut pids = vec![u64::from(self.asks.pid()), u64::from(self.answers)];
        pids.sort_unstable();
        pids
    }

    fn wait_for_got(&mut self, value: u32, times: usize) -> Result<()> {
        let line = format!("got {value}");
        self.asks.wait_for(&format!("{line:?}, {times} times"), |asks| {
            let output = asks.output().ok()?;
            (output.lines().filter(|found| *found == line).count() >= times).then_some(())
        })
    }

    fn never_mixed(&mut self) -> Result<()> {
        self.asks.must_run()?;
        let output = self.asks.output()?;
        ensure!(!output.contains("mixed"), "old and new answered each other: {output}");
        Ok(())
    }
}

/// Process, outcome and group of each.
fn ends(run: &Run) -> Result<Vec<(u64, String, Vec<u64>)>> {
    let report = run.report()?;
    let all = report.pointer("/result/processes").and_then(Value::as_array).context("no processes")?;
    let one = |end: &Value| {
        let group = end.get("group")?.as_array()?.iter().filter_map(Value::as_u64).collect();
        Some((end.pointer("/process/pid")?.as_u64()?, end.get("outcome")?.as_str()?.to_owned(), group))
    };
    all.iter().map(|end| one(end).context("no end")).collect()
}

fn together(pair: &Pair, outcome: &str) -> Vec<(u64, String, Vec<u64>)> {
    pair.pids().into_iter().map(|pid| (pid, outcome.to_owned(), pair.pids())).collect()
}

#[test]
fn two_processes_with_a_contract_change_in_one_stop_and_are_never_mixed() -> Result<()> {
    if not_run::unless_root("a transition group") {
        return Ok(());
    }
    let scene = Scene::new()?;
    for how in ["forked", "executed"] {
        let mut pair = scene.start(how, how)?;
        let before: Vec<Text> = [pair.asks.pid(), pair.answers].into_iter().map(Text::of).collect::<Result<_>>()?;
        for round in 1..=10 {
            // Naming either of them means both.
            let named = if round % 2 == 0 { pair.answers } else { pair.asks.pid() }.to_string();
            let run = scene.apply(&["--pid", &named], "60s")?.expect_code(exit::DONE)?;
            assert_eq!(ends(&run)?, together(&pair, "applied"), "{how} {round}");
            pair.wait_for_got(200, round)?;
            let run = scene.revert(&["--pid", &named], "60s")?.expect_code(exit::DONE)?;
            assert_eq!(ends(&run)?, together(&pair, "reverted"), "{how} {round}");
            pair.wait_for_got(100, round + 1)?;
            pair.never_mixed()?;
        }
        for (pid, before) in [pair.asks.pid(), pair.answers].into_iter().zip(&before) {
            assert_eq!(Text::of(pid)?.changes_to(before), NOTHING);
        }
    }
    let log = events::read(&scene.directory.path().join("events"))?;
    let applied = events::named(&log, "applied");
    assert_eq!(applied.len(), 40);
    assert!(applied.iter().all(|event| event.get("group").and_then(Value::as_array).is_some_and(|g| g.len() == 2)));
    Ok(())
}

#[test]
fn one_busy_process_defers_its_group_and_nobody_else() -> Result<()> {
    if not_run::unless_root("a busy transition group") {
        return Ok(());
    }
    let scene = Scene::new()?;
    let (mut busy, mut free) = (scene.start("busy", "forked")?, scene.start("free", "executed")?);
    let before = Text::of(busy.asks.pid())?;
    std::fs::write(&busy.state, "w")?;
    std::thread::sleep(std::time::Duration::from_millis(100));
    let run = scene.apply(&["--all"], "15s")?.expect_code(exit::INCOMPLETE)?;
    let mut expected = together(&busy, "deferred");
    expected.extend(together(&free, "applied"));
    expected.sort();
    assert_eq!(ends(&run)?, expected, "{}", run.stdout);
    // The one that stands in the way is named, with its process, at both.
    let report = run.report()?;
    let ends = report.pointer("/result/processes").and_then(Value::as_array).context("no processes")?;
    for end in ends.iter().filter(|end| end.get("outcome") == Some(&Value::from("deferred"))) {
        let blocking = end.get("blocking").and_then(Value::as_array).context("no blocking")?;
        let pids: Vec<u64> = blocking.iter().filter_map(|one| one.get("pid")?.as_u64()).collect();
        assert!(pids.contains(&u64::from(busy.answers)), "{end}");
    }
    assert_eq!(Text::of(busy.asks.pid())?.differences_from(&before), NOTHING);
    free.wait_for_got(200, 1)?;
    std::fs::write(&busy.state, "g")?;
    scene.apply(&["--all"], "60s")?.expect_code(exit::DONE)?;
    busy.wait_for_got(200, 1)?;
    busy.never_mixed()?;
    free.never_mixed()
}

/// What a Salve that was killed between two processes leaves: one is new and the other old.
/// Whichever of them is named next, the group is meant; it has been one where the one that
/// was new already had been named, and the old one was left.
#[test]
fn naming_one_that_is_new_already_changes_the_rest_of_its_group() -> Result<()> {
    if not_run::unless_root("a group of which a part is new") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let [was, from] = packages(programs.directory(), &programs.old, &programs.new)?;
    let derived = patchfile::derive(&salve, &was, &from)?;
    let memory = programs.directory().join("shared");
    std::fs::write(&memory, vec![0; 4096])?;
    let start = |name: &str| -> Result<Running> {
        let mut command = Command::new(&programs.old);
        let mut process = Running::start(command.arg(&memory).args(["1", "0"]), programs.directory().join(name))?;
        process.wait_for_line("ready")?;
        Ok(process)
    };
    let by_hand: Vec<OsString> = vec!["apply".into(), derived.file.clone().into()];
    let from_packages: Vec<OsString> = vec!["heal".into(), "--from".into(), from.into(), "--was".into(), was.into()];
    for words in [by_hand, from_packages] {
        // Alone it is no group; the other one, which maps the same memory, makes it one.
        let first = start("first")?;
        let before = Text::of(first.pid())?;
        let named = |words: &[OsString]| {
            let pid = ["--pid".into(), first.pid().to_string().into()];
            salve.json(&words.iter().cloned().chain(pid).collect::<Vec<OsString>>())
        };
        named(&words)?.expect_code(exit::DONE)?;
        let second = start("second")?;
        let old = Text::of(second.pid())?;
        let run = named(&words)?.expect_code(exit::DONE)?;
        let mut outcomes: Vec<(u64, String)> = ends(&run)?.into_iter().map(|(pid, end, _)| (pid, end)).collect();
        outcomes.sort();
        let mut expected = vec![
            (u64::from(first.pid()), "already-applied".to_owned()),
            (u64::from(second.pid()), "applied".to_owned()),
        ];
        expected.sort();
        assert_eq!(outcomes, expected, "{}", run.stdout);
        assert_ne!(Text::of(second.pid())?.changes_to(&old), NOTHING);
        named(&["revert".into()])?.expect_code(exit::DONE)?;
        assert_eq!(Text::of(first.pid())?.changes_to(&before), NOTHING);
        assert_eq!(Text::of(second.pid())?.changes_to(&old), NOTHING);
    }
    Ok(())
}

/// Two that share nothing are changed each for itself: whoever looks from outside sees it.
#[test]
fn processes_that_do_not_change_together_are_seen_apart() -> Result<()> {
    if not_run::unless_root("processes that change one after the other") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let programs = Programs::compile(&[])?;
    let derived = patchfile::derive(&salve, &programs.old, &programs.new)?;
    let inspected = derived.inspected.as_ref().context("not inspected")?;
    let detour = values(inspected, "detour_at").first().and_then(|at| at.as_u64()).context("no detour")?;
    let pair = [Spinner::start(&programs.old, 1)?, Spinner::start(&programs.old, 1)?];
    let pids = pair.each_ref().map(Spinner::pid);
    let watch = Together::watch(&pids, detour)?;
    for pid in pids.map(|pid| pid.to_string()) {
        let words = ["apply", "--accept", "direction-unknown", "--pid", &pid];
        let words = words.iter().map(AsRef::as_ref).chain([derived.file.as_os_str()]);
        salve.json(&words.collect::<Vec<_>>())?.expect_code(exit::DONE)?;
    }
    let seen = watch.end()?;
    assert!(seen.apart > 0 && seen.changed == 2, "{seen:?}");
    Ok(())
}
