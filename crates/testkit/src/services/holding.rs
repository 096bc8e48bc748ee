//! What a process holds, by kind, and whether that creeps.
//!
//! A livepatch that is applied and taken back may leave something the first
//! time (a page of code that was written stays the process's own copy). What it
//! leaves may not grow with the number of times. Of what only a livepatch brings
//! (code, memory files, copies of code) every growth is a leak. What a service
//! has of its own as well (anonymous memory, descriptors) comes and goes with
//! its load: there a leak is what grows by one for every second cycle or more.

use crate::observe::Identity;
use anyhow::{Context as _, Result};
use procfs::process::{FDTarget, MMPermissions, MMapPath, Process};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub mappings: u64,
    pub executable_mappings: u64,
    /// Mappings of `memfd_create(2)` files: payloads are such.
    pub memory_file_mappings: u64,
    pub descriptors: u64,
    pub memory_file_descriptors: u64,
    /// Resident pages of memory files.
    pub payload_bytes: u64,
    /// Copies of its own of pages that are not writable.
    pub copied_bytes: u64,
    /// All private pages, heap and stacks included.
    pub private_bytes: u64,
    pub virtual_bytes: u64,
}

/// Processes that were looked at together, by id.
pub type Holdings = BTreeMap<u32, Holding>;

impl Holding {
    pub fn of(pid: u32) -> Result<Self> {
        let raw = i32::try_from(pid).context("a process id that is no process id")?;
        let process = Process::new(raw).with_context(|| format!("no process {pid}"))?;
        let mut held = Self::default();
        for map in process.smaps().with_context(|| format!("cannot read /proc/{pid}/smaps"))? {
            let field = |key: &str| map.extension.map.get(key).copied().unwrap_or(0);
            held.mappings += 1;
            held.virtual_bytes += map.address.1.saturating_sub(map.address.0);
            held.private_bytes += field("Private_Dirty") + field("Private_Clean");
            held.executable_mappings += u64::from(map.perms.contains(MMPermissions::EXECUTE));
            // A prefix of the name, not of its components as a path.
            if matches!(&map.pathname, MMapPath::Path(path) if path.to_string_lossy().starts_with("/memfd:")) {
                held.memory_file_mappings += 1;
                held.payload_bytes += field("Rss").saturating_sub(field("Anonymous"));
            }
            if !map.perms.contains(MMPermissions::WRITE) {
                held.copied_bytes += field("Anonymous");
            }
        }
        for fd in process.fd().with_context(|| format!("cannot read /proc/{pid}/fd"))? {
            // A descriptor may close while it is being read.
            let Ok(fd) = fd else { continue };
            held.descriptors += 1;
            held.memory_file_descriptors += u64::from(matches!(&fd.target, FDTarget::MemFD(_)));
        }
        Ok(held)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            mappings: self.mappings + other.mappings,
            executable_mappings: self.executable_mappings + other.executable_mappings,
            memory_file_mappings: self.memory_file_mappings + other.memory_file_mappings,
            descriptors: self.descriptors + other.descriptors,
            memory_file_descriptors: self.memory_file_descriptors + other.memory_file_descriptors,
            payload_bytes: self.payload_bytes + other.payload_bytes,
            copied_bytes: self.copied_bytes + other.copied_bytes,
            private_bytes: self.private_bytes + other.private_bytes,
            virtual_bytes: self.virtual_bytes + other.virtual_bytes,
        }
    }
}

/// Of those that still live. One that ends meanwhile is not among them.
pub fn of(watched: &[Identity]) -> Holdings {
    watched
        .iter()
        .filter(|one| super::watched::lives(one))
        .filter_map(|one| Some((one.pid, Holding::of(one.pid).ok()?)))
        .collect()
}

