//! Those of the real services that are done within a minute, healed and reverted under their load.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::not_run;
use salve_testkit::services;
use salve_testkit::services::report::Came;
use salve_testkit::services::run::{Options, run};
use std::time::Duration;

/// Reasons whose words are their evidence, for it is no place in an image.
const OF_THE_WHOLE_IMAGE: [&str; 4] = ["rebuilt", "malformed-image", "image-gone", "ambiguous-pairing"];

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
        if let Came::Refused(said) = &subject.came_to {
            let causes = subject.causes();
            ensure!(!said.is_empty() && !causes.is_empty(), "refused without a cause: {subject}");
            let unseen = causes
                .iter()
                .find(|(_, cause)| cause.seen.is_none() && !OF_THE_WHOLE_IMAGE.contains(&cause.code.as_str()));
            ensure!(unseen.is_none(), "refused without evidence: {unseen:?}");
            // It was tried, under load, and nobody noticed.
            let refusing = subject.refusing.as_ref().context("nobody looked at what clients see of a refusal")?;
            ensure!(refusing.idle.requests > 0 && refusing.refusing.requests > 0, "{refusing}");
            ensure!(refusing.refusing.errors == 0, "{refusing}");
        }
        match subject.came_to {
            Came::Healed(healed) => {
                ensure!(healed.in_part == 0, "only some of its processes were healed: {:?}", healed.left_behind);
                ensure!(healed.rounds == 3 && healed.healing.requests > 0, "{name}");
            }
            Came::OneVersion => not_run::record(&what, "the archive has one version of it"),
            // What the archive offers next is not ours to say. A service whose own code is refused
            // was started, asked and told the truth about; healed it was not.
            Came::Unchanged => not_run::record(&what, "its present update changes none of its code"),
            Came::Refused(said) => {
                not_run::record(&what, &format!("its present update is refused: {}", said.join("; ")));
            }
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

#[test]
fn sshd_is_healed_and_reverted_while_sessions_stay_open() -> Result<()> {
    bears("sshd")
}

#[test]
fn nginx_is_told_the_truth_about_while_it_serves_and_reloads() -> Result<()> {
    bears("nginx")
}

#[test]
fn squid_is_told_the_truth_about_while_it_proxies() -> Result<()> {
    bears("squid")
}

#[test]
fn php_fpm_is_told_the_truth_about_while_it_answers() -> Result<()> {
    bears("php-fpm")
}

#[test]
fn python_workers_are_told_the_truth_about_while_they_answer() -> Result<()> {
    bears("python")
}

#[test]
fn named_and_unbound_are_told_the_truth_about_while_they_resolve() -> Result<()> {
    bears("dns")
}
