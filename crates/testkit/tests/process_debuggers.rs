//! A debugger and a profiler see through a livepatch: names, and the way from unchanged code through new
//! code and back to unchanged code, in the living process and in its core dump.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::needs::{self, Need, on_path};
use salve_testkit::running::Running;
use salve_testkit::salve::{Run, Salve, exit};
use salve_testkit::victim::Source;
use salve_testkit::{not_run, patchfile, tree};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use tempfile::TempDir;

/// The victim, patched, and waiting inside what new code called.
struct Scene {
    directory: TempDir,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    script: PathBuf,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Scene {
    fn new() -> Result<Self> {
        let salve = Salve::built()?;
        let directory = tree::scratch("debugger")?;
        let [old, new] = Source::named("called_through.c")?.programs(directory.path(), &["-O2"])?;
        let derived = patchfile::derive(&salve, &old, &new)?;
        // With a core dump, whatever the caller's limit.
        let mut command = Command::new("prlimit");
        command.args(["--core=unlimited:unlimited", "--"]).arg(&old).current_dir(directory.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start it")?;
        let (input, output) = (child.stdin.take().context("no input")?, child.stdout.take().context("no output")?);
        let script = directory.path().join(format!("salve-{}.gdb", child.id()));
        let mut scene = Self { directory, child, input, output: BufReader::new(output), script };
        ensure!(scene.line()? == "ready", "it is not ready");
        let pid = scene.child.id().to_string();
        let mut words: Vec<&str> = vec!["apply", "--accept", "direction-unknown", "--pid", &pid];
        let file = derived.file.display().to_string();
        words.push(&file);
        salve.run(&words)?.expect_code(exit::DONE)?;
        // A relative directory: gdb reads the script from another one.
        let debug = ["debug", &pid, "--dir", "."].map(AsRef::<std::ffi::OsStr>::as_ref);
        Run::of(salve.command(&debug).current_dir(scene.directory.path()))?.expect_code(exit::DONE)?;
        ensure!(scene.ask("go")? == "inside 205", "it does not run the new code");
        Ok(scene)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("it cannot be read from")?;
        Ok(line.trim_end().to_owned())
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        writeln!(self.input, "{question}").context("it does not listen")?;
        self.line()
    }

    fn old(&self) -> String {
        self.directory.path().join("called_through").display().to_string()
    }
}

fn gdb(words: &[&str]) -> Result<String> {
    let mut gdb = Command::new("timeout");
    gdb.args(["60", "gdb", "-nx", "-q", "-batch", "-ex", "set confirm off"]).args(words);
    let run = gdb.env("LC_ALL", "C").stdin(Stdio::null()).output().context("cannot run gdb")?;
    Ok(String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned())
}

fn missing(what: &str) -> bool {
    if not_run::unless_root(what) {
        return true;
    }
    let installed = needs::ensure(&[Need::Debugger]);
    if !on_path("gdb") {
        not_run::record(what, &format!("there is no gdb: {installed:?}"));
    }
    !on_path("gdb")
}

/// A patched program that goes on, and what perf recorded of it for a second.
struct Recording {
    victim: Running,
    directory: TempDir,
}

impl Recording {
    /// `None`, and noted as not run, where this machine has no perf or it may not record.
    fn of(what: &str, victim: &str, how: &[&str]) -> Result<Option<Self>> {
        if not_run::unless_root(what) {
            return Ok(None);
        }
        let installed = needs::ensure(&[Need::Profiler]);
        if !on_path("perf") || !perf(&["--version"])?.status.success() {
            not_run::record(what, &format!("there is no perf: {installed:?}"));
            return Ok(None);
        }
        let salve = Salve::built()?;
        let directory = tree::scratch("profiler")?;
        let [old, new] = Source::named(victim)?.programs(directory.path(), &["-O2"])?;
        let derived = patchfile::derive(&salve, &old, &new)?;
        let mut victim = Running::start(&mut Command::new(&old), directory.path().join("said"))?;
        victim.wait_for_line("ready")?;
        let pid = victim.pid().to_string();
        let file = derived.file.display().to_string();
        salve.run(&["apply", "--accept", "direction-unknown", "--pid", &pid, &file])?.expect_code(exit::DONE)?;
        let kept = directory.path().display().to_string();
        salve.run(&["debug", &pid, "--dir", &kept])?.expect_code(exit::DONE)?;
        let recording = Self { victim, directory };
        let data = recording.path("perf.data");
        let second = ["-o", &data, "-p", &pid, "--", "sleep", "1"];
        let recorded = perf(&[&["record", "-q", "-e", "cpu-clock"], how, &second].concat())?;
        if !recorded.status.success() {
            not_run::record(what, String::from_utf8_lossy(&recorded.stderr).trim());
            return Ok(None);
        }
        Ok(Some(recording))
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// What perf says of it: a command, and more words for it.
    fn told(&self, command: &str, more: &[&str]) -> Result<String> {
        let data = self.path("perf.data");
        let words = [&[command, "-i", &data], more].concat();
        Ok(String::from_utf8_lossy(&perf(&words)?.stdout).into_owned())
    }
}

fn perf(words: &[&str]) -> Result<Output> {
    let mut perf = Command::new("timeout");
    perf.args(["60", "perf"]).args(words).env("LC_ALL", "C").output().context("cannot run perf")
}

#[test]
fn perf_names_new_functions() -> Result<()> {
    let Some(mut recording) = Recording::of("perf on a patched process", "computes.c", &[])? else { return Ok(()) };
    let report =
        |more: &[&str]| recording.told("report", &[&["--stdio", "-g", "none", "--sort", "dso,symbol"], more].concat());
    let names = |text: &str| {
        text.lines().any(|line| line.contains("memfd:salve:") && line.split_whitespace().any(|word| word == "changed"))
    };
    let blind = report(&[])?;
    ensure!(!names(&blind), "it needs no help, so this shows nothing: {blind}");
    let seeing = report(&["--symfs", &recording.path("symfs")])?;
    ensure!(names(&seeing), "{seeing}");
    recording.victim.must_run()
}

/// Frame pointers lead through new code as through old, and each function on the way has its name.
#[test]
fn perf_finds_the_way_through_new_functions() -> Result<()> {
    let what = "perf's backtraces through a patched function";
    let Some(mut recording) = Recording::of(what, "computes_deep.c", &["--call-graph", "fp"])? else { return Ok(()) };
    let script = recording.told("script", &["--symfs", &recording.path("symfs"), "-F", "ip,sym,dso"])?;
    // One sample a paragraph, a frame a line: address, function, file in brackets.
    let way = |sample: &str| -> Vec<(String, bool)> {
        let frames = sample.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            Some((words.next()?.to_owned(), line.contains("memfd:salve:")))
        });
        frames.skip_while(|(name, _)| name != "inner").take(4).collect()
    };
    let wanted = EXPECTED.map(|name| (name.to_owned(), name == "changed"));
    let (whole, all) = script
        .split("\n\n")
        .map(way)
        .filter(|way| !way.is_empty())
        .fold((0, 0), |(whole, all), way| (whole + u32::from(way == wanted), all + 1));
    ensure!(all > 10 && whole * 10 >= all * 9, "{whole} of {all} samples show the way: {script}");
    recording.victim.must_run()
}

/// The functions of a backtrace, innermost first, from the victim's own on.
fn frames(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    let names = lines.filter_map(|line| {
        let name = line.split(" in ").nth(1).unwrap_or_else(|| line.split_whitespace().nth(1).unwrap_or_default());
        name.split([' ', '(', '[']).next()
    });
    names.skip_while(|name| *name != "inner").collect()
}

const EXPECTED: [&str; 4] = ["inner", "changed", "outer", "main"];

#[test]
fn gdb_names_new_functions_and_finds_the_way_through_them() -> Result<()> {
    if missing("gdb on a patched process") {
        return Ok(());
    }
    let mut scene = Scene::new()?;
    let pid = scene.child.id().to_string();
    let script = scene.script.display().to_string();
    // Without what `salve debug` says it is lost at the new function.
    let blind = gdb(&["-p", &pid, "-ex", "bt"])?;
    ensure!(frames(&blind) != EXPECTED, "it needs no help, so this shows nothing: {blind}");
    let seeing = gdb(&["-p", &pid, "-x", &script, "-ex", "bt"])?;
    ensure!(frames(&seeing).starts_with(&EXPECTED), "{seeing}");
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let text = std::fs::read_to_string(&scene.script)?;
    let id = text.split("livepatch ").nth(1).and_then(|rest| rest.get(..12)).context("no id")?;
    ensure!(maps.contains(&format!("/memfd:salve:{id}")), "{maps}");
    // The debugger has gone, and it goes on.
    ensure!(scene.ask("back")?.starts_with("came back "), "it does not come back");
    Ok(())
}

#[test]
fn a_core_dump_of_a_patched_process_has_a_whole_backtrace() -> Result<()> {
    let what = "gdb on the core dump of a patched process";
    if missing(what) {
        return Ok(());
    }
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").context("no core pattern")?;
    if pattern.starts_with('|') || pattern.contains('/') {
        not_run::record(what, &format!("core dumps go elsewhere: {}", pattern.trim()));
        return Ok(());
    }
    let mut scene = Scene::new()?;
    writeln!(scene.input, "abort")?;
    scene.child.wait().context("cannot wait for it")?;
    let core = core_of(scene.directory.path())?;
    let script = scene.script.display().to_string();
    let text = gdb(&[&scene.old(), &core, "-x", &script, "-ex", "bt", "-ex", "info symbol changed"])?;
    ensure!(frames(&text).starts_with(&EXPECTED), "{text}");
    Ok(())
}

fn core_of(directory: &Path) -> Result<String> {
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("core") {
            return Ok(directory.join(name).display().to_string());
        }
    }
    anyhow::bail!("there is no core dump")
}
