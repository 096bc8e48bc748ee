//! Whether a service's answers grow slower over a long run, or only the machine does.
//!
//! The first and the last quarter of the run are compared, each as up to twenty
//! periods with one figure apiece, so that what varies within a quarter is what
//! the difference between them has to stand out from. That is asked with the
//! rank-sum test of Mann and Whitney: one-sided, exact, ties counted against a
//! drift. A difference that stands out and is small is no harm: a drift is one of
//! a tenth or more (the shift of Hodges and Lehmann: the median of all
//! differences between the two). The same is asked of the answers in units of a
//! floor that is measured at the same time, an echo over loopback beside the
//! service: what slows both is the machine.

use super::meter::{Clients, Meter, Pace, Seen};
use super::report::ms;
use anyhow::{Context as _, Result, ensure};
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Of a quarter: with four, nothing is so rare that it would be noticed.
const FEWEST: usize = 5;
/// More are joined, so that counts stay small.
const MOST: usize = 20;
/// So often in a hundred a quarter that is no slower would look so.
const RARE_PERCENT: u128 = 1;
/// Slower by less than a tenth is no harm.
const HARM_PERCENT: u64 = 10;
/// Between two beats of the floor.
const PAUSE: Duration = Duration::from_millis(5);
/// Which of a hundred answers are judged: the middle one and one of the slow.
const PERCENTS: [u64; 2] = [50, 99];

/// What came of the comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    NotJudged(String),
    Judged(Vec<Compared>),
}

/// One percentile, in the first and in the last quarter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    pub percent: u64,
    /// Medians of a quarter's periods, in µs.
    pub first_us: u64,
    pub last_us: u64,
    pub answers: Growth,
    /// In thousandths of the floor; none where no floor was measured.
    pub beside_floor: Option<Growth>,
}

/// How the last quarter stands to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The typical difference, in hundredths of the first quarter's median; negative: faster.
    pub percent: i64,
    /// The difference stands out from what varies within the quarters.
    pub stands_out: bool,
}

impl Growth {
    fn is_harm(self) -> bool {
        self.stands_out && self.percent >= HARM_PERCENT.cast_signed()
    }
}

impl Compared {
    pub fn is_drift(&self) -> bool {
        self.answers.is_harm() && self.beside_floor.is_none_or(Growth::is_harm)
    }
}

impl Drift {
    pub fn is_real(&self) -> bool {
        matches!(self, Self::Judged(all) if all.iter().any(Compared::is_drift))
    }
}

/// Of periods in their order: what the service's clients saw, and what the floor did.
pub fn judge(periods: &[(&Seen, &Seen)]) -> Drift {
    let quarter = periods.len() / 4;
    if quarter < FEWEST {
        return Drift::NotJudged(format!("{} periods are too few, {} are needed", periods.len(), 4 * FEWEST));
    }
    let first = joined(periods.get(..quarter).unwrap_or_default());
    let last = joined(periods.get(periods.len() - quarter..).unwrap_or_default());
    let answered = |part: &[(Seen, Seen)]| part.iter().all(|(service, _)| service.requests > 0);
    if !answered(&first) || !answered(&last) {
        return Drift::NotJudged("there are periods without an answer".into());
    }
    let has_floor = first.iter().chain(&last).all(|(_, floor)| floor.requests > 0);
    let compared = PERCENTS.into_iter().map(|percent| {
        let us = |(service, _): &(Seen, Seen)| service.within_us(percent);
        let in_floors = |both: &(Seen, Seen)| us(both) * 1000 / both.1.within_us(percent).max(1);
        let of = |read: &dyn Fn(&(Seen, Seen)) -> u64| {
            let read_all = |part: &[(Seen, Seen)]| part.iter().map(read).collect::<Vec<u64>>();
            growth(&read_all(&first), &read_all(&last))
        };
        let middle = |part: &[(Seen, Seen)]| median(part.iter().map(us).collect());
        Compared {
            percent,
            first_us: middle(&first),
            last_us: middle(&last),
            answers: of(&us),
            beside_floor: has_floor.then(|| of(&in_floors)),
        }
    });
    Drift::Judged(compared.collect())
}

