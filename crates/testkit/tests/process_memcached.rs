//! An update that changes no code in a program that runs.

use anyhow::Result;
use salve_testkit::corpus::{self, Side};
use salve_testkit::needs::{self, Need};
use salve_testkit::observe::Text;
use salve_testkit::running::Running;
use salve_testkit::salve::{Salve, exit};
use salve_testkit::{events, not_run, tree};
use std::path::PathBuf;
use std::process::Command;

#[test]
fn a_running_memcached_needs_nothing_because_the_update_changes_no_code_in_it() -> Result<()> {
    if not_run::unless_root("a running memcached") {
        return Ok(());
    }
    needs::ensure(&[Need::MemcachedLibraries])?;
    let pair = corpus::pair("memcached")?;
    let old = pair.extract(Side::Old)?;
    let scratch = tree::scratch("memcached")?;
    // It gives up root before it makes its socket.
    std::fs::set_permissions(scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let socket = scratch.path().join("socket");
    let mut command = Command::new(pair.largest_in(old.path()));
    command.args(["-u", "nobody", "-a", "0777", "-s"]).arg(&socket);
    let mut memcached = Running::start(&mut command, scratch.path().join("output"))?;
    memcached.wait_for("its socket", |_| socket.exists().then_some(()))?;

    let before = Text::of(memcached.pid())?;
    let log = scratch.path().join("events.jsonl");
    let salve = Salve::built()?.events_to(&log);
    let pid = memcached.pid().to_string();
    let mut words: Vec<PathBuf> = vec!["heal".into(), "--from".into(), pair.deb(Side::New)];
    words.extend(["--was".into(), pair.deb(Side::Old), "--pid".into(), pid.into()]);
    let run = salve.json(&words)?.expect_code(exit::DONE)?;
    assert_eq!(Text::of(memcached.pid())?.differences_from(&before), Vec::<String>::new());
    let recorded = events::read(&log)?;
    assert!(events::named(&recorded, "applied").is_empty(), "{recorded:?}");
    let verdicts: Vec<&str> =
        events::named(&recorded, "judged").iter().filter_map(|event| events::text(event, &["verdict"])).collect();
    assert_eq!(verdicts, ["unchanged"], "{}", run.stdout);
    memcached.must_run()
}
