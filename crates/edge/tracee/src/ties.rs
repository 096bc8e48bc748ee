//! What ties processes together so that they have to change together (ADR 0017).
//!
//! Two processes are tied when they share memory that both may write, or when one was
//! forked from the other, or both from a third, without any of them having executed a
//! program since. The first shows in `/proc/PID/maps`. The second shows in the sixteen
//! random bytes that the kernel gives to each executed program (`AT_RANDOM`,
//! `getauxval(3)`): a fork copies them, an `execve` draws new ones, and it does not
//! matter who is whose parent by now.
//!
//! Rejected: asking for parents and children, which a daemon's double fork hides, and
//! which tie every script to the shell that started it.

mod groups;
mod numbers;
mod watch;

pub use groups::groups;
pub use numbers::Mark;
pub(crate) use watch::Watch;

use crate::limits::Limits;
use crate::maps::Mapping;
use crate::memory::Memory;
use crate::process::{Process, ReadError};
use salve_elf::RuntimeAddr;
use std::collections::BTreeSet;

/// One thing that processes have in common. Two that have an equal one are tied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tie {
    /// The same program, by device and inode, and copies of one execution of it.
    Fork { device: u64, inode: u64, random: [u8; 16] },
    /// Memory that may be written through shared mappings: a file, System V shared
    /// memory, a memfd, or anonymous (which the kernel gives an inode as well).
    Memory { device: (u32, u32), inode: u64 },
}

/// Pairs of type and value (`getauxval(3)`).
const AUXV_LIMIT: usize = 4096;
const AT_RANDOM: u64 = 25;

impl Process {
    /// All ties of the process as it is now.
    ///
    /// Where the random bytes cannot be had, the process counts as forked from whoever
    /// lacks them too: more is tied then, never less.
    pub fn ties(&self, limits: &Limits) -> Result<BTreeSet<Tie>, ReadError> {
        self.ties_in(&self.mappings(limits)?)
    }

    fn ties_in(&self, mappings: &[Mapping]) -> Result<BTreeSet<Tie>, ReadError> {
        let writable = mappings.iter().filter(|mapping| mapping.perms.shared && mapping.perms.write);
        // What has no path of a file is no memory in common: all of the kernel's
        // anonymous inodes (io_uring, perf) have one number.
        let mut ties: BTreeSet<Tie> = writable
            .filter(|mapping| mapping.is_file())
            .map(|mapping| Tie::Memory { device: mapping.dev, inode: mapping.inode })
            .collect();
        let exe = self.stat_entry("exe")?;
        ties.insert(Tie::Fork { device: exe.st_dev, inode: exe.st_ino, random: self.random()? });
        Ok(ties)
    }

    fn random(&self) -> Result<[u8; 16], ReadError> {
        let auxv = self.read_entry("auxv", "auxv", AUXV_LIMIT)?;
        let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
        let at = auxv.chunks_exact(16).find_map(|pair| {
            let (kind, value) = pair.split_at_checked(8)?;
            (word(kind)? == AT_RANDOM).then_some(word(value)?)
        });
        let mut random = [0; 16];
        if let (Some(at), Ok(memory)) = (at, Memory::open_to_read(self)) {
            // All zero where it cannot be read.
            let _ = memory.read_exact(RuntimeAddr::new(at), &mut random);
        }
        Ok(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_tied_to_itself_and_not_to_what_it_executes() {
        let limits = Limits::default();
        let own = Process::open(std::process::id().cast_signed()).unwrap();
        let ties = own.ties(&limits).unwrap();
        assert!(ties.iter().any(|tie| matches!(tie, Tie::Fork { random, .. } if *random != [0; 16])), "{ties:?}");
        assert_eq!(ties, own.ties(&limits).unwrap());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let other = Process::open(child.id().cast_signed()).unwrap();
        // Between fork and exec it is still a copy of this one.
        let start = std::time::Instant::now();
        while !other.ties(&limits).unwrap().is_disjoint(&ties) {
            assert!(start.elapsed().as_secs() < 20, "it does not execute its program");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
