//! `salve run`: a program that is patched before it does anything.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::backend::Backend;
use salve_testkit::corpus::{self, Side};
use salve_testkit::embedded::Embedded;
use salve_testkit::haproxy::Haproxy;
use salve_testkit::salve::{Run, Salve, exit};
use salve_testkit::victim::{Kind, Source, packages};
use salve_testkit::{not_run, observe, patchfile, tree};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `victims/started.c`, old, with a patch file that leads to the new one.
struct Started {
    directory: tempfile::TempDir,
    derived: patchfile::Derived,
}

impl Started {
    fn new(salve: &Salve) -> Result<Self> {
        let directory = tree::scratch("run")?;
        let [old, new] = Source::named("started.c")?.programs(directory.path(), &[])?;
        let [was, from] = packages(directory.path(), &old, &new)?;
        let derived = patchfile::derive(salve, &was, &from)?;
        ensure!(derived.run.code == Some(exit::DONE), "{}{}", derived.run.stdout, derived.run.stderr);
        Ok(Self { directory, derived })
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("started")
    }
}

/// `salve run --patch FILE OPTIONS -- `, to be followed by the command.
fn under(salve: &Salve, patch: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(salve.program());
    command.args(["run", "--events", "/dev/null", "--patch"]).arg(patch).args(options).arg("--");
    command
}

#[test]
fn the_command_is_this_very_process_patched_before_it_does_anything() -> Result<()> {
    if not_run::unless_root("salve run") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let started = Started::new(&salve)?;
    let mut command = under(&salve, &started.derived.file, &[]);
    command.arg(started.program()).arg("7").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("no stdin")?.write_all(b"handed over\n")?;
    let (pid, mut out, mut err) = (child.id(), String::new(), String::new());
    let status = child.wait()?;
    child.stdout.take().context("no stdout")?.read_to_string(&mut out)?;
    child.stderr.take().context("no stderr")?.read_to_string(&mut err)?;
    assert_eq!(status.code(), Some(7), "{out}{err}");
    // What the runner of the tests leaves open is there either way.
    let plain = Run::of(Command::new(started.program()).stdin(Stdio::null()))?;
    let descriptors = plain.stdout.split("descriptors ").nth(1).and_then(|rest| rest.split(' ').next());
    let descriptors = descriptors.context("it does not tell its descriptors")?;
    let told = format!("pid {pid} entry 1 lonely 1 descriptors {descriptors} stdin handed over\n");
    assert_eq!(out, format!("answer 200\nanswer 200\nanswer 200\n{told}\n"));
    assert_eq!(err, "", "a success is quiet");
    Ok(())
}

#[test]
fn signals_reach_the_command_and_its_text_is_as_after_any_apply() -> Result<()> {
    if not_run::unless_root("salve run and signals") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let started = Started::new(&salve)?;
    let mut command = under(&salve, &started.derived.file, &[]);
    command.arg(started.program()).env("LINGER", "1").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut out = child.stdout.take().context("no stdout")?;
    let mut first = [0; 10];
    out.read_exact(&mut first)?;
    assert_eq!(&first, b"answer 200");
    let pid = child.id().to_string();
    let report = salve.json(&["status", &pid])?.expect_code(exit::DONE)?.report()?;
    assert_eq!(report.pointer("/result/processes/0/livepatches/0/state/state"), Some(&"applied".into()), "{report}");
    assert_eq!(report.pointer("/result/processes/0/modified_text"), Some(&serde_json::json!([])));
    assert_eq!(report.pointer("/result/processes/0/leftover_stubs"), Some(&serde_json::json!(0)));
    assert_eq!(observe::tracer(child.id())?, 0);
    // Taken out, every executable mapping of a file is what its file has there.
    salve.json(&["revert", "--pid", &pid])?.expect_code(exit::DONE)?;
    assert_eq!(differing_from_files(child.id())?, Vec::<String>::new());
    let number = rustix::process::Pid::from_raw(i32::try_from(child.id())?).context("no pid")?;
    rustix::process::kill_process(number, rustix::process::Signal::TERM)?;
    assert_eq!(child.wait()?.signal(), Some(15));
    Ok(())
}

