//! Borrowing one thread for one program.

use super::candidates::candidates;
use super::{POLL, Prepared, RemoteError, Target, bell, forbidden};
use crate::drive::Meanwhile;
use crate::outcome::{BlockingReason, NotApplied};
use crate::program::{Program, Row};
use crate::seize::{lasting_tracer, seize, tracer};
use crate::slot::{SLOT_BYTES, Slot};
use crate::stop::mended_registers;
use crate::stub::Bell;
use crate::sys;
use crate::transfer;
use crate::wait::{self, Stopped};
use crate::{Errno, home};
use core::time::Duration;
use salve_elf::RuntimeAddr;
use std::time::Instant;

/// How long threads that do not stop in time are tried again.
const LATE_LIMIT: Duration = Duration::from_secs(5);
const LATE_PAUSE: Duration = Duration::from_millis(20);
/// How often a thread may trap until it is left alone for now.
const MOST_TRAPS: u32 = 8;

/// What a borrowed thread is to do.
pub(crate) struct Task<'a> {
    pub(crate) program: &'a Program,
    /// Where its table lies, written by the caller; `None`: behind the stub.
    pub(crate) table: Option<RuntimeAddr>,
    /// A second table, which goes behind the stub; the first one leads there.
    pub(crate) tail: Option<&'a Program>,
    /// Calls that will be made later: judged now, before the first is made.
    pub(crate) later: &'a [Row],
    pub(crate) meanwhile: Option<&'a Meanwhile<'a>>,
    /// Whether the program has come to its good end.
    pub(crate) done: &'a (dyn Fn() -> bool + Sync),
}

/// A call whose result was not the wanted one: which, and the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) row: usize,
    pub(crate) result: i64,
}

impl Failed {
    pub(crate) fn error(self, program: &Program) -> RemoteError {
        let call = program.rows.get(self.row).map_or("a call", |row| row.sys.1);
        match i32::try_from(self.result.saturating_neg()) {
            Ok(code) if (1..4096).contains(&code) => RemoteError::Call { call, errno: Errno(code) },
            _ => RemoteError::Call { call, errno: Errno::EIO },
        }
    }
}

/// Borrows one thread for one program; says how long it was held.
pub(crate) fn run(
    target: &Target<'_>,
    slot: &Slot,
    task: &Task<'_>,
) -> Result<(Result<(), Failed>, Duration), RemoteError> {
    let start = Instant::now();
    loop {
        match run_once(target, slot, task) {
            // All of it was a matter of time.
            Err(RemoteError::Late { .. }) if start.elapsed() < LATE_LIMIT => std::thread::sleep(LATE_PAUSE),
            other => return other,
        }
    }
}

fn run_once(target: &Target<'_>, slot: &Slot, task: &Task<'_>) -> Result<(Result<(), Failed>, Duration), RemoteError> {
    nobody_astray(target)?;
    let mut last = "it has no thread that could be looked at".to_owned();
    let (candidates, waiting) = candidates(target)?;
    let mut late = waiting.map(|tid| (tid, BlockingReason::DidNotStop));
    for tid in candidates {
        // One tracing thread for each try: when it ends, the kernel releases whatever
        // it still holds, also a thread that never stopped.
        let tried = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("salve-borrow".to_owned())
                .spawn_scoped(scope, || borrow(target, tid, slot, task))
                .map_err(RemoteError::Thread)?
                .join()
                .unwrap_or_else(|_| Err(RemoteError::Unsuitable("the tracing thread failed".to_owned())))
        });
        match tried {
            Err(RemoteError::Unsuitable(why)) => last = why,
            Err(RemoteError::Late { tid, why }) => late = Some((tid, why)),
            Err(RemoteError::Gone) if target.process.still_there().is_ok() => {
                "it exited meanwhile".clone_into(&mut last);
            }
            other => return other,
        }
    }
    Err(match late {
        Some((tid, why)) => RemoteError::Late { tid, why },
        None => RemoteError::Not(NotApplied::NoThread { why: last }),
    })
}

fn borrow(
    target: &Target<'_>,
    tid: i32,
    slot: &Slot,
    task: &Task<'_>,
) -> Result<(Result<(), Failed>, Duration), RemoteError> {
    let _hurried = wait::hurry();
    let bell = target.process.status(Some(tid)).ok().as_ref().and_then(bell);
    seize_alone(target, tid)?;
    let start = Instant::now();
    stop(target, tid, start)?;
    pass_traps(target, tid)?;
    let let_go = |error: RemoteError| {
        let _ = sys::detach(tid);
        error
    };
    let mut prepared = prepare(target, tid, slot, task).map_err(let_go)?;
    let code = code(&mut prepared, slot, task, bell).map_err(let_go)?;
    target.memory.write(slot.at, &code).map_err(|errno| let_go(forbidden(errno)))?;
    let table = task.table.unwrap_or_else(|| slot.table_at());
    let sent = prepared.send(slot.at, table).map_err(|errno| astray(target, tid, errno.into()))?;
    let restore = || target.memory.write(slot.at, &slot.original).map_err(|_| RemoteError::Gone);
    let driven = match sent.drive(task.meanwhile, task.done, target.limits.max_borrow) {
        // It came to the end of its table, went home by itself and ended, before anybody looked:
        // no other thread may do it once more.
        Err(RemoteError::Gone) if (task.done)() => return restore().map(|()| (Ok(()), start.elapsed())),
        Err(RemoteError::Gone) => {
            let _gone_with_its_process = restore();
            return Err(RemoteError::Gone);
        }
        driven => driven.map_err(|error| astray(target, tid, error))?,
    };
    let ended = match driven.caught() {
        _ if (task.done)() => Ok(Ok(())),
        Some(registers) => Ok(task
            .program
            .row_at(table, registers.r13)
            .map_or(Ok(()), |row| Err(Failed { row, result: registers.r12.cast_signed() }))),
        None => Err(RemoteError::Unseen { tid }),
    };
    driven.release().map_err(|error| astray(target, tid, error))?;
    let held = start.elapsed();
    // Nobody is in the stub, and no handler ran from it: it would have been seen here.
    restore()?;
    ended.map(|ended| (ended, held))
}

