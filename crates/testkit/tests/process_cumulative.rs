//! A newer update over an older livepatch: replaced whole, in one transition.

use anyhow::{Context as _, Result};
use salve_testkit::observe::Text;
use salve_testkit::patchfile::{self, Derived};
use salve_testkit::running::Running;
use salve_testkit::salve::{Run, Salve, exit};
use salve_testkit::victim::{Kind, Source, pack};
use salve_testkit::{not_run, tree};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

const NOTHING: Vec<String> = Vec::new();

/// The victim tells its versions apart by constants and by a table, which a person has to judge.
const ACCEPTED: [&str; 4] = ["--accept", "constant-renumbered", "--accept", "data-in-place"];

/// Three versions of one program, the oldest running.
struct Versions {
    process: Running,
    debs: [PathBuf; 3],
    _directory: tempfile::TempDir,
}

impl Versions {
    fn start() -> Result<Self> {
        let directory = tree::scratch("cumulative")?;
        let source = Source::named("cumulative.c")?;
        let mut debs = Vec::new();
        for (new, extra, version) in [(false, "-O2", "1.0-1"), (true, "-O2", "1.0-2"), (true, "-DNEWER", "1.0-3")] {
            let tree = directory.path().join(version);
            std::fs::create_dir_all(tree.join("usr/bin"))?;
            source.compile(Kind::Program, new, &tree.join("usr/bin/victim"), &[extra])?;
            pack(&tree, version)?;
            // `1.0-1` has an extension for the path's sake.
            debs.push(tree.with_extension("deb"));
            let kept = directory.path().join(format!("victim_{version}.deb"));
            if let Some(deb) = debs.last_mut() {
                std::fs::rename(&*deb, &kept)?;
                *deb = kept;
            }
        }
        let program = directory.path().join("1.0-1/usr/bin/victim");
        let mut process = Running::start(&mut Command::new(program), directory.path().join("output"))?;
        process.wait_for_line("got 100 100 100 a b")?;
        let debs = debs.try_into().ok().context("three packages")?;
        Ok(Self { process, debs, _directory: directory })
    }

    fn derive(&self, salve: &Salve, to: usize) -> Result<Derived> {
        let [old, ..] = &self.debs;
        patchfile::derive(salve, old, self.debs.get(to).context("no such version")?)
    }

    fn wait_for(&mut self, line: &str) -> Result<()> {
        self.process.wait_for(line, |process| (process.output().ok()?.lines().last()? == line).then_some(()))
    }
}

fn apply(salve: &Salve, derived: &Derived, pid: u32) -> Result<Run> {
    let pid = pid.to_string();
    let words = ["apply", "--pid", &pid].into_iter().chain(ACCEPTED);
    salve.json(&words.map(AsRef::as_ref).chain([derived.file.as_os_str()]).collect::<Vec<_>>())
}

/// Ids of the livepatches in force.
fn applied(salve: &Salve, pid: u32) -> Result<Vec<String>> {
    let report = salve.json(&["status", &pid.to_string()])?.expect_code(exit::DONE)?.report()?;
    let all = report.pointer("/result/processes/0/livepatches").and_then(Value::as_array).cloned().unwrap_or_default();
    let in_force = all.iter().filter(|one| one.pointer("/state/state") == Some(&Value::from("applied")));
    Ok(in_force.filter_map(|one| Some(one.get("id")?.as_str()?.to_owned())).collect())
}

#[test]
fn a_newer_update_replaces_an_older_livepatch_whole_and_comes_out_without_a_trace() -> Result<()> {
    if not_run::unless_root("a livepatch over a livepatch") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let mut versions = Versions::start()?;
    let (second, third) = (versions.derive(&salve, 1)?, versions.derive(&salve, 2)?);
    let pid = versions.process.pid();
    let before = Text::of(pid)?;
    for _ in 0..3 {
        assert_eq!(apply(&salve, &second, pid)?.expect_code(exit::DONE)?.only_outcome()?.0, "applied");
        versions.wait_for("got 200 200 100 c d")?;
        let older = applied(&salve, pid)?;
        // What only the older one changed is the image's own code again.
        assert_eq!(apply(&salve, &third, pid)?.expect_code(exit::DONE)?.only_outcome()?.0, "applied");
        versions.wait_for("got 300 100 300 e b")?;
        let newer = applied(&salve, pid)?;
        assert!(newer.len() == 1 && older.len() == 1 && newer != older, "{older:?} {newer:?}");
        assert_eq!(apply(&salve, &third, pid)?.expect_code(exit::DONE)?.only_outcome()?.0, "already-applied");

        // The older one over the newer one would be a downgrade: it leaves it alone.
        let run = apply(&salve, &second, pid)?.expect_code(exit::REFUSED)?;
        assert_eq!(run.only_outcome()?, ("not-applied".to_owned(), Some("other-livepatch".to_owned())));
        versions.wait_for("got 300 100 300 e b")?;
        assert_eq!(applied(&salve, pid)?, newer);

        // Out of order: the older one is gone already.
        salve.json(&["revert", "--pid", &pid.to_string()])?.expect_code(exit::DONE)?;
        versions.wait_for("got 100 100 100 a b")?;
        assert_eq!(Text::of(pid)?.changes_to(&before), NOTHING);
        assert_eq!(applied(&salve, pid)?, NOTHING);
    }
    versions.process.must_run()
}

#[test]
fn heal_takes_a_process_from_an_older_livepatch_to_the_newest_version() -> Result<()> {
    if not_run::unless_root("heal over a livepatch") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let mut versions = Versions::start()?;
    let pid = versions.process.pid().to_string();
    let [was, second, third] = versions.debs.clone();
    for (from, line) in [(second, "got 200 200 100 c d"), (third, "got 300 100 300 e b")] {
        let words = ["heal".as_ref(), "--pid".as_ref(), pid.as_ref(), "--was".as_ref(), was.as_os_str()];
        let words = words.into_iter().chain(["--from".as_ref(), from.as_os_str()]);
        let words = words.chain(ACCEPTED.map(AsRef::as_ref));
        let run = salve.json(&words.collect::<Vec<_>>())?.expect_code(exit::DONE)?;
        assert_eq!(run.only_outcome()?.0, "applied");
        versions.wait_for(line)?;
    }
    versions.process.must_run()
}
