//! A thread on its way through the stub, watched until it is caught at the end.

use crate::outcome::{Errno, Lost};
use crate::remote::RemoteError;
use crate::stop::mend;
use crate::stub::{PARK_AT, PARK_END, STUB_BYTES};
use crate::sys::{self, Event};
use crate::wait;
use core::time::Duration;
use libc::user_regs_struct;
use salve_elf::RuntimeAddr;
use std::time::Instant;

/// When nothing is heard of the thread for so long, it is stopped and looked at.
const LOOK: Duration = Duration::from_micros(300);
/// Looks become rarer, but a thread that waits at the end of its stub is still found there.
const LONGEST_LOOK: Duration = Duration::from_millis(2);
/// How long one stop of it may take.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// How long this thread, which comes before all others, leaves the processor to the one that it
/// waits for: less, and that one comes no further on the same processor.
const NAP: Duration = Duration::from_micros(20);
const LONGEST_NAP: Duration = Duration::from_micros(300);
/// How long it may take a process to die once one of its threads is on its way.
const END_LIMIT: Duration = Duration::from_secs(1);

/// A thread that was sent into the stub and stands before its first instruction.
pub(crate) struct Sent {
    pub(crate) tid: i32,
    /// The signal that it sends itself at the end of its table.
    pub(crate) signal: Option<i32>,
    pub(crate) stub: RuntimeAddr,
    pub(crate) original: user_regs_struct,
    pub(crate) mask: u64,
}

/// What this program has to do while the thread is on its way.
pub(crate) struct Meanwhile<'a> {
    pub(crate) limit: Duration,
    /// Whether it is done now, or never will be.
    pub(crate) attempt: &'a (dyn Fn() -> bool + Sync),
}

/// A thread that is stopped again.
pub(crate) struct Driven {
    sent: Sent,
    registers: user_regs_struct,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Table,
    /// Behind the table, its registers not yet its own again.
    End,
    Away,
}

impl Sent {
    fn place(&self, registers: &user_regs_struct) -> Place {
        let into = registers.rip.wrapping_sub(self.stub.raw());
        match into {
            ..PARK_AT => Place::Table,
            _ if into < u64::try_from(STUB_BYTES).unwrap_or(0) => Place::End,
            _ => Place::Away,
        }
    }

    /// Runs it until its table is done; after `limit` it is left to come home by itself.
    /// What is to be done `meanwhile` is tried until it is done, or the thread is.
    pub(crate) fn drive(
        self,
        meanwhile: Option<&Meanwhile<'_>>,
        done: &dyn Fn() -> bool,
        limit: Duration,
    ) -> Result<Driven, RemoteError> {
        let tid = self.tid;
        self.until_done(meanwhile, done, limit).map_err(|error| if_killed(tid, error))
    }

    fn until_done(
        self,
        meanwhile: Option<&Meanwhile<'_>>,
        done: &dyn Fn() -> bool,
        limit: Duration,
    ) -> Result<Driven, RemoteError> {
        let start = Instant::now();
        sys::resume(self.tid, 0)?;
        let mut first = match meanwhile {
            Some(meanwhile) => self.until_tried(meanwhile)?,
            None => None,
        };
        if self.signal.is_some() {
            let deadline = start.checked_add(limit).unwrap_or(start);
            while let Some(event) =
                first.take().map_or_else(|| wait::event(self.tid, deadline), |event| Ok(Some(event)))?
            {
                if matches!(event, Event::Signal(signal) if Some(signal) == self.signal) {
                    let registers = sys::registers(self.tid)?;
                    if self.place(&registers) == Place::End {
                        return Ok(Driven { sent: self, registers, place: Place::End });
                    }
                    // Somebody else's, which this thread ignores.
                    sys::resume(self.tid, 0)?;
                } else {
                    self.pass_on(event)?;
                }
            }
        }
        let mut patience = LOOK;
        loop {
            self.wait(done, patience)?;
            let registers = self.stop()?;
            let place = match self.place(&registers) {
                // At the end of its very last call.
                Place::Table if done() => Place::End,
                other => other,
            };
            if place != Place::Table {
                return Ok(Driven { sent: self, registers, place });
            }
            if start.elapsed() > limit {
                return Err(RemoteError::Astray { tid: self.tid });
            }
            sys::resume(self.tid, 0)?;
            patience = patience.saturating_mul(2).min(LONGEST_LOOK);
        }
    }

    /// Tries that until it is done. The thread's own signal, which says that it is at the end of
    /// its table, ends it too, and is still to be answered.
    fn until_tried(&self, meanwhile: &Meanwhile<'_>) -> Result<Option<Event>, RemoteError> {
        let start = Instant::now();
        let mut nap = NAP;
        while start.elapsed() < meanwhile.limit && !(meanwhile.attempt)() {
            match sys::poll(self.tid)? {
                Event::None => {
                    std::thread::sleep(nap);
                    nap = nap.saturating_mul(2).min(LONGEST_NAP);
                }
                Event::Signal(signal) if Some(signal) == self.signal => return Ok(Some(Event::Signal(signal))),
                event => self.pass_on(event)?,
            }
        }
        Ok(None)
    }

    /// Waits until it is done, or for so long. What it is told meanwhile is passed on.
    fn wait(&self, done: &dyn Fn() -> bool, patience: Duration) -> Result<(), RemoteError> {
        let start = Instant::now();
        while !done() && start.elapsed() < patience {
            match sys::poll(self.tid)? {
                Event::None => wait::give_way(),
                event => {
                    self.pass_on(event)?;
                }
            }
        }
        Ok(())
    }

