//! Processes, as planning needs to know them.

use crate::event::ProcessRef;
use crate::machine::leave_list::{self, Lists};
use crate::plan::{Leave, Listed, Privilege, Standing, leave};
use crate::problem::{Problem, chain};
use salve_elf::ContentHash;
use salve_tracee::{
    Facts, Limits, MappedImage, Mark, Namespaces, OpenError, Patcher, Process, ProcessId, Protected, ReadError, Tie,
    list_pids, protected,
};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// One process that was looked at. It is not held open: with its id it is
/// found again, or it is gone.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) id: ProcessId,
    pub(crate) name: ProcessRef,
    pub(crate) leave: Option<Leave>,
    pub(crate) privilege: Privilege,
    pub(crate) images: Vec<MappedImage>,
    /// Seconds since the epoch at which it started; `None` if the clock does not tell.
    pub(crate) started_at: Option<i64>,
    /// What it has in common with others.
    pub(crate) ties: BTreeSet<Tie>,
    /// Nobody named it, but it is tied to one that was.
    pub(crate) relative: bool,
}

impl Seen {
    pub(crate) fn image(&self, sha256: ContentHash) -> Option<&MappedImage> {
        self.images.iter().find(|image| image.sha256 == sha256)
    }

    /// Opens the same process again; `None` when it is gone.
    pub(crate) fn reopen(&self) -> Result<Option<Process>, Problem> {
        reopen(self.id)
    }
}

/// Opens the process that `id` names, and no other with the same number.
pub(crate) fn reopen(id: ProcessId) -> Result<Option<Process>, Problem> {
    match Process::open(id.pid) {
        Ok(process) if process.id() == id => Ok(Some(process)),
        Ok(_)
        | Err(
            OpenError::NoSuchProcess | OpenError::Zombie | OpenError::KernelThread | OpenError::Read(ReadError::Exited),
        ) => Ok(None),
        Err(error @ (OpenError::NoPermission | OpenError::Read(_))) => Err(cannot_look(id.pid, error)),
    }
}

/// The code of a process that can neither be looked at nor changed, because of how the kernel shows it.
pub(crate) const FIRST_THREAD_ENDED: &str = "first-thread-ended";

/// A process that a person named by its number.
pub(crate) fn open_named(pid: u32) -> Result<Process, Problem> {
    let number = i32::try_from(pid).unwrap_or(i32::MAX);
    Process::open(number).map_err(|error| match error {
        OpenError::NoSuchProcess => Problem::failed("no-such-process", format!("there is no process {pid}")),
        OpenError::Zombie | OpenError::Read(ReadError::Exited) => {
            Problem::failed("no-such-process", format!("there is no process {pid}")).because(error)
        }
        OpenError::KernelThread => {
            Problem::refused("kernel-thread", format!("process {pid} is a thread of the kernel"))
        }
        OpenError::Read(ReadError::FirstThreadEnded) => {
            let hint = "it is old until it is started anew; `salve` changes no such process";
            let what = format!("process {pid} can be neither looked at nor changed");
            Problem::refused(FIRST_THREAD_ENDED, what).because(error).hint(hint)
        }
        other => cannot_look(number, other),
    })
}

pub(crate) fn cannot_look(pid: i32, error: impl Into<OpenError>) -> Problem {
    let error = error.into();
    let barred = matches!(error, OpenError::NoPermission | OpenError::Read(ReadError::NoPermission { .. }));
    let what = format!("cannot look at process {pid}");
    if matches!(error, OpenError::Read(ReadError::FirstThreadEnded)) {
        return Problem::refused(FIRST_THREAD_ENDED, what).because(error);
    }
    if !barred {
        return Problem::failed("unreadable", what).because(error);
    }
    Problem::failed("no-permission", what).because(error).hint(more_permission())
}

/// What somebody lacks who may not look. Who is root already is not sent to become root.
pub(crate) fn more_permission() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "root is barred as well: by a user namespace, a security module, or a capability that was taken away"
    } else {
        "run it as root; with CAP_CHECKPOINT_RESTORE a user can look at processes of his own"
    }
}

/// Nobody could be looked at. Whoever then said "nothing found" would say that all is well.
pub(crate) fn blind(why: &str) -> Problem {
    Problem::failed("no-permission", "no process could be looked at").because(why).hint(more_permission())
}

