//! The moment in which processes change: stop, check, write, verify, let go.
//!
//! All processes of a transition group change in one such moment or none does (ADR 0017).
//! Everything that can be prepared is in the [`Plan`]; while threads are stopped
//! there is no choice left but go or not. Nothing is logged, no file is read but
//! those of `/proc/PID` that were open before.

use crate::commit::Commit;
use crate::home;
use crate::leave::{self, Caught, InTheWay};
use crate::limits::Limits;
use crate::look::{Checker, ROOM_BYTES, Space, check_all};
use crate::memory::Memory;
use crate::outcome::{Blocking, BlockingReason, Lost, NotApplied, WriteFault};
use crate::process::{Process, ReadError};
use crate::stop::{Before, Held, HeldThread, StopError};
use crate::ties::Watch;
use crate::transfer;
use crate::write::{Act, Write, undo, write};
use core::time::Duration;
use salve_consistency::{Forbidden, UnwindTablesOf};
use salve_elf::RuntimeAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How long all may be held for the sake of threads that only pass through.
const PATIENCE: Duration = Duration::from_micros(500);
/// How often threads are looked at for transfers before anybody is attached to, and how long lies between.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_micros(300);
/// Processes that are prepared while others are held: each takes a millisecond or two.
pub(crate) const MOST_JOINED: usize = 16;

/// All that a transition does, decided beforehand.
pub(crate) struct Plan<'a> {
    pub(crate) writes: Vec<Write>,
    pub(crate) forbidden: Forbidden,
    pub(crate) tables: Vec<UnwindTablesOf<'a>>,
    /// An address in the main thread's stack that never moves: its last byte.
    pub(crate) main_stack: Option<RuntimeAddr>,
    /// Makes the writes inside the target, where there is more than one.
    pub(crate) commit: Option<Commit<'a>>,
}

/// One process of a transition, with all that was prepared for it.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) process: &'a Process,
    pub(crate) memory: &'a Memory,
    pub(crate) plan: &'a Plan<'a>,
}

/// Prepares processes that joined while the rest is held, and calls back with their
/// sites; `None` when one of them could not be prepared, and nothing was called.
pub(crate) type Grow<'g> = dyn Fn(&[i32], &mut dyn FnMut(&[Site<'_>]) -> Tried) -> Option<Tried> + Sync + 'g;

/// How one try ended, for all processes that change together.
#[derive(Clone, Debug)]
pub(crate) enum Tried {
    Done {
        stopped: Duration,
        threads: usize,
    },
    Blocked {
        blocking: Vec<Blocked>,
        stopped: Duration,
    },
    /// These processes belong to them too, and were not prepared.
    Joined {
        pids: Vec<i32>,
    },
    /// With the process of which that is true.
    Not(i32, NotApplied),
    RolledBack(WriteFault),
    Lost(Lost),
}

/// A blocking thread, before anybody has asked for its name.
#[derive(Clone, Debug)]
pub(crate) struct Blocked {
    pub(crate) pid: i32,
    pub(crate) tid: i32,
    pub(crate) function: String,
    pub(crate) why: BlockingReason,
    /// Where it comes out of everything that is replaced, as far as that can be told.
    pub(crate) leaves_to: Vec<RuntimeAddr>,
}

impl Blocked {
    /// A thread that is in the way for what it does as a whole, not for where it is.
    pub(crate) fn as_a_whole(pid: i32, tid: i32, why: BlockingReason) -> Self {
        Self { pid, tid, function: String::new(), why, leaves_to: Vec::new() }
    }

    pub(crate) fn named(self, process: &Process) -> Blocking {
        let comm = process.thread_name(self.tid);
        Blocking { pid: self.pid, tid: self.tid, comm, function: self.function, why: self.why }
    }
}

/// A process that is held.
struct Stage<'a> {
    site: Site<'a>,
    held: Held,
    space: Space,
}

