//! Processes in all the places where processes live: behind a filter, in another root or
//! namespace, among a crowd, with libraries that come and go.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::behaviour::{Asked, Behaviour, Prepared};
use salve_testkit::observe::{self, Text};
use salve_testkit::salve::{Run, Salve, exit, values};
use salve_testkit::{not_run, tree};
use std::path::Path;
use std::process::Command;

const NOTHING: Vec<String> = Vec::new();

struct Scene {
    salve: Salve,
    prepared: Prepared,
}

impl Scene {
    fn of(behaviour: &str) -> Result<Self> {
        let salve = Salve::built()?;
        let prepared = Behaviour::named(behaviour)?.prepare(&salve)?;
        Ok(Self { salve, prepared })
    }

    fn start(&self) -> Result<Asked> {
        Asked::start(&mut Command::new(self.prepared.program()))
    }

    fn apply(&self, targets: &[&str]) -> Result<Run> {
        let mut words: Vec<&str> = vec!["apply", "--wait", "30s", "--accept", "direction-unknown"];
        words.extend(targets);
        self.salve
            .json(&words.iter().map(AsRef::as_ref).chain([self.prepared.derived.file.as_os_str()]).collect::<Vec<_>>())
    }

    fn apply_to(&self, pid: u32) -> Result<Run> {
        self.apply(&["--pid", &pid.to_string()])
    }

    fn revert(&self, pid: u32) -> Result<Run> {
        self.salve.json(&["revert", "--pid", &pid.to_string(), "--wait", "30s"])
    }
}

/// Applied and reverted, asked before, between and after.
fn there_and_back(scene: &Scene, asked: &mut Asked, pid: u32) -> Result<()> {
    let before = Text::of(pid)?;
    ensure!(asked.ask("5")? == "5", "not the old answer");
    scene.apply_to(pid)?.expect_code(exit::DONE)?;
    let answer = asked.ask("5")?;
    ensure!(answer == "6", "patched, it answered {answer}");
    scene.revert(pid)?.expect_code(exit::DONE)?;
    ensure!(asked.ask("5")? == "5", "reverted, but not the old answer");
    assert_eq!(Text::of(pid)?.changes_to(&before), NOTHING);
    Ok(())
}

#[test]
fn a_filter_that_forbids_nothing_salve_needs_is_no_hindrance() -> Result<()> {
    if not_run::unless_root("a loose system call filter") {
        return Ok(());
    }
    let scene = Scene::of("confined")?;
    let mut asked = Asked::start(Command::new(scene.prepared.program()).arg("loosely"))?;
    let pid = asked.pid();
    there_and_back(&scene, &mut asked, pid)?;
    asked.end()
}

#[test]
fn a_filter_that_forbids_what_salve_needs_is_named_and_never_met() -> Result<()> {
    if not_run::unless_root("a strict system call filter") {
        return Ok(());
    }
    let scene = Scene::of("confined")?;
    for how in ["strictly", "killed"] {
        let mut asked = Asked::start(Command::new(scene.prepared.program()).arg(how))?;
        let before = Text::of(asked.pid())?;
        let run = scene.apply_to(asked.pid())?.expect_code(exit::REFUSED)?;
        let outcome = run.only_outcome()?;
        assert_eq!(outcome, ("not-applied".to_owned(), Some("seccomp-forbids".to_owned())), "{how}: {}", run.stdout);
        assert_eq!(asked.ask("5")?, "5");
        assert_eq!(Text::of(asked.pid())?.differences_from(&before), NOTHING);
        // Killed by its filter it would be, had the filter been met.
        asked.end()?;
    }
    Ok(())
}