/// At most [`MOST`], by joining neighbours.
fn joined(periods: &[(&Seen, &Seen)]) -> Vec<(Seen, Seen)> {
    let together = periods.len().div_ceil(MOST).max(1);
    let join = |some: &[(&Seen, &Seen)]| {
        (Seen::joined(some.iter().map(|(service, _)| *service)), Seen::joined(some.iter().map(|(_, floor)| *floor)))
    };
    periods.chunks_exact(together).map(join).collect()
}

fn median<T: Ord + Copy + Default>(mut all: Vec<T>) -> T {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn growth(first: &[u64], last: &[u64]) -> Growth {
    let pairs = || first.iter().flat_map(|one| last.iter().map(move |other| (*one, *other)));
    let shift = median(pairs().map(|(one, other)| other.cast_signed() - one.cast_signed()).collect());
    let base = median(first.to_vec()).max(1).cast_signed();
    let above = pairs().filter(|(one, other)| other > one).count();
    Growth { percent: shift * 100 / base, stands_out: is_rare(first.len(), last.len(), above) }
}

/// Whether of all orders of `n` and `m` figures at most one in a hundred has as
/// many pairs (or more) in which one of the `m` is the greater.
fn is_rare(n: usize, m: usize, above: usize) -> bool {
    let counts = orders(n, m);
    let as_many: u128 = counts.iter().skip(above).sum();
    as_many * 100 <= counts.iter().sum::<u128>() * RARE_PERCENT
}

/// How many orders have no such pair, one, two, …
fn orders(n: usize, m: usize) -> Vec<u128> {
    // The greatest of all is one of the `m`, above all `n`, or one of the `n`, above none.
    let mut of: Vec<Vec<u128>> = (0..=m).map(|_| vec![1]).collect();
    for n in 1..=n {
        let mut next: Vec<Vec<u128>> = vec![vec![1]];
        for m in 1..=m {
            let mut counts = vec![0; n * m + 1];
            let without_it = next.last().cloned().unwrap_or_default();
            counts.iter_mut().skip(n).zip(&without_it).for_each(|(sum, count)| *sum += count);
            let lower = of.get(m).cloned().unwrap_or_default();
            counts.iter_mut().zip(&lower).for_each(|(sum, count)| *sum += count);
            next.push(counts);
        }
        of = next;
    }
    of.pop().unwrap_or_default()
}

/// An echo over loopback beside the service, whose times are the machine's.
pub fn floor() -> Result<(Arc<Meter>, Clients)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no listener for the floor")?;
    let address = listener.local_addr().context("no address of the floor")?;
    let mut asking = TcpStream::connect(address).context("cannot connect to the floor")?;
    let (mut answering, _) = listener.accept().context("the floor is not connected")?;
    for stream in [&asking, &answering] {
        stream.set_nodelay(true).context("cannot set no-delay")?;
    }
    let meter = Meter::new(Pace::Full);
    let mut clients = Clients::default();
    clients.add("echo", move || {
        let mut byte = [0];
        // Ends with the connection.
        while answering.read(&mut byte).is_ok_and(|read| read > 0) && answering.write_all(&byte).is_ok() {}
        Ok(())
    });
    let beats = Arc::clone(&meter);
    clients.add("floor", move || {
        while beats.goes_on() {
            let answered = beats.time(|| {
                let mut byte = [7];
                asking.write_all(&byte).context("cannot send")?;
                asking.read_exact(&mut byte).context("no echo")?;
                Ok(())
            });
            ensure!(answered, "the floor broke");
            std::thread::sleep(PAUSE);
        }
        Ok(())
    });
    Ok((meter, clients))
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.stands_out { "stands out" } else { "within what varies" };
        write!(f, "{:+} %, {word}", self.percent)
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = match self {
            Self::NotJudged(why) => return write!(f, "NOT JUDGED: {why}"),
            Self::Judged(all) => all,
        };
        for (index, one) in all.iter().enumerate() {
            let Compared { percent, first_us, last_us, answers, beside_floor } = one;
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}p{percent} {} -> {} ({answers}", ms(*first_us), ms(*last_us))?;
            match beside_floor {
                Some(growth) => write!(f, "; beside the floor {growth})")?,
                None => write!(f, "; no floor)")?,
            }
            write!(f, ": {}", if one.is_drift() { "DRIFT" } else { "no drift" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A period in which answers took about this long.
    fn period(us: u64) -> Seen {
        let meter = Meter::new(Pace::Full);
        for part in 0..200 {
            meter.note(Duration::from_micros(us * (90 + part % 20) / 100), Ok(()));
        }
        meter.next_period()
    }

    /// Twenty-four periods, each with what `service` and `floor` say of its number.
    fn judged(service: impl Fn(u64) -> u64, floor: impl Fn(u64) -> u64) -> Drift {
        let all: Vec<(Seen, Seen)> = (0..24).map(|number| (period(service(number)), period(floor(number)))).collect();
        judge(&all.iter().map(|(service, floor)| (service, floor)).collect::<Vec<_>>())
    }

    /// Up and down by as much as a fifth, in no order.
    fn noise(number: u64) -> u64 {
        number * 7919 % 41
    }

    #[test]
    fn orders_are_those_of_the_tables_of_mann_and_whitney() {
        assert_eq!(orders(2, 2), [1, 1, 2, 1, 1]);
        assert_eq!(orders(3, 2).iter().sum::<u128>(), 10);
        assert_eq!(orders(20, 20).iter().sum::<u128>(), 137_846_528_820);
        // For five and five one-sided at 1 %: at most one pair of 25 the other way (Mann and Whitney 1947, n = m = 5).
        assert!(is_rare(5, 5, 24) && !is_rare(5, 5, 23));
        assert!(!is_rare(4, 4, 16), "one order in seventy");
    }

    #[test]
    fn answers_that_grow_slower_while_the_machine_does_not_are_a_drift() {
        let drift = judged(|number| 1000 + 20 * number + noise(number), |_| 50);
        assert!(drift.is_real(), "{drift}");
        let sudden = judged(|number| if number < 12 { 1000 } else { 1300 } + noise(number), |number| 50 + number % 3);
        assert!(sudden.is_real(), "{sudden}");
    }

    #[test]
    fn noise_a_machine_that_slows_down_and_little_are_none() {
        for (drift, what) in [
            (judged(|number| 1000 + 10 * noise(number), |_| 50), "noise"),
            (judged(|number| 1000 + 30 * number, |number| 100 + 3 * number), "the machine"),
            (judged(|number| 1000 + 2 * number, |_| 50), "little"),
            (judged(|number| 2000 - 30 * number, |_| 50), "faster"),
            (judged(|number| if number == 23 { 9000 } else { 1000 }, |_| 50), "one bad minute"),
        ] {
            assert!(!drift.is_real() && matches!(drift, Drift::Judged(_)), "{what}: {drift}");
        }
    }

    #[test]
    fn a_short_run_is_not_judged_and_an_old_one_without_a_floor_is() {
        let of = |count: u64, us: &dyn Fn(u64) -> u64| {
            let (all, nothing): (Vec<Seen>, Seen) =
                ((0..count).map(|number| period(us(number))).collect(), Seen::default());
            judge(&all.iter().map(|seen| (seen, &nothing)).collect::<Vec<_>>())
        };
        assert!(matches!(of(19, &|_| 1000), Drift::NotJudged(_)));
        assert!(!of(20, &|_| 1000).is_real());
        assert!(of(300, &|number| 1000 + 5 * number).is_real(), "joined to twenty a quarter");
    }

    #[test]
    fn the_floor_answers() -> Result<()> {
        let (meter, clients) = floor()?;
        meter.pass(20)?;
        meter.end();
        clients.join()?;
        assert_eq!(meter.errors(), 0);
        Ok(())
    }
}
