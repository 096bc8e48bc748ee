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
use crate::process::{OpenError, Process, ProcessId, ReadError, list_pids, parse_stat};
use salve_elf::RuntimeAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
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
const MANY: i32 = 4096;
/// None that is ever given out: with it everybody is looked at.
const NO_MARK: i32 = -MANY - 1;

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
    /// One that is none of the group and will not become one of it.
    Stranger,
    Joined,
}

struct State {
    /// `None`: nobody is watched for.
    ties: Option<BTreeSet<Tie>>,
    /// The images that change, by device and inode of their mappings.
    images: BTreeSet<((u32, u32), u64)>,
    known: BTreeSet<ProcessId>,
    /// The number that was given out last when the group stood and everybody was looked at.
    mark: i32,
    /// Who started before was there when all were listed.
    ticks: u64,
    glance: Option<Glance>,
    /// `/proc/loadavg`, once it was opened.
    numbers: Option<File>,
}

/// What was seen a moment before the group is stopped, so that it need not be looked at
/// while it stands.
struct Glance {
    /// The number given out last, read before anybody was looked at.
    last: i32,
    /// Numbers up to that one behind which nobody was found: processes in the making
    /// may be. `None` where they are too many to be named.
    nobody: Option<Vec<i32>>,
    strangers: BTreeSet<i32>,
}

/// A moment in the life of the machine: the process number that was given out last, and
/// the time since boot in clock ticks, as `/proc/PID/stat` tells when a process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    last: i32,
    ticks: u64,
}

impl Mark {
    /// Take it before the processes are listed that are to change together.
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let per_second = rustix::param::clock_ticks_per_second();
        let part = u64::try_from(time.tv_nsec).unwrap_or(0).saturating_mul(per_second) / 1_000_000_000;
        let ticks = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(per_second).saturating_add(part);
        Self { last: open_numbers().and_then(|numbers| last_pid(&numbers)).unwrap_or(NO_MARK), ticks }
    }
}

impl Watch {
    pub(crate) fn nobody() -> Self {
        Self::of(None, Mark { last: 0, ticks: 0 })
    }

    pub(crate) fn new(ties: BTreeSet<Tie>, mark: Mark) -> Self {
        Self::of(Some(ties), mark)
    }

