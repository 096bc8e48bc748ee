//! Stopping every thread of a process together, and letting them all go.
//!
//! Threads are attached to first, which stops nothing, and then interrupted. A
//! thread that still runs may make another, so the list is read again until it
//! holds no stranger. If one does not stop within the limit, all are let go.
//!
//! The kernel's own workers among its threads are left alone. Each is proven to be one when
//! the list is read, also for the last time, with every other thread standing: none of those
//! can have made a thread with a worker's number since.

use crate::Errno;
use crate::leave::{self, Snare};
use crate::limits::Limits;
use crate::outcome::NotApplied;
use crate::process::{Process, ReadError, Status};
use crate::seize::{has_ended, seize, tracer};
use crate::wait::{self, Stopped};
use crate::{home, open_file, seccomp, sys};
use core::time::Duration;
use libc::user_regs_struct;
use std::time::Instant;

/// How long nudged threads run: enough to leave a function that does not wait.
const NUDGE: Duration = Duration::from_micros(20);

/// The registers of a stopped thread, its call mended at once: from then on the kernel
/// does what is right, also if it is our death that lets the thread go.
pub(crate) fn mended_registers(tid: i32) -> Result<user_regs_struct, Errno> {
    mend(tid, &sys::registers(tid)?)
}

/// The same for a stopped thread whose registers are known.
pub(crate) fn mend(tid: i32, registers: &user_regs_struct) -> Result<user_regs_struct, Errno> {
    let forbidden = |_: &user_regs_struct| may_not_restart(tid, registers);
    let is_socket = |number| open_file::kind(tid, number) == Some(open_file::Kind::Socket);
    match home::mended(registers, is_socket).or_else(|| home::made_again(registers).filter(forbidden)) {
        Some(mended) => sys::set_registers(tid, &mended).map(|()| mended),
        None => Ok(*registers),
    }
}

/// Whether a filter of the thread forbids `restart_syscall(2)`, which the kernel would make
/// in its name when it is let go: programs that list the calls they make know nothing of it.
/// Where nobody tells, it is taken to be forbidden: a longer wait harms less than a `SIGSYS`.
fn may_not_restart(tid: i32, registers: &user_regs_struct) -> bool {
    let call = seccomp::Call {
        number: home::RESTART_SYSCALL,
        instruction_pointer: registers.rip,
        arguments: [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9],
    };
    match sys::is_unfiltered(tid) {
        Some(true) => false,
        Some(false) => seccomp::filters(tid).ok().and_then(|filters| seccomp::allows(&filters, &call)) != Some(true),
        // The kernel tells filters to administrators only, and to everybody whether there are any.
        None => std::fs::read_to_string(format!("/proc/{tid}/status"))
            .map_or(true, |status| Status::of(status).field("Seccomp") != Some("0")),
    }
}

#[derive(Debug)]
pub(crate) enum StopError {
    /// It sleeps uninterruptibly, or waits for its vfork child.
    DidNotStop {
        tid: i32,
    },
    /// Somebody traces it, and to wait for his end nobody is held.
    Traced {
        tid: i32,
    },
    Not(NotApplied),
    Gone,
}

#[derive(Debug)]
pub(crate) struct HeldThread {
    pub(crate) tid: i32,
    pub(crate) registers: Option<user_regs_struct>,
    /// A signal had stopped the whole process before.
    pub(crate) group_stopped: bool,
    pub(crate) sent: Sent,
    /// What makes it stand where it leaves the functions that are replaced.
    pub(crate) snare: Option<Snare>,
}

impl HeldThread {
    /// Traced, and not stopped.
    pub(crate) fn running(tid: i32) -> Self {
        Self { tid, registers: None, group_stopped: false, sent: Sent::Nowhere, snare: None }
    }
}

/// Whether a held thread's registers are still its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Nowhere,
    /// They lead elsewhere, and have to be given back.
    Away,
    /// It has run and got its own, or is past needing them.
    Back,
}

