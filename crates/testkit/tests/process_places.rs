//! Processes in surroundings that leave little room: limits, groups of memory, text that
//! is not where it was, parents that watch, users who may do little. Each is changed, or
//! refused in words and left as it was.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::observe::Text;
use salve_testkit::patchfile::{self, Derived};
use salve_testkit::running::Running;
use salve_testkit::salve::{Run, Salve, exit, values};
use salve_testkit::victim::{Source, packages};
use salve_testkit::{not_run, tree};
use serde_json::Value;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const NOTHING: Vec<String> = Vec::new();
const HUGE: [&str; 2] = ["-DLARGE", "-Wl,-z,max-page-size=0x200000"];

struct Scene {
    salve: Salve,
    directory: TempDir,
    old: PathBuf,
    derived: Derived,
}

impl Scene {
    fn new(flags: &[&str]) -> Result<Self> {
        Self::of("places.c", flags)
    }

    fn of(source: &str, flags: &[&str]) -> Result<Self> {
        let directory = tree::scratch("places")?;
        let salve = Salve::built()?;
        let [old, new] = Source::named(source)?.programs(directory.path(), flags)?;
        let derived = patchfile::derive(&salve, &old, &new)?;
        ensure!(derived.run.code == Some(exit::DONE), "{}{}", derived.run.stdout, derived.run.stderr);
        Ok(Self { salve, directory, old, derived })
    }

    fn start(&self, how: &str) -> Result<Running> {
        self.start_as(Command::new(&self.old).arg(how))
    }

    fn start_as(&self, command: &mut Command) -> Result<Running> {
        let mut victim = Running::start(command, self.directory.path().join("output"))?;
        let line = victim.wait_for_line("ready ")?;
        ensure!(line == "ready 0", "its surroundings cannot be made: {line}");
        Ok(victim)
    }

    fn words(&self, command: &str, pid: u32, wait: &str) -> Vec<String> {
        let mut words: Vec<String> =
            [command, "--wait", wait, "--pid", &pid.to_string()].into_iter().map(str::to_owned).collect();
        if command == "apply" {
            words.extend(["--accept".to_owned(), "direction-unknown".to_owned()]);
        }
        words.push(self.derived.file.to_string_lossy().into_owned());
        words
    }

    fn apply(&self, pid: u32, wait: &str) -> Result<Run> {
        self.salve.json(&self.words("apply", pid, wait))
    }

    fn revert(&self, pid: u32) -> Result<Run> {
        self.salve.json(&self.words("revert", pid, "30s"))
    }

    /// Applied and reverted, and everything as before.
    fn there_and_back(&self, victim: &mut Running) -> Result<()> {
        victim.wait_for_line("got 100")?;
        let before = Text::of(victim.pid())?;
        self.apply(victim.pid(), "30s")?.expect_code(exit::DONE)?;
        victim.wait_for_line("got 200")?;
        self.revert(victim.pid())?.expect_code(exit::DONE)?;
        victim.wait_for("the old answer again", |victim| {
            let output = victim.output().ok()?;
            (output.lines().filter(|line| *line == "got 100").count() == 2).then_some(())
        })?;
        assert_eq!(Text::of(victim.pid())?.changes_to(&before), NOTHING);
        Ok(())
    }

    /// Refused with that code and with words, and nothing changed.
    fn refused(&self, victim: &mut Running, code: &str) -> Result<()> {
        let before = Text::of(victim.pid())?;
        let run = self.apply(victim.pid(), "5s")?.expect_code(exit::REFUSED)?;
        assert_eq!(run.only_outcome()?, ("not-applied".to_owned(), Some(code.to_owned())), "{}", run.stdout);
        assert_eq!(Text::of(victim.pid())?.differences_from(&before), NOTHING);
        victim.must_run()
    }
}

#[test]
fn limits_on_memory_that_leave_no_room_are_seen_first() -> Result<()> {
    if not_run::unless_root("limits on memory") {
        return Ok(());
    }
    let scene = Scene::new(&[])?;
    scene.refused(&mut scene.start("address-space")?, "address-space-limit")?;
    // Every new page would be locked, and none may be any more.
    scene.refused(&mut scene.start("locked")?, "locked-memory-limit")
}

