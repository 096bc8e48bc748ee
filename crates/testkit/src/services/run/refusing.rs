//! A service of which nothing can be healed.

use super::Options;
use crate::services::operator::{self, Order, Said};
use crate::services::report::Refusing;
use crate::services::stage::Stage;
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

/// So often `heal` is run where it refuses, at most: it derives anew each time.
const REFUSALS: u32 = 3;

impl Stage {
    /// `heal` is run as often as it would be, and does nothing: what clients see of that, beside an idle time as long.
    pub(super) fn refusing(&mut self, order: &Order, dry: &Said, options: &Options) -> Result<Refusing> {
        let watched = self.watch(&dry.treated)?;
        let tries = options.rounds.div_ceil(3).min(REFUSALS);
        let idle = self.idle(tries * (options.dwell + Duration::from_millis(dry.took_ms)))?;
        let mut took_ms = 0;
        for _ in 0..tries {
            let said = operator::heal(&self.root, order)?;
            let changed = Said::of("applied", &said.treated);
            ensure!(changed == 0, "a dry run refused it, and {changed} processes were changed: {:?}", said.treated);
            took_ms = took_ms.max(said.took_ms);
            std::thread::sleep(options.dwell);
        }
        let refusing = self.meter.next_period();
        watched.must_have_their_text().context("after a heal that refused")?;
        Ok(Refusing { tries, processes: watched.processes.len(), idle, refusing, took_ms })
    }

    /// What an operator does meanwhile is done to a service of which nothing could be healed as well.
    pub(super) fn unhealed(&mut self, options: &Options) -> Result<()> {
        for round in 0..options.rounds.min(3) {
            std::thread::sleep(options.dwell);
            self.live.meanwhile(&self.root, round)?;
            self.live.must_run(&self.root)?;
        }
        Ok(())
    }
}
