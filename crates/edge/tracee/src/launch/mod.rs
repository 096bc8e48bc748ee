//! Starting a program and changing it before its first instruction of `main`.
//!
//! The process that was asked to start a command has to *be* that command in the
//! end: supervisors know it by its number, wait for it and signal it. So it makes
//! a helper (its grandchild, whom nobody waits for) and executes the command
//! itself, while the helper waits for it at the program's entry ([`split()`],
//! [`Gate`], [`Launcher`]).
//!
//! # How the program waits at its entry
//! At `execve` the kernel has mapped the program and the dynamic linker, and
//! nothing has run. The helper writes a few instructions into the unused tail of
//! a text page (the waiting room, `room`), and their address in the place of
//! `AT_ENTRY` in the auxiliary vector, where the dynamic linker reads to whom it
//! gives control once all libraries are mapped and relocated, and their
//! constructors have run. Then it lets go. The waiting room sleeps in short naps
//! and goes on to the real entry by itself after some seconds: so nothing happens
//! to a program whose helper dies, but that it starts late and unchanged. When
//! the helper sees the process there (`/proc/PID/syscall`), it is changed like any
//! other; at last it is stopped once more, everything is put back as it was, and
//! it goes on at its entry.
//!
//! Rejected: a breakpoint at the entry, which kills the target when the helper
//! dies, be it an instruction or a debug register; looking for the dynamic
//! linker's last system call, since the program's constructors need none.
//!
//! # Children
//! If children are to be followed the helper stays: it traces every process of
//! the tree for `fork` and `execve` only, and each executed program goes through
//! the same. A tracer that dies lets all of them go on.

mod room;
mod split;

pub use split::{Gate, HelperGate, Split, split};

use crate::limits::Limits;
use crate::memory::Memory;
use crate::process::{Process, ReadError};
use crate::sys::{self, Followed};
use crate::wait::{self, Stopped};
use crate::{Errno, Patcher};
use room::Room;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often the helper looks whether a program has arrived.
const GLANCE: Duration = Duration::from_micros(100);
/// A dynamic linker that takes longer than this is not waited for; the room lets
/// its program go by itself soon after.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a program could not be waited for. It runs on, unchanged.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("cannot trace it: {0}")]
    Trace(Errno),
    #[error("no dynamic linker starts it: it is a static program")]
    Static,
    #[error("no executable mapping has room to wait in")]
    NoRoom,
    #[error("its start-up stack is not what the kernel documents")]
    Stack,
    #[error("it did not arrive at its entry in time")]
    Late,
    #[error("its memory cannot be written: {0}")]
    Memory(Errno),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A process that waits at the entry of its program, and is traced by nobody.
#[derive(Debug)]
pub struct AtEntry {
    process: Process,
    room: Room,
}

impl AtEntry {
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// What has come of one started program.
#[derive(Debug)]
pub enum Arrival {
    /// It waits to be changed and released.
    Waiting(AtEntry),
    /// It could not be made to wait; it is to be let go unchanged, or ended.
    Missed { missed: Missed, why: LaunchError },
}

/// A process that could not be made to wait at its entry.
#[derive(Debug)]
pub struct Missed {
    process: Process,
    /// Still where `execve` left it; else it runs.
    held: bool,
}

impl Missed {
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// How a program goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// At its entry.
    Start,
    /// It ends here with this exit status.
    End { status: u8 },
}

/// Follows started programs. All its calls have to come from one thread, since a
/// tracee belongs to the thread that attached.
#[derive(Debug)]
pub struct Launcher {
    children: bool,
    arriving: VecDeque<(Process, Room, Instant)>,
}

impl Launcher {
    /// Attaches to the process that is about to execute the command.
    pub fn attach(pid: i32, children: bool) -> Result<Self, LaunchError> {
        sys::seize_to_follow(pid, children).map_err(LaunchError::Trace)?;
        Ok(Self { children, arriving: VecDeque::new() })
    }

