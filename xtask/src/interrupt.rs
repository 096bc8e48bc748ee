//! A task that is told to end (SIGINT, SIGTERM) leaves nothing behind.
//!
//! A task waits in many places: for packages, clients, processes. None of them
//! has to know of signals: a thread notices one, kills what the task started
//! (a throw-away root's processes end with its first), removes its scratch
//! directories and ends the task with the code that shells give a signal.

use anyhow::{Context as _, Result};
use salve_testkit::{running, tree};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// The signal, or 0.
static TOLD: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// For a task that has come to its end: if that is because what it waited for was killed, the
/// rest is cleaned up, and the code is the signal's.
pub(crate) fn leave_the_end_to_the_cleaner() {
    while TOLD.load(Ordering::SeqCst) != 0 {
        std::thread::park();
    }
}

/// From now on.
pub(crate) fn clean_up_when_told_to_end() -> Result<()> {
    let told = Arc::clone(&TOLD);
    for signal in [SIGINT, SIGTERM] {
        let number = usize::try_from(signal).context("a signal without a number")?;
        signal_hook::flag::register_usize(signal, Arc::clone(&told), number).context("cannot listen for signals")?;
    }
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let signal = told.load(Ordering::SeqCst);
            if signal != 0 {
                end(signal);
            }
        }
    });
    Ok(())
}

#[expect(clippy::exit, reason = "the task's own threads wait for what was just killed")]
fn end(signal: usize) -> ! {
    eprintln!("told to end (signal {signal}): ending what was started");
    running::end_all();
    for directory in tree::remove_all_scratch() {
        eprintln!("left behind: {}", directory.display());
    }
    std::process::exit(128 + i32::try_from(signal).unwrap_or(0));
}