/// What is known of a process's threads before they are attached to.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// Those that were none of the kernel's workers, sorted. Others are looked at one by one,
    /// which takes longer than all that is done with a thread besides.
    pub(crate) ordinary: Vec<i32>,
    /// Those that are traced already; some of them may stand, since `since`.
    pub(crate) traced: Vec<HeldThread>,
    pub(crate) since: Option<Instant>,
}

/// All threads of a process, stopped, but for the kernel's workers. Dropping it lets them go.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) threads: Vec<HeldThread>,
    /// Threads that ended, and are listed still.
    ended: Vec<i32>,
    /// Threads that were none of the kernel's workers before anybody was stopped; sorted.
    ordinary: Vec<i32>,
    /// When the first stood, if one did before the others were interrupted.
    since: Option<Instant>,
    started: Instant,
    /// Nobody stands yet.
    patient: bool,
    /// The process's first thread.
    leader: i32,
}

impl Held {
    pub(crate) fn stop_all(process: &Process, limits: &Limits) -> Result<Self, StopError> {
        let ordinary = process.ordinary_threads(limits);
        let mut held = Self::attach(process, limits, Before { ordinary, ..Before::default() }, true)?;
        held.interrupt();
        let deadline = held.started.checked_add(limits.max_stop).unwrap_or(held.started);
        held.await_all(process, limits, deadline)?;
        Ok(held)
    }

    /// Attaches to every thread that is not traced already, which stops none. Tracers that are
    /// ending are waited for by the `patient`.
    pub(crate) fn attach(process: &Process, limits: &Limits, before: Before, patient: bool) -> Result<Self, StopError> {
        let Before { ordinary, traced, since } = before;
        let (started, leader) = (Instant::now(), process.pid());
        let mut held = Self { threads: traced, ended: Vec::new(), ordinary, since, started, patient, leader };
        held.threads.reserve(128);
        held.attach_new(process, limits)?;
        if held.threads.is_empty() { Err(StopError::Gone) } else { Ok(held) }
    }

    /// Interrupts every thread; each stops in its own time.
    pub(crate) fn interrupt(&mut self) {
        self.started = self.since.unwrap_or_else(Instant::now);
        self.patient = false;
        self.interrupt_running();
    }

    /// Waits until all that were interrupted stand, and so do those that they made meanwhile.
    pub(crate) fn await_all(&mut self, process: &Process, limits: &Limits, deadline: Instant) -> Result<(), StopError> {
        self.await_running(deadline)?;
        // As many as there are, and each of them stands: there is no other. Where the numbers
        // differ, as they do while one ends, the list tells.
        while process.thread_count() != Some(self.threads.len()) && self.attach_new(process, limits)? > 0 {
            self.interrupt_running();
            self.await_running(deadline)?;
        }
        if self.threads.is_empty() { Err(StopError::Gone) } else { Ok(()) }
    }

