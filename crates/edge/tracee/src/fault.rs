//! Dying on purpose, for the tests that prove that a target survives it.
//!
//! Every step that touches a target calls `step`. A test arms the counter in a
//! child process of its own, which then kills itself at exactly that step.

use core::sync::atomic::{AtomicU64, Ordering};

static STEPS: AtomicU64 = AtomicU64::new(0);
static DIE_AT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Makes this process kill itself with `SIGKILL` right before step `step` (from 1).
pub fn die_at(step: u64) {
    STEPS.store(0, Ordering::SeqCst);
    DIE_AT.store(step, Ordering::SeqCst);
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