#[test]
fn a_memory_group_with_little_room_is_seen_first() -> Result<()> {
    let groups = Path::new("/sys/fs/cgroup/memory");
    if not_run::unless_root("a memory group") {
        return Ok(());
    }
    if !groups.join("memory.limit_in_bytes").exists() {
        not_run::record("a memory group", "no memory controller of cgroup v1 is mounted");
        return Ok(());
    }
    let names = ["memory.usage_in_bytes", "memory.limit_in_bytes", "-1", "memory.oom_control"];
    in_a_group_without_room(groups, names)
}

/// The same where version 2 has the memory controller and lets groups be made.
#[test]
fn a_memory_group_of_version_2_with_little_room_is_seen_first() -> Result<()> {
    let what = "a memory group of cgroup v2 (memory.max)";
    if not_run::unless_root(what) {
        return Ok(());
    }
    let mounts = std::fs::read_to_string("/proc/mounts").context("no list of mounts")?;
    let unified = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    let handed_on = |place: &PathBuf| {
        let _handed_on_already_or_never = std::fs::write(place.join("cgroup.subtree_control"), "+memory");
        let controllers = std::fs::read_to_string(place.join("cgroup.subtree_control")).unwrap_or_default();
        controllers.split_whitespace().any(|name| name == "memory")
    };
    let Some(groups) = unified.into_iter().find(handed_on) else {
        not_run::record(what, "no cgroup2 file system has the memory controller and hands it on");
        return Ok(());
    };
    in_a_group_without_room(&groups, ["memory.current", "memory.max", "max", "memory.events"])
}

/// What it uses, its limit, no limit, and where the kernel counts whom it killed.
fn in_a_group_without_room(groups: &Path, [used, limit, none, killed]: [&str; 4]) -> Result<()> {
    let scene = Scene::new(&[])?;
    let group = Group::new(groups.join(format!("salve-test-{}", std::process::id())))?;
    let script = format!("echo $$ > {}/cgroup.procs; exec {}", group.0.display(), scene.old.display());
    let mut victim = scene.start_as(Command::new("sh").args(["-c", &script]))?;
    victim.wait_for_line("got 100")?;
    let used: u64 = std::fs::read_to_string(group.0.join(used))?.trim().parse()?;
    std::fs::write(group.0.join(limit), used.next_multiple_of(4096).to_string())?;
    scene.refused(&mut victim, "memory-group")?;
    let failures = std::fs::read_to_string(group.0.join(killed))?;
    assert!(failures.contains("oom_kill 0"), "{failures}");
    std::fs::write(group.0.join(limit), none)?;
    scene.there_and_back(&mut victim)
}

/// A group of a test's own, gone with it.
struct Group(PathBuf);

