//! What the victim tells by itself, in a file that it shares.

use super::{Victim, wait_until};
use crate::torture::Act;
use anyhow::{Context as _, Result};
use std::os::unix::fs::FileExt as _;

/// What the victim counts, by its `enum word`.
pub type Words = [u64; 64];

pub(super) const WRONG: usize = 0;
pub(super) const MIXED: usize = 1;
pub(super) const FLOAT: usize = 2;
pub(super) const SENT: usize = 3;
pub(super) const HANDLED: usize = 4;
pub(super) const INTERRUPTED: usize = 5;
pub(super) const INTERRUPTED_ALWAYS: usize = 6;
pub(super) const BROKEN: usize = 7;
const NOW: usize = 8;
const THREADS: usize = 9;
/// How often it began, by itself or by executing itself again.
pub(in crate::torture) const STARTS: usize = 10;
/// By what the other processes of its group answer.
const NOW_OF_CHILDREN: usize = 11;
/// Which of its threads had a call that failed, and the error of it.
pub(super) const FAILED: usize = 14;
pub(super) const FAILED_WITH: usize = 15;
const BEATS: usize = 16;

impl Victim<'_> {
    /// By what each of its processes answers.
    pub(super) fn answers(&self) -> Result<Vec<u64>> {
        let words = self.words()?;
        let children = words.iter().skip(NOW_OF_CHILDREN).take(self.children.len());
        Ok(words.iter().skip(NOW).take(1).chain(children).copied().collect())
    }

    pub(in crate::torture) fn words(&self) -> Result<Words> {
        let mut words: Words = [0; _];
        let mut bytes = [0; size_of::<Words>()];
        self.shared.read_exact_at(&mut bytes, 0).context("cannot read the shared file")?;
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        Ok(words)
    }

    /// Whether every thread gets round once more.
    pub(super) fn beats(&self, before: &Words) -> Result<bool> {
        wait_until(|| {
            let now = self.words()?;
            let threads = usize::try_from(now[THREADS]).context("the victim says nonsense")?;
            Ok((BEATS..BEATS + threads).all(|at| now[at] > before[at]))
        })
    }

    /// Whether it comes to answer as it should after an act.
    pub(in crate::torture) fn becomes(&self, act: Act) -> Result<bool> {
        wait_until(|| Ok(self.answers()?.iter().all(|answer| *answer == act.answer())))
    }
}
