//! `salve status --html`, looked at in a real browser.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::salve::{Salve, exit};
use salve_testkit::sleeper::Sleeper;
use salve_testkit::victim::packages;
use salve_testkit::{needs, not_run, tree};
use std::process::{Command, Stdio};

const TEST: &str = "the page of `salve status --html` in a browser";

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

    if !needs::on_path("chromium") {
        not_run::record(TEST, "there is no chromium on this machine");
        return Ok(());
    }
    // What the browser made of it, after all that could have run has run.
    let seen = browse(directory.path(), &["--dump-dom"], &page)?;
    for words in ["<title>Salve: ", "Livepatches in force", "applied", "struct-layout", "&lt;script&gt;document.title"]
    {
        ensure!(seen.contains(words), "{words:?} is not in what the browser shows: {seen}");
    }
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