/// One try, on the calling thread, which has to be one that nothing else traces from.
///
/// All processes are attached to, then all are interrupted, then each is waited for; so
/// the first stands no longer than the last takes. Nothing is written before every
/// thread of every process was looked at. Whom a try before found in the way is caught
/// leaving first, where that can be, until the time is up.
pub(crate) fn attempt(
    sites: &[Site<'_>],
    limits: &Limits,
    watch: &Watch,
    grow: Option<&Grow<'_>>,
    in_the_way: Option<InTheWay<'_>>,
) -> Tried {
    let first = sites.first().map_or(0, |site| site.process.pid());
    let unseen = |error: ReadError| Tried::Not(first, NotApplied::of_unread(&error));
    match watch.joined_already(limits) {
        Ok(pids) if pids.is_empty() => {}
        Ok(pids) => return Tried::Joined { pids },
        Err(error) => return unseen(error),
    }
    if in_the_way.is_none() {
        match in_transfers(sites, limits) {
            Ok(blocking) if blocking.is_empty() => {}
            Ok(blocking) => return Tried::Blocked { blocking, stopped: Duration::ZERO },
            Err(error) => return unseen(error),
        }
    }
    // Its pages are there before anybody is stopped.
    let mut chunk = vec![1_u8; ROOM_BYTES];
    let ordinary = sites.iter().map(|site| site.process.ordinary_threads(limits)).collect();
    let _hurried = crate::wait::hurry();
    let mut stages = Vec::with_capacity(sites.len());
    let mut caught = Caught::default();
    if let Some(in_the_way) = in_the_way {
        let process_of = |blocked: &Blocked| sites.iter().map(|site| site.process).find(|one| one.pid() == blocked.pid);
        match leave::catch(in_the_way, process_of, limits) {
            Some(found) => caught = found,
            None => return Tried::Blocked { blocking: in_the_way.blocking.to_vec(), stopped: Duration::ZERO },
        }
    }
    if let Err(tried) = stop(&mut stages, sites, ordinary, caught, limits) {
        return with_the_caught(tried, in_the_way.map_or(&[], |in_the_way| in_the_way.blocking));
    }
    let joined = match watch.joined(limits) {
        Ok(joined) if joined.is_empty() => return conclude(stages, limits, &mut chunk),
        Ok(joined) => joined,
        Err(error) => return unseen(error),
    };
    // Nobody who is held can fork: those that are prepared now are the last.
    let held = Mutex::new((stages, chunk));
    let grown = grow.filter(|_| joined.len() <= MOST_JOINED).and_then(|grow| {
        grow(&joined, &mut |more| {
            let (mut all, mut chunk) = core::mem::take(&mut *held.lock().unwrap_or_else(PoisonError::into_inner));
            if let Err(tried) = stop(&mut all, more, Vec::new(), Caught::default(), limits) {
                return tried;
            }
            match watch.joined(limits) {
                Ok(pids) if pids.is_empty() => conclude(all, limits, &mut chunk),
                Ok(pids) => Tried::Joined { pids },
                Err(error) => unseen(error),
            }
        })
    });
    grown.unwrap_or(Tried::Joined { pids: joined })
}

/// The threads that sleep in calls which a stop may cut short. Who moves much sleeps and runs by
/// turns in one call, so more than one look is taken.
fn in_transfers(sites: &[Site<'_>], limits: &Limits) -> Result<Vec<Blocked>, ReadError> {
    let mut blocking = Vec::new();
    for look in 0..LOOKS {
        if look > 0 {
            std::thread::sleep(BETWEEN_LOOKS);
        }
        blocking.clear();
        for Site { process, memory, .. } in sites {
            match transfer::find(process, memory, limits, &[]) {
                Ok(found) => blocking.extend(found),
                Err(ReadError::Exited) => {}
                Err(error) => return Err(error),
            }
        }
        if limits.may_cut_transfers {
            break;
        }
    }
    Ok(blocking)
}

/// Who was caught at the end of a transfer is about to begin the next one: where others were
/// found in theirs, all of them are in the way again.
fn with_the_caught(tried: Tried, before: &[Blocked]) -> Tried {
    let Tried::Blocked { mut blocking, stopped } = tried else { return tried };
    for one in before.iter().filter(|one| matches!(one.why, BlockingReason::Transfer(_))) {
        if !blocking.iter().any(|known| (known.pid, known.tid) == (one.pid, one.tid)) {
            blocking.push(one.clone());
        }
    }
    Tried::Blocked { blocking, stopped }
}

/// Keeps what the stop of these has cut short.
fn tell_what_was_cut(stage: &Stage<'_>) {
    let Site { process, memory, .. } = stage.site;
    for thread in &stage.held.threads {
        if let Some(registers) = &thread.registers {
            transfer::tell(process, memory, thread.tid, registers);
        }
    }
}

/// Stops more processes besides those that are held already; `ordinary` are the threads of
/// each that were none of the kernel's workers, as far as somebody looked. On an error all are
/// let go when `stages` is dropped.
fn stop<'a>(
    stages: &mut Vec<Stage<'a>>,
    sites: &[Site<'a>],
    ordinary: Vec<Vec<i32>>,
    mut caught: Caught,
    limits: &Limits,
) -> Result<(), Tried> {
    let first = stages.len();
    let patient = first == 0 && caught.since.is_none();
    let ordinary = ordinary.into_iter().chain(core::iter::repeat(Vec::new()));
    for (site, ordinary) in sites.iter().zip(ordinary) {
        let space = match Space::open(site.process) {
            Ok(space) => space,
            Err(ReadError::Exited) => continue,
            Err(error) => return Err(Tried::Not(site.process.pid(), NotApplied::of_unread(&error))),
        };
        let pid = site.process.pid();
        let traced: Vec<_> = caught.threads.extract_if(.., |(of, _)| *of == pid).map(|(_, thread)| thread).collect();
        let since = caught.since.filter(|_| traced.iter().any(|thread| thread.registers.is_some()));
        match Held::attach(site.process, limits, Before { ordinary, traced, since }, patient) {
            Ok(held) => stages.push(Stage { site: *site, held, space }),
            Err(StopError::Gone) => {}
            Err(error) => return Err(not_stopped(site.process.pid(), error, limits)),
        }
    }
    let new = stages.get_mut(first..).unwrap_or_default();
    let mut blocking = Vec::new();
    for Stage { site: Site { process, memory, .. }, held, .. } in &*new {
        match transfer::find(process, memory, limits, &held.threads) {
            Ok(found) => blocking.extend(found),
            // That shows itself when it is waited for.
            Err(ReadError::Exited) => {}
            Err(error) => return Err(Tried::Not(process.pid(), NotApplied::of_unread(&error))),
        }
    }
    if !blocking.is_empty() {
        return Err(Tried::Blocked { blocking, stopped: Duration::ZERO });
    }
    for stage in &mut *new {
        stage.held.interrupt();
    }
    let now = Instant::now();
    let deadline = now.checked_add(limits.max_stop).unwrap_or(now);
    let mut gone = Vec::new();
    for stage in new {
        let stopped = stage.held.await_all(stage.site.process, limits, deadline);
        tell_what_was_cut(stage);
        match stopped {
            Ok(()) => {}
            // It left on its own; the others go on.
            Err(StopError::Gone) => gone.push(stage.site.process.pid()),
            Err(error) => return Err(not_stopped(stage.site.process.pid(), error, limits)),
        }
    }
    stages.retain(|stage| !gone.contains(&stage.site.process.pid()));
    Ok(())
}

/// Looks at everything, changes all or nothing, lets all go.
fn conclude(mut stages: Vec<Stage<'_>>, limits: &Limits, chunk: &mut [u8]) -> Tried {
    let started = stages.iter().map(|stage| stage.held.elapsed()).max().unwrap_or_default();
    let now = Instant::now();
    let since = || started.saturating_add(now.elapsed());
    let mut result = look_at_all(&mut stages, limits, chunk);
    while let Err((_, Act::Blocked(blocking))) = &result {
        let Some(passing) = passing(blocking, &stages).filter(|_| since() < PATIENCE) else { break };
        let until = Instant::now().checked_add(PATIENCE.saturating_sub(since())).unwrap_or(now);
        match nudge(&mut stages, &passing, limits, until) {
            Ok(()) => result = look_at_all(&mut stages, limits, chunk),
            Err(tried) => return tried,
        }
    }
    let result = result.and_then(|()| change_all(&mut stages));
    let threads = stages.iter().map(|stage| stage.held.threads.len()).fold(0, usize::saturating_add);
    let mut stopped = Duration::ZERO;
    let mut failed = None;
    let mut left = 0_usize;
    for Stage { site, held, .. } in stages {
        let (held, not_released) = held.release();
        stopped = stopped.max(held);
        if site.process.still_there().is_ok() {
            left = left.saturating_add(1);
            failed = failed.or(not_released);
        }
    }
    if left == 0 {
        return match result {
            // They went after the last write and its verification.
            Err((_, Act::Lost(why @ Lost::BorrowedThread { .. }))) => Tried::Lost(why),
            Ok(()) | Err((_, Act::Lost(_) | Act::RolledBack(_))) => Tried::Lost(Lost::Exited),
            Err((pid, Act::Blocked(_) | Act::Not(_))) => Tried::Not(pid, NotApplied::Exited),
        };
    }
    match (result, failed) {
        // Its threads went, and it is there: another program runs in it now.
        (Err((_, Act::Lost(Lost::Exited))), _) => Tried::Lost(Lost::Executed),
        (Err((_, Act::Lost(why))), _) => Tried::Lost(why),
        (_, Some((tid, errno))) => Tried::Lost(Lost::NotReleased { tid, errno }),
        (Ok(()), None) => Tried::Done { stopped, threads },
        (Err((_, Act::Blocked(blocking))), None) => Tried::Blocked { blocking, stopped },
        (Err((pid, Act::Not(why))), None) => Tried::Not(pid, why),
        (Err((_, Act::RolledBack(why))), None) => Tried::RolledBack(why),
    }
}

/// A stop in which nothing is done.
pub(crate) fn floor(process: &Process, limits: &Limits) -> Option<Duration> {
    let _hurried = crate::wait::hurry();
    let held = Held::stop_all(process, limits).ok()?;
    Some(held.release().0)
}

fn not_stopped(pid: i32, error: StopError, limits: &Limits) -> Tried {
    let blocked = |tid, stopped| Tried::Blocked {
        blocking: vec![Blocked::as_a_whole(pid, tid, BlockingReason::DidNotStop)],
        stopped,
    };
    match error {
        StopError::DidNotStop { tid } => blocked(tid, limits.max_stop),
        StopError::Traced { tid } => blocked(tid, Duration::ZERO),
        StopError::Not(why) => Tried::Not(pid, why),
        StopError::Gone => Tried::Not(pid, NotApplied::Exited),
    }
}

/// The blocking threads, if every one of them was stopped in user space: such a thread
/// is likely to be out of a short function in a moment, and it is cheaper for all to
/// wait that moment than to be stopped again.
fn passing(blocking: &[Blocked], stages: &[Stage<'_>]) -> Option<Vec<i32>> {
    let in_user_space = |blocked: &Blocked| {
        let stage = stages.iter().find(|stage| stage.site.process.pid() == blocked.pid)?;
        let thread = stage.held.threads.iter().find(|thread| thread.tid == blocked.tid)?;
        let registers = thread.registers?;
        (registers.orig_rax.cast_signed() < 0 && !thread.group_stopped).then_some(blocked.tid)
    };
    blocking.iter().map(in_user_space).collect()
}

/// Lets those threads run on for a moment while all others are held.
fn nudge(stages: &mut [Stage<'_>], tids: &[i32], limits: &Limits, until: Instant) -> Result<(), Tried> {
    let concerned = |stage: &Stage<'_>| stage.held.threads.iter().any(|thread| tids.contains(&thread.tid));
    for stage in stages.iter_mut().filter(|stage| concerned(stage)) {
        let process = stage.site.process;
        stage.held.nudge(process, limits, tids, until).map_err(|error| not_stopped(process.pid(), error, limits))?;
    }
    Ok(())
}

/// Whether all may change: every process as it was when it was prepared, and no thread in
/// the way. One that is gone, or runs another program by now, is no longer of them.
fn look_at_all(stages: &mut Vec<Stage<'_>>, limits: &Limits, chunk: &mut [u8]) -> Result<(), (i32, Act)> {
    let (mut blocking, mut first) = (Vec::new(), None);
    let alone = stages.len() < 2;
    let mut left = Vec::new();
    for stage in stages.iter_mut() {
        let pid = stage.site.process.pid();
        match look(stage, limits, chunk) {
            Ok(found) => {
                first = first.or_else(|| (!found.is_empty()).then_some(pid));
                blocking.extend(found);
            }
            Err(Act::Not(NotApplied::Exited | NotApplied::Executed)) if !alone => left.push(pid),
            Err(act) => return Err((pid, act)),
        }
    }
    stages.retain(|stage| !left.contains(&stage.site.process.pid()));
    match first {
        None => Ok(()),
        Some(pid) => Err((pid, Act::Blocked(blocking))),
    }
}

/// All writes of all processes; if one process takes back its own, so do those before it.
fn change_all(stages: &mut [Stage<'_>]) -> Result<(), (i32, Act)> {
    let alone = stages.len() < 2;
    for index in 0..stages.len() {
        let Some(stage) = stages.get_mut(index) else { break };
        let Site { process, memory, plan } = stage.site;
        let changed = match &plan.commit {
            Some(commit) => commit.run(process, memory, &plan.writes, &mut stage.held),
            None => write(memory, &plan.writes),
        };
        match changed {
            Ok(()) => {}
            Err(Act::Not(NotApplied::Exited) | Act::Lost(Lost::Exited)) if !alone => {}
            Err(act) => {
                for before in stages.get(..index).unwrap_or_default() {
                    let undone = undo(before.site.memory, &before.site.plan.writes);
                    if before.site.process.still_there().is_ok() {
                        undone.map_err(|act| (before.site.process.pid(), act))?;
                    }
                }
                return Err((process.pid(), act));
            }
        }
    }
    Ok(())
}

/// The threads of one process that are in the way.
fn look(stage: &mut Stage<'_>, limits: &Limits, chunk: &mut [u8]) -> Result<Vec<Blocked>, Act> {
    let Stage { site: Site { process, memory, plan }, held, space } = stage;
    // The pidfd and the `/proc` directory are this very process's, whatever its number
    // means by now; the memory is that of the program it ran when it was looked at.
    let unread = |error| Act::Not(NotApplied::of_unread(&error));
    process.still_there().map_err(unread)?;
    space.refresh(process, limits).map_err(unread)?;
    verify(memory, plan, space)?;
    let checker =
        Checker { memory, tables: &plan.tables, main_stack: plan.main_stack, limits, space, pid: process.pid() };
    let mut found = check_all(&checker, &plan.forbidden, &held.threads, chunk, leave::frames);
    if plan.commit.is_some() {
        stepping(process.pid(), &held.threads, &mut found);
    }
    Ok(found)
}

/// Adds the threads that can be sent to no gate and make no writes, for they would trap there.
fn stepping(pid: i32, threads: &[HeldThread], found: &mut Vec<Blocked>) {
    let steps = |thread: &&HeldThread| thread.registers.as_ref().is_some_and(home::steps);
    for &HeldThread { tid, .. } in threads.iter().filter(steps) {
        if !found.iter().any(|blocked| blocked.tid == tid) {
            let why = BlockingReason::Stepping;
            found.push(Blocked::as_a_whole(pid, tid, why));
        }
    }
}

/// The mapping is the same file's, and the bytes are the expected ones, at every place.
fn verify(memory: &Memory, plan: &Plan<'_>, space: &Space) -> Result<(), Act> {
    let mut near = memory.near();
    for write in &plan.writes {
        // An address space that is gone (exit, exec) reads nothing, and has no mappings either.
        let found = write.expected.now(|into| near.read_into(write.at, into).is_ok());
        let found = found.ok_or(Act::Not(NotApplied::Executed))?;
        if !space.still_is(&write.mapping, write.at) {
            return Err(Act::Not(NotApplied::not_from_file(&write.path, write.va, write.mapping.perms.execute)));
        }
        if found != write.expected {
            return Err(Act::Not(NotApplied::UnexpectedBytes {
                path: write.path.clone(),
                function: write.function.clone(),
                va: write.va,
                found: found.to_vec(),
            }));
        }
    }
    Ok(())
}