/// Who runs on this machine. Everything that one run asks more than once is kept.
pub(crate) struct Processes {
    pub(crate) patcher: Patcher,
    limits: Limits,
    own: Option<Namespaces>,
    boot_seconds: Option<i64>,
    /// Taken before anybody is looked at.
    pub(crate) mark: Mark,
    lists: Lists,
}

/// Something that was there and could not be looked at.
#[derive(Debug)]
pub(crate) struct Unseen {
    pub(crate) pid: i32,
    pub(crate) name: Option<ProcessRef>,
    /// It belongs to somebody else, which is as it should be for an ordinary user.
    pub(crate) barred: bool,
    /// Nobody ever can: a restart is all that helps.
    pub(crate) outlived: bool,
    pub(crate) why: String,
}

impl Unseen {
    fn new(pid: i32, name: Option<ProcessRef>, error: &ReadError) -> Self {
        let outlived = matches!(error, ReadError::FirstThreadEnded);
        Self { pid, name, barred: is_barred(error), outlived, why: chain(error) }
    }
}

fn is_barred(error: &ReadError) -> bool {
    matches!(error, ReadError::NoPermission { .. })
}

/// What the kernel tells of a process whatever has become of it: the name of its first thread.
fn by_number(pid: i32) -> Option<ProcessRef> {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let pid = u32::try_from(pid).ok()?;
    Some(ProcessRef { pid, start_ticks: 0, program: comm.trim_end().to_owned() })
}

/// One of all processes; `None` for what is none any more, or is somebody else's.
pub(crate) fn open_any(pid: i32) -> Result<Option<Process>, ReadError> {
    match Process::open(pid) {
        Ok(process) => Ok(Some(process)),
        Err(OpenError::NoSuchProcess | OpenError::Zombie | OpenError::KernelThread | OpenError::NoPermission) => {
            Ok(None)
        }
        Err(OpenError::Read(error)) => those_there(Err(error)),
    }
}

