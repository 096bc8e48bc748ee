//! One service from its installation to its last check.
//!
//! The same clients work all the time. First nothing is done to the service for
//! about as long as the rounds will take: what its clients see then is the
//! floor beside which the stalls of the rounds stand. Then it is healed and
//! taken back, round after round, as an operator does it: `salve heal --from`
//! the new package that is held back, `salve revert --all`. That includes
//! deriving, which takes processor time from the service.

mod refusing;
mod rounds;

use super::meter::Pace;
use super::packages::Versions;
use super::reasons::{not_applied, nothing, planned};
use super::report::{Came, Report, SubjectReport};
use super::stage::Stage;
use super::surroundings::{machine, today};
use super::{Service, Subject};
use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub rounds: u32,
    /// How long a service works healed, and how long reverted, in each round.
    pub dwell: Duration,
    /// Subjects under the service too, not its own code alone.
    pub under: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 10, dwell: Duration::from_millis(500), under: true }
    }
}

/// Runs it. `Ok(Err(why))` where this machine cannot.
pub fn run(service: &dyn Service, options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Result<Report, String>> {
    let began = Instant::now();
    let mut stage = match Stage::set(service, options.under, Pace::Full, tell)? {
        Ok(stage) => stage,
        Err(why) => return Ok(Err(why)),
    };
    let clients = stage.live.clients(&stage.root, &stage.meter)?;
    stage.meter.pass(100)?;
    let mut subjects = Vec::new();
    for (subject, versions) in stage.subjects.clone() {
        tell(&format!("{}: {}", service.name(), subject.title));
        subjects.push(stage.subject(&subject, &versions, options).with_context(|| subject.title.to_owned())?);
    }
    if !subjects.iter().any(|subject| matches!(subject.came_to, Came::Healed(_))) {
        stage.unhealed(options).context("with nothing healed")?;
    }
    stage.live.must_run(&stage.root)?;
    stage.meter.end();
    clients.join()?;
    let afterwards = stage.live.afterwards(&stage.root, &stage.meter)?;
    Ok(Ok(Report {
        service: service.name().to_owned(),
        load: service.load().to_owned(),
        when: today()?,
        machine: machine(),
        subjects,
        requests: stage.meter.requests(),
        errors: stage.meter.errors(),
        afterwards,
        took_s: began.elapsed().as_secs(),
    }))
}

impl Stage {
    fn subject(&mut self, subject: &Subject, versions: &[Versions], options: &Options) -> Result<SubjectReport> {
        let mut report = SubjectReport {
            title: subject.title.to_owned(),
            own: subject.own,
            versions: versions.to_vec(),
            judged: Vec::new(),
            accepted: Vec::new(),
            came_to: Came::OneVersion,
            not_applied: Vec::new(),
            refusing: None,
            foreseen: Vec::new(),
            said: String::new(),
        };
        let newer: Vec<Versions> = versions.iter().filter(|versions| versions.differ()).cloned().collect();
        if newer.is_empty() {
            return Ok(report);
        }
        let (order, dry, people) = self.order(&newer)?;
        report.judged.clone_from(&dry.judged);
        report.accepted.clone_from(&order.accept);
        report.said = people;
        report.came_to = match planned(&dry) {
            planned if planned.is_empty() => {
                if matches!(report.verdict(), "safe" | "review") {
                    report.foreseen = not_applied(&dry);
                }
                report.refusing = Some(Box::new(self.refusing(&order, &dry, options)?));
                nothing(&dry)
            }
            planned => match self.rounds(&order, &dry, &planned, options)? {
                Ok(healed) => Came::Healed(Box::new(healed)),
                Err(said) => {
                    report.not_applied = not_applied(&said);
                    nothing(&said)
                }
            },
        };
        Ok(report)
    }
}
