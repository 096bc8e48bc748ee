//! `cargo xtask e2e`: real services under their real load, healed in place.
//!
//! What a service is and what is done to it is in `salve_testkit::services`.
//! Results are kept beside the build, so that `docs/services.md` can be written
//! from runs of single services as well.

mod document;
mod keep;
mod long;
mod page;

use crate::{cargo, interrupt};
use anyhow::{Result, bail};
use keep::{Control, Kept as _};
use salve_testkit::needs::{self, Need};
use salve_testkit::services::endure::{self, Endured, Plan};
use salve_testkit::services::meter::Pace;
use salve_testkit::services::report::{Came, Report};
use salve_testkit::services::run::{self, Options};
use salve_testkit::services::{self, Service};
use std::time::Duration;

#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Arguments {
    /// These services [default: says which there are]
    services: Vec<String>,
    /// Every service, and write docs/services.md
    #[arg(long, conflicts_with = "services")]
    all: bool,
    /// Write docs/services.md from the last result of each service; those without one stay in it as they are
    #[arg(long)]
    document: bool,
    /// How often each is healed and reverted
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Apply and revert for this long, e.g. 1h, 15m or 90s, and look for what creeps: leaks, drift, loss
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, conflicts_with = "all")]
    lasts: Option<Duration>,
    /// How long a livepatch stays in, and how long out, with --for
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s", requires = "lasts")]
    every: Duration,
    /// Checking clients only, with long pauses, with --for: leaves the processor to others
    #[arg(long, requires = "lasts")]
    gentle: bool,
    /// The same without any change, with --for: what grows then is the service's own
    #[arg(long, requires = "lasts")]
    control: bool,
    /// The service's own code only, no library under it
    #[arg(long)]
    own: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let known = services::all();
    let names: Vec<&str> = known.iter().map(|service| service.name()).collect();
    if arguments.services.is_empty() && !arguments.all && !arguments.document {
        println!("services: {}", names.join(", "));
        return Ok(());
    }
    if let Some(unknown) = arguments.services.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("no service {unknown}; there are {}", names.join(", "));
    }
    if !salve_testkit::tools::is_root() {
        bail!("this changes running processes and needs root");
    }
    interrupt::clean_up_when_told_to_end()?;
    needs::ensure(&[Need::RootMaker])?;
    if std::env::var_os("SALVE_BIN_DIR").is_none() {
        cargo::build_programs()?;
    }
    let options = Options { rounds: arguments.rounds, under: !arguments.own, ..Options::default() };
    let mut failed = Vec::new();
    let asked = |name: &str| arguments.all || arguments.services.iter().any(|one| one == name);
    for service in known.iter().filter(|service| asked(service.name())) {
        let outcome = match arguments.lasts {
            Some(lasts) => {
                let pace = if arguments.gentle { Pace::Gentle } else { Pace::Full };
                long(service.as_ref(), Plan { lasts, every: arguments.every, pace, control: arguments.control })
            }
            None => one(service.as_ref(), &options),
        };
        if let Err(error) = outcome {
            eprintln!("FAILED: {}: {error:#}", service.name());
            failed.push((service.name().to_owned(), format!("{error:#}")));
        }
    }
    if arguments.all || arguments.document {
        document::write(&known, &failed)?;
    }
    let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
    if names.is_empty() { Ok(()) } else { bail!("failed: {}", names.join(", ")) }
}

fn long(service: &dyn Service, plan: Plan) -> Result<()> {
    let key = keep::long_key(service.name(), plan.pace == Pace::Gentle);
    if plan.control {
        Control::forget(&key)?;
    } else {
        Endured::forget(&key)?;
    }
    match endure::run(service, plan, &mut |step| eprintln!("{step}"))? {
        Err(why) => println!("NOT RUN: {}: {why}", service.name()),
        Ok(endured) => {
            println!("{endured}");
            let compared = endured.held().0;
            let unclean = format!(
                "{} requests failed, {} applies reached only some processes, {} things leak, answers grew slower: {}",
                endured.errors,
                endured.in_part(),
                endured.leaks.len(),
                endured.drift().is_real()
            );
            let is_clean = endured.is_clean();
            if plan.control {
                Control(endured).keep()?;
            } else {
                endured.keep()?;
            }
            if !is_clean {
                bail!("{unclean}, {compared} processes were compared");
            }
        }
    }
    Ok(())
}

/// `1h`, `15m`, `90s`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write it like 1h, 15m or 90s");
    let (number, seconds) = match text.char_indices().last().ok_or_else(wrong)? {
        (at, 'h') => (text.get(..at), 3600),
        (at, 'm') => (text.get(..at), 60),
        (at, 's') => (text.get(..at), 1),
        _ => return Err(wrong()),
    };
    let number: u64 = number.and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

fn one(service: &dyn Service, options: &Options) -> Result<()> {
    Report::forget(service.name())?;
    match run::run(service, options, &mut |step| eprintln!("{step}"))? {
        Err(why) => println!("NOT RUN: {}: {why}", service.name()),
        Ok(report) => {
            println!("{report}");
            report.keep()?;
            if !report.is_clean() {
                bail!("{} of {} requests failed", report.errors, report.requests);
            }
            let in_part = report.subjects.iter().filter_map(|subject| match &subject.came_to {
                Came::Healed(healed) => healed.left_behind.keys().next(),
                Came::Unchanged | Came::Refused(_) | Came::OneVersion => None,
            });
            if let Some(why) = in_part.into_iter().next() {
                bail!("a round healed only some of its processes: {why}");
            }
            let mut refused = report.subjects.iter().flat_map(|subject| &subject.not_applied);
            // What shows by looking, a dry run said, and nothing was tried.
            if let Some(cause) = refused.next() {
                bail!("the verdict allowed it, and it was not applied: {} ({})", cause.code, cause.summary);
            }
        }
    }
    Ok(())
}
