//! What can be seen of a process from outside, before and after.

use anyhow::{Context as _, Result, bail};
use procfs::process::{FDTarget, MMPermissions, MMapPath, MemoryMap, Process};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Which process it is: the id alone could have been used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub pid: u32,
    /// Clock ticks after boot, `proc_pid_stat(5)` field 22.
    pub start_ticks: u64,
}

pub fn identity(pid: u32) -> Result<Identity> {
    let stat = process(pid)?.stat().with_context(|| format!("cannot read /proc/{pid}/stat"))?;
    Ok(Identity { pid, start_ticks: stat.starttime })
}

fn process(pid: u32) -> Result<Process> {
    let raw = i32::try_from(pid).context("a process id that is no process id")?;
    Process::new(raw).with_context(|| format!("no process {pid}"))
}

fn maps(pid: u32) -> Result<Vec<MemoryMap>> {
    Ok(process(pid)?.smaps().with_context(|| format!("cannot read /proc/{pid}/smaps"))?.into_iter().collect())
}

/// The bytes of every executable mapping of a process, by address. What is
/// writable as well is a translator's, and changes all the time.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    mappings: BTreeMap<u64, Mapping>,
}

#[derive(Clone, PartialEq, Eq)]
struct Mapping {
    name: String,
    bytes: Vec<u8>,
}

impl Text {
    /// Reads it through `/proc/PID/mem`: what the process would execute, not what the file says.
    pub fn of(pid: u32) -> Result<Self> {
        let memory = File::open(format!("/proc/{pid}/mem")).with_context(|| format!("cannot open /proc/{pid}/mem"))?;
        let mut mappings = BTreeMap::new();
        for map in maps(pid)? {
            // These are the kernel's and cannot be read this way.
            let kernels = map.pathname == MMapPath::Vsyscall || map.pathname == MMapPath::Other("uprobes".to_owned());
            let translated = map.perms.contains(MMPermissions::WRITE);
            if kernels || translated || !map.perms.contains(MMPermissions::EXECUTE) {
                continue;
            }
            let (start, end) = map.address;
            let len = usize::try_from(end.saturating_sub(start)).context("a mapping larger than memory")?;
            let mut bytes = vec![0; len];
            memory.read_exact_at(&mut bytes, start).with_context(|| format!("cannot read {start:#x} of {pid}"))?;
            mappings.insert(start, Mapping { name: name(&map), bytes });
        }
        Ok(Self { mappings })
    }

    pub fn len_bytes(&self) -> usize {
        self.mappings.values().map(|mapping| mapping.bytes.len()).sum()
    }

    /// SHA-256 over addresses and bytes, for a reader to compare.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (start, mapping) in &self.mappings {
            hash.update(start.to_le_bytes());
            hash.update(&mapping.bytes);
        }
        let mut hex = String::new();
        for byte in hash.finalize() {
            let _never_fails_on_a_string = write!(hex, "{byte:02x}");
        }
        hex
    }

    /// Every way in which `self` is not what `before` was; empty when byte-identical.
    pub fn differences_from(&self, before: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (start, old) in &before.mappings {
            match self.mappings.get(start) {
                None => differences.push(format!("{} at {start:#x} is gone", old.name)),
                Some(new) if new.bytes.len() != old.bytes.len() => {
                    differences.push(format!("{} at {start:#x} changed its size", old.name));
                }
                Some(new) => {
                    let differing = old.bytes.iter().zip(&new.bytes).enumerate().filter(|(_, (a, b))| a != b);
                    let at: Vec<u64> = differing.map(|(offset, _)| start + offset as u64).collect();
                    if let (Some(first), Some(last)) = (at.first(), at.last()) {
                        let count = at.len();
                        let name = &old.name;
                        differences.push(format!("{name}: {count} bytes differ between {first:#x} and {last:#x}"));
                    }
                }
            }
        }
        for (start, new) in &self.mappings {
            if !before.mappings.contains_key(start) {
                differences.push(format!("{} at {start:#x} was not executable before", new.name));
            }
        }
        differences
    }

    /// Nothing of `before` is at its place: the process executed another program, or the same anew.
    pub fn is_of_another_program(&self, before: &Self) -> bool {
        !before.mappings.keys().any(|start| self.mappings.contains_key(start))
    }

    /// The same as if its mappings lay where those of `like` do, in their order: for a
    /// process that has executed the same program anew.
    #[must_use]
    pub fn moved_like(&self, like: &Self) -> Self {
        let starts = like.mappings.keys();
        Self { mappings: starts.copied().zip(self.mappings.values().cloned()).collect() }
    }

    /// Only the differences inside mappings that were there before.
    pub fn changes_to(&self, before: &Self) -> Vec<String> {
        let kept = self.mappings.iter().filter(|(start, _)| before.mappings.contains_key(start));
        let kept = Self { mappings: kept.map(|(start, mapping)| (*start, mapping.clone())).collect() };
        kept.differences_from(before)
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Text({} bytes, sha256 {})", self.len_bytes(), self.digest())
    }
}

