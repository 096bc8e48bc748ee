//! What is remembered of a process's transfers from one look to the next.

use super::look::{Asked, CutShort};
use core::time::Duration;
use salve_elf::RuntimeAddr;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Who moves much sleeps and runs by turns in one call: one who runs, and slept in a transfer
/// so lately, is likely to be in it still.
const LATELY: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
pub(crate) struct Notes {
    cut_short: Mutex<Vec<CutShort>>,
    seen: Mutex<BTreeMap<i32, (Instant, Asleep)>>,
}

/// A transfer that a thread sleeps in, and where it comes back to user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asleep {
    pub(super) asked: Asked,
    pub(super) returns_to: RuntimeAddr,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Notes {
    pub(super) fn was_cut_short(&self, call: CutShort) {
        lock(&self.cut_short).push(call);
    }

    pub(crate) fn take_cut_short(&self) -> Vec<CutShort> {
        core::mem::take(&mut *lock(&self.cut_short))
    }

    pub(super) fn saw(&self, tid: i32, asleep: Asleep) {
        lock(&self.seen).insert(tid, (Instant::now(), asleep));
    }

    pub(super) fn lately(&self, tid: i32) -> Option<Asleep> {
        let (at, asleep) = *lock(&self.seen).get(&tid)?;
        (at.elapsed() < LATELY).then_some(asleep)
    }
}
