//! What clients of a service saw: every request counted, every wrong or missing
//! answer kept, and how long answers took, period by period.
//!
//! A request belongs to the period in which its answer came, so that one which
//! was under way when a process was stopped counts among those of the stop.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Failures that are kept in words; the rest is counted.
const FAILURES_KEPT: usize = 5;
/// Four buckets for each doubling, from 1 µs to more than a minute.
const BUCKETS: usize = 4 * 27;

/// What came of one period.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub requests: u64,
    pub errors: u64,
    /// The first few, in words.
    pub failures: Vec<String>,
    /// Upper ends of the buckets that the middle and the 99th of a hundred answers fall into.
    pub median_us: u64,
    pub p99_us: u64,
    /// Exactly: the longest that any client waited for an answer.
    pub longest_us: u64,
    pub lasted_ms: u64,
    /// How many answers fell into each bucket, so that periods can be joined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<u64>,
}

impl Seen {
    /// Several periods as one.
    pub fn joined<'a>(periods: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self { counts: vec![0; BUCKETS], ..Self::default() };
        for one in periods {
            all.requests += one.requests;
            all.errors += one.errors;
            all.failures.extend(one.failures.iter().cloned());
            all.longest_us = all.longest_us.max(one.longest_us);
            all.lasted_ms += one.lasted_ms;
            all.counts.iter_mut().zip(&one.counts).for_each(|(sum, count)| *sum += count);
        }
        all.failures.truncate(FAILURES_KEPT);
        all.median_us = all.quantile_us(50);
        all.p99_us = all.quantile_us(99);
        all
    }

    /// Upper end of the bucket that the answer at this many of a hundred falls into.
    pub fn quantile_us(&self, percent: u64) -> u64 {
        quantile(&self.counts, percent)
    }

    /// The same, and where in its bucket, as if those in it lay evenly: for comparing periods.
    pub fn within_us(&self, percent: u64) -> u64 {
        let wanted = (self.counts.iter().sum::<u64>() * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            if below + count >= wanted {
                let from = index.checked_sub(1).map_or(0, bucket_end);
                return from + (bucket_end(index) - from) * (wanted - below) / count;
            }
            below += count;
        }
        0
    }
}

/// How much the clients ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As much as comes of it, with a load generator beside the checking clients.
    #[default]
    Full,
    /// Checking clients only, with long pauses: for hours on a machine that has other work.
    Gentle,
}

/// How much longer a client pauses where the pace is gentle.
const GENTLER: u32 = 50;

/// One period as it is filled.
#[derive(Debug)]
struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
    longest_us: AtomicU64,
    buckets: Vec<AtomicU64>,
    failures: Mutex<Vec<String>>,
    began: Instant,
    began_wall: SystemTime,
}

impl Tally {
    fn new() -> Self {
        Self {
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            longest_us: AtomicU64::new(0),
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            failures: Mutex::new(Vec::new()),
            began: Instant::now(),
            began_wall: SystemTime::now(),
        }
    }

    fn seen(&self) -> Seen {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        Seen {
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            failures: self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            median_us: quantile(&counts, 50),
            p99_us: quantile(&counts, 99),
            longest_us: self.longest_us.load(Ordering::Relaxed),
            lasted_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            counts,
        }
    }
}

/// Bucket `4 d + q` ends at `(4 + q + 1) × 2^d / 4` µs.
fn bucket(us: u64) -> usize {
    let us = us.max(4);
    let doublings = us.ilog2() - 2;
    let quarter = (us >> doublings) & 3;
    (4 * doublings as usize + usize::try_from(quarter).unwrap_or(0)).min(BUCKETS - 1)
}

fn bucket_end(bucket: usize) -> u64 {
    (5 + bucket as u64 % 4) << (bucket / 4)
}

fn quantile(counts: &[u64], percent: u64) -> u64 {
    let total: u64 = counts.iter().sum();
    let mut below = 0;
    for (index, count) in counts.iter().enumerate() {
        below += count;
        if total > 0 && below * 100 >= total * percent {
            return bucket_end(index);
        }
    }
    0
}

/// Shared by all clients of one run.
#[derive(Debug)]
pub struct Meter {
    current: RwLock<Arc<Tally>>,
    total_requests: AtomicU64,
    total_errors: AtomicU64,
    ending: AtomicBool,
    pace: Pace,
}

impl Meter {
    pub fn new(pace: Pace) -> Arc<Self> {
        Arc::new(Self {
            pace,
            current: RwLock::new(Arc::new(Tally::new())),
            total_requests: AtomicU64::new(0),
            total_errors: AtomicU64::new(0),
            ending: AtomicBool::new(false),
        })
    }

    /// Ends the period and begins the next one; gives what came of the one that ended.
    pub fn next_period(&self) -> Seen {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let ended = std::mem::replace(&mut *current, Arc::new(Tally::new()));
        ended.seen()
    }

