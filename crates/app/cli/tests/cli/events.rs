use super::{fixture, salve};
use serde_json::Value;

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn decisions_are_logged_with_who_asked_and_when() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let log = dir.path().join("log/events.jsonl");
    let file = fixture();
    let words = ["apply", file.to_str().expect("text"), "--all", "--events", log.to_str().expect("text"), "--json"];
    let ran = salve(&words);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let events = events(&std::fs::read_to_string(&log).expect("the log"));
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(names, ["judged", "judged", "judged", "judged", "ended"]);
    let verdicts: Vec<(Option<&str>, Option<bool>)> =
        events.iter().take(4).map(|e| (e["verdict"].as_str(), e["taken"].as_bool())).collect();
    assert_eq!(
        verdicts,
        [
            (Some("safe"), Some(true)),
            (Some("review"), Some(false)),
            (Some("unchanged"), Some(false)),
            (Some("refused"), Some(false))
        ]
    );
    for (seq, event) in events.iter().enumerate() {
        assert_eq!(event["schema"], 1);
        assert_eq!(event["seq"], seq);
        assert_eq!(event["run"], events[0]["run"]);
        assert_eq!(event["command"], "apply");
        assert!(event["time"]["wall"].as_str().is_some_and(|wall| wall.ends_with('Z')));
        assert!(event["time"]["monotonic_ns"].as_u64().is_some_and(|ns| ns > 0));
        assert!(event["time"]["boot_id"].as_str().is_some_and(|id| id.len() == 36));
        assert!(event["actor"]["uid"].is_u64());
    }
    assert_eq!(events[4]["exit_code"], 0);
    assert_eq!(ran.json()["event_log"]["written"], 5);
}

#[test]
fn a_log_that_cannot_be_written_is_said_and_changes_no_decision() {
    let file = fixture();
    let ran = salve(&["apply", file.to_str().expect("text"), "--all", "--events", "/proc/none/events", "--json"]);
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.contains("warning: events could not be written to /proc/none/events"), "{}", ran.stderr);
    assert!(ran.json()["event_log"]["error"].is_string());
}

#[test]
fn every_event_and_its_fields_are_documented() {
    let documented = include_str!("../../../../../docs/events.md");
    let source = include_str!("../../src/event/record.rs");
    let events = source.split("pub(crate) enum Event {").nth(1).expect("the enum");
    let mut checked = 0;
    for line in events.lines() {
        let name = line.trim().split([' ', '{']).next().unwrap_or_default();
        let variant = line.starts_with("    ") && !line.starts_with("     ") && name.starts_with(char::is_uppercase);
        if !variant {
            continue;
        }
        let kebab: String = name
            .char_indices()
            .flat_map(|(at, c)| {
                let hyphen = (at > 0 && c.is_uppercase()).then_some('-');
                hyphen.into_iter().chain(c.to_lowercase())
            })
            .collect();
        assert!(documented.contains(&format!("| `{kebab}` |")), "docs/events.md lacks {kebab}");
        checked += 1;
    }
    assert!(checked >= 14, "{checked}");
}
