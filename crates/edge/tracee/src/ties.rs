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

use crate::limits::Limits;
use crate::maps::Mapping;
use crate::memory::Memory;
use crate::process::{Process, ProcessId, ReadError, list_pids};
use salve_elf::RuntimeAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

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
/// More numbers than this between two looks are looked through by way of the list of all.
const FEW: i32 = 64;

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

/// Sees who joins a group between the moment it was listed and its stop.
pub(crate) struct Watch {
    state: Mutex<State>,
}

/// What a number that was given out turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing, or a process in the making.
    Nobody,
    Stranger,
    Joined,
}

struct State {
    /// `None`: nobody is watched for.
    ties: Option<BTreeSet<Tie>>,
    /// The images that change, by device and inode of their mappings.
    images: BTreeSet<((u32, u32), u64)>,
    known: BTreeSet<ProcessId>,
    /// Looked at since the group was let go last, and not of it.
    strangers: BTreeSet<i32>,
    /// The number that was given out last when the group stood and everybody was looked at.
    mark: i32,
}

/// A moment in the life of the machine, as the last process number that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(i32);

impl Mark {
    /// Take it before the processes are listed that are to change together.
    pub fn now() -> Self {
        Self(last_pid())
    }
}

impl Watch {
    pub(crate) fn nobody() -> Self {
        Self::of(None, Mark(0))
    }

    pub(crate) fn new(ties: BTreeSet<Tie>, mark: Mark) -> Self {
        Self::of(Some(ties), mark)
    }

    fn of(ties: Option<BTreeSet<Tie>>, Mark(mark): Mark) -> Self {
        let (images, known, strangers) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { state: Mutex::new(State { ties, images, known, strangers, mark }) }
    }

    /// Who maps none of these files does not change.
    pub(crate) fn concerns<'m>(&self, mappings: impl Iterator<Item = &'m Mapping>) {
        self.lock().images.extend(mappings.map(|mapping| (mapping.dev, mapping.inode)));
    }

    /// It is looked after, or need not be.
    pub(crate) fn knows(&self, process: ProcessId) {
        self.lock().known.insert(process);
    }

    /// It is looked for again.
    pub(crate) fn forgets(&self, process: ProcessId) {
        self.lock().known.remove(&process);
    }

    /// Processes that belong to the group and are not known, before it is stopped: what is
    /// looked at now need not be looked at while it stands. A child in the making cannot be
    /// seen yet, so this proves nothing.
    pub(crate) fn joined_already(&self, limits: &Limits) -> Vec<i32> {
        let mut state = self.lock();
        state.strangers.clear();
        let Some((_, looked_at)) = state.look(limits) else { return Vec::new() };
        state.strangers = of_kind(&looked_at, Seen::Stranger).collect();
        of_kind(&looked_at, Seen::Joined).collect()
    }

    /// The same while the group stands and can make no more. Reads nothing but `/proc`.
    pub(crate) fn joined(&self, limits: &Limits) -> Vec<i32> {
        let mut state = self.lock();
        let Some((last, looked_at)) = state.look(limits) else { return Vec::new() };
        let joined: Vec<i32> = of_kind(&looked_at, Seen::Joined).collect();
        if joined.is_empty() {
            state.mark = last;
        }
        joined
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_kind(looked_at: &[(i32, Seen)], kind: Seen) -> impl Iterator<Item = i32> + '_ {
    looked_at.iter().filter(move |(_, seen)| *seen == kind).map(|(pid, _)| *pid)
}

impl State {
    /// Everybody who came since the mark and was not looked at yet, and the number given
    /// out last.
    fn look(&self, limits: &Limits) -> Option<(i32, Vec<(i32, Seen)>)> {
        let ties = self.ties.as_ref()?;
        let last = last_pid();
        if last == self.mark && last != 0 {
            return None;
        }
        let few = (1..=FEW).contains(&last.saturating_sub(self.mark));
        let candidates: Vec<i32> =
            if few { (self.mark.saturating_add(1)..=last).collect() } else { list_pids().unwrap_or_default() };
        let looked_at = candidates
            .into_iter()
            .filter(|pid| !self.strangers.contains(pid))
            .map(|pid| (pid, self.kind_of(pid, ties, limits)))
            .collect();
        Some((last, looked_at))
    }

    fn kind_of(&self, pid: i32, ties: &BTreeSet<Tie>, limits: &Limits) -> Seen {
        match is_process(pid) {
            None => return Seen::Nobody,
            Some(false) => return Seen::Stranger,
            Some(true) => {}
        }
        match Process::open(pid) {
            Err(_) => Seen::Nobody,
            Ok(process) if self.is_tied(&process, ties, limits) => Seen::Joined,
            Ok(_) => Seen::Stranger,
        }
    }

    fn is_tied(&self, process: &Process, ties: &BTreeSet<Tie>, limits: &Limits) -> bool {
        if self.known.contains(&process.id()) {
            return false;
        }
        let Ok(mappings) = process.mappings(limits) else { return false };
        let maps_image =
            |mapping: &Mapping| mapping.perms.execute && self.images.contains(&(mapping.dev, mapping.inode));
        mappings.iter().any(maps_image) && process.ties_in(&mappings).is_ok_and(|own| !own.is_disjoint(ties))
    }
}

/// Whether a number is a process's and not only a thread's; `None` where it is nobody's.
fn is_process(pid: i32) -> Option<bool> {
    let number = rustix::process::Pid::from_raw(pid)?;
    match rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) {
        Ok(_) => Some(true),
        // Since Linux 6.9 the latter, before it the former.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Some(false),
        Err(_) => None,
    }
}

/// The last word of `/proc/loadavg` (`proc_loadavg(5)`); 0 where it cannot be read, with
/// which every look is at all processes.
fn last_pid() -> i32 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().last().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Which of these belong together: for each its group's number, the index of its first.
pub fn groups<K: Ord>(ties: &[BTreeSet<K>]) -> Vec<usize> {
    let mut group: Vec<usize> = (0..ties.len()).collect();
    let mut first: BTreeMap<&K, usize> = BTreeMap::new();
    for (index, own) in ties.iter().enumerate() {
        for tie in own {
            let other = *first.entry(tie).or_insert(index);
            let (Some(&mine), Some(&theirs)) = (group.get(index), group.get(other)) else { continue };
            let (low, high) = (mine.min(theirs), mine.max(theirs));
            for number in group.iter_mut().filter(|number| **number == high) {
                *number = low;
            }
        }
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_join_over_others_and_strangers_stay_alone() {
        let ties =
            |list: &[&[u32]]| -> Vec<BTreeSet<u32>> { list.iter().map(|own| own.iter().copied().collect()).collect() };
        assert_eq!(groups(&ties(&[&[1], &[2], &[1], &[]])), [0, 1, 0, 3]);
        // The last one ties the first two together.
        assert_eq!(groups(&ties(&[&[1], &[2], &[3], &[2, 1]])), [0, 0, 2, 0]);
        assert_eq!(groups(&ties(&[&[5], &[6], &[6, 7], &[7], &[5, 7]])), [0, 0, 0, 0, 0]);
        assert_eq!(groups::<u32>(&[]), Vec::<usize>::new());
    }

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
