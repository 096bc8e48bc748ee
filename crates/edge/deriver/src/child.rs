//! The process itself: started with nothing, killed on every path.

use crate::Priority;
use crate::error::DeriverError;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, getpriority_process, setpriority_process};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

/// A running `salve-derive`, killed and reaped when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

/// Our end of its socket, and what it says on standard error.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) socket: OwnedFd,
    pub(crate) errors: Option<ChildStderr>,
}

impl Process {
    /// Descriptors 0 to 2 and nothing else (what we have open is close-on-exec,
    /// and the child closes what others left open), no environment, the root
    /// directory as its own.
    pub(crate) fn start(
        program: &Path,
        arguments: &[OsString],
        priority: Priority,
    ) -> Result<(Self, Ends), DeriverError> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|source| DeriverError::Channel { source })?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| DeriverError::Start { program: program.to_owned(), source })?;
        // Before the request is sent it has one thread; those that it starts inherit this.
        if priority == Priority::Background {
            yield_to_others(&child);
        }
        let errors = child.stderr.take();
        Ok((Self { child }, Ends { socket: ours, errors }))
    }

    /// Ends it, whatever it is doing, and says how it ended. One that had ended
    /// by itself keeps its own status.
    pub(crate) fn end(&mut self) -> std::io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.child.kill()?;
        self.child.wait()
    }

    /// The status of one that has ended, else `None`.
    pub(crate) fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

/// Steps behind our own priority (`setpriority(2)`): the kernel then gives it a
/// tenth of what it gives a service that wants the same processor.
const STEPS_BEHIND: i32 = 10;
const LOWEST: i32 = 19;

/// Whoever may not be moved works on as it is: slower services are no reason not to heal.
fn yield_to_others(child: &Child) {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
    let ours = getpriority_process(None).unwrap_or(0);
    let _lower_is_always_allowed = setpriority_process(Some(pid), ours.saturating_add(STEPS_BEHIND).min(LOWEST));
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing can be told from here; a process that is gone is what is wanted.
        let _ = self.end();
    }
}
