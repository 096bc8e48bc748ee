use super::*;
use crate::command::exposure::{self, Exposed, Waiting};
use crate::command::status;
use crate::event::{UpdateRef, seconds};

const HOUR: i64 = 3600;

fn at(hour: i64) -> i64 {
    seconds("2026-11-20T00:00:00Z").expect("a time") + hour * HOUR
}

fn line(event: &str, hour: i64, pid: u32, rest: &str) -> String {
    let wall = jiff::Timestamp::from_second(at(hour)).expect("a time");
    format!(
        "{{\"event\":\"{event}\",\"time\":{{\"wall\":\"{wall}\",\"boot_id\":\"b\"}},\
         \"process\":{{\"pid\":{pid},\"start_ticks\":1,\"program\":\"/x\"}}{rest}}}\n"
    )
}

const UPDATE: &str = ",\"update\":{\"source\":\"small\",\"old_version\":\"1\",\"new_version\":\"2\"}";

fn applied(hour: i64, pid: u32) -> String {
    line("applied", hour, pid, &format!("{UPDATE},\"livepatches\":[{{\"id\":\"l\"}}]"))
}

fn reverted(hour: i64, pid: u32) -> String {
    line("reverted", hour, pid, ",\"livepatches\":[\"l\"]")
}

/// A host on which these run the old code now, of an update that was installed at hour 0.
fn report(exposed: &[u32], carrying: &[u32]) -> StatusReport {
    let mut report = status::example();
    report.clear();
    report.carry(carrying);
    if !exposed.is_empty() {
        let process = |pid: &u32| Waiting { process: exposure::process(*pid, "/x"), tried: None };
        report.expose(Exposed {
            update: UpdateRef { source: "small".into(), old_version: Some("1".into()), new_version: Some("2".into()) },
            package: "small-bin".into(),
            cves: Cves::Known { ids: vec!["CVE-2026-1".into()] },
            installed_at: Some("2026-11-20T00:00:00Z".into()),
            images: Vec::new(),
            processes: exposed.iter().map(process).collect(),
        });
    }
    report
}

fn one(log: &str, exposed: &[u32], carrying: &[u32], now: i64) -> Window {
    let mut windows = find(&report(exposed, carrying), &History::of(log, false, None), None, Some("b"), at(now));
    assert_eq!(windows.len(), 1, "{windows:?}");
    windows.remove(0)
}

fn spans(window: &Window) -> Vec<(i64, i64, Standing)> {
    let hour = |at_s: i64| (at_s - at(0)) / HOUR;
    window.spans.iter().map(|span| (hour(span.from), hour(span.to), span.standing)).collect()
}

#[test]
fn an_update_is_exposed_from_its_installation_until_its_last_process_is_healed() {
    let window = one(&(applied(2, 7) + &applied(5, 8)), &[], &[7, 8], 10);
    // Of what is healed, the disk does not say when it came.
    assert_eq!((window.since, window.at_least), (Since::Before(at(2)), true));
    let window = one(&(applied(2, 7) + &applied(5, 8)), &[9], &[7, 8], 10);
    assert!(window.heading.contains("small-bin"), "{window:?}");
    assert_eq!(window.since, Since::Installed(at(0)));
    assert_eq!((window.healed, window.exposed, window.healed_at), (2, 1, Some((at(2), at(5)))));
    assert_eq!(spans(&window), [(0, 2, Standing::Exposed), (2, 10, Standing::Partly)]);
    assert_eq!((window.exposed_s, window.at_least), (10 * HOUR, false));
}

#[test]
fn what_was_reverted_is_exposed_again_and_what_was_healed_twice_counts_once() {
    let log = applied(1, 7) + &reverted(3, 7) + &applied(6, 7) + &reverted(7, 7);
    let window = one(&log, &[7], &[], 8);
    let (exposed, healed) = (Standing::Exposed, Standing::Healed);
    assert_eq!(spans(&window), [(0, 1, exposed), (1, 3, healed), (3, 6, exposed), (6, 7, healed), (7, 8, exposed)]);
    assert_eq!((window.healed, window.exposed_s), (1, 5 * HOUR));
}

#[test]
fn nothing_is_claimed_of_a_process_after_it_was_last_heard_of() {
    let refused = line("not-applied", 3, 8, &format!("{UPDATE},\"code\":\"struct-layout\",\"why\":\"w\""));
    let again = line("not-applied", 5, 8, &format!("{UPDATE},\"code\":\"struct-layout\",\"why\":\"w\""));
    let window = one(&(refused + &again), &[], &[], 100);
    assert_eq!(spans(&window), [(3, 5, Standing::Exposed)]);
    assert_eq!((window.since, window.lost_sight_of, window.healed_at), (Since::Before(at(3)), 1, None));
    assert_eq!((window.exposed_s, window.at_least), (2 * HOUR, true));
    // The same process number in another boot is another process.
    let window = one(&applied(1, 7).replace("\"b\"", "\"a\""), &[7], &[], 4);
    assert_eq!((window.healed, window.exposed), (1, 1));
    assert_eq!(spans(&window), [(0, 4, Standing::Exposed)]);
}

#[test]
fn an_update_that_was_healed_before_it_was_installed_began_at_an_unknown_time() {
    let window = one(&applied(-5, 7), &[9], &[], 1);
    assert_eq!((window.since, window.at_least), (Since::Before(at(-5)), true));
}

#[test]
fn a_livepatch_that_no_log_knows_of_is_shown_as_healed_at_an_unknown_time() {
    let windows = find(&status::example(), &History::default(), None, Some("b"), at(0));
    let redis = windows.iter().find(|window| window.heading == "redis-tools 1 -> 2").expect("it is carried");
    assert_eq!((redis.healed, redis.carrying, redis.healed_at, redis.since), (13, 13, None, Since::Unknown));
}
