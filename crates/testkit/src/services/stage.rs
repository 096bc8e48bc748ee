//! A service in a root of its own, and what every run does with it.

use super::meter::{Meter, Pace, Seen};
use super::operator::{self, Order, Said, Treated};
use super::packages::{self, Versions};
use super::reasons::still_old;
use super::watched::Watched;
use super::{Live, Service, Subject};
use crate::debian::Root;
use crate::observe;
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one that was left may take to end by itself.
const MOMENT: Duration = Duration::from_secs(10);

/// A service that runs in a root of its own.
pub(super) struct Stage {
    pub(super) live: Box<dyn Live>,
    pub(super) meter: Arc<Meter>,
    pub(super) subjects: Vec<(Subject, Vec<Versions>)>,
    pub(super) root: Root,
}

impl Stage {
    /// Installs the old versions and starts it.
    pub(super) fn set(
        service: &dyn Service,
        under: bool,
        pace: Pace,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Result<Self, String>> {
        tell(&format!("{}: a throw-away Debian root with the old packages", service.name()));
        let root = match Root::new()? {
            Ok(root) => root,
            Err(why) => return Ok(Err(why)),
        };
        let mut words: Vec<String> = service.also().iter().map(|&package| package.to_owned()).collect();
        let mut subjects = Vec::new();
        for subject in service.subjects().iter().filter(|subject| subject.own || under) {
            let of_all: Vec<Versions> =
                subject.packages.iter().map(|package| packages::versions(&root, package)).collect::<Result<_>>()?;
            words.extend(of_all.iter().map(|v| format!("{}={}", v.package, v.old)));
            subjects.push((*subject, of_all));
        }
        for package in service.old_as_well() {
            let Versions { package, old, .. } = packages::versions(&root, package)?;
            words.push(format!("{package}={old}"));
        }
        packages::install(&root, &words)?;
        tell(&format!("{}: starting it", service.name()));
        let live = service.start(&root)?;
        Ok(Ok(Self { live, meter: Meter::new(pace), subjects, root }))
    }

    /// What to hand to `heal`, with the reviews accepted, what a dry run of it
    /// comes to, and what it says to a person.
    pub(super) fn order(&self, newer: &[Versions]) -> Result<(Order, Said, String)> {
        let mut order = Order { from: packages::download_new(&self.root, newer)?, dry_run: true, ..Order::default() };
        let people = operator::heal_for_people(&self.root, &order)?.stdout;
        let mut dry = operator::heal(&self.root, &order)?;
        order.accept = dry.review_codes();
        if !order.accept.is_empty() {
            dry = operator::heal(&self.root, &order)?;
        }
        order.dry_run = false;
        Ok((order, dry, people))
    }

    /// Who goes on with the old code after a heal, each with the reason: then it was healed in part only.
    ///
    /// Who was left and ends by itself in a moment (a child of sshd's that only logs somebody in) runs nothing any more.
    pub(super) fn left_behind(&self, dry: &Said, said: &Said) -> Result<Vec<String>> {
        let since = Instant::now();
        loop {
            let alive = self.root.processes()?.into_iter().map(|(_, inside)| inside).collect();
            let left = still_old(dry, said, &alive);
            if left.is_empty() || since.elapsed() > MOMENT {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Nothing is done to the service for this long.
    pub(super) fn idle(&self, long: Duration) -> Result<Seen> {
        let _whatever_was_before = self.meter.next_period();
        std::thread::sleep(long.clamp(Duration::from_secs(2), Duration::from_secs(60)));
        let idle = self.meter.next_period();
        ensure!(idle.requests > 0, "no request was answered while nothing was done");
        Ok(idle)
    }

    /// The processes that a dry run would change, by their ids on the machine.
    pub(super) fn watch(&self, planned: &[Treated]) -> Result<Watched> {
        let wanted: BTreeSet<u32> = planned.iter().map(|one| one.pid).collect();
        let inside = self.root.processes()?;
        let wanted = inside.iter().filter(|(_, inside)| wanted.contains(inside));
        Ok(Watched::of(wanted.filter_map(|(pid, _)| observe::identity(*pid).ok()).collect()))
    }
}
