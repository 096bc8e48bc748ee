//! Looking at a victim after something happened to it.

use super::words::{
    BROKEN, FAILED, FAILED_WITH, FLOAT, HANDLED, INTERRUPTED, INTERRUPTED_ALWAYS, MIXED, SENT, WRONG, Words,
};
use super::{Victim, wait_until};
use crate::observe;
use crate::salve::exit;
use crate::torture::{Act, Life, Seen};
use anyhow::{Result, ensure};

impl Victim<'_> {
    /// Runs the next command after something happened, and looks at what comes of it.
    pub(in crate::torture) fn look_on(&mut self, next: Act) -> Result<()> {
        let rounds = self.tally.rounds;
        self.look(next)?;
        self.tally.rounds = rounds;
        Ok(())
    }

    /// After a death: what the victim tells, and what the next command makes of it.
    pub(super) fn look(&mut self, next: Act) -> Result<()> {
        self.begin_round();
        if self.has_died()? {
            return self.replace(Seen::Dead);
        }
        let mut before = self.words()?;
        if self.life == Life::Group {
            // Every thread has to get round in what the death left.
            if !self.beats(&before)? {
                return self.replace(Seen::Hung);
            }
            let answers = self.answers()?;
            let apart = answers.iter().any(|answer| Some(answer) != answers.first());
            self.tally.note(Seen::Apart, u64::from(apart));
            before = self.words()?;
        }
        self.finish(next)?;
        if self.has_died()? {
            return self.replace(Seen::Dead);
        }
        if !self.beats(&before)? {
            return self.replace(Seen::Hung);
        }
        self.count()?;
        self.compare()
    }

    /// The next command has to bring it to one end.
    fn finish(&mut self, next: Act) -> Result<()> {
        let run = self.act(next)?;
        self.killed = format!("{}, then {}", self.killed, run.asked);
        if run.code != Some(exit::DONE) || !self.becomes(next)? {
            self.note(Seen::HalfApplied);
            self.say(&format!("after the next {next}: {:?} {}{}", run.code, run.stdout, run.stderr));
        }
        self.state = next;
        Ok(())
    }

    /// Every thread goes round again, and nothing that it counts is wrong.
    pub(in crate::torture) fn is_well(&mut self) -> Result<()> {
        self.goes_on()?;
        self.compare()
    }

    /// The same, whatever is left in it.
    pub(in crate::torture) fn goes_on(&mut self) -> Result<()> {
        if self.has_died()? {
            return self.replace(Seen::Dead);
        }
        let before = self.words()?;
        if !self.beats(&before)? {
            return self.replace(Seen::Hung);
        }
        self.count()
    }

    fn count(&mut self) -> Result<()> {
        let mut now = self.words()?;
        // A signal may just be on its way.
        let missing = |now: &Words, lost| now[SENT].saturating_sub(now[HANDLED].saturating_add(lost));
        let lost = self.lost;
        wait_until(|| {
            now = self.words()?;
            Ok(missing(&now, lost) == 0)
        })?;
        let told = std::mem::replace(&mut self.told, now);
        let counted = [
            (WRONG, Seen::WrongAnswer),
            (MIXED, Seen::LastingMixture),
            (FLOAT, Seen::WrongFloat),
            (INTERRUPTED, Seen::Interrupted),
            (INTERRUPTED_ALWAYS, Seen::InterruptedByTheKernel),
            (BROKEN, Seen::OtherError),
        ];
        for (word, seen) in counted {
            self.tally.note(seen, now[word].saturating_sub(told[word]));
        }
        if now[BROKEN] > told[BROKEN] {
            let error =
                std::io::Error::from_raw_os_error(i32::try_from(now[FAILED_WITH].cast_signed()).unwrap_or(i32::MAX));
            self.say(&format!("a call of its thread {} failed: {error}", now[FAILED]));
        }
        let lost = missing(&now, self.lost);
        self.tally.note(Seen::LostSignal, lost);
        self.lost += lost;
        if lost > 0 {
            self.say(&format!("{lost} signals lost by round {}", self.tally.rounds));
        }
        for pid in self.pids() {
            ensure!(observe::tracer(pid)? == 0, "somebody still traces {pid}");
        }
        Ok(())
    }
}