#[test]
fn a_process_in_another_root_without_proc_is_patched() -> Result<()> {
    if not_run::unless_root("a chroot") {
        return Ok(());
    }
    let scene = Scene::of("one_function")?;
    let root = scene.prepared.directory().join("old");
    for (directory, file) in [("lib64", "ld-linux-x86-64.so.2"), ("lib/x86_64-linux-gnu", "libc.so.6")] {
        std::fs::create_dir_all(root.join(directory))?;
        let from = Path::new("/").join(directory).join(file);
        std::fs::copy(&from, root.join(directory).join(file)).with_context(|| from.display().to_string())?;
    }
    let mut asked = Asked::start(Command::new("chroot").arg(&root).arg("/bin/victim"))?;
    assert_eq!(asked.ask("3")?, "6");
    scene.apply_to(asked.pid())?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("3")?, "7");
    scene.revert(asked.pid())?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("3")?, "6");
    asked.end()
}

#[test]
fn a_process_in_other_user_pid_mount_and_network_namespaces_is_patched_by_hand() -> Result<()> {
    if not_run::unless_root("namespaces") {
        return Ok(());
    }
    let scene = Scene::of("children")?;
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--pid", "--fork", "--mount", "--net", "--ipc", "--uts"]);
    let mut asked = Asked::start(unshare.arg(scene.prepared.program()))?;
    let pid = observe::only_child(asked.pid()).context("unshare has no child")?;
    let answers = |asked: &mut Asked| asked.ask("5");
    assert_eq!(answers(&mut asked)?, "5 child 5");
    scene.apply_to(pid)?.expect_code(exit::DONE)?;
    assert_eq!(answers(&mut asked)?, "6 child 6");
    scene.revert(pid)?.expect_code(exit::DONE)?;
    assert_eq!(answers(&mut asked)?, "5 child 5");
    asked.end()
}

#[test]
fn a_crowd_is_patched_by_one_command() -> Result<()> {
    const CROWD: usize = 1000;
    if not_run::unless_root("a crowd") {
        return Ok(());
    }
    let scene = Scene::of("one_function")?;
    let mut crowd: Vec<Asked> = (0..CROWD).map(|_| scene.start()).collect::<Result<_>>()?;
    let first = crowd.first().context("nobody")?.pid();
    let before = observe::memory(first)?;
    let run = scene.apply(&["--all"])?.expect_code(exit::DONE)?;
    let report = run.report()?;
    let applied = salve_testkit::salve::texts(&report, "outcome").iter().filter(|o| **o == "applied").count();
    assert_eq!(applied, CROWD, "{}", run.stderr);
    for asked in &mut crowd {
        assert_eq!(asked.ask("3")?, "7");
    }
    // Its pages are shared: what each has for itself are copied text pages.
    let one = observe::memory(first)?;
    let copied_bytes = one.copied_bytes.saturating_sub(before.copied_bytes);
    ensure!(one.shareable_bytes > 0 && copied_bytes <= 16 << 10, "{one:?}, before {before:?}");
    scene.salve.json(&["revert", "--all", "--wait", "30s"])?.expect_code(exit::DONE)?;
    for mut asked in crowd {
        assert_eq!(asked.ask("3")?, "6");
        asked.end()?;
    }
    Ok(())
}

#[test]
fn after_a_storm_of_forks_nobody_is_left_old() -> Result<()> {
    if not_run::unless_root("a storm of forks") {
        return Ok(());
    }
    let scene = Scene::of("fork_storm")?;
    let mut asked = scene.start()?;
    assert_eq!(asked.ask("storm")?, "storming");
    let before = asked.ask("old")?;
    ensure!(before.ends_with(" old, none new") && !before.starts_with("0 "), "there is no storm: {before}");
    scene.apply(&["--all"])?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("old")?, "0 old, some new", "somebody still runs the old code");
    asked.ask("end")?;
    asked.end()
}

