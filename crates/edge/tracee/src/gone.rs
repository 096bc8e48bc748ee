//! That a process has exited is said only when it has.
//!
//! A mapping that goes while it is looked at, a thread that ends, an `execve(2)`: each
//! looks to a single read like the end of the process (`ENOENT`, `ESRCH`). A process
//! that counts as gone is passed over in silence, so whoever gets that answer checks
//! it here, and looks again at one that is still there.

use crate::outcome::{NotApplied, Outcome, RevertOutcome};
use crate::patcher::ApplyError;
use crate::process::{Process, ReadError};
use core::time::Duration;

pub(crate) const LOOKS: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What can come of looking at a process, or of working on it.
pub(crate) trait Answer {
    fn says_gone(&self) -> bool;

    /// What is said of a process that is there and would not hold still.
    fn restless() -> Self;
}

impl<T> Answer for Result<T, ReadError> {
    fn says_gone(&self) -> bool {
        matches!(self, Err(ReadError::Exited))
    }

    fn restless() -> Self {
        Err(ReadError::Restless)
    }
}

impl Answer for Result<Outcome, ApplyError> {
    fn says_gone(&self) -> bool {
        matches!(self, Ok(Outcome::NotApplied { why: NotApplied::Exited }) | Err(ApplyError::Read(ReadError::Exited)))
    }

    fn restless() -> Self {
        Ok(Outcome::NotApplied { why: NotApplied::Restless })
    }
}

impl Answer for Result<RevertOutcome, ApplyError> {
    fn says_gone(&self) -> bool {
        matches!(
            self,
            Ok(RevertOutcome::NotReverted { why: NotApplied::Exited }) | Err(ApplyError::Read(ReadError::Exited))
        )
    }

    fn restless() -> Self {
        Ok(RevertOutcome::NotReverted { why: NotApplied::Restless })
    }
}

/// What `look` answers, where "it is gone" is true.
pub(crate) fn verified<A: Answer>(process: &Process, mut look: impl FnMut() -> A) -> A {
    for number in 1..=LOOKS {
        let answer = look();
        if !answer.says_gone() || process.is_over() {
            return answer;
        }
        std::thread::sleep(pause(number));
    }
    A::restless()
}

/// Before the look after so many.
pub(crate) fn pause(looks: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1_u32.checked_shl(looks.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Process {
        Process::open(rustix::process::getpid().as_raw_nonzero().get()).unwrap()
    }

    #[test]
    fn one_that_is_there_is_looked_at_again_until_it_is_seen() {
        let mut looks = 0;
        let seen: Result<u32, ReadError> = verified(&own(), || {
            looks += 1;
            if looks < 4 { Err(ReadError::Exited) } else { Ok(looks) }
        });
        assert_eq!(seen.unwrap(), 4);
    }

    #[test]
    fn one_that_never_holds_still_is_not_called_gone() {
        let seen: Result<(), ReadError> = verified(&own(), || Err(ReadError::Exited));
        assert!(matches!(seen, Err(ReadError::Restless)), "{seen:?}");
        let seen: Result<_, ApplyError> = verified(&own(), || Ok(Outcome::NotApplied { why: NotApplied::Exited }));
        assert!(matches!(seen, Ok(Outcome::NotApplied { why: NotApplied::Restless })), "{seen:?}");
    }

    #[test]
    fn one_that_has_ended_is_gone_at_the_first_look() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::open(i32::try_from(child.id()).unwrap()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let mut looks = 0;
        let seen: Result<(), ReadError> = verified(&process, || {
            looks += 1;
            Err(ReadError::Exited)
        });
        assert!(matches!(seen, Err(ReadError::Exited)) && looks == 1, "{seen:?} after {looks}");
    }
}
