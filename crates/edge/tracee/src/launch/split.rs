//! One process becomes two: the one that will be the command, and its helper.

use crate::{Errno, sys};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{PTracer, Pid, set_ptracer};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

/// What the helper says when it holds the process.
const HELD: u8 = 1;

/// Who this process is after the split.
#[derive(Debug)]
pub enum Split {
    /// The one that was asked: it executes the command.
    Command(Gate),
    /// Its helper, whom nobody waits for. `pid` is the other one.
    Helper { pid: i32, gate: HelperGate },
}

/// On the side of the command.
#[derive(Debug)]
pub struct Gate {
    stream: UnixStream,
}

/// On the side of the helper.
#[derive(Debug)]
pub struct HelperGate {
    stream: UnixStream,
}

/// Splits this process. It must have no other thread.
pub fn split() -> Result<Split, Errno> {
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let (ours, theirs) = (UnixStream::from(ours), UnixStream::from(theirs));
    if let Some(middle) = sys::fork()? {
        drop(theirs);
        // A child of the command that it knows nothing of would surprise it when it waits.
        sys::await_end(middle);
        return Ok(Split::Command(Gate { stream: ours }));
    }
    drop(ours);
    match sys::fork() {
        Ok(None) => {}
        Ok(Some(_)) => sys::end_at_once(0),
        // The other side sees a closed gate.
        Err(_) => sys::end_at_once(1),
    }
    // What is typed at the terminal is meant for the command.
    let _is_a_leader_already = rustix::process::setsid();
    Ok(Split::Helper { pid, gate: HelperGate { stream: theirs } })
}

impl Gate {
    /// Waits until the helper holds this process; `false` if it does not.
    pub fn wait(mut self) -> bool {
        let mut number = [0; 4];
        if self.stream.read_exact(&mut number).is_err() {
            return false;
        }
        // Where only ancestors may trace (Yama), the helper is allowed to by name.
        if let Some(helper) = Pid::from_raw(i32::from_le_bytes(number)) {
            let _no_yama_here = set_ptracer(PTracer::ProcessID(helper));
        }
        let mut answer = [0];
        let told = self.stream.write_all(&[HELD]).and_then(|()| self.stream.read_exact(&mut answer));
        told.is_ok() && answer == [HELD]
    }
}

impl HelperGate {
    /// Waits until the other side lets itself be traced, attaches, and opens the gate.
    /// If `attach` fails the gate stays shut and the other side knows.
    pub fn open<T, E>(mut self, attach: impl FnOnce() -> Result<T, E>) -> Option<Result<T, E>> {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let mut ready = [0];
        let told = self.stream.write_all(&own.to_le_bytes()).and_then(|()| self.stream.read_exact(&mut ready));
        told.ok()?;
        let attached = attach();
        if attached.is_ok() {
            self.stream.write_all(&[HELD]).ok()?;
        }
        Some(attached)
    }
}
