//! The processes that are changed, looked at from outside before and after.

use crate::observe::{self, Identity, Memory, Text};
use anyhow::{Result, bail, ensure};

/// Processes, and what they were when nothing had been done to them.
pub(super) struct Watched {
    pub(super) processes: Vec<Identity>,
    texts: Vec<Option<Text>>,
    /// How many mappings of each are writable and executable: only a service that translates has some.
    writable_code: Vec<usize>,
    memory: Vec<Memory>,
}

impl Watched {
    pub(super) fn of(processes: Vec<Identity>) -> Self {
        Self {
            texts: processes.iter().map(|one| Text::of(one.pid).ok()).collect(),
            writable_code: processes.iter().map(|one| writable_code(one).len()).collect(),
            memory: processes.iter().map(memory_of).collect(),
            processes,
        }
    }

    /// Those that live on have the text they had. Who ended, or executed another program, has none to compare.
    pub(super) fn must_have_their_text(&self) -> Result<()> {
        for (one, before) in self.processes.iter().zip(&self.texts) {
            let (Some(before), Ok(now)) = (before, Text::of(one.pid)) else { continue };
            if now.is_of_another_program(before) {
                continue;
            }
            let changes = now.changes_to(before);
            if !changes.is_empty() && lives(one) {
                bail!("the text of process {} is not what it was: {}", one.pid, changes.join("; "));
            }
        }
        Ok(())
    }

    /// No mapping that is writable and executable came to those that were there.
    pub(super) fn must_have_no_more_writable_code(&self) -> Result<()> {
        for (one, before) in self.processes.iter().zip(&self.writable_code) {
            let both = writable_code(one);
            ensure!(
                both.len() <= *before,
                "process {} has memory that is writable and executable: {}",
                one.pid,
                both.join(", ")
            );
        }
        Ok(())
    }

    /// What came since to those that live: bytes of copied pages, and bytes that can be shared.
    pub(super) fn added_bytes(&self) -> (u64, u64) {
        let living = self.processes.iter().zip(&self.memory).filter(|(one, _)| lives(one));
        living.fold((0, 0), |(copied, shareable), (one, before)| {
            let now = memory_of(one);
            (
                copied + now.copied_bytes.saturating_sub(before.copied_bytes),
                shareable + now.shareable_bytes.saturating_sub(before.shareable_bytes),
            )
        })
    }

    /// Mappings and descriptors of all of them that live.
    pub(super) fn held(&self) -> (usize, usize) {
        let count = |pid: u32, what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
        self.processes.iter().filter(|one| lives(one)).fold((0, 0), |(mappings, descriptors), one| {
            (mappings + count(one.pid, "map_files"), descriptors + count(one.pid, "fd"))
        })
    }

    /// Threads of the process with the most.
    pub(super) fn threads(&self) -> usize {
        self.processes.iter().filter_map(|one| observe::threads(one.pid).ok()).max().unwrap_or(0)
    }
}

pub(super) fn lives(one: &Identity) -> bool {
    observe::identity(one.pid).is_ok_and(|now| now == *one)
}

/// Mappings that are writable and executable; none for a process that ended.
fn writable_code(one: &Identity) -> Vec<String> {
    observe::writable_and_executable(one.pid).unwrap_or_default()
}

/// Nothing for a process that ended.
fn memory_of(one: &Identity) -> Memory {
    observe::memory(one.pid).unwrap_or(Memory { copied_bytes: 0, shareable_bytes: 0, private_bytes: 0 })
}