/// What was read of one of all processes, if it is there and not somebody else's.
pub(crate) fn those_there<T>(read: Result<T, ReadError>) -> Result<Option<T>, ReadError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(ReadError::Exited | ReadError::NoPermission { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn cannot_list(error: ReadError) -> Problem {
    Problem::failed("no-proc", "cannot list the processes").because(error).hint("is /proc mounted?")
}

impl Processes {
    pub(crate) fn new() -> Self {
        Self::within(Limits::default())
    }

    /// The same where calls of their threads may be cut short, if a person says so.
    pub(crate) fn that_may_be_cut(may_cut_transfers: bool) -> Self {
        Self::within(Limits { may_cut_transfers, ..Limits::default() })
    }

    fn within(limits: Limits) -> Self {
        let own = i32::try_from(std::process::id())
            .ok()
            .and_then(|pid| Process::open(pid).ok())
            .and_then(|process| process.facts(&limits).ok())
            .map(|facts| facts.namespaces);
        Self {
            patcher: Patcher::new(limits),
            limits,
            own,
            boot_seconds: boot_seconds(),
            mark: Mark::now(),
            lists: leave_list::of_this_host(),
        }
    }

    /// Every process, or those named. One that exits meanwhile is not there;
    /// one that was named has to be. That nobody could be looked at is a problem.
    pub(crate) fn survey(&self, named: &[u32]) -> Result<(Vec<Seen>, Vec<Unseen>), Problem> {
        let mut seen = Vec::new();
        let mut unseen = Vec::new();
        if named.is_empty() {
            for pid in list_pids().map_err(cannot_list)? {
                self.look_at_one(pid, &mut seen, &mut unseen);
            }
            return match unseen.first() {
                Some(first) if seen.is_empty() => Err(blind(&first.why)),
                _somebody_was => Ok((seen, unseen)),
            };
        }
        let mut named = named.to_vec();
        named.sort_unstable();
        named.dedup();
        for pid in named {
            let process = open_named(pid)?;
            seen.push(self.look(&process).map_err(|error| cannot_look(process.pid(), error))?);
        }
        let relatives = self.relatives(&seen)?;
        seen.extend(relatives);
        Ok((seen, unseen))
    }

    fn look_at_one(&self, pid: i32, seen: &mut Vec<Seen>, unseen: &mut Vec<Unseen>) {
        let process = match open_any(pid) {
            Ok(None) => return,
            Ok(Some(process)) => process,
            Err(error) => return unseen.push(Unseen::new(pid, by_number(pid), &error)),
        };
        match self.look(&process) {
            Ok(process) => seen.push(process),
            Err(ReadError::Exited) => {}
            Err(error) => {
                let name = self.facts(&process).ok().map(|facts| name(&facts));
                unseen.push(Unseen::new(pid, name, &error));
            }
        }
    }

    /// Those who are tied to these and are none of them: what one of them gets, all get.
    fn relatives(&self, seen: &[Seen]) -> Result<Vec<Seen>, Problem> {
        let mut relatives = Vec::new();
        for id in self.tied_to(seen.iter().map(|process| (process.id, &process.ties)))? {
            let Some(process) = reopen(id)? else { continue };
            let seen = those_there(self.look(&process)).map_err(|error| cannot_look(id.pid, error))?;
            relatives.extend(seen.map(|seen| Seen { relative: true, ..seen }));
        }
        Ok(relatives)
    }

    /// Who is tied to these, directly or over others. What belongs to somebody else
    /// cannot be looked at, and could not be changed.
    pub(crate) fn tied_to<'s>(
        &self,
        these: impl Iterator<Item = (ProcessId, &'s BTreeSet<Tie>)>,
    ) -> Result<Vec<ProcessId>, Problem> {
        let (mut known, mut ties) = (BTreeSet::new(), BTreeSet::new());
        for (id, own) in these {
            known.insert(id);
            ties.extend(own.iter().copied());
        }
        let mut others: Vec<(ProcessId, BTreeSet<Tie>)> = Vec::new();
        for pid in list_pids().map_err(cannot_list)? {
            let cannot = |error| cannot_look(pid, error);
            let process = match open_any(pid) {
                Ok(Some(process)) => process,
                // What that one has is not shown, so nobody can tell whether it is tied to anybody.
                Ok(None) | Err(ReadError::FirstThreadEnded) => continue,
                Err(error) => return Err(cannot(error)),
            };
            if known.contains(&process.id()) {
                continue;
            }
            let own = those_there(process.ties(&self.limits)).map_err(cannot)?;
            others.extend(own.map(|own| (process.id(), own)));
        }
        let mut found = Vec::new();
        loop {
            let (tied, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(|(_, own)| !own.is_disjoint(&ties));
            if tied.is_empty() {
                return Ok(found);
            }
            for (id, own) in tied {
                ties.extend(own);
                found.push(id);
            }
            others = rest;
        }
    }

    pub(crate) fn ties(&self, process: &Process) -> Result<BTreeSet<Tie>, ReadError> {
        process.ties(&self.limits)
    }

    /// Processes that were not there when `known` was made: children that were
    /// forked meanwhile, and programs that were started; and those of which that
    /// cannot be said.
    pub(crate) fn newcomers(&self, known: &BTreeSet<ProcessId>) -> Result<(Vec<Seen>, Vec<Unseen>), Problem> {
        let (mut seen, mut unseen) = (Vec::new(), Vec::new());
        let numbers: BTreeSet<i32> = known.iter().map(|id| id.pid).collect();
        for pid in list_pids().map_err(cannot_list)? {
            let is_known = numbers.contains(&pid) && Process::open(pid).is_ok_and(|one| known.contains(&one.id()));
            if !is_known {
                self.look_at_one(pid, &mut seen, &mut unseen);
            }
        }
        unseen.retain(|one| !one.barred);
        Ok((seen, unseen))
    }

    pub(crate) fn facts(&self, process: &Process) -> Result<Facts, ReadError> {
        process.facts(&self.limits)
    }

    /// Everything about one process.
    pub(crate) fn look(&self, process: &Process) -> Result<Seen, ReadError> {
        let facts = self.facts(process)?;
        let images = self.patcher.images(process)?;
        let leave = self.leave(&facts, &images);
        Ok(Seen {
            id: facts.id,
            leave,
            privilege: privilege(&facts)?,
            images,
            started_at: self.started_at(facts.id),
            ties: process.ties(&self.limits)?,
            relative: false,
            name: name(&facts),
        })
    }

    /// Why a process is left alone, if it is.
    pub(crate) fn leave(&self, facts: &Facts, images: &[MappedImage]) -> Option<Leave> {
        leave(&self.standing(facts, images))
    }

    /// Why nobody is touched: a list that cannot be understood.
    pub(crate) fn list_problem(&self) -> Option<&str> {
        self.lists.as_ref().err().map(String::as_str)
    }

    fn listed(&self, facts: &Facts) -> Listed {
        let Ok(lists) = &self.lists else { return Listed::Unknown };
        let program = facts.exe.to_string_lossy();
        leave_list::named(lists, &program, &facts.users, &facts.groups).map_or(Listed::No, Listed::Yes)
    }

    fn standing(&self, facts: &Facts, images: &[MappedImage]) -> Standing {
        let own_line = matches!(protected(facts.id.pid), Some(Protected::Own | Protected::Ancestor));
        let program = PathBuf::from(&facts.exe);
        Standing {
            pid: u32::try_from(facts.id.pid).unwrap_or(u32::MAX),
            own_line,
            storage_mark: facts.cmdline.first().is_some_and(|word| word.starts_with('@')),
            program: program.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
            elsewhere: self.elsewhere(facts, images),
            listed: self.listed(facts),
        }
    }

    /// In what way paths and numbers mean something else to the process.
    fn elsewhere(&self, facts: &Facts, images: &[MappedImage]) -> Option<&'static str> {
        let Some(own) = self.own else { return Some("namespaces that cannot be compared with") };
        let theirs = facts.namespaces;
        if theirs.pid != own.pid {
            Some("a process namespace")
        } else if theirs.mount != own.mount {
            Some("a mount namespace")
        } else if theirs.user != own.user {
            Some("a user namespace")
        } else if !same_root(facts.id.pid)
            && runs_code_beneath(&own_root(facts.id.pid), images.iter().map(|image| Path::new(&image.path)))
        {
            Some("a root directory with code")
        } else {
            None
        }
    }

    fn started_at(&self, id: ProcessId) -> Option<i64> {
        let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
        let since_boot = i64::try_from(id.start_time / ticks_per_second).ok()?;
        self.boot_seconds?.checked_add(since_boot)
    }
}

pub(crate) fn name(facts: &Facts) -> ProcessRef {
    ProcessRef {
        pid: u32::try_from(facts.id.pid).unwrap_or(u32::MAX),
        start_ticks: facts.id.start_time,
        program: facts.exe.to_string_lossy().into_owned(),
    }
}

fn same_root(pid: i32) -> bool {
    let (Ok(theirs), Ok(ours)) = (std::fs::metadata(format!("/proc/{pid}/root")), std::fs::metadata("/")) else {
        return false;
    };
    (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino())
}

/// The root directory of a process, as a path of this one's; `/` if it cannot be told.
fn own_root(pid: i32) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/root")).unwrap_or_else(|_| PathBuf::from("/"))
}

/// Whether some of the code comes from beneath `root`. A service that shut itself into
/// an empty directory after its start still runs the machine's own files.
fn runs_code_beneath<'p>(root: &Path, mut images: impl Iterator<Item = &'p Path>) -> bool {
    images.any(|image| image.starts_with(root))
}