fn name(map: &MemoryMap) -> String {
    match &map.pathname {
        MMapPath::Path(path) => path.display().to_string(),
        MMapPath::Anonymous => "anonymous memory".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Mappings that are writable and executable at once: Salve may never make one.
pub fn writable_and_executable(pid: u32) -> Result<Vec<String>> {
    let both = MMPermissions::WRITE | MMPermissions::EXECUTE;
    Ok(maps(pid)?.iter().filter(|map| map.perms.contains(both)).map(name).collect())
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Copies of its own of pages that are not writable: code that was changed.
    /// Traffic does not change it, so before and after can be compared under load.
    pub copied_bytes: u64,
    /// Resident pages of memory files that are mapped and not writable. However
    /// many processes map one, its pages are in memory once.
    pub shareable_bytes: u64,
    /// All private pages, heap and stacks included.
    pub private_bytes: u64,
}

pub fn memory(pid: u32) -> Result<Memory> {
    let mut memory = Memory { copied_bytes: 0, shareable_bytes: 0, private_bytes: 0 };
    for map in maps(pid)? {
        let field = |key: &str| map.extension.map.get(key).copied().unwrap_or(0);
        memory.private_bytes += field("Private_Dirty") + field("Private_Clean");
        if map.perms.contains(MMPermissions::WRITE) {
            continue;
        }
        // A page of a memory file counts as private while one process alone
        // maps it; only what is anonymous is this process's for good.
        memory.copied_bytes += field("Anonymous");
        if name(&map).starts_with("/memfd:") {
            memory.shareable_bytes += field("Rss").saturating_sub(field("Anonymous"));
        }
    }
    Ok(memory)
}

/// The sockets that a process holds, by inode; an inode names one socket for as long as it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sockets {
    pub listening: BTreeSet<u64>,
    pub connected: BTreeSet<u64>,
}

pub fn sockets(pid: u32) -> Result<Sockets> {
    use procfs::net::TcpState;
    let process = process(pid)?;
    let mut held = BTreeSet::new();
    for fd in process.fd().with_context(|| format!("cannot read /proc/{pid}/fd"))? {
        // A descriptor may close while it is being read.
        if let Ok(fd) = fd
            && let FDTarget::Socket(inode) = fd.target
        {
            held.insert(inode);
        }
    }
    let mut table = process.tcp().with_context(|| format!("cannot read /proc/{pid}/net/tcp"))?;
    table.extend(process.tcp6().unwrap_or_default());
    let of = |state: TcpState| -> BTreeSet<u64> {
        table.iter().filter(|e| e.state == state && held.contains(&e.inode)).map(|e| e.inode).collect()
    };
    let sockets = Sockets { listening: of(TcpState::Listen), connected: of(TcpState::Established) };
    if held.is_empty() {
        bail!("process {pid} holds no socket");
    }
    Ok(sockets)
}

/// How many threads a process has.
pub fn threads(pid: u32) -> Result<usize> {
    Ok(process(pid)?.tasks().with_context(|| format!("cannot read /proc/{pid}/task"))?.count())
}

/// The process that traces this one, 0 for none (`proc_pid_status(5)`, `TracerPid`).
pub fn tracer(pid: u32) -> Result<i32> {
    Ok(process(pid)?.status().with_context(|| format!("cannot read /proc/{pid}/status"))?.tracerpid)
}

/// How many children a process has.
pub fn children(pid: u32) -> usize {
    child_pids(pid).map_or(0, |children| children.len())
}

/// Which those are, in the kernel's order.
pub fn children_of(pid: u32) -> Result<Vec<Identity>> {
    child_pids(pid)?.into_iter().map(identity).collect()
}

fn child_pids(pid: u32) -> Result<Vec<u32>> {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    children.split_whitespace().map(|child| child.parse().context("no process id")).collect()
}

/// The child of a process that has exactly one.
pub fn only_child(pid: u32) -> Option<u32> {
    match child_pids(pid).ok()?.as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}