/// Executable mappings that are not, byte for byte, what their files have there.
/// Behind the end of a file a page is zero.
fn differing_from_files(pid: u32) -> Result<Vec<String>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    let mut differing = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" r-xp ") && line.contains(" /")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(range), Some(offset), Some(path)) = (words.first(), words.get(2), words.get(5)) else { continue };
        let (start, end) = range.split_once('-').context("no range")?;
        let number = |text: &str| u64::from_str_radix(text, 16).context("no number");
        let mut there = vec![0; usize::try_from(number(end)? - number(start)?)?];
        memory.read_exact_at(&mut there, number(start)?)?;
        let mut file = vec![0; there.len()];
        let _less_behind_its_end = std::fs::File::open(path)?.read_at(&mut file, number(offset)?)?;
        if there != file {
            differing.push(line.to_owned());
        }
    }
    Ok(differing)
}

#[test]
fn what_cannot_be_patched_is_not_started_unless_the_caller_says_so() -> Result<()> {
    if not_run::unless_root("salve run, refused") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let started = Started::new(&salve)?;
    let made = started.directory.path().join("made");
    let other = started.directory.path().join("started-new");
    let fixed = started.directory.path().join("static");
    Source::named("started.c")?.compile(Kind::StaticProgram, false, &fixed, &[])?;
    for (program, code) in [(&other, "image-not-mapped"), (&fixed, "no-entry")] {
        let mut command = under(&salve, &started.derived.file, &[]);
        let run = Run::of(command.arg(program).arg("7").arg(&made).stdin(Stdio::null()))?;
        let run = run.expect_code(exit::REFUSED)?;
        assert!(run.stderr.contains(code), "{}", run.stderr);
        assert!(!made.exists(), "{} was started", program.display());
        let mut command = under(&salve, &started.derived.file, &["--json"]);
        let run = Run::of(command.arg(program).arg("7").arg(&made).stdin(Stdio::null()))?;
        assert_eq!(run.expect_code(exit::REFUSED)?.error_code()?.as_deref(), Some(code));
        let mut command = under(&salve, &started.derived.file, &["--unpatched-ok"]);
        let run = Run::of(command.arg(program).arg("7").arg(&made).stdin(Stdio::null()))?.expect_code(7)?;
        assert!(run.stderr.contains("warning"), "{}", run.stderr);
        std::fs::remove_file(&made)?;
    }
    // The stop switch is a refusal too.
    let off = started.directory.path().join("off");
    std::fs::write(&off, "")?;
    let mut command = under(&salve, &started.derived.file, &[]);
    let run = Run::of(command.arg(started.program()).arg("7").arg(&made).env("SALVE_OFF", &off))?;
    run.expect_code(exit::REFUSED)?;
    assert!(!made.exists());
    Ok(())
}

#[test]
fn children_are_patched_if_they_are_to_be_and_not_else() -> Result<()> {
    if not_run::unless_root("salve run --children") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let started = Started::new(&salve)?;
    let program = started.program().display().to_string();
    // A child, a grandchild in a pipe, one in the background, and the shell's own end.
    let script =
        format!("{program} 0 </dev/null; sh -c '{program} | cat' </dev/null; {program} & wait; exec {program} 5");
    let answers = |options: &[&str]| -> Result<Vec<String>> {
        let mut command = under(&salve, &started.derived.file, options);
        let run = Run::of(command.args(["sh", "-c", &script]).stdin(Stdio::null()))?.expect_code(5)?;
        Ok(run.stdout.lines().filter(|line| line.starts_with("answer ")).map(str::to_owned).collect())
    };
    assert_eq!(answers(&["--children"])?, vec!["answer 200"; 12]);
    assert_eq!(answers(&["--unpatched-ok"])?, vec!["answer 100"; 12]);
    Ok(())
}

