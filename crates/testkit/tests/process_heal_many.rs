//! `salve heal` over several processes of one program: one that is busy holds no
//! other up, none that is forked meanwhile is left old, and none that is to be
//! left alone is touched.

use anyhow::{Result, anyhow, ensure};
use salve_testkit::behaviour::{Asked, Behaviour};
use salve_testkit::observe::Text;
use salve_testkit::running::Running;
use salve_testkit::salve::{Run, Salve, exit};
use salve_testkit::sleeper::Sleeper;
use salve_testkit::victim::{Source, packages};
use salve_testkit::{not_run, tree};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

const NOTHING: Vec<String> = Vec::new();

fn heal(salve: &Salve, [was, from]: &[PathBuf; 2], wait: &str) -> Result<Run> {
    let wait = format!("--wait={wait}");
    let words = ["heal".as_ref(), "--from".as_ref(), from.as_os_str(), "--was".as_ref(), was.as_os_str()];
    salve.json(&words.into_iter().chain([wait.as_ref()]).collect::<Vec<_>>())
}

/// Outcome by process.
fn outcomes(report: &Value) -> Vec<(u64, String)> {
    let actions = report.pointer("/result/processes").and_then(Value::as_array).into_iter().flatten();
    let one =
        |action: &Value| Some((action.pointer("/process/pid")?.as_u64()?, action.get("outcome")?.as_str()?.to_owned()));
    actions.filter_map(one).collect()
}

#[test]
fn a_busy_process_is_waited_for_and_holds_no_other_up() -> Result<()> {
    if not_run::unless_root("heal --wait") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let mut busy = Sleeper::start()?;
    let mut free = busy.another()?;
    let directory = tree::scratch("packages")?;
    let pair = packages(directory.path(), &busy.old(), &busy.newer())?;
    busy.sleep()?;
    let healing = {
        let (salve, pair) = (salve.clone(), pair.clone());
        std::thread::spawn(move || heal(&salve, &pair, "300s"))
    };
    // The free one has the new code while the busy one is still waited for.
    free.wait_for_got(200)?;
    ensure!(!healing.is_finished(), "it did not wait");
    busy.go_on()?;
    busy.wait_for_got(200)?;
    let run = healing.join().map_err(|_| anyhow!("the thread broke"))??.expect_code(exit::DONE)?;
    let mut expected = vec![(busy.pid(), "applied"), (free.pid(), "applied")];
    expected.sort_unstable();
    let expected: Vec<_> = expected.into_iter().map(|(pid, how)| (u64::from(pid), how.to_owned())).collect();
    assert_eq!(outcomes(&run.report()?), expected);
    busy.must_run()?;
    free.must_run()
}

#[test]
fn after_a_fork_storm_no_process_of_the_program_is_left_old() -> Result<()> {
    if not_run::unless_root("heal while a program forks") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let prepared = Behaviour::named("fork_storm")?.prepare(&salve)?;
    let [old, new] = [&prepared.old, &prepared.new].map(|tree| tree.join("bin/victim"));
    let pair = packages(prepared.directory(), &old, &new)?;
    let mut asked = Asked::start(&mut Command::new(&old))?;
    assert_eq!(asked.ask("storm")?, "storming");
    let before = asked.ask("old")?;
    ensure!(before.ends_with(" old, none new") && !before.starts_with("0 "), "there is no storm: {before}");
    heal(&salve, &pair, "30s")?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("old")?, "0 old, some new", "somebody still runs the old code");
    asked.ask("end")?;
    asked.end()
}

/// As HAProxy does in Debian: what it runs is the machine's, where it lives is empty.
#[test]
fn a_service_that_shut_itself_into_an_empty_directory_is_healed() -> Result<()> {
    if not_run::unless_root("a process that has changed its root directory") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let directory = tree::scratch("chroot")?;
    let [old, new] = Source::named("shut_in.c")?.programs(directory.path(), &[])?;
    let empty = directory.path().join("empty");
    std::fs::create_dir(&empty)?;
    let pair = packages(directory.path(), &old, &new)?;
    let mut shut_in = Running::start(Command::new(&old).arg(&empty), directory.path().join("out"))?;
    shut_in.wait_for_line("got 100")?;
    let run = heal(&salve, &pair, "30s")?.expect_code(exit::DONE)?;
    assert_eq!(outcomes(&run.report()?), [(u64::from(shut_in.pid()), "applied".to_owned())], "{}", run.stdout);
    shut_in.wait_for_line("got 200")?;
    shut_in.must_run()
}

/// Two processes run the same bytes; one of them lives elsewhere. That the one
/// here is healed is no leave to touch the other.
#[test]
fn a_process_elsewhere_is_left_alone_though_one_here_is_healed() -> Result<()> {
    if not_run::unless_root("a process in another mount namespace") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let mut here = Sleeper::start()?;
    let directory = tree::scratch("elsewhere")?;
    let state = directory.path().join("state");
    std::fs::write(&state, "go")?;
    let mut command = Command::new("unshare");
    command.arg("--mount").arg(here.old()).arg(&state);
    let mut elsewhere = Running::start(&mut command, directory.path().join("out"))?;
    elsewhere.wait_for_line("got 100")?;
    let before = Text::of(elsewhere.pid())?;
    let pair = packages(directory.path(), &here.old(), &here.newer())?;
    let run = heal(&salve, &pair, "30s")?.expect_code(exit::DONE)?;
    assert_eq!(outcomes(&run.report()?), [(u64::from(here.pid()), "applied".to_owned())]);
    here.wait_for_got(200)?;
    assert_eq!(Text::of(elsewhere.pid())?.differences_from(&before), NOTHING);
    assert!(run.stdout.contains("\"elsewhere\""), "it is not named: {}", run.stdout);
    here.must_run()?;
    elsewhere.must_run()
}
