//! `/proc/PID/status`: lines for people, of a process or of one of its threads.

use super::{Process, ReadError};

/// How a process is bound by `seccomp(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seccomp {
    Off,
    Strict,
    Filter,
}

/// `proc_pid_status(5)`: lines of `Name:\tvalue`.
pub(crate) struct Status(String);

impl Process {
    /// The lines of `status` of the process or of one of its threads.
    pub(crate) fn status(&self, tid: Option<i32>) -> Result<Status, ReadError> {
        let name = tid.map_or_else(|| "status".to_owned(), |tid| format!("task/{tid}/status"));
        Ok(Status(String::from_utf8_lossy(&self.read_entry(&name, "status", 1 << 16)?).into_owned()))
    }
}

impl Status {
    /// What `/proc/PID/status` said.
    pub(crate) fn of(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    }

    pub(super) fn numbers(&self, name: &str) -> Result<Vec<u32>, ReadError> {
        let words = self.field(name).unwrap_or_default().split_ascii_whitespace();
        words.map(|word| word.parse().map_err(|_| ReadError::Malformed { what: "status" })).collect()
    }

    /// A size that is given in kB, in bytes.
    pub(crate) fn size_bytes(&self, name: &str) -> Option<u64> {
        self.field(name)?.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    }

    pub(crate) fn tracer(&self) -> i32 {
        self.field("TracerPid").and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn seccomp(&self) -> Result<Seccomp, ReadError> {
        match self.field("Seccomp") {
            // A kernel without seccomp shows no such line.
            None | Some("0") => Ok(Seccomp::Off),
            Some("1") => Ok(Seccomp::Strict),
            Some("2") => Ok(Seccomp::Filter),
            Some(_) => Err(ReadError::Malformed { what: "Seccomp line of status" }),
        }
    }
}
