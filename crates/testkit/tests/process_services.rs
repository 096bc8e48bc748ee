//! Those of the real services that are done within a minute, healed and reverted under their load.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::not_run;
use salve_testkit::services;
use salve_testkit::services::report::Came;
use salve_testkit::services::run::{Options, run};
use std::time::Duration;

/// Nobody who asked it anything noticed, and its data is what it has to be.
fn bears(name: &str) -> Result<()> {
    let what = format!("{name} from the archive, healed and reverted under load");
    if not_run::unless_root(&what) {
        return Ok(());
    }
    let service = services::all().into_iter().find(|service| service.name() == name).context("no such service")?;
    let options = Options { rounds: 3, dwell: Duration::from_millis(300), under: false };
    let report = match run(service.as_ref(), &options, &mut |_| {})? {
        Ok(report) => report,
        Err(why) => {
            not_run::record(&what, &why);
            return Ok(());
        }
    };
    ensure!(report.errors == 0 && report.requests > 100, "{report}");
    for subject in report.subjects {
        ensure!(subject.not_applied.is_empty(), "the verdict allowed it, and it could not be applied: {subject}");
        match subject.came_to {
            Came::Healed(healed) => ensure!(healed.rounds == 3 && healed.healing.requests > 0, "{name}"),
            Came::OneVersion => not_run::record(&what, "the archive has one version of it"),
            // What the archive offers next is not ours to say.
            Came::Unchanged | Came::Refused(_) => not_run::record(&what, "its present update is nothing to heal"),
        }
    }
    Ok(())
}

#[test]
fn redis_with_a_replica_is_healed_and_reverted_and_loses_no_write() -> Result<()> {
    bears("redis")
}

#[test]
fn rsyslog_is_healed_and_reverted_and_loses_no_line() -> Result<()> {
    bears("rsyslog")
}
