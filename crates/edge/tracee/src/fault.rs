//! Dying on purpose, for the tests that prove that a target survives it.
//!
//! Every step that touches a target calls `step`. A test arms the counter in a
//! child process of its own, which then kills itself at exactly that step. In the same
//! way single writes to a target can be made to fail.

use core::sync::atomic::{AtomicU64, Ordering};

static STEPS: AtomicU64 = AtomicU64::new(0);
static DIE_AT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Makes this process kill itself with `SIGKILL` right before step `step` (from 1).
pub fn die_at(step: u64) {
    STEPS.store(0, Ordering::SeqCst);
    DIE_AT.store(step, Ordering::SeqCst);
}

static WRITES: AtomicU64 = AtomicU64::new(0);
static FAIL_FROM: AtomicU64 = AtomicU64::new(u64::MAX);
static FAIL_COUNT: AtomicU64 = AtomicU64::new(0);

/// Makes `count` writes to targets fail, from the `from`-th on (from 0).
pub fn fail_writes(from: u64, count: u64) {
    WRITES.store(0, Ordering::SeqCst);
    FAIL_FROM.store(from, Ordering::SeqCst);
    FAIL_COUNT.store(count, Ordering::SeqCst);
}

/// How many writes were tried since then.
pub fn writes() -> u64 {
    WRITES.load(Ordering::SeqCst)
}

/// Whether the write that comes now has to fail.
pub(crate) fn write_fails() -> bool {
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let into = number.checked_sub(FAIL_FROM.load(Ordering::Relaxed));
    into.is_some_and(|into| into < FAIL_COUNT.load(Ordering::Relaxed))
}

/// How many steps were taken.
pub fn steps() -> u64 {
    STEPS.load(Ordering::SeqCst)
}

pub(crate) fn step() {
    // Wrapping: `fetch_add` never fails, and nobody takes 2^64 steps.
    let before = STEPS.fetch_add(1, Ordering::Relaxed);
    if before.wrapping_add(1) == DIE_AT.load(Ordering::Relaxed) {
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    }
}