    fn of(ties: Option<BTreeSet<Tie>>, mark: Mark) -> Self {
        let (images, known) = (BTreeSet::new(), BTreeSet::new());
        let Mark { last: mark, ticks } = mark;
        Self { state: Mutex::new(State { ties, images, known, mark, ticks, glance: None, numbers: None }) }
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

    /// Processes that belong to the group and are not known, before it is stopped. A child
    /// in the making cannot be seen yet, so this proves nothing.
    pub(crate) fn joined_already(&self, limits: &Limits) -> Result<Vec<i32>, ReadError> {
        let mut state = self.lock();
        state.glance = None;
        let Some(last) = state.last_to_look_at()? else { return Ok(Vec::new()) };
        let numbers = given_out(state.mark, last);
        let looked_at = match &numbers {
            Some(numbers) => state.look(numbers.clone(), limits)?,
            None => state.look(list_pids()?.into_iter(), limits)?,
        };
        state.glance = Some(Glance {
            last,
            nobody: numbers.map(|_| of_kind(&looked_at, Seen::Nobody).collect()),
            strangers: of_kind(&looked_at, Seen::Stranger).collect(),
        });
        Ok(of_kind(&looked_at, Seen::Joined).collect())
    }

    /// The same while the group stands and can make no more. Reads nothing but `/proc`.
    pub(crate) fn joined(&self, limits: &Limits) -> Result<Vec<i32>, ReadError> {
        let mut state = self.lock();
        let Some(last) = state.last_to_look_at()? else { return Ok(Vec::new()) };
        let numbers: Vec<i32> = match state.glance.as_ref().and_then(|glance| glance.left(last)) {
            Some(left) => left,
            None => match given_out(state.mark, last) {
                Some(numbers) => numbers.collect(),
                None => list_pids()?,
            },
        };
        let strange = |pid: &i32| state.glance.as_ref().is_some_and(|glance| glance.strangers.contains(pid));
        let looked_at = state.look(numbers.into_iter().filter(|pid| !strange(pid)), limits)?;
        let joined: Vec<i32> = of_kind(&looked_at, Seen::Joined).collect();
        if joined.is_empty() {
            state.mark = last;
        }
        Ok(joined)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_kind(looked_at: &[(i32, Seen)], kind: Seen) -> impl Iterator<Item = i32> + '_ {
    looked_at.iter().filter(move |(_, seen)| *seen == kind).map(|(pid, _)| *pid)
}

/// The numbers that were given out since, unless they began anew or are too many.
fn given_out(since: i32, last: i32) -> Option<std::ops::RangeInclusive<i32>> {
    (1..=MANY).contains(&last.saturating_sub(since)).then(|| since.saturating_add(1)..=last)
}

impl Glance {
    /// The numbers that may have become somebody since.
    fn left(&self, last: i32) -> Option<Vec<i32>> {
        let nobody = self.nobody.as_ref()?;
        if last == self.last {
            return Some(nobody.clone());
        }
        Some(nobody.iter().copied().chain(given_out(self.last, last)?).collect())
    }
}

impl State {
    /// The number given out last; `None` where nobody is watched for, or nobody came.
    fn last_to_look_at(&mut self) -> Result<Option<i32>, ReadError> {
        if self.ties.is_none() {
            return Ok(None);
        }
        let numbers = match self.numbers.take() {
            Some(numbers) => numbers,
            None => open_numbers()?,
        };
        let last = last_pid(self.numbers.insert(numbers))?;
        Ok((last != self.mark).then_some(last))
    }

    fn look(&self, pids: impl Iterator<Item = i32>, limits: &Limits) -> Result<Vec<(i32, Seen)>, ReadError> {
        let Some(ties) = &self.ties else { return Ok(Vec::new()) };
        pids.map(|pid| Ok((pid, self.kind_of(pid, ties, limits)?))).collect()
    }

    fn kind_of(&self, pid: i32, ties: &BTreeSet<Tie>, limits: &Limits) -> Result<Seen, ReadError> {
        match is_process(pid)? {
            None => return Ok(Seen::Nobody),
            Some(false) => return Ok(Seen::Stranger),
            Some(true) => {}
        }
        match started(pid)? {
            None => return Ok(Seen::Nobody),
            Some(ticks) if ticks < self.ticks => return Ok(Seen::Stranger),
            Some(_) => {}
        }
        match Process::open(pid) {
            // Who may not even be looked at is none that may be changed.
            Err(
                OpenError::NoSuchProcess
                | OpenError::NoPermission
                | OpenError::Read(ReadError::Exited | ReadError::NoPermission { .. }),
            ) => Ok(Seen::Nobody),
            // Neither forks any more, or ever did.
            Err(OpenError::Zombie | OpenError::KernelThread) => Ok(Seen::Stranger),
            Err(OpenError::Read(error)) => Err(error),
            Ok(process) => self.is_tied(&process, ties, limits),
        }
    }

    fn is_tied(&self, process: &Process, ties: &BTreeSet<Tie>, limits: &Limits) -> Result<Seen, ReadError> {
        if self.known.contains(&process.id()) {
            return Ok(Seen::Stranger);
        }
        let maps_image =
            |mapping: &Mapping| mapping.perms.execute && self.images.contains(&(mapping.dev, mapping.inode));
        let own = process.mappings(limits).and_then(|mappings| {
            if mappings.iter().any(maps_image) { process.ties_in(&mappings).map(Some) } else { Ok(None) }
        });
        match own {
            Ok(Some(own)) if !own.is_disjoint(ties) => Ok(Seen::Joined),
            Ok(_) => Ok(Seen::Stranger),
            // Parts that vanish are those of one that ends, or begins another program.
            Err(ReadError::Exited | ReadError::Restless | ReadError::NoPermission { .. }) => Ok(Seen::Nobody),
            Err(error) => Err(error),
        }
    }
}

/// Whether a number is a process's and not only a thread's; `None` where it is nobody's.
fn is_process(pid: i32) -> Result<Option<bool>, ReadError> {
    use rustix::io::Errno;
    let Some(number) = rustix::process::Pid::from_raw(pid) else { return Ok(None) };
    match rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) {
        Ok(_) => Ok(Some(true)),
        // Since Linux 6.9 the latter, before it the former.
        Err(Errno::INVAL | Errno::NOENT) => Ok(Some(false)),
        Err(Errno::SRCH) => Ok(None),
        Err(other) => Err(ReadError::of("pidfd", other)),
    }
}

/// When a process started, in clock ticks since boot; `None` where it is gone.
fn started(pid: i32) -> Result<Option<u64>, ReadError> {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(bytes) => parse_stat(&bytes).map(|stat| Some(stat.start_time)).ok_or(ReadError::Malformed { what: "stat" }),
        Err(error) => match ReadError::of_io("stat", &error) {
            ReadError::Exited => Ok(None),
            error => Err(error),
        },
    }
}

const NUMBERS: &str = "/proc/loadavg";

fn open_numbers() -> Result<File, ReadError> {
    File::open(NUMBERS).map_err(|error| ReadError::of_io(NUMBERS, &error))
}

/// The last word of `/proc/loadavg` (`proc_loadavg(5)`), as it is now.
fn last_pid(numbers: &File) -> Result<i32, ReadError> {
    let mut text = [0; 128];
    let got = numbers.read_at(&mut text, 0).map_err(|error| ReadError::of_io(NUMBERS, &error))?;
    let text = core::str::from_utf8(text.get(..got).unwrap_or_default()).unwrap_or_default();
    let last = text.split_ascii_whitespace().last().and_then(|word| word.parse().ok());
    last.ok_or(ReadError::Malformed { what: NUMBERS })
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
    fn who_was_there_before_the_mark_is_a_stranger_and_who_comes_after_it_is_looked_at() {
        let own = Process::open(std::process::id().cast_signed()).unwrap();
        let per_second = rustix::param::clock_ticks_per_second();
        let now = Mark::now();
        // This test runs for a moment only, and the clock is the one of start times.
        assert!(own.id().start_time <= now.ticks && now.ticks < own.id().start_time + 3600 * per_second, "{now:?}");
        let limits = Limits::default();
        let ties = own.ties(&limits).unwrap();
        let mappings = own.mappings(&limits).unwrap();
        let seen = |mark| {
            let watch = Watch::new(ties.clone(), mark);
            watch.concerns(mappings.iter());
            watch.joined_already(&limits).unwrap()
        };
        let everybody = Mark { last: NO_MARK, ticks: 0 };
        assert!(seen(everybody).contains(&own.pid()));
        assert!(!seen(Mark { ticks: own.id().start_time + 1, ..everybody }).contains(&own.pid()));
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