/// What the process may do (`proc_pid_status(5)`: `Uid`, `CapPrm`, `CapAmb`).
/// What cannot be read counts as privileged.
fn privilege(facts: &Facts) -> Result<Privilege, ReadError> {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", facts.id.pid)) else {
        return Err(ReadError::Exited);
    };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let uids: Option<Vec<u32>> =
        field("Uid:").and_then(|line| line.split_ascii_whitespace().map(|word| word.parse().ok()).collect());
    let none = |name| field(name).and_then(|hex| u64::from_str_radix(hex, 16).ok()).is_some_and(|set| set == 0);
    Ok(Privilege {
        uids: uids.filter(|uids| uids.len() == 4).unwrap_or_else(|| vec![0]),
        capable: !(none("CapPrm:") && none("CapAmb:")),
    })
}

/// `btime` of `/proc/stat`: when the machine started, in seconds since the epoch.
fn boot_seconds() -> Option<i64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_somewhere_else_if_code_comes_from_it() {
        let beneath = |root: &str, images: &[&str]| runs_code_beneath(Path::new(root), images.iter().map(Path::new));
        assert!(!beneath("/var/lib/haproxy", &["/usr/sbin/haproxy", "/usr/lib/libssl.so.3"]));
        assert!(beneath("/var/lib/haproxy", &["/usr/sbin/haproxy", "/var/lib/haproxy/lib/plugin.so"]));
        assert!(!beneath("/var/lib/haproxy", &["/var/lib/haproxy-old/sbin/haproxy"]), "another directory");
        assert!(beneath("/", &["/usr/sbin/haproxy"]), "unknown");
    }
}
