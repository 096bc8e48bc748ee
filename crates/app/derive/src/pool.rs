//! Worker threads that stand before the sandbox does: afterwards no thread can
//! be started.
//!
//! Jobs come back in the order in which they end. A job that panics is a
//! result too, so one bad image does not take the others with it. Whoever has no
//! job left helps with parts of those of others (`rayon::join`, decision 0106).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

/// Stack of one worker; the filter forbids to start another one with more.
pub(crate) const STACK_BYTES: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
#[error("cannot start the threads")]
pub(crate) struct PoolError {
    #[source]
    source: rayon::ThreadPoolBuildError,
}

/// A job panicked; what it said.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {said}")]
pub(crate) struct Panicked {
    pub said: String,
}

#[derive(Debug)]
pub(crate) struct Pool {
    threads: rayon::ThreadPool,
}

impl Pool {
    /// Returns when every thread is in its loop and has made the calls that starting takes.
    pub(crate) fn start(threads: u32) -> Result<Self, PoolError> {
        // None at all would mean as many as there are processors.
        let threads = usize::try_from(threads).unwrap_or(1).max(1);
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK_BYTES);
        let threads = builder.build().map_err(|source| PoolError { source })?;
        threads.broadcast(|_| ());
        Ok(Self { threads })
    }

    /// Runs one thing on the workers. Anywhere else, what divides its work among threads would
    /// start some, and end the process.
    pub(crate) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.threads.install(work)
    }

    /// Runs `work` on every item, in the given order, as many at once as there
    /// are threads and as fit into `budget` by `cost`; one alone always runs.
    /// `done` sees each result on the calling thread, with the item's index.
    pub(crate) fn for_each<T, R, F>(
        &self,
        items: Vec<T>,
        budget: u64,
        cost: impl Fn(&T) -> u64,
        work: F,
        mut done: impl FnMut(usize, Result<R, Panicked>),
    ) where
        T: Send + 'static,
        R: Send + 'static,
        F: Fn(T) -> R + Send + Sync + 'static,
    {
        let work = Arc::new(work);
        let (results, finished) = channel();
        let mut running: Vec<(usize, u64)> = Vec::new();
        let mut waiting = items.into_iter().enumerate().peekable();
        while waiting.peek().is_some() || !running.is_empty() {
            let used = running.iter().fold(0_u64, |sum, (_, cost)| sum.saturating_add(*cost));
            let next = waiting.next_if(|(_, item)| {
                let free = running.len() < self.threads.current_num_threads();
                running.is_empty() || (free && used.saturating_add(cost(item)) <= budget)
            });
            if let Some((index, item)) = next {
                running.push((index, cost(&item)));
                self.submit(index, item, &work, &results);
                continue;
            }
            // `results` is alive here, so this waits for a job and never fails.
            let Ok((index, result)) = finished.recv() else { return };
            running.retain(|(other, _)| *other != index);
            done(index, result);
        }
    }

    fn submit<T, R, F>(&self, index: usize, item: T, work: &Arc<F>, results: &Sender<(usize, Result<R, Panicked>)>)
    where
        T: Send + 'static,
        R: Send + 'static,
        F: Fn(T) -> R + Send + Sync + 'static,
    {
        let (work, results) = (Arc::clone(work), results.clone());
        let job = move || {
            let result = catch_unwind(AssertUnwindSafe(|| work(item)));
            let result = result.map_err(|panic| Panicked { said: words_of(panic.as_ref()) });
            // Nobody waits any more: the request was given up.
            let _ = results.send((index, result));
        };
        self.threads.spawn(job);
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "without a word".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn every_item_is_done_once_and_a_panic_is_a_result() {
        let pool = Pool::start(3).expect("threads start");
        let mut seen = vec![None; 50];
        pool.for_each(
            (0..50_u64).collect(),
            u64::MAX,
            |_| 1,
            |n| {
                assert_ne!(n, 7, "seven");
                n * 2
            },
            |index, r| {
                assert!(seen[index].replace(r.map_err(|p| p.said)).is_none());
            },
        );
        for (index, result) in seen.into_iter().enumerate() {
            match result.expect("was done") {
                Ok(twice) => assert_eq!(twice, index as u64 * 2),
                Err(said) => assert!(index == 7 && said.contains("seven"), "{index}: {said}"),
            }
        }
    }

    #[test]
    fn what_runs_at_once_stays_within_the_budget() {
        static USED: AtomicU64 = AtomicU64::new(0);
        static PEAK: AtomicU64 = AtomicU64::new(0);
        let pool = Pool::start(4).expect("threads start");
        let work = |cost: u64| {
            let now = USED.fetch_add(cost, Ordering::SeqCst) + cost;
            PEAK.fetch_max(now, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(5));
            USED.fetch_sub(cost, Ordering::SeqCst);
        };
        pool.for_each(vec![3, 3, 3, 3, 3, 3], 6, |cost| *cost, work, |_, r| r.expect("no panic"));
        assert_eq!(PEAK.load(Ordering::SeqCst), 6);
        // One that alone is over the budget still runs, by itself.
        PEAK.store(0, Ordering::SeqCst);
        pool.for_each(vec![9, 1], 6, |cost| *cost, work, |_, r| r.expect("no panic"));
        assert_eq!(PEAK.load(Ordering::SeqCst), 9);
    }
}