    /// When the period at hand began, by the wall clock: for tools that log by it.
    pub fn period_began(&self) -> SystemTime {
        self.current.read().unwrap_or_else(PoisonError::into_inner).began_wall
    }

    pub fn note(&self, took: Duration, outcome: Result<()>) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let tally = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        self.total_requests.fetch_add(1, Ordering::Relaxed);
        tally.requests.fetch_add(1, Ordering::Relaxed);
        tally.longest_us.fetch_max(us, Ordering::Relaxed);
        if let Some(bucket) = tally.buckets.get(bucket(us)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(error) = outcome {
            self.total_errors.fetch_add(1, Ordering::Relaxed);
            tally.errors.fetch_add(1, Ordering::Relaxed);
            let mut failures = tally.failures.lock().unwrap_or_else(PoisonError::into_inner);
            if failures.len() < FAILURES_KEPT {
                failures.push(format!("{error:#}"));
            }
        }
    }

    /// Runs one request and notes how it went.
    pub fn time(&self, request: impl FnOnce() -> Result<()>) -> bool {
        let since = Instant::now();
        let outcome = request();
        let right = outcome.is_ok();
        self.note(since.elapsed(), outcome);
        right
    }

    pub fn requests(&self) -> u64 {
        self.total_requests.load(Ordering::Relaxed)
    }

    pub fn errors(&self) -> u64 {
        self.total_errors.load(Ordering::Relaxed)
    }

    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// A client's pause between two requests: `usual` where the pace is full.
    pub fn pause(&self, usual: Duration) {
        std::thread::sleep(match self.pace {
            Pace::Full => usual,
            Pace::Gentle => usual * GENTLER,
        });
    }

    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    pub fn goes_on(&self) -> bool {
        !self.ending.load(Ordering::Relaxed)
    }

    /// Waits for `more` further answers.
    pub fn pass(&self, more: u64) -> Result<()> {
        let (since, goal) = (Instant::now(), self.requests() + more);
        while self.requests() < goal {
            if since.elapsed() > crate::running::PATIENCE {
                anyhow::bail!("the load stands still at {} answers", self.requests());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Client threads that end with the meter.
#[derive(Debug, Default)]
pub struct Clients {
    threads: Vec<(String, JoinHandle<Result<()>>)>,
}

impl Clients {
    /// A client that runs until the meter ends. What it gives at its end is part of the outcome.
    pub fn add(&mut self, name: impl Into<String>, client: impl FnOnce() -> Result<()> + Send + 'static) {
        self.threads.push((name.into(), std::thread::spawn(client)));
    }

    /// Waits for all of them. The first that did not end well is the error.
    pub fn join(mut self) -> Result<()> {
        let mut first = Ok(());
        for (name, thread) in self.threads.drain(..) {
            let outcome = match thread.join() {
                Ok(outcome) => outcome.with_context(|| format!("client {name}")),
                Err(_) => Err(anyhow::anyhow!("client {name} broke")),
            };
            if first.is_ok() {
                first = outcome;
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_a_bucket_that_ends_at_most_a_quarter_later() {
        for us in (4..5_000_u64).chain([60_000_000, 123_456]) {
            let end = bucket_end(bucket(us));
            assert!(end > us && end <= us + us.div_ceil(4) + 1, "{us} in a bucket that ends at {end}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn an_answer_counts_in_the_period_in_which_it_came_and_no_error_is_lost() {
        let meter = Meter::new(Pace::Full);
        for _ in 0..98 {
            meter.note(Duration::from_micros(100), Ok(()));
        }
        meter.note(Duration::from_millis(1), Err(anyhow::anyhow!("wrong")));
        meter.note(Duration::from_millis(30), Ok(()));
        let seen = meter.next_period();
        assert_eq!((seen.requests, seen.errors, seen.longest_us), (100, 1, 30_000));
        assert_eq!(seen.failures, ["wrong"]);
        assert!((100..=125).contains(&seen.median_us) && (1_000..=1_250).contains(&seen.p99_us), "{seen:?}");
        meter.note(Duration::from_micros(5), Ok(()));
        let next = meter.next_period();
        assert_eq!((next.requests, next.errors), (1, 0));
        let both = Seen::joined([&seen, &next]);
        assert_eq!((both.requests, both.errors, both.longest_us), (101, 1, 30_000));
        assert_eq!((both.median_us, both.counts.iter().sum::<u64>()), (seen.median_us, 101));
        assert_eq!((meter.requests(), meter.errors()), (101, 1));
    }

    #[test]
    fn a_percentile_within_its_bucket_is_near_the_true_one() {
        let meter = Meter::new(Pace::Full);
        (1000..3000).for_each(|us| meter.note(Duration::from_micros(us), Ok(())));
        let seen = meter.next_period();
        for (percent, truth) in [(50, 2000_u64), (10, 1200), (99, 2980)] {
            assert!(seen.within_us(percent).abs_diff(truth) * 20 < truth, "{percent}: {}", seen.within_us(percent));
        }
        assert_eq!(Seen::default().within_us(50), 0);
    }
}