/// Whenever the helper dies, the command runs to its right end, patched or not.
#[test]
fn the_command_survives_its_helper_whenever_that_is_killed() -> Result<()> {
    if not_run::unless_root("salve run with its helper killed") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let started = Started::new(&salve)?;
    let (mut killed, mut answers) = (0, std::collections::BTreeSet::new());
    // In small steps, over and over, until enough were met: where /proc is long, the search
    // for the helper takes longer than most helpers live.
    for round in 0..200_u64 {
        if round >= 30 && killed > 5 {
            break;
        }
        let mut command = under(&salve, &started.derived.file, &["--unpatched-ok"]);
        command.arg(started.program()).arg("7").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.process_group(0).spawn()?;
        let until = Instant::now() + Duration::from_micros(round % 30 * 300);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        killed += u32::from(kill_helper(salve.program(), child.id())?);
        let mut out = String::new();
        child.stdout.take().context("no stdout")?.read_to_string(&mut out)?;
        let status = child.wait()?;
        assert_eq!(status.code(), Some(7), "round {round}: {status} {out}");
        let got: Vec<&str> = out.lines().filter(|line| line.starts_with("answer ")).collect();
        assert!(got.len() == 3 && got.iter().all(|line| *line == got[0]), "round {round}: a mixture: {out}");
        assert!(out.contains("lonely 1"), "round {round}: {out}");
        answers.insert(got[0].to_owned());
    }
    ensure!(killed > 5, "only {killed} helpers were killed: the test shows nothing");
    Ok(())
}

/// Kills the process in a session of its own that runs `salve` as the helper of `pid`.
fn kill_helper(program: &Path, pid: u32) -> Result<bool> {
    let program = program.canonicalize()?;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if u32::try_from(other) == Ok(pid) || std::fs::read_link(entry.path().join("exe")).ok() != Some(program.clone())
        {
            continue;
        }
        // The copy of a process has its command line; the middle one is gone at once.
        let own = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let theirs = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let ours = theirs.windows(4).any(|w| w == b"\0run") && (own == theirs || !own.starts_with(b"salve"));
        if let (true, Some(helper)) = (ours, rustix::process::Pid::from_raw(other)) {
            return Ok(rustix::process::kill_process(helper, rustix::process::Signal::KILL).is_ok());
        }
    }
    Ok(false)
}

#[test]
fn a_real_server_starts_with_the_new_code() -> Result<()> {
    if not_run::unless_root("salve run of HAProxy") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let pair = corpus::pair("haproxy")?;
    let derived = patchfile::derive(&salve, &pair.deb(Side::Old), &pair.deb(Side::New))?;
    let backend = Backend::start()?;
    let mut haproxy = Haproxy::start_by(Side::Old, backend.address(), |program| {
        let mut command = under(&salve, &derived.file, &[]);
        command.arg(program);
        command
    })?;
    assert!(haproxy.behaviour()?.is_new());
    haproxy.ordinary_request_works()?;
    haproxy.must_run()
}

#[test]
fn a_library_is_patched_before_its_program_uses_it() -> Result<()> {
    if not_run::unless_root("salve run with a library") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let pair = corpus::pair("liblzma5")?;
    let derived = patchfile::derive(&salve, &pair.deb(Side::Old), &pair.deb(Side::New))?;
    let mut program = Embedded::start_by("liblzma5", "liblzma.so.5", "decode_xz.c", |program| {
        let mut command = under(&salve, &derived.file, &[]);
        command.arg(program);
        command
    })?;
    let status = salve.json(&["status", &program.pid().to_string()])?.expect_code(exit::DONE)?.report()?;
    assert_eq!(status.pointer("/result/processes/0/livepatches/0/state/state"), Some(&"applied".into()), "{status}");
    program.works_on(20)?;
    ensure!(program.end()?.success(), "a wrong round");
    Ok(())
}