#[test]
fn one_of_two_livepatches_is_reverted_in_any_order() -> Result<()> {
    if not_run::unless_root("two livepatches") {
        return Ok(());
    }
    let scene = Scene::of("two_libraries")?;
    // A patch file for each library alone.
    let (mut files, scratch) = (Vec::new(), tree::scratch("parts")?);
    for name in ["one", "two"] {
        let file = scratch.path().join(name).with_extension("salve");
        let side = |tree: &Path| tree.join(format!("lib/lib{name}.so")).into_os_string();
        let words =
            ["derive".into(), side(&scene.prepared.old), side(&scene.prepared.new), "-o".into(), file.clone().into()];
        scene.salve.json(&words)?.expect_code(exit::DONE)?;
        files.push(file);
    }
    let mut asked = scene.start()?;
    let pid = asked.pid().to_string();
    let before = Text::of(asked.pid())?;
    let by_hand = |words: &[&str], file: &Path| {
        let words = words.iter().map(AsRef::as_ref).chain(["--pid".as_ref(), pid.as_ref(), file.as_os_str()]);
        scene.salve.json(&words.collect::<Vec<_>>())?.expect_code(exit::DONE)
    };
    let apply = |file: &Path| by_hand(&["apply", "--accept", "direction-unknown"], file);
    let revert = |file: &Path| by_hand(&["revert"], file);
    let [one, two] = files.as_slice() else { anyhow::bail!("two files") };
    apply(one)?;
    assert_eq!(asked.ask("4")?, "9 12");
    apply(two)?;
    assert_eq!(asked.ask("4")?, "9 13");
    // The first goes first, though it came first.
    revert(one)?;
    assert_eq!(asked.ask("4")?, "8 13");
    apply(one)?;
    assert_eq!(asked.ask("4")?, "9 13");
    revert(two)?;
    assert_eq!(asked.ask("4")?, "9 12");
    revert(one)?;
    assert_eq!(asked.ask("4")?, "8 12");
    assert_eq!(Text::of(asked.pid())?.changes_to(&before), NOTHING);
    asked.end()
}

#[test]
fn a_patched_library_may_be_closed_and_opened_again() -> Result<()> {
    if not_run::unless_root("dlclose of a patched library") {
        return Ok(());
    }
    let scene = Scene::of("plugins")?;
    let mut asked = scene.start()?;
    assert_eq!(asked.ask("open 0 lib/libone.so")?, "open");
    scene.apply_to(asked.pid())?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("ask 0 5")?, "11");
    assert_eq!(asked.ask("close 0")?, "closed");
    // Nothing to take back, and that is no failure.
    scene.salve.json(&["status", &asked.pid().to_string()])?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("open 0 lib/libone.so")?, "open");
    assert_eq!(asked.ask("ask 0 5")?, "10", "what is mapped anew is the old code");
    scene.apply_to(asked.pid())?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("ask 0 5")?, "11");
    scene.revert(asked.pid())?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("ask 0 5")?, "10");
    asked.end()
}

#[test]
fn a_library_that_is_not_loaded_yet_is_told_and_patched_when_it_is() -> Result<()> {
    if not_run::unless_root("a library that is loaded later") {
        return Ok(());
    }
    let scene = Scene::of("plugins")?;
    let mut asked = scene.start()?;
    // The program itself is as it was in the old package; nothing else of the patch is there yet.
    let run = scene.apply_to(asked.pid())?.expect_code(exit::DONE)?;
    assert_eq!(run.only_outcome()?.0, "unchanged");
    assert_eq!(asked.ask("open 0 lib/libone.so")?, "open");
    assert_eq!(asked.ask("ask 0 5")?, "10");
    scene.apply_to(asked.pid())?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("ask 0 5")?, "11");
    asked.end()
}

