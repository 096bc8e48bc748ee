//! `cargo xtask demo`, as a test.

#![expect(clippy::print_stdout, reason = "the runner shows the story when it did not come true")]

use anyhow::Result;

#[test]
fn a_running_haproxy_is_healed_from_its_packages_and_reverted_without_losing_a_request() -> Result<()> {
    if salve_testkit::not_run::unless_root("the demo") {
        return Ok(());
    }
    let mut story = Vec::new();
    let outcome = salve_testkit::demo::run(&mut story);
    println!("{}", String::from_utf8_lossy(&story));
    outcome
}