impl Group {
    fn new(path: PathBuf) -> Result<Self> {
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for pid in std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        for _try in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn text_that_is_not_the_files_is_refused_and_text_in_huge_pages_is_not() -> Result<()> {
    if not_run::unless_root("text elsewhere") {
        return Ok(());
    }
    let scene = Scene::new(&[])?;
    scene.refused(&mut scene.start("no-file")?, "image-not-mapped")?;
    // Somebody else's breakpoint among the bytes that the detour would replace.
    let mut victim = scene.start("silent")?;
    let inspected = scene.derived.inspected.as_ref().context("not inspected")?;
    let detour = values(inspected, "detour_at").first().and_then(|at| at.as_u64()).context("no detour")?;
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", victim.pid()))?;
    let start = maps.split('-').next().context("no mapping")?;
    let memory = std::fs::OpenOptions::new().write(true).open(format!("/proc/{}/mem", victim.pid()))?;
    memory.write_all_at(&[0xcc], u64::from_str_radix(start, 16)? + detour + 1)?;
    scene.refused(&mut victim, "unexpected-bytes")?;
    // File systems in memory have huge pages for text.
    let scene = Scene::new(&HUGE)?;
    let place = tempfile::tempdir_in("/dev/shm").context("no directory in memory")?;
    let old = place.path().join("old");
    std::fs::copy(&scene.old, &old)?;
    let mut victim = Running::start(Command::new(&old).arg("collapsed"), scene.directory.path().join("output"))?;
    if victim.wait_for_line("ready ")? != "ready 0" {
        not_run::record("text in huge pages", "the kernel does not collapse text");
        return Ok(());
    }
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", victim.pid()))?;
    let huge = |line: &&str| line.starts_with("ShmemPmdMapped:") || line.starts_with("FilePmdMapped:");
    ensure!(smaps.lines().filter(huge).any(|line| !line.ends_with(" 0 kB")), "no huge page is mapped");
    scene.there_and_back(&mut victim)
}

#[test]
fn an_undumpable_process_and_one_on_a_noexec_file_system_are_changed() -> Result<()> {
    if not_run::unless_root("undumpable processes") {
        return Ok(());
    }
    let scene = Scene::new(&[])?;
    scene.there_and_back(&mut scene.start("undumpable")?)?;
    let place = Mount::new(scene.directory.path().join("mount"))?;
    let old = place.0.join("old");
    std::fs::copy(&scene.old, &old)?;
    let mut victim = scene.start_as(&mut Command::new(&old))?;
    run(Command::new("mount").args(["-o", "remount,noexec"]).arg(&place.0))?;
    scene.there_and_back(&mut victim)
}

/// A file system in memory.
struct Mount(PathBuf);

impl Mount {
    fn new(at: PathBuf) -> Result<Self> {
        std::fs::create_dir(&at)?;
        run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&at))?;
        Ok(Self(at))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _gone_with_the_machine = run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

#[test]
fn a_parent_sees_no_stop_that_is_not_its_own() -> Result<()> {
    if not_run::unless_root("a parent that watches") {
        return Ok(());
    }
    let scene = Scene::new(&[])?;
    let log = scene.directory.path().join("output");
    let mut parent = Running::start(Command::new(&scene.old).arg("watched"), log)?;
    parent.wait_for_line("got 100")?;
    let line = parent.wait_for_line("child ")?;
    let child: u32 = line.strip_prefix("child ").context("no number")?.parse()?;
    for _ in 0..5 {
        scene.apply(child, "30s")?.expect_code(exit::DONE)?;
        scene.revert(child)?.expect_code(exit::DONE)?;
    }
    let output = parent.output()?;
    assert!(!output.contains("saw"), "{output}");
    // It would have seen one.
    let child = rustix::process::Pid::from_raw(i32::try_from(child)?).context("no process")?;
    rustix::process::kill_process(child, rustix::process::Signal::STOP)?;
    parent.wait_for_line("saw ")?;
    rustix::process::kill_process(child, rustix::process::Signal::CONT)?;
    Ok(())
}

#[test]
fn a_parent_that_waits_in_vfork_is_let_go_and_tried_again() -> Result<()> {
    if not_run::unless_root("vfork") {
        return Ok(());
    }
    let scene = Scene::new(&[])?;
    let log = scene.directory.path().join("output");
    let mut victim = Running::start(Command::new(&scene.old).arg("vfork"), log)?;
    victim.wait_for_line("borrowed")?;
    let before = Text::of(victim.pid())?;
    let run = scene.apply(victim.pid(), "0s")?;
    let run = run.expect_code(exit::INCOMPLETE)?;
    assert_eq!(Text::of(victim.pid())?.changes_to(&before), NOTHING);
    let report = run.report()?;
    let one = report.pointer("/result/processes/0").context("no process")?;
    assert_eq!(one.get("outcome"), Some(&Value::from("deferred")), "{}", run.stdout);
    let why = one.pointer("/blocking/0").context("nobody is named")?;
    assert_eq!(why.get("tid"), Some(&Value::from(victim.pid())), "{}", run.stdout);
    victim.wait_for_line("ready 0")?;
    scene.there_and_back(&mut victim)
}

/// Where a part of a stack is locked or advised about, the kernel keeps it as several mappings.
#[test]
fn a_frame_in_the_middle_of_a_stack_of_three_mappings_is_found() -> Result<()> {
    if not_run::unless_root("a stack of three mappings") {
        return Ok(());
    }
    let scene = Scene::of("split_stack.c", &[])?;
    let mut victim = scene.start_as(&mut Command::new(&scene.old))?;
    victim.wait_for_line("inside")?;
    let before = Text::of(victim.pid())?;
    let run = scene.apply(victim.pid(), "0s")?.expect_code(exit::INCOMPLETE)?;
    assert_eq!(Text::of(victim.pid())?.changes_to(&before), NOTHING);
    let report = run.report()?;
    let blocking = report.pointer("/result/processes/0/blocking/0").context("nobody is named")?;
    assert_eq!(blocking.get("function"), Some(&Value::from("answer")), "{}", run.stdout);
    scene.there_and_back(&mut victim)
}

/// Whoever is not root may change what is his own: with one narrow capability, by which
/// the kernel lets him open what a process has mapped; without it he is told so.
#[test]
fn an_ordinary_user_changes_his_own_process_or_is_told_what_it_takes() -> Result<()> {
    if not_run::unless_root("an ordinary user") {
        return Ok(());
    }
    let scene = Scene::new(&[])?;
    let directory = scene.directory.path();
    let patch = directory.join("patch.salve");
    std::fs::copy(&scene.derived.file, &patch)?;
    run(Command::new("chown").args(["-R", "65534:65534"]).arg(directory))?;
    // A place that he may enter, and a program that he may execute.
    let salve = directory.join("salve");
    std::fs::copy(scene.salve.program(), &salve)?;
    let nobody = |capable: bool| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        if capable {
            command.args(["--inh-caps=-all,+cap_40", "--ambient-caps=-all,+cap_40"]);
        }
        command
    };
    let mut own = scene.start_as(nobody(false).arg(&scene.old))?;
    own.wait_for_line("got 100")?;
    let ask = |capable: bool, command: &str, pid: u32| -> Result<Run> {
        let events = directory.join("events.jsonl");
        let mut words = scene.words(command, pid, "30s");
        if let Some(file) = words.last_mut() {
            *file = patch.to_string_lossy().into_owned();
        }
        Run::of(nobody(capable).arg(&salve).args(words).arg("--json").arg("--events").arg(events))
    };
    let before = Text::of(own.pid())?;
    let run = ask(false, "apply", own.pid())?;
    assert_eq!(run.code, Some(exit::FAILED), "{}{}", run.stdout, run.stderr);
    assert_eq!(run.error_code()?.as_deref(), Some("no-permission"));
    assert!(run.stdout.contains("CAP_CHECKPOINT_RESTORE"), "{}", run.stdout);
    assert_eq!(Text::of(own.pid())?.differences_from(&before), NOTHING);
    // Who can look at nobody is not told that all is well, nor that nobody carries anything.
    let file = patch.to_string_lossy();
    let apply = ["apply", "--all", "--accept", "direction-unknown", &file];
    for words in [&["status"][..], &["revert", "--all"], &apply] {
        let events = directory.join("events.jsonl");
        let run = Run::of(nobody(false).arg(&salve).args(words).arg("--json").arg("--events").arg(events))?;
        assert_eq!(run.code, Some(exit::FAILED), "{words:?}: {}{}", run.stdout, run.stderr);
        assert_eq!(run.error_code()?.as_deref(), Some("no-permission"), "{words:?}");
    }
    ask(true, "apply", own.pid())?.expect_code(exit::DONE)?;
    own.wait_for_line("got 200")?;
    let again = ask(true, "apply", own.pid())?.expect_code(exit::DONE)?;
    assert_eq!(again.only_outcome()?.0, "already-applied");
    ask(true, "revert", own.pid())?.expect_code(exit::DONE)?;
    assert_eq!(Text::of(own.pid())?.changes_to(&before), NOTHING);
    // Somebody else's is not his.
    let mut others = scene.start("plain")?;
    let run = ask(true, "apply", others.pid())?;
    assert_eq!(run.code, Some(exit::FAILED), "{}{}", run.stdout, run.stderr);
    assert_eq!(run.error_code()?.as_deref(), Some("no-permission"));
    others.must_run()
}

/// Root's runs hold a lock that tells `salve off` when nothing is under way any more; those
/// of others have none. What keeps two runs off one process is another lock, on the process
/// itself, which everybody holds.
#[test]
fn two_runs_of_an_ordinary_user_do_not_meet_in_one_process() -> Result<()> {
    if not_run::unless_root("two runs of an ordinary user") {
        return Ok(());
    }
    let scene = Scene::new(&[])?;
    let directory = scene.directory.path();
    let patch = directory.join("patch.salve");
    std::fs::copy(&scene.derived.file, &patch)?;
    let salve = directory.join("salve");
    std::fs::copy(scene.salve.program(), &salve)?;
    run(Command::new("chown").args(["-R", "65534:65534"]).arg(directory))?;
    let nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
    };
    let mut own = scene.start_as(nobody().arg(&scene.old))?;
    own.wait_for_line("got 100")?;
    let before = Text::of(own.pid())?;
    let pid = own.pid();
    let at_once = |command: &str| -> Result<Vec<String>> {
        let one = || -> Result<String> {
            let mut words = scene.words(command, pid, "30s");
            if let Some(file) = words.last_mut() {
                *file = patch.to_string_lossy().into_owned();
            }
            let mut asked = nobody();
            asked.args(["--inh-caps=-all,+cap_40", "--ambient-caps=-all,+cap_40"]).arg(&salve).args(words);
            let run = Run::of(asked.args(["--json", "--events", "/dev/null"]))?.expect_code(exit::DONE)?;
            Ok(run.only_outcome()?.0)
        };
        std::thread::scope(|scope| {
            let each: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            let ends = each.into_iter().map(|run| run.join().unwrap_or_else(|_| anyhow::bail!("a run broke")));
            let mut ends: Vec<String> = ends.collect::<Result<_>>()?;
            ends.sort();
            Ok(ends)
        })
    };
    for round in 1..=5 {
        let ends = at_once("apply")?;
        assert_eq!(ends, ["already-applied", "already-applied", "already-applied", "applied"], "{round}");
        let ends = at_once("revert")?;
        assert_eq!(ends, ["nothing-to-revert", "nothing-to-revert", "nothing-to-revert", "reverted"], "{round}");
        assert_eq!(Text::of(own.pid())?.differences_from(&before), NOTHING, "{round}");
    }
    own.must_run()
}

