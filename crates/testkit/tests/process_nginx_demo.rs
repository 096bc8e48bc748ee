//! `cargo xtask demo nginx`, as a test.

#![expect(clippy::print_stdout, reason = "the runner shows the story when it did not come true")]

use anyhow::Result;

#[test]
fn nginx_master_and_workers_are_healed_and_stay_so_across_reload_and_upgrade() -> Result<()> {
    if salve_testkit::not_run::unless_root("the demo of nginx") {
        return Ok(());
    }
    let mut story = Vec::new();
    let outcome = salve_testkit::demo::run_nginx(&mut story);
    println!("{}", String::from_utf8_lossy(&story));
    outcome
}
