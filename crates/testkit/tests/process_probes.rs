//! Somebody else's probes: the kernel puts a breakpoint into a program's text for each.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::behaviour::{Asked, Behaviour, Prepared};
use salve_testkit::needs::{self, Need};
use salve_testkit::observe::Text;
use salve_testkit::salve::{Run, Salve, exit, values};
use salve_testkit::{not_run, tools, tree};
use std::path::Path;
use std::process::Command;

struct Scene {
    salve: Salve,
    prepared: Prepared,
}

impl Scene {
    fn apply(&self, pid: u32) -> Result<Run> {
        let (pid, file) = (pid.to_string(), self.prepared.derived.file.display().to_string());
        self.salve.json(&["apply", "--wait", "30s", "--accept", "direction-unknown", "--pid", &pid, &file])
    }

    fn revert(&self, pid: u32) -> Result<Run> {
        self.salve.json(&["revert", "--pid", &pid.to_string(), "--wait", "30s"])
    }

    /// Where the function that changes begins, in its file.
    fn changed(&self) -> Result<u64> {
        let inspected = self.prepared.derived.inspected.as_ref().context("not inspected")?;
        values(inspected, "detour_at").first().and_then(|at| at.as_u64()).context("no detour")
    }
}

fn probe(helper: &Path, program: &Path, at: u64, pid: u32) -> Result<Asked> {
    Asked::start(Command::new(helper).arg(program).arg(format!("{at:x}")).arg(pid.to_string()))
}

#[test]
fn a_probe_on_a_changed_function_is_respected_and_one_elsewhere_goes_on() -> Result<()> {
    let what = "probes of the kernel's";
    if not_run::unless_root(what) {
        return Ok(());
    }
    if !Path::new("/sys/bus/event_source/devices/uprobe/type").exists() {
        not_run::record(what, "this kernel has none (CONFIG_UPROBE_EVENTS)");
        return Ok(());
    }
    let salve = Salve::built()?;
    let prepared = Behaviour::named("one_function")?.prepare(&salve)?;
    let scene = Scene { salve, prepared };
    let directory = tree::scratch("probes")?;
    let helper = tools::compile("probe.c", directory.path())?;
    let program = scene.prepared.program();
    let mut asked = Asked::start(&mut Command::new(&program))?;
    let before = Text::of(asked.pid())?;
    let changed = scene.changed()?;

    let mut counting = probe(&helper, &program, changed, asked.pid())?;
    assert_eq!(asked.ask("3")?, "6");
    assert_eq!(counting.ask("")?, "1", "the probe is not where the function begins");
    let probed = Text::of(asked.pid())?;
    ensure!(!probed.differences_from(&before).is_empty(), "there is no breakpoint");
    let run = scene.apply(asked.pid())?.expect_code(exit::REFUSED)?;
    assert_eq!(run.only_outcome()?, ("not-applied".to_owned(), Some("unexpected-bytes".to_owned())), "{}", run.stdout);
    assert_eq!(Text::of(asked.pid())?.differences_from(&probed), Vec::<String>::new());
    assert_eq!(asked.ask("3")?, "6");
    assert_eq!(counting.ask("")?, "2");
    counting.end()?;

    let mut counting = probe(&helper, &program, call(&program, changed)?, asked.pid())?;
    assert_eq!(asked.ask("3")?, "6");
    assert_eq!(counting.ask("")?, "1", "the probe is not where it is called");
    scene.apply(asked.pid())?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("3")?, "7");
    assert_eq!(counting.ask("")?, "2");
    scene.revert(asked.pid())?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("3")?, "6");
    assert_eq!(counting.ask("")?, "3");
    counting.end()?;
    assert_eq!(Text::of(asked.pid())?.changes_to(&before), Vec::<String>::new());
    asked.end()
}

/// Where the function that changes is called.
fn call(program: &Path, changed: u64) -> Result<u64> {
    needs::ensure(&[Need::Binutils])?;
    let said = Command::new("objdump").arg("-d").arg(program).output().context("cannot run objdump")?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let calls = |line: &&str| line.contains("\tcall ") && line.contains(&format!(" {changed:x} <"));
    let line = text.lines().find(calls).context("nobody calls it")?;
    Ok(u64::from_str_radix(line.trim().split(':').next().unwrap_or_default(), 16)?)
}
