//! Real services under their real load, healed in place and taken back.
//!
//! A service comes from its packages, in a throw-away Debian root of its own
//! ([`crate::debian`]): the oldest version that the archive still has runs, the
//! newest is what it is healed to, while the package stays held back. Its
//! clients check every answer. What is the same for all of them is in [`run`];
//! a service says only how it is started, what its clients ask, and what has to
//! be true at the end.
//!
//! | module | gives |
//! |---|---|
//! | [`meter`] | what clients saw, period by period |
//! | [`packages`] | old and new packages from the archive |
//! | [`operator`] | `salve` as it is run inside the root, and its report |
//! | [`run`] | one service from its installation to its last check |
//! | `stage` | a service in its root, and what every run does with it |
//! | `watched` | its processes from outside, before and after |
//! | `reasons` | whom a heal treated, whom it left, and why |
//! | [`endure`] | one service for a long time, a livepatch applied and taken back every few seconds |
//! | [`endure_report`] | what came of that, as text |
//! | [`drift`] | whether answers grow slower over such a time |
//! | [`holding`] | what its processes hold, and whether that creeps |
//! | [`report`] | what came of it, as a value and as text |
//! | the others | one service each |

mod dns;
pub mod drift;
pub mod endure;
pub mod endure_report;
mod guest;
mod haproxy;
pub mod holding;
mod host;
mod mariadb;
pub mod meter;
mod nginx;
pub mod operator;
pub mod packages;
mod php;
mod postgres;
mod python;
mod qemu;
mod reasons;
mod redis;
pub mod report;
mod rsyslog;
pub mod run;
mod squid;
mod sshd;
mod stage;
mod surroundings;
mod watched;
mod web;

pub use surroundings::machine;

use crate::debian::Root;
use anyhow::Result;
use meter::{Clients, Meter};
use std::sync::Arc;

/// What is healed in one go, and told of by itself.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// For people: `redis-server`, `libcrypto under it`.
    pub title: &'static str,
    /// Binary packages that change together.
    pub packages: &'static [&'static str],
    /// The service's own code, or a library under it.
    pub own: bool,
}

/// A service as an operator has it.
pub trait Service {
    fn name(&self) -> &'static str;
    /// What loads it, in one line.
    fn load(&self) -> &'static str;
    fn subjects(&self) -> &'static [Subject];
    /// What an operator has to know about healing it, in a sentence or two.
    fn note(&self) -> Option<&'static str> {
        None
    }
    /// Packages that have to be of the old version too, because those of the subjects ask for it.
    fn old_as_well(&self) -> &'static [&'static str] {
        &[]
    }
    /// Packages besides, in whatever version.
    fn also(&self) -> &'static [&'static str] {
        &[]
    }
    /// Starts it. All of it runs inside `root` and listens on loopback only.
    fn start(&self, root: &Root) -> Result<Box<dyn Live>>;
}

/// A service that runs.
pub trait Live {
    /// Starts its clients; they work until the meter ends.
    fn clients(&mut self, root: &Root, meter: &Arc<Meter>) -> Result<Clients>;
    /// It has not ended or been replaced.
    fn must_run(&mut self, root: &Root) -> Result<()>;
    /// What an operator does to it meanwhile (a reload, say), once a round.
    fn meanwhile(&mut self, _root: &Root, _round: u32) -> Result<()> {
        Ok(())
    }
    /// What has to be true after the clients ended, each in words. The first that is not is the error.
    fn afterwards(&mut self, root: &Root, meter: &Meter) -> Result<Vec<String>>;
}

/// Every service that there is, in the order of the documentation.
pub fn all() -> Vec<Box<dyn Service>> {
    vec![
        Box::new(redis::Redis),
        Box::new(haproxy::Haproxy),
        Box::new(nginx::Nginx),
        Box::new(sshd::Sshd),
        Box::new(rsyslog::Rsyslog),
        Box::new(dns::Dns),
        Box::new(postgres::Postgres),
        Box::new(mariadb::Mariadb),
        Box::new(qemu::Qemu),
        Box::new(php::Php),
        Box::new(python::Python),
        Box::new(squid::Squid),
        Box::new(host::Host),
    ]
}
