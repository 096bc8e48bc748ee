//! A process as an operator knows it: its program, its users, what confines it.

use super::{Process, ProcessId, ReadError, Seccomp};
use crate::limits::Limits;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

/// The namespaces that decide what a path or a number means to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Namespaces {
    pub mount: u64,
    pub pid: u64,
    pub user: u64,
    pub network: u64,
}

/// What an operator wants to know of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub id: ProcessId,
    pub parent: i32,
    pub comm: String,
    /// As `/proc/PID/exe` shows it, less ` (deleted)`.
    pub exe: OsString,
    pub exe_deleted: bool,
    pub cmdline: Vec<String>,
    pub real_uid: u32,
    pub effective_uid: u32,
    /// Real, effective, saved and of the file system (`credentials(7)`).
    pub users: Vec<u32>,
    /// The same four, and the supplementary ones.
    pub groups: Vec<u32>,
    pub threads: usize,
    /// The process that traces it, or 0.
    pub tracer: i32,
    pub seccomp: Seccomp,
    pub namespaces: Namespaces,
}

impl Process {
    pub fn facts(&self, limits: &Limits) -> Result<Facts, ReadError> {
        let status = self.status(None)?;
        let malformed = ReadError::Malformed { what: "status" };
        let users = status.numbers("Uid")?;
        let [real_uid, effective_uid, ..] = *users.as_slice() else { return Err(malformed) };
        let mut groups = status.numbers("Gid")?;
        groups.extend(status.numbers("Groups")?);
        let (exe, exe_deleted) = self.exe()?;
        let cmdline = self.read_entry("cmdline", "cmdline", limits.max_proc_bytes)?;
        Ok(Facts {
            id: self.id,
            parent: self.stat()?.parent,
            comm: self.thread_name(self.id.pid),
            exe,
            exe_deleted,
            cmdline: cmdline
                .split(|&byte| byte == 0)
                .filter(|word| !word.is_empty())
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
            real_uid,
            effective_uid,
            users,
            groups,
            threads: self.threads(limits)?.len(),
            tracer: status.tracer(),
            seccomp: status.seccomp()?,
            namespaces: Namespaces {
                mount: self.namespace("ns/mnt")?,
                pid: self.namespace("ns/pid")?,
                user: self.namespace("ns/user")?,
                network: self.namespace("ns/net")?,
            },
        })
    }

    fn exe(&self) -> Result<(OsString, bool), ReadError> {
        let target = rustix::fs::readlinkat(&self.directory, "exe", Vec::new())
            .map_err(|errno| ReadError::of("exe", errno))?
            .into_bytes();
        Ok(match target.strip_suffix(b" (deleted)") {
            Some(stem) => (OsString::from_vec(stem.to_vec()), true),
            None => (OsString::from_vec(target), false),
        })
    }

    fn namespace(&self, name: &str) -> Result<u64, ReadError> {
        rustix::fs::statat(&self.directory, name, rustix::fs::AtFlags::empty())
            .map(|stat| stat.st_ino)
            .map_err(|errno| ReadError::of("ns", errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_tells_its_facts() {
        let own = i32::try_from(std::process::id()).expect("fits");
        let process = Process::open(own).expect("it runs");
        let facts = process.facts(&Limits::default()).expect("readable");
        assert_eq!(facts.id.pid, own);
        assert!(facts.threads >= 1 && !facts.cmdline.is_empty() && !facts.exe.is_empty());
        assert!(process.still_there().is_ok());
    }
}