/// What `gcc -no-pie` makes lies at fixed addresses: refused, in words, and left as it is.
#[test]
fn a_program_at_fixed_addresses_is_refused_in_words() -> Result<()> {
    if not_run::unless_root("a program at fixed addresses") {
        return Ok(());
    }
    let directory = tree::scratch("fixed")?;
    let salve = Salve::built()?;
    let [old, new] = Source::named("fixed_address.c")?.programs(directory.path(), &[])?;
    let [was, from] = packages(directory.path(), &old, &new)?;
    let derived = patchfile::derive(&salve, &was, &from)?;
    ensure!(derived.run.code == Some(exit::REFUSED), "{}{}", derived.run.stdout, derived.run.stderr);
    assert_eq!(derived.only_image()?.deciding_codes(), ["fixed-address"]);
    let mut victim = Running::start(&mut Command::new(&old), directory.path().join("output"))?;
    victim.wait_for_line("got 100")?;
    let before = Text::of(victim.pid())?;
    let pid = victim.pid().to_string();
    let heal = ["heal".as_ref(), "--from".as_ref(), from.as_os_str(), "--was".as_ref(), was.as_os_str()];
    let words: Vec<&std::ffi::OsStr> = heal.into_iter().chain(["--pid".as_ref(), pid.as_ref()]).collect();
    let run = salve.json(&words)?.expect_code(exit::REFUSED)?;
    assert_eq!(run.only_outcome()?, ("refused".to_owned(), Some("fixed-address".to_owned())), "{}", run.stdout);
    let said = salve.run(&words)?.stdout;
    assert!(said.contains("the program is no position-independent executable"), "{said}");
    let apply = ["apply".as_ref(), "--pid".as_ref(), pid.as_ref(), derived.file.as_os_str()];
    salve.json(&apply)?.expect_code(exit::REFUSED)?;
    assert_eq!(Text::of(victim.pid())?.differences_from(&before), NOTHING);
    victim.must_run()
}

#[test]
fn a_program_started_by_a_relative_path_and_moved_away_is_changed_like_any_other() -> Result<()> {
    if not_run::unless_root("a program started by a relative path") {
        return Ok(());
    }
    let scene = Scene::new(&[])?;
    let mut victim = scene.start_as(Command::new("./places").arg("plain").current_dir(scene.directory.path()))?;
    std::fs::rename(&scene.old, scene.directory.path().join("elsewhere"))?;
    scene.there_and_back(&mut victim)
}