/// To be asked before anything is changed of what a borrowed thread works with.
pub(crate) fn nobody_astray(target: &Target<'_>) -> Result<(), RemoteError> {
    target.process.astray().map_or(Ok(()), |tid| Err(RemoteError::Astray { tid }))
}

/// What went wrong with a thread that is in the stub, and may stay there: nobody else may be sent
/// there, and what it works with may not be taken away, before somebody has looked.
fn astray(target: &Target<'_>, tid: i32, error: RemoteError) -> RemoteError {
    if matches!(error, RemoteError::Gone | RemoteError::Lost(_)) {
        return error;
    }
    target.process.set_astray(Some(tid));
    RemoteError::Astray { tid }
}

fn stop(target: &Target<'_>, tid: i32, start: Instant) -> Result<(), RemoteError> {
    sys::interrupt(tid)?;
    let deadline = start.checked_add(target.limits.max_stop).unwrap_or(start);
    match wait::stopped(tid, deadline)? {
        Stopped::NotYet => Err(RemoteError::Late { tid, why: BlockingReason::DidNotStop }),
        Stopped::Alone | Stopped::WithItsProcess => Ok(()),
    }
}

/// Lets a thread that steps through its own code go on to its handler, where it does not.
fn pass_traps(target: &Target<'_>, tid: i32) -> Result<(), RemoteError> {
    for _ in 0..MOST_TRAPS {
        let registers = sys::registers(tid)?;
        if !home::steps(&registers) || registers.orig_rax.cast_signed() >= 0 {
            break;
        }
        sys::resume(tid, 0)?;
        wait::give_way();
        stop(target, tid, Instant::now())?;
    }
    Ok(())
}

/// The stopped thread, if it may make all calls of the task.
fn prepare(target: &Target<'_>, tid: i32, slot: &Slot, task: &Task<'_>) -> Result<Prepared, RemoteError> {
    let mut registers = mended_registers(tid)?;
    // The kernel remembers one interrupted call of a thread, by which `restart_syscall` goes on.
    if task.program.rows.iter().chain(task.later).any(|row| row.sys == POLL) {
        if home::goes_on(&registers) {
            let why = "it goes on with a call that was interrupted, and its filter forbids ppoll";
            return Err(RemoteError::Unsuitable(why.to_owned()));
        }
        if let Some(again) = home::made_again(&registers) {
            sys::set_registers(tid, &again)?;
            registers = again;
        }
    }
    transfer::tell(target.process, target.memory, tid, &registers);
    let prepared = Prepared::of(target.process, target.memory, tid, &registers)?;
    prepared.judge(slot.at, task.program.rows.iter().chain(task.later))?;
    Ok(prepared)
}

/// What goes into the slot: the stub, and a table behind it.
fn code(prepared: &mut Prepared, slot: &Slot, task: &Task<'_>, bell: Option<Bell>) -> Result<Vec<u8>, RemoteError> {
    let mut code = prepared.stub(slot.at, bell).to_vec();
    let in_slot = if task.table.is_none() { Some(task.program) } else { task.tail };
    if let Some(program) = in_slot {
        code.extend(program.table(slot.table_at()));
    }
    if code.len() > SLOT_BYTES {
        return Err(RemoteError::Unsuitable("the first table is too long".to_owned()));
    }
    Ok(code)
}

/// Seizes the one to be borrowed, where nobody traces the process.
fn seize_alone(target: &Target<'_>, tid: i32) -> Result<(), RemoteError> {
    if let Some(tracer) = lasting_tracer(target.process, None)? {
        return Err(RemoteError::Not(NotApplied::AlreadyTraced { tracer }));
    }
    seize(target.process, tid).map_err(|errno| match errno.0 {
        libc::ESRCH => RemoteError::Gone,
        _ => match tracer(target.process, Some(tid)) {
            Some(tracer) => RemoteError::Not(NotApplied::AlreadyTraced { tracer }),
            None => RemoteError::Unsuitable(format!("it cannot be traced: {errno}")),
        },
    })
}