    /// Answers a stop that was not asked for.
    fn pass_on(&self, event: Event) -> Result<(), RemoteError> {
        match event {
            Event::None => Ok(()),
            Event::Exited => Err(RemoteError::Gone),
            Event::Killed(signal) => Err(RemoteError::Lost(killed(self.tid, signal))),
            Event::Stopped | Event::GroupStopped | Event::SystemCall => Ok(sys::resume(self.tid, 0)?),
            Event::Signal(signal) => {
                let registers = sys::registers(self.tid)?;
                // Its mask is its own again, but not all of its registers: a handler must
                // not come to return here, and the kernel has to see the call, if any.
                match self.place(&registers) {
                    Place::End => self.bring_home()?,
                    // In a call of its own, which the signal has ended though it may be ignored.
                    Place::Away => mend(self.tid, &registers).map(drop)?,
                    Place::Table => {}
                }
                Ok(sys::resume(self.tid, signal)?)
            }
        }
    }

    fn stop(&self) -> Result<user_regs_struct, RemoteError> {
        sys::interrupt(self.tid)?;
        let now = Instant::now();
        let deadline = now.checked_add(STOP_LIMIT).unwrap_or(now);
        loop {
            match wait::event(self.tid, deadline)? {
                None => return Err(RemoteError::Astray { tid: self.tid }),
                Some(Event::Stopped | Event::GroupStopped) => return Ok(sys::registers(self.tid)?),
                Some(event) => self.pass_on(event)?,
            }
        }
    }

    fn bring_home(&self) -> Result<(), Errno> {
        sys::set_signal_mask(self.tid, self.mask)?;
        sys::set_registers(self.tid, &self.original)
    }
}

impl Driven {
    /// Its registers, if it was caught where it waits, with what it has to tell in them.
    pub(crate) fn caught(&self) -> Option<&user_regs_struct> {
        let into = self.registers.rip.wrapping_sub(self.sent.stub.raw());
        (PARK_AT..PARK_END).contains(&into).then_some(&self.registers)
    }

    /// Gives it its own back; it stays stopped.
    pub(crate) fn restore(&self) -> Result<(), RemoteError> {
        let restored = match self.place {
            Place::End => self.sent.bring_home(),
            // In a call of its own again, perhaps, which this stop has interrupted.
            Place::Away => mend(self.sent.tid, &self.registers).map(drop),
            Place::Table => Ok(()),
        };
        restored.map_err(|errno| if_killed(self.sent.tid, errno.into()))
    }

    pub(crate) fn release(&self) -> Result<(), RemoteError> {
        self.restore()?;
        sys::detach(self.sent.tid).map_err(|errno| if_killed(self.sent.tid, errno.into()))
    }
}

fn killed(tid: i32, signal: i32) -> Lost {
    Lost::BorrowedThread { tid, why: format!("its process was killed meanwhile, by signal {signal}") }
}

/// The same error, or where the thread is gone because its process was killed while it was
/// borrowed, that: it may have been for what Salve did.
fn if_killed(tid: i32, error: RemoteError) -> RemoteError {
    if !matches!(error, RemoteError::Gone) {
        return error;
    }
    let now = Instant::now();
    let deadline = now.checked_add(END_LIMIT).unwrap_or(now);
    while let Ok(Some(event)) = wait::event(tid, deadline) {
        match event {
            Event::Killed(signal) => return RemoteError::Lost(killed(tid, signal)),
            Event::Exited => break,
            Event::None | Event::Stopped | Event::GroupStopped | Event::SystemCall | Event::Signal(_) => {
                let _ = sys::resume(tid, 0);
            }
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;
    use crate::wait::Stopped;
    use std::process::{Child, Command};

    /// A child that is stopped, with what it would go on with.
    fn stopped() -> (Child, Sent) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let tid = i32::try_from(child.id()).unwrap();
        sys::seize(tid).unwrap();
        sys::interrupt(tid).unwrap();
        let deadline = Instant::now().checked_add(Duration::from_secs(60)).unwrap();
        assert_eq!(wait::stopped(tid, deadline), Ok(Stopped::Alone));
        let original = sys::registers(tid).unwrap();
        (child, Sent { tid, signal: None, stub: RuntimeAddr::new(0x1000), original, mask: 0 })
    }

    #[test]
    fn a_process_that_is_killed_while_a_thread_of_it_is_borrowed_is_not_just_gone() {
        let (mut child, sent) = stopped();
        // Nothing is mapped there.
        let lost = user_regs_struct { rip: 0x1000, orig_rax: u64::MAX, ..sent.original };
        sys::set_registers(sent.tid, &lost).unwrap();
        let ended = sent.drive(None, &|| false, Duration::from_secs(60)).map(|_| ());
        let Err(RemoteError::Lost(Lost::BorrowedThread { why, .. })) = ended else { panic!("{ended:?}") };
        assert!(why.contains(&format!("signal {}", libc::SIGSEGV)), "{why}");
        let _ = child.wait();
        let (mut child, sent) = stopped();
        let process = Process::open(sent.tid).unwrap();
        child.kill().unwrap();
        assert!(process.exits_within(Duration::from_secs(60)) || process.is_over());
        let driven = Driven { registers: sent.original, sent, place: Place::End };
        let ended = driven.release();
        assert!(matches!(ended, Err(RemoteError::Lost(Lost::BorrowedThread { .. }))), "{ended:?}");
        let _ = child.wait();
    }
}
