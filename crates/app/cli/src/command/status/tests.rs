use super::example;
use crate::command::exposure::Exposure;
use crate::console::Report as _;

#[test]
fn a_host_is_shown_by_update_and_by_livepatch() {
    let mut out = Vec::new();
    example().human(&mut out, false).expect("written");
    insta::assert_snapshot!(String::from_utf8_lossy(&out));
}

#[test]
fn one_process_is_shown_in_full() {
    let mut report = example();
    report.processes.truncate(1);
    report.exposure = Exposure::default();
    report.single = true;
    let mut out = Vec::new();
    report.human(&mut out, false).expect("written");
    insta::assert_snapshot!(String::from_utf8_lossy(&out));
}
