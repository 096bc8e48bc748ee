//! How the time for trying is shared out among the processes that are waited for.

use super::{Brakes, SLICE};
use std::time::{Duration, Instant};

/// A process is tried no shorter than this at a time: a try has its price.
const SHORTEST: Duration = Duration::from_millis(50);
/// The least for whoever was tried once only.
const SECOND_TRY: Duration = Duration::from_millis(500);
/// Between two rounds of a long wait; each try stops the process for a moment.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// How often a rest looks whether it should end.
const GLANCE: Duration = Duration::from_millis(50);

pub(crate) struct Clock {
    began: Instant,
    wait: Duration,
}

impl Clock {
    pub(crate) fn start(wait: Duration) -> Self {
        Self { began: Instant::now(), wait }
    }

    pub(super) fn left(&self) -> Duration {
        self.wait.saturating_sub(self.began.elapsed())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// What one of `count` processes gets in a round. Whoever was tried once only has a second
    /// try, even where trying all of them took longer than was to be waited.
    pub(crate) fn slice_of(&self, round: u32, count: usize) -> Duration {
        let slice = self.slice(count);
        if round == 0 { slice.max(SECOND_TRY.min(self.wait)) } else { slice }
    }

    /// The part of the time left that one of `count` processes gets.
    fn slice(&self, count: usize) -> Duration {
        let left = self.left();
        let share = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        (left / share).max(SHORTEST).min(SLICE).min(left)
    }

    /// Lets the processes run: nothing at first, a twentieth of what was waited
    /// later. An interrupt, the switch and the end of the time end it.
    pub(crate) fn rest(&self, brakes: &Brakes<'_>) {
        let until = rest_after(self.began.elapsed()).min(self.left());
        let from = Instant::now();
        while from.elapsed() < until && !brakes.interrupt.came() && brakes.switch.check().is_ok() {
            std::thread::sleep(GLANCE.min(until));
        }
    }
}

fn rest_after(waited: Duration) -> Duration {
    // Within the default wait there is none.
    if waited <= Duration::from_secs(30) { Duration::ZERO } else { (waited / 20).min(LONGEST_REST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shared_and_never_more_than_there_is() {
        let clock = Clock::start(Duration::from_secs(100));
        assert_eq!(clock.slice(1), SLICE);
        assert!(clock.slice(200) <= Duration::from_millis(500) && clock.slice(200) > Duration::from_millis(400));
        assert_eq!(clock.slice(1_000_000), SHORTEST);
        let over = Clock::start(Duration::ZERO);
        assert!(over.is_over());
        assert_eq!(over.slice(3), Duration::ZERO);
        assert_eq!(over.slice_of(0, 3), Duration::ZERO);
    }

    #[test]
    fn who_was_tried_once_is_tried_again_when_the_others_took_all_the_time() {
        let late = Clock {
            began: Instant::now().checked_sub(Duration::from_secs(40)).unwrap(),
            wait: Duration::from_secs(30),
        };
        assert!(late.is_over());
        assert_eq!((late.slice_of(0, 7), late.slice_of(1, 7)), (SECOND_TRY, Duration::ZERO));
    }

    #[test]
    fn a_long_wait_disturbs_less_and_less_and_a_short_one_never_rests() {
        assert_eq!(rest_after(Duration::from_secs(30)), Duration::ZERO);
        assert_eq!(rest_after(Duration::from_secs(100)), Duration::from_secs(5));
        assert_eq!(rest_after(Duration::from_secs(80_000)), LONGEST_REST);
    }
}
