use super::text::bar;
use super::{compose, stops};
use crate::command::status::example;
use crate::command::windows;
use crate::event::{Cause, Day, History};

fn page(history: &History) -> String {
    let mut page = String::new();
    compose(&mut page, &example(), history, &windows::example(), "host<1>", "2026-11-21T12:00:00.000Z")
        .expect("composed");
    page
}

fn history() -> History {
    let mut history = History { stops_ns: vec![90_000, 250_000, 900_000_000], not_understood: 1, ..History::default() };
    history.days.insert("2026-11-20".into(), Day { applied: 300, reverted: 0, not_healed: 1 });
    history.days.insert("2026-11-21".into(), Day { applied: 2, reverted: 300, not_healed: 0 });
    let cause = Cause {
        times: 7,
        why: "\"><img src=x onerror=alert(1)>".into(),
        program: "/usr/sbin/<script>".into(),
        at: "2026-11-21T10:00:00.000Z".into(),
    };
    history.causes.insert("struct-layout".into(), cause);
    history
}

#[test]
fn nothing_that_is_shown_becomes_markup() {
    let page = page(&history());
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<1>"), "{page}");
    assert!(page.contains("&lt;script&gt;") && page.contains("host&lt;1&gt;"));
    // Nothing is fetched and nothing runs, even if a browser were to be misled.
    assert!(page.contains("default-src 'none'"));
    for outside in ["http://", "https://", "src=\"", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn the_page_says_what_the_host_is_in_without_colour() {
    insta::assert_snapshot!(page(&history()));
}

#[test]
fn every_stop_is_in_one_row_and_a_bar_fits() {
    let mut out = String::new();
    stops::write(&mut out, &[1, 100_000, 100_001, u64::MAX]).expect("written");
    assert!(out.contains("stood still 4 times"), "{out}");
    assert!(out.contains("<td>up to 0.1 ms</td><td class=\"n\">2</td>"), "{out}");
    assert!(out.contains("<td>longer</td><td class=\"n\">1</td>"), "{out}");
    assert_eq!((bar('#', 0, 5).len(), bar('#', 1, 1_000_000).len(), bar('#', u64::MAX, 1).len()), (0, 1, 40));
}

#[test]
fn an_empty_host_and_a_missing_log_are_said() {
    let missing = History { missing: Some("/var/log: none".into()), ..History::default() };
    let page = page(&missing);
    assert!(page.contains("There is no log: /var/log: none"), "{page}");
}
