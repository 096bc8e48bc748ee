//! `salve status --html`, looked at in a real browser.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::needs::{self, Need};
use salve_testkit::salve::{Salve, exit};
use salve_testkit::sleeper::Sleeper;
use salve_testkit::victim::packages;
use salve_testkit::{not_run, tree};
use std::process::{Command, Stdio};

const TEST: &str = "the page of `salve status --html` in a browser";

/// Derived and healed on one day, and not healed in another process until two days later.
const EARLIER: &str = concat!(
    r#"{"event":"derived","time":{"wall":"DAY-1T00:00:00.000Z"},"#,
    r#""update":{"source":"earlier","old_version":"1","new_version":"2"},"cves":{"state":"known","ids":["CVE-2026-20001"]}}"#,
    "\n",
    r#"{"event":"applied","time":{"wall":"DAY-1T00:00:00.000Z","boot_id":"a"},"#,
    r#""process":{"pid":7,"start_ticks":1,"program":"/x"},"update":{"source":"earlier","old_version":"1","new_version":"2"},"#,
    r#""livepatches":[],"stopped_ns":1}"#,
    "\n",
    r#"{"event":"deferred","time":{"wall":"DAY-1T00:00:00.000Z","boot_id":"a"},"#,
    r#""process":{"pid":8,"start_ticks":1,"program":"/x"},"update":{"source":"earlier","old_version":"1","new_version":"2"}}"#,
    "\n",
    r#"{"event":"deferred","time":{"wall":"DAY-2T00:00:00.000Z","boot_id":"a"},"#,
    r#""process":{"pid":8,"start_ticks":1,"program":"/x"},"update":{"source":"earlier","old_version":"1","new_version":"2"}}"#,
    "\n",
);

fn days_ago(days: u32) -> Result<String> {
    let date =
        Command::new("date").args(["-u", "-d", &format!("-{days} days"), "+%Y-%m-%d"]).output().context("no date")?;
    Ok(String::from_utf8_lossy(&date.stdout).trim().to_owned())
}

/// A program whose name would be markup, patched, and an event that would be a script.
#[test]
fn the_page_shows_a_patched_process_and_runs_nothing() -> Result<()> {
    if not_run::unless_root(TEST) {
        return Ok(());
    }
    let directory = tree::scratch("page")?;
    let (page, events) = (directory.path().join("salve.html"), directory.path().join("events.jsonl"));
    let hostile = "<script>document.title='owned'</script>";
    let line = format!(
        "{{\"event\":\"not-applied\",\"time\":{{\"wall\":\"2026-01-02T03:04:05.000Z\"}},\"process\":{{\"program\":\"{hostile}\"}},\
         \"code\":\"struct-layout\",\"why\":\"{hostile}\"}}\n"
    );
    std::fs::write(&events, line).context("cannot write events")?;
    // What an earlier month tells, as logrotate left it: one process was healed, one never.
    let earlier = EARLIER.replace("DAY-1", &days_ago(3)?).replace("DAY-2", &days_ago(1)?);
    std::fs::write(directory.path().join("events.jsonl.1"), earlier).context("cannot write an older log")?;
    let salve = Salve::built()?.events_to(&events);
    let mut sleeper = Sleeper::start()?;
    let pair = packages(directory.path(), &sleeper.old(), &sleeper.newer())?;
    let [was, from] = &pair;
    let heal = ["heal".as_ref(), "--from".as_ref(), from.as_os_str(), "--was".as_ref(), was.as_os_str()];
    salve.json(&heal)?.expect_code(exit::DONE)?;
    salve.run(&["status".as_ref(), "--html".as_ref(), page.as_os_str()])?.expect_code(exit::DONE)?;
    sleeper.must_run()?;
    let text = std::fs::read_to_string(&page).context("no page")?;
    ensure!(text.contains(&sleeper.pid().to_string()), "the page does not name the process: {text}");
    ensure!(!text.contains("<script"), "{text}");

    if let Err(error) = needs::ensure(&[Need::Browser]) {
        not_run::record(TEST, &format!("there is no browser on this machine: {error:#}"));
        return Ok(());
    }
    // What the browser made of it, after all that could have run has run.
    let seen = browse(directory.path(), &["--dump-dom"], &page)?;
    for words in ["<title>Salve: ", "Livepatches in force", "applied", "struct-layout", "&lt;script&gt;document.title"]
    {
        ensure!(seen.contains(words), "{words:?} is not in what the browser shows: {seen}");
    }
    // Healed now, and what the rotated log alone knows.
    for words in
        ["Exposure over time", "victim 1.0-1 -&gt; 1.0-2", "earlier 1 -&gt; 2", "CVE-2026-20001", "at least 48.0 h"]
    {
        ensure!(seen.contains(words), "{words:?} is not in what the browser shows: {seen}");
    }
    let (hatched, filled) = ("stroke-dasharray", "height=\"16\" fill=\"currentColor\"");
    ensure!(seen.contains("<svg") && seen.contains(hatched) && seen.contains(filled), "it is not drawn: {seen}");
    ensure!(!seen.contains("<title>owned"), "a script ran: {seen}");
    let picture = directory.path().join("page.png");
    browse(directory.path(), &[&format!("--screenshot={}", picture.display()), "--window-size=1100,1400"], &page)?;
    let picture = std::fs::read(&picture).context("no picture")?;
    ensure!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "the browser drew {} bytes", picture.len());
    Ok(())
}

fn browse(home: &std::path::Path, words: &[&str], page: &std::path::Path) -> Result<String> {
    let mut command = Command::new("timeout");
    command.args(["120", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]);
    command.args(["--disable-component-update", "--no-first-run", "--virtual-time-budget=2000"]).args(words);
    command.arg(format!("--user-data-dir={}", home.join("profile").display()));
    let done = command.arg(format!("file://{}", page.display())).stdin(Stdio::null()).output().context("no browser")?;
    ensure!(done.status.success(), "chromium: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