/// As its operator meets it: one process of two is patched in a library that the other has
/// not loaded, and loads then from the old file.
#[test]
fn status_names_who_loads_the_old_library_after_another_process_was_patched() -> Result<()> {
    if not_run::unless_root("a library that another process loads later") {
        return Ok(());
    }
    let scene = Scene::of("plugins")?;
    let (mut early, mut late) = (scene.start()?, scene.start()?);
    assert_eq!(early.ask("open 0 lib/libone.so")?, "open");
    scene.apply_to(early.pid())?.expect_code(exit::DONE)?;
    let without = || -> Result<Vec<u64>> {
        let report = scene.salve.json(&["status"])?.report()?;
        let ours = |entry: &&serde_json::Value| {
            let path = entry.get("path").and_then(|path| path.as_str()).unwrap_or_default();
            path.starts_with(&*scene.prepared.directory().to_string_lossy())
        };
        let entries = report.pointer("/result/without").and_then(|all| all.as_array()).context("no list")?;
        let processes = entries.iter().filter(ours).filter_map(|entry| entry.get("processes")?.as_array()).flatten();
        Ok(processes.filter_map(|process| process.get("pid")?.as_u64()).collect())
    };
    // It maps nothing that the livepatch is for, and nothing is said of it.
    assert_eq!(without()?, Vec::<u64>::new());
    let report = scene.salve.json(&["status", &late.pid().to_string()])?.expect_code(exit::DONE)?.report()?;
    assert_eq!(report.pointer("/result/processes/0/livepatches"), Some(&serde_json::json!([])), "{report}");
    assert_eq!(late.ask("open 0 lib/libone.so")?, "open");
    assert_eq!((early.ask("ask 0 5")?, late.ask("ask 0 5")?), ("11".to_owned(), "10".to_owned()));
    assert_eq!(without()?, [u64::from(late.pid())]);
    let said = scene.salve.run(&["status"])?.stdout;
    assert!(said.contains("without it: ") && said.contains("libone.so; the same command reaches them"), "{said}");
    // The same command, as it says.
    scene.apply_to(late.pid())?.expect_code(exit::DONE)?;
    assert_eq!(late.ask("ask 0 5")?, "11");
    assert_eq!(without()?, Vec::<u64>::new());
    for asked in [&early, &late] {
        scene.revert(asked.pid())?.expect_code(exit::DONE)?;
    }
    assert_eq!((early.ask("ask 0 5")?, late.ask("ask 0 5")?), ("10".to_owned(), "10".to_owned()));
    early.end()?;
    late.end()
}

#[test]
fn the_new_library_beside_the_patched_old_one_is_left_alone() -> Result<()> {
    if not_run::unless_root("both versions of a library") {
        return Ok(());
    }
    let scene = Scene::of("plugins")?;
    let mut asked = scene.start()?;
    let new = scene.prepared.new.join("lib/libone.so");
    assert_eq!(asked.ask("open 0 lib/libone.so")?, "open");
    // The loader knows the two by their names; a copy under another name is another library to it.
    let other = scene.prepared.directory().join("newer.so");
    std::fs::copy(&new, &other).context("cannot copy the new library")?;
    assert_eq!(asked.ask(&format!("own 1 {}", other.display()))?, "open");
    assert_eq!((asked.ask("ask 0 5")?, asked.ask("ask 1 5")?), ("10".to_owned(), "11".to_owned()));
    scene.apply_to(asked.pid())?.expect_code(exit::DONE)?;
    assert_eq!((asked.ask("ask 0 5")?, asked.ask("ask 1 5")?), ("11".to_owned(), "11".to_owned()));
    scene.revert(asked.pid())?.expect_code(exit::DONE)?;
    assert_eq!((asked.ask("ask 0 5")?, asked.ask("ask 1 5")?), ("10".to_owned(), "11".to_owned()));
    asked.end()
}

#[test]
fn two_copies_of_one_library_in_one_process_are_refused_in_words() -> Result<()> {
    if not_run::unless_root("a library mapped twice") {
        return Ok(());
    }
    let scene = Scene::of("plugins")?;
    let mut asked = scene.start()?;
    assert_eq!(asked.ask("open 0 lib/libone.so")?, "open");
    assert_eq!(asked.ask("own 1 lib/libone.so")?, "open");
    let before = Text::of(asked.pid())?;
    let run = scene.apply_to(asked.pid())?.expect_code(exit::REFUSED)?;
    assert_eq!(run.only_outcome()?, ("not-applied".to_owned(), Some("mapped-twice".to_owned())), "{}", run.stdout);
    assert_eq!(Text::of(asked.pid())?.differences_from(&before), NOTHING);
    assert_eq!(values(&run.report()?, "why").iter().filter(|why| why.is_string()).count(), 1);
    // One of them is closed: now it is clear which is meant.
    assert_eq!(asked.ask("close 1")?, "closed");
    scene.apply_to(asked.pid())?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("ask 0 5")?, "11");
    asked.end()
}