    /// Waits for the next program to arrive at its entry; `None` when no process is left
    /// to be followed.
    pub fn next(&mut self, patcher: &Patcher) -> Option<Arrival> {
        loop {
            if let Some(arrival) = self.arrived() {
                return Some(arrival);
            }
            let idle = self.arriving.is_empty();
            match sys::followed(idle) {
                Ok(Followed::Executed(tid)) => {
                    if let Some((process, why)) = self.receive(tid, patcher) {
                        return Some(Arrival::Missed { missed: Missed { process, held: true }, why });
                    }
                }
                // One that is gone meanwhile shows itself as exited.
                Ok(Followed::GroupStopped(tid)) => drop(sys::listen(tid)),
                Ok(Followed::Signal(tid, signal)) => drop(sys::resume(tid, signal)),
                Ok(Followed::Other(tid)) => drop(sys::resume(tid, 0)),
                Ok(Followed::Exited(_)) => {}
                Ok(Followed::Nobody) | Err(_) if idle => return None,
                Ok(Followed::Nothing | Followed::Nobody) | Err(_) => std::thread::sleep(GLANCE),
            }
        }
    }

    /// One that was executed is sent on its way to the waiting room, untraced. What
    /// could not be is held still; one that is gone is nobody's business.
    fn receive(&mut self, tid: i32, patcher: &Patcher) -> Option<(Process, LaunchError)> {
        let Ok(process) = Process::open(tid) else {
            let _gone = sys::resume(tid, 0);
            return None;
        };
        match Room::build(tid, &process, patcher) {
            Ok(room) => {
                let _or_it_shows_as_gone = sys::detach(tid);
                self.arriving.push_back((process, room, Instant::now()));
                None
            }
            Err(LaunchError::Read(ReadError::Exited)) => None,
            Err(why) => Some((process, why)),
        }
    }

    fn arrived(&mut self) -> Option<Arrival> {
        for _ in 0..self.arriving.len() {
            let (process, room, since) = self.arriving.pop_front()?;
            if process.still_there().is_err() {
                continue;
            }
            if room.is_occupied(&process) {
                return Some(Arrival::Waiting(AtEntry { process, room }));
            }
            if since.elapsed() > PATIENCE {
                return Some(Arrival::Missed { missed: Missed { process, held: false }, why: LaunchError::Late });
            }
            self.arriving.push_back((process, room, since));
        }
        None
    }

    /// Puts everything back and sends the program to its entry, or to its end. From here
    /// on its children are followed, if they are to be.
    pub fn release(&self, at: AtEntry, how: Release, limits: &Limits) -> Result<(), LaunchError> {
        let AtEntry { process, room } = at;
        let pid = process.pid();
        sys::seize_to_follow(pid, self.children).map_err(LaunchError::Trace)?;
        let stopped = stop(pid, limits).and_then(|()| room.leave(&process, how));
        match &stopped {
            Ok(()) if self.children => sys::resume(pid, 0).map_err(LaunchError::Trace)?,
            // It goes on by itself, from the room if that failed.
            Ok(()) | Err(_) => sys::detach(pid).map_err(LaunchError::Trace)?,
        }
        stopped
    }

    /// Lets one that could not be made to wait go on as it is, or ends it where it is.
    pub fn give_up(&self, missed: Missed, how: Release, limits: &Limits) -> Result<(), LaunchError> {
        let Missed { process, held } = missed;
        let pid = process.pid();
        if !held {
            sys::seize_to_follow(pid, self.children).map_err(LaunchError::Trace)?;
        }
        let done = match how {
            Release::Start => Ok(()),
            Release::End { status } => {
                let stopped = if held { Ok(()) } else { stop(pid, limits) };
                stopped.and_then(|()| room::end_here(&process, status))
            }
        };
        if self.children && held && done.is_ok() {
            sys::resume(pid, 0).map_err(LaunchError::Trace)?;
        } else if !self.children || held || how != Release::Start {
            let _gone = sys::detach(pid);
        }
        done
    }
}

fn stop(pid: i32, limits: &Limits) -> Result<(), LaunchError> {
    sys::interrupt(pid).map_err(LaunchError::Trace)?;
    let now = Instant::now();
    let deadline = now.checked_add(limits.max_stop).unwrap_or(now);
    match wait::stopped(pid, deadline).map_err(LaunchError::Trace)? {
        Stopped::Alone | Stopped::WithItsProcess => Ok(()),
        Stopped::NotYet => Err(LaunchError::Late),
    }
}

/// Its memory, opened anew: an `execve` takes the old one away.
fn memory(process: &Process) -> Result<Memory, LaunchError> {
    Ok(Memory::open(process)?)
}
