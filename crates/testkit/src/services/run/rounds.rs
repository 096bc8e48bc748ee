//! A service that is healed and taken back, round after round.

use super::Options;
use crate::services::operator::{self, Order, Said, Treated};
use crate::services::reasons::{longest, note_left};
use crate::services::report::Healed;
use crate::services::stage::Stage;
use crate::services::watched::Watched;
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

impl Stage {
    /// `Ok(Err(said))` where nothing could be applied to any of the processes for which it was planned.
    pub(super) fn rounds(
        &mut self,
        order: &Order,
        dry: &Said,
        planned: &[Treated],
        options: &Options,
    ) -> Result<Result<Healed, Said>> {
        let watched = self.watch(planned)?;
        let idle = self.idle(options.rounds * (options.dwell * 2 + Duration::from_millis(dry.took_ms)))?;
        let mut healed = Healed { processes: planned.len(), threads: watched.threads(), idle, ..Healed::default() };
        for round in 0..options.rounds {
            let said = self.heal_once(order, &mut healed).with_context(|| format!("round {round}"))?;
            if Said::of("applied", &said.treated) == 0 {
                ensure!(round == 0, "round {round}: nothing was applied: {:?} {:?}", said.treated, said.left);
                return Ok(Err(said));
            }
            watched.must_have_no_more_writable_code()?;
            self.note_whether_whole(dry, &said, &mut healed)?;
            if round + 1 == options.rounds {
                (healed.copied_bytes, healed.payload_bytes) = watched.added_bytes();
                healed.status = self.root.run(&["salve", "status"])?.stdout;
            }
            std::thread::sleep(options.dwell);
            self.live.meanwhile(&self.root, round)?;
            self.live.must_run(&self.root)?;
            self.revert_once(&watched, &mut healed).with_context(|| format!("round {round}"))?;
            std::thread::sleep(options.dwell);
            let (mappings, descriptors) = watched.held();
            if round == 0 {
                (healed.mappings[0], healed.descriptors[0]) = (mappings, descriptors);
            }
            (healed.mappings[1], healed.descriptors[1]) = (mappings, descriptors);
        }
        healed.healing = self.meter.next_period();
        Ok(Ok(healed))
    }

    fn heal_once(&self, order: &Order, healed: &mut Healed) -> Result<Said> {
        let said = operator::heal(&self.root, order)?;
        healed.stop_heal_us = healed.stop_heal_us.max(longest(&said.treated));
        healed.heal_took_ms = healed.heal_took_ms.max(said.took_ms);
        note_left(&mut healed.left, &said);
        Ok(said)
    }

    /// A round in which somebody goes on with the old code was healed in part only.
    fn note_whether_whole(&self, dry: &Said, said: &Said, healed: &mut Healed) -> Result<()> {
        let left_behind = self.left_behind(dry, said)?;
        if left_behind.is_empty() {
            healed.rounds += 1;
        } else {
            healed.in_part += 1;
        }
        for why in left_behind {
            *healed.left_behind.entry(why).or_default() += 1;
        }
        Ok(())
    }

    fn revert_once(&self, watched: &Watched, healed: &mut Healed) -> Result<()> {
        let back = operator::revert_all(&self.root)?;
        healed.stop_revert_us = healed.stop_revert_us.max(longest(&back.treated));
        watched.must_have_their_text().context("after the revert")
    }
}