/// The processes that are in every one of them.
pub fn lasting<'a>(all: impl IntoIterator<Item = &'a Holdings>) -> Vec<u32> {
    let mut all = all.into_iter();
    let Some(first) = all.next() else { return Vec::new() };
    let rest: Vec<&Holdings> = all.collect();
    first.keys().copied().filter(|pid| rest.iter().all(|one| one.contains_key(pid))).collect()
}

/// Those of `pids` added up.
pub fn sum(held: &Holdings, pids: &[u32]) -> Holding {
    pids.iter().filter_map(|pid| held.get(pid)).fold(Holding::default(), |sum, one| sum.plus(*one))
}

/// What grew between the first revert and the last one, `cycles` later, in words; empty where nothing leaks.
pub fn leaks(first: &Holdings, last: &Holdings, cycles: u32) -> Vec<String> {
    type Read = fn(&Holding) -> u64;
    const LIVEPATCH: [(&str, Read); 5] = [
        ("executable mappings", |held| held.executable_mappings),
        ("mappings of memory files", |held| held.memory_file_mappings),
        ("descriptors of memory files", |held| held.memory_file_descriptors),
        ("bytes of payload", |held| held.payload_bytes),
        ("bytes of copied code", |held| held.copied_bytes),
    ];
    const ITS_OWN: [(&str, Read); 2] = [("mappings", |held| held.mappings), ("descriptors", |held| held.descriptors)];
    let mut found = Vec::new();
    for pid in lasting([first, last]) {
        let (Some(first), Some(last)) = (first.get(&pid), last.get(&pid)) else { continue };
        let mut tell = |what: &str, from: u64, to: u64| {
            found.push(format!("process {pid}: {what} grew from {from} to {to} over {cycles} cycles"));
        };
        for (what, read) in LIVEPATCH.iter().filter(|(_, read)| read(last) > read(first)) {
            tell(what, read(first), read(last));
        }
        let creeps = |from: u64, to: u64| cycles > 0 && to.saturating_sub(from) * 2 >= u64::from(cycles);
        for (what, read) in ITS_OWN.iter().filter(|(_, read)| creeps(read(first), read(last))) {
            tell(what, read(first), read(last));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::OwnedFd;

    fn here() -> Result<Holdings> {
        let pid = std::process::id();
        Ok([(pid, Holding::of(pid)?)].into())
    }

    fn memory_file() -> Result<OwnedFd> {
        rustix::fs::memfd_create("leaked", rustix::fs::MemfdFlags::CLOEXEC).context("no memory file")
    }

    #[test]
    fn a_memory_file_that_is_left_open_in_a_process_is_found_after_one_cycle() -> Result<()> {
        let first = here()?;
        let left = memory_file()?;
        let found = leaks(&first, &here()?, 1000);
        assert!(found.iter().any(|line| line.contains("descriptors of memory files")), "{found:?}");
        drop(left);
        let found = leaks(&first, &here()?, 1000);
        assert!(!found.iter().any(|line| line.contains("memory files")), "{found:?}");
        Ok(())
    }

    #[test]
    fn a_descriptor_for_every_cycle_is_a_leak_and_a_few_that_the_load_holds_are_not() -> Result<()> {
        let first = here()?;
        let _held: Vec<File> = (0..200).map(|_| File::open("/dev/null")).collect::<std::io::Result<_>>()?;
        let last = here()?;
        assert!(leaks(&first, &last, 200).iter().any(|line| line.contains("descriptors grew")));
        assert!(!leaks(&first, &last, 10_000).iter().any(|line| line.contains("descriptors grew")));
        Ok(())
    }

    #[test]
    fn only_processes_that_lived_all_the_time_are_compared() {
        let held = |descriptors| Holding { descriptors, ..Holding::default() };
        let first: Holdings = [(1, held(5)), (2, held(5))].into();
        let last: Holdings = [(2, held(5)), (3, held(500))].into();
        assert_eq!(lasting([&first, &last]), [2]);
        assert_eq!(sum(&last, &[2]).descriptors, 5);
        assert!(leaks(&first, &last, 10).is_empty());
    }
}
