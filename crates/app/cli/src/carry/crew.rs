//! Several hands at one list.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// More would only wait for one another in the kernel.
const MOST_HANDS: usize = 8;

/// One hand for each processor, at most [`MOST_HANDS`].
pub(crate) fn hands() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_HANDS)
}

/// Does `work` to every item, several at a time, in the order of the list. Each result
/// is handed to `done`, on the calling thread, as soon as it is there.
pub(crate) fn each<T: Sync, R: Send>(
    items: &[T],
    hands: usize,
    work: impl Fn(&T) -> R + Sync,
    mut done: impl FnMut(usize, R),
) {
    let next = AtomicUsize::new(0);
    let (results, finished) = mpsc::channel();
    let lend_a_hand = |results: mpsc::Sender<(usize, R)>| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            // Nobody listens any more only when the calling thread is gone.
            let _ = results.send((index, work(item)));
        }
    };
    std::thread::scope(|scope| {
        let mut hired = 0_usize;
        for _ in 0..hands.clamp(1, items.len().max(1)) {
            let (results, lend_a_hand) = (results.clone(), &lend_a_hand);
            let hand = std::thread::Builder::new().spawn_scoped(scope, move || lend_a_hand(results));
            hired = hired.saturating_add(usize::from(hand.is_ok()));
        }
        if hired == 0 {
            // There can be no more threads: then it does the work itself.
            lend_a_hand(results);
        } else {
            drop(results);
        }
        for (index, result) in finished {
            done(index, result);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_by_however_many_hands() {
        for hands in [0, 1, 3, 100] {
            let items: Vec<usize> = (0..50).collect();
            let mut results = vec![0; items.len()];
            each(&items, hands, |item| item + 1, |index, result| results[index] += result);
            assert_eq!(results, (1..=50).collect::<Vec<_>>(), "{hands}");
        }
        each(&[], 4, |(): &()| (), |_, ()| panic!("there was nothing to do"));
    }

    #[test]
    fn one_that_takes_long_holds_nobody_up() {
        let gate = std::sync::Barrier::new(2);
        let items = [true, false];
        let mut order = Vec::new();
        // The first waits for the second: with one hand this would never end.
        each(&items, 2, |_| gate.wait(), |index, _| order.push(index));
        order.sort_unstable();
        assert_eq!(order, [0, 1]);
    }
}