    /// Lets some threads run on for a moment while the others are held, so that they
    /// leave what they are in; until they have left, at the latest until `until`, where that
    /// makes them stand. Only for threads that were stopped in user space.
    pub(crate) fn nudge(
        &mut self,
        process: &Process,
        limits: &Limits,
        tids: &[i32],
        until: Instant,
    ) -> Result<(), StopError> {
        for thread in self.threads.iter_mut().filter(|thread| tids.contains(&thread.tid)) {
            // One that is gone shows itself when it is waited for.
            let _ = sys::resume(thread.tid, 0);
            thread.registers = None;
        }
        if !leave::await_all(&mut self.threads, tids, until) {
            // Whoever sleeps may get his processor back a tick later, and others stand.
            let start = Instant::now();
            while start.elapsed() < NUDGE {
                wait::give_way();
            }
        }
        let now = Instant::now();
        let deadline = now.checked_add(limits.max_stop).unwrap_or(now);
        self.interrupt_running();
        // What runs may make threads.
        self.await_all(process, limits, deadline)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Attaches to threads that are not held yet; how many there were.
    fn attach_new(&mut self, process: &Process, limits: &Limits) -> Result<usize, StopError> {
        let mut tids = process.threads(limits).map_err(|error| match error {
            ReadError::TooLarge { .. } => StopError::Not(NotApplied::TooManyThreads { threads: limits.max_threads }),
            ReadError::Exited => StopError::Gone,
            other => StopError::Not(NotApplied::of_unread(&other)),
        })?;
        // The first thread last: from then on signals that are ignored wake somebody, and he has
        // to be traced as well, so that his call is mended.
        tids.sort_by_key(|tid| *tid == self.leader);
        self.threads.sort_unstable_by_key(|thread| thread.tid);
        let before = self.threads.len();
        let patient = self.patient;
        let seize = |tid| if patient { seize(process, tid) } else { sys::seize(tid) };
        for tid in tids {
            let held = self.threads.get(..before).unwrap_or_default();
            if held.binary_search_by_key(&tid, |thread| thread.tid).is_ok() || self.ended.contains(&tid) {
                continue;
            }
            if self.ordinary.binary_search(&tid).is_err() && process.is_worker(tid) {
                continue;
            }
            match seize(tid) {
                Ok(()) => {
                    self.threads.push(HeldThread::running(tid));
                }
                Err(Errno(libc::ESRCH)) => self.ended.push(tid),
                Err(_) if has_ended(process, tid) => self.ended.push(tid),
                // The next try waits before anybody is stopped, and says it if that was in vain.
                Err(_) if !patient => return Err(StopError::Traced { tid }),
                Err(_) => {
                    return Err(StopError::Not(match tracer(process, Some(tid)) {
                        None => NotApplied::NoThread { why: format!("thread {tid} cannot be traced") },
                        Some(tracer) => NotApplied::AlreadyTraced { tracer },
                    }));
                }
            }
        }
        Ok(self.threads.len().saturating_sub(before))
    }

    /// Interrupts all that run, the first thread at once: a signal that woke it and that another
    /// takes would end its call. Once for each: a second interruption of one that stands already
    /// would stop it again when it is let go.
    fn interrupt_running(&mut self) {
        self.first_thread_first();
        self.threads.retain(|thread| thread.registers.is_some() || sys::interrupt(thread.tid).is_ok());
    }

    /// While it is traced no signal to the process is dropped for being ignored.
    fn first_thread_first(&mut self) {
        self.threads.sort_by_key(|thread| thread.tid != self.leader);
    }

    /// Waits for each that was interrupted and reads its registers.
    fn await_running(&mut self, deadline: Instant) -> Result<(), StopError> {
        let mut gone: Vec<i32> = Vec::new();
        let wait = if self.threads.len() > 1 { wait::one_of_many_stopped } else { wait::stopped };
        for thread in self.threads.iter_mut().filter(|thread| thread.registers.is_none()) {
            match wait(thread.tid, deadline).map(|how| (how, mended_registers(thread.tid))) {
                Ok((Stopped::NotYet, _)) => return Err(StopError::DidNotStop { tid: thread.tid }),
                Ok((how, Ok(registers))) => {
                    thread.registers = Some(registers);
                    thread.group_stopped = how == Stopped::WithItsProcess;
                }
                Ok((_, Err(_))) | Err(_) => gone.push(thread.tid),
            }
        }
        self.threads.retain(|thread| !gone.contains(&thread.tid));
        Ok(())
    }

    /// Lets all go. Returns how long they were held, and the first that could not be let go.
    pub(crate) fn release(mut self) -> (Duration, Option<(i32, Errno)>) {
        let failed = self.let_go();
        (self.started.elapsed(), failed)
    }

    fn let_go(&mut self) -> Option<(i32, Errno)> {
        let mut failed = None;
        self.first_thread_first();
        for mut thread in self.threads.drain(..) {
            if let Some(snare) = thread.snare.take() {
                snare.take_down_later();
            }
            // One that never stopped cannot be detached from; the end of this tracing thread does it.
            let Some(registers) = thread.registers else { continue };
            if thread.sent == Sent::Away {
                let _ = sys::set_registers(thread.tid, &registers);
            }
            match sys::detach(thread.tid) {
                Ok(()) | Err(Errno(libc::ESRCH)) => {}
                Err(errno) => failed = failed.or(Some((thread.tid, errno))),
            }
        }
        failed
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.let_go();
    }
}
