//! `ptrace(2)` and `waitpid(2)`, one unsafe operation each, with typed results.
//!
//! This is all the unsafe code there is, but for a timer (`alarm`) and for breakpoints
//! (`breakpoint`). Every call names a thread by number and
//! hands the kernel pointers to local values only, so no call can break the
//! memory of this program, whatever the number means.

use crate::Errno;
use crate::fault;
use core::mem::MaybeUninit;
use libc::{c_int, c_uint, c_void, user_regs_struct};

type Result<T> = core::result::Result<T, Errno>;

/// Missing in the C library's headers (`include/uapi/linux/ptrace.h`).
const PTRACE_SECCOMP_GET_FILTER: c_uint = 0x420c;
const PTRACE_GET_RSEQ_CONFIGURATION: c_uint = 0x420f;
const PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG: c_uint = 0x4211;

/// One instruction of classic BPF (`struct sock_filter`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct BpfInstruction {
    pub(crate) code: u16,
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) k: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct RseqConfiguration {
    pub(crate) pointer: u64,
    pub(crate) size: u32,
    pub(crate) signature: u32,
    flags: u32,
    pad: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct UserDispatch {
    mode: u64,
    selector: u64,
    offset: u64,
    len: u64,
}

/// What `waitpid` told of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing yet.
    None,
    /// Stopped by `PTRACE_INTERRUPT`.
    Stopped,
    /// Stopped with its whole process, by a signal like `SIGSTOP`.
    GroupStopped,
    /// At the entry or the exit of a system call.
    SystemCall,
    /// About to be handed this signal.
    Signal(c_int),
    /// Gone.
    Exited,
}

/// `struct procmap_query` of `include/uapi/linux/fs.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct MappingQuery {
    size: u64,
    query_flags: u64,
    query_address: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) flags: u64,
    page_size: u64,
    pub(crate) offset: u64,
    pub(crate) inode: u64,
    pub(crate) dev_major: u32,
    pub(crate) dev_minor: u32,
    name_size: u32,
    build_id_size: u32,
    name_address: u64,
    build_id_address: u64,
}

/// `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: libc::c_ulong = 0xc068_6611;
const _: () = assert!(size_of::<MappingQuery>() == 0x68);

/// The mapping that holds `address`, asked of an open `/proc/PID/maps` (Linux 6.11);
/// `ENOENT` where there is none, `ENOTTY` where the kernel cannot be asked.
pub(crate) fn mapping_at(maps: &std::fs::File, address: u64) -> Result<MappingQuery> {
    let mut query = MappingQuery {
        size: u64::try_from(size_of::<MappingQuery>()).unwrap_or(0),
        query_address: address,
        ..MappingQuery::default()
    };
    // SAFETY: the request reads and fills a structure of exactly this layout, asserted above.
    let result = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(maps), PROCMAP_QUERY, &raw mut query) };
    check(libc::c_long::from(result)).map(|_| query)
}

fn check(result: libc::c_long) -> Result<libc::c_long> {
    if result == -1 { Err(Errno::of(&std::io::Error::last_os_error())) } else { Ok(result) }
}

fn plain(request: c_uint, tid: i32, address: usize, data: usize) -> Result<()> {
    fault::step();
    // SAFETY: requests made through here take numbers only; the kernel reads or writes no memory of ours.
    let result = unsafe { libc::ptrace(request, tid, address, data) };
    check(result).map(|_| ())
}

fn with<T>(request: c_uint, tid: i32, address: usize, data: *mut T) -> Result<libc::c_long> {
    fault::step();
    // SAFETY: `data` points to a live local of the type that the request is documented to fill or read.
    let result = unsafe { libc::ptrace(request, tid, address, data.cast::<c_void>()) };
    check(result)
}

/// Several runs of another process's memory, each an address and a length, one behind the
/// other in `into`; `None` where not all of them could be read (`process_vm_readv(2)`). A
/// process that may be traced may be read, and while it is traced its number is its own.
pub(crate) fn read_together<'i>(pid: i32, runs: &[(u64, usize)], into: &'i mut [u8]) -> Option<&'i [u8]> {
    let run = |&(at, iov_len): &(u64, usize)| {
        let iov_base = core::ptr::without_provenance_mut(usize::try_from(at).ok()?);
        Some(libc::iovec { iov_base, iov_len })
    };
    let remote: Vec<libc::iovec> = runs.iter().map(run).collect::<Option<_>>()?;
    let count = libc::c_ulong::try_from(remote.len()).ok()?;
    let want = runs.iter().try_fold(0_usize, |sum, (_, len)| sum.checked_add(*len))?;
    let room = into.get_mut(..want)?;
    let local = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    // SAFETY: `local` is a live buffer of ours that nobody else uses; the other addresses are only read, by the
    // kernel, in the other process.
    let got = unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), count, 0) };
    (usize::try_from(got) == Ok(want)).then_some(room)
}

/// The lowest real-time priority for the calling thread, or none (`sched_setscheduler(2)`).
/// Threads that it starts have the same: the ones that borrow while others stand.
pub(crate) fn be_real_time(real_time: bool) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: c_int::from(real_time) };
    let policy = if real_time { libc::SCHED_FIFO } else { libc::SCHED_OTHER };
    // SAFETY: `parameters` is a live local; with no number the kernel means the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    check(libc::c_long::from(result)).map(|_| ())
}

/// Attaches without stopping. No option that outlives or ends with this program's death
/// in a way that a target notices: only the mark on system call stops.
pub(crate) fn seize(tid: i32) -> Result<()> {
    plain(libc::PTRACE_SEIZE, tid, 0, usize::try_from(libc::PTRACE_O_TRACESYSGOOD).unwrap_or(1))
}

pub(crate) fn interrupt(tid: i32) -> Result<()> {
    plain(libc::PTRACE_INTERRUPT, tid, 0, 0)
}

pub(crate) fn resume(tid: i32, signal: c_int) -> Result<()> {
    plain(libc::PTRACE_CONT, tid, 0, usize::try_from(signal).unwrap_or(0))
}

pub(crate) fn detach(tid: i32) -> Result<()> {
    plain(libc::PTRACE_DETACH, tid, 0, 0)
}

pub(crate) fn registers(tid: i32) -> Result<user_regs_struct> {
    let mut registers = MaybeUninit::<user_regs_struct>::zeroed();
    with(libc::PTRACE_GETREGS, tid, 0, registers.as_mut_ptr())?;
    // SAFETY: the kernel filled it, and it is plain integers that were zero before.
    Ok(unsafe { registers.assume_init() })
}

pub(crate) fn set_registers(tid: i32, registers: &user_regs_struct) -> Result<()> {
    let mut copy = *registers;
    with(libc::PTRACE_SETREGS, tid, 0, &raw mut copy).map(|_| ())
}

/// `siginfo_t` as far as it says which descriptor a signal is about (`sigaction(2)`).
#[derive(Clone, Copy)]
#[repr(C)]
struct SignalInfo {
    signal: c_int,
    errno: c_int,
    code: c_int,
    pad: c_int,
    band: libc::c_long,
    descriptor: c_int,
    rest: [c_int; 25],
}

const _: () = assert!(size_of::<SignalInfo>() == size_of::<libc::siginfo_t>());
/// The highest of the codes that say what happened to a descriptor, `POLL_HUP`.
const LAST_DESCRIPTOR_CODE: c_int = 6;

/// The descriptor of this program that the signal before which a thread stands is about.
pub(crate) fn signal_descriptor(tid: i32) -> Result<Option<c_int>> {
    let mut info = MaybeUninit::<SignalInfo>::zeroed();
    with(libc::PTRACE_GETSIGINFO, tid, 0, info.as_mut_ptr())?;
    // SAFETY: the kernel filled it, and it is plain integers that were zero before.
    let info = unsafe { info.assume_init() };
    Ok((1..=LAST_DESCRIPTOR_CODE).contains(&info.code).then_some(info.descriptor))
}

pub(crate) fn signal_mask(tid: i32) -> Result<u64> {
    let mut mask = 0_u64;
    with(libc::PTRACE_GETSIGMASK, tid, size_of::<u64>(), &raw mut mask)?;
    Ok(mask)
}

pub(crate) fn set_signal_mask(tid: i32, mask: u64) -> Result<()> {
    let mut mask = mask;
    with(libc::PTRACE_SETSIGMASK, tid, size_of::<u64>(), &raw mut mask).map(|_| ())
}

/// `Ok(None)` where the kernel knows no such request (before Linux 5.13).
pub(crate) fn rseq(tid: i32) -> Result<Option<RseqConfiguration>> {
    let mut configuration = RseqConfiguration::default();
    match with(PTRACE_GET_RSEQ_CONFIGURATION, tid, size_of::<RseqConfiguration>(), &raw mut configuration) {
        Ok(_) => Ok(Some(configuration)),
        Err(Errno(libc::EIO | libc::EINVAL)) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Whether system calls may be turned into signals (`PR_SET_SYSCALL_USER_DISPATCH`).
pub(crate) fn dispatches_system_calls(tid: i32) -> Result<bool> {
    let mut dispatch = UserDispatch::default();
    match with(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, size_of::<UserDispatch>(), &raw mut dispatch) {
        Ok(_) => Ok(dispatch.mode != 0),
        // The request is as old as Linux 6.4. Before, it cannot be asked; such a thread would
        // get a SIGSYS at its own handler, which is what it asked for.
        Err(Errno(libc::EIO | libc::EINVAL)) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Whether the thread is in no filter mode; `None` where the kernel does not tell
/// (it tells only those who may administer the system).
pub(crate) fn is_unfiltered(tid: i32) -> Option<bool> {
    match plain(PTRACE_SECCOMP_GET_FILTER, tid, 0, 0) {
        Ok(()) => Some(false),
        Err(Errno(libc::EINVAL)) => Some(true),
        Err(_) => None,
    }
}

/// The `index`-th filter, the newest first; `None` behind the last.
pub(crate) fn seccomp_filter(tid: i32, index: usize) -> Result<Option<Vec<BpfInstruction>>> {
    // BPF_MAXINSNS is 4096; the kernel writes no more than the length it tells.
    let mut program = vec![BpfInstruction::default(); 4096];
    match with(PTRACE_SECCOMP_GET_FILTER, tid, index, program.as_mut_ptr()) {
        Ok(len) => {
            program.truncate(usize::try_from(len).unwrap_or(0));
            Ok(Some(program))
        }
        Err(Errno(libc::ENOENT)) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Asks, without waiting, what became of a thread that this thread traces.
pub(crate) fn poll(tid: i32) -> Result<Event> {
    wait_with(tid, libc::WNOHANG)
}

/// Waits until something becomes of it, or an alarm goes off.
pub(crate) fn wait(tid: i32) -> Result<Event> {
    wait_with(tid, 0)
}

/// Waits until something becomes of any thread that this thread traces, or an alarm goes
/// off; `false` where there is nobody to wait for.
pub(crate) fn wait_for_any() -> bool {
    !matches!(peek(libc::P_ALL, 0, 0), Err(errno) if errno != Errno(libc::EINTR))
}

fn wait_with(tid: i32, flags: c_int) -> Result<Event> {
    let id = libc::id_t::try_from(tid).map_err(|_| Errno(libc::ESRCH))?;
    match peek(libc::P_PID, id, flags) {
        Ok(None) | Err(Errno(libc::EINTR)) => Ok(Event::None),
        Ok(Some(Peeked { how: How::Ended, .. })) => {
            reap(tid);
            Ok(Event::Exited)
        }
        Ok(Some(Peeked { how: How::Stopped { signal, event }, .. })) => Ok(match (signal, event) {
            (libc::SIGTRAP, libc::PTRACE_EVENT_STOP) => Event::Stopped,
            (_, libc::PTRACE_EVENT_STOP) => Event::GroupStopped,
            (signal, 0) if signal == libc::SIGTRAP | 0x80 => Event::SystemCall,
            (signal, 0) => Event::Signal(signal),
            // No other event was asked for; a thread in one is stopped all the same.
            _ => Event::Stopped,
        }),
        Err(Errno(libc::ECHILD)) => Ok(Event::Exited),
        Err(other) => Err(other),
    }
}

/// What became of a thread, and is still to be asked for.
struct Peeked {
    tid: i32,
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    Ended,
    Stopped { signal: c_int, event: c_int },
}

/// Asks what became of a thread that this thread traces, and leaves it to be asked for
/// again (`WNOWAIT`).
///
/// Who stands before a signal is handed it when its tracer dies, but only while nobody has
/// asked for that stop: `waitpid(2)` takes the signal's number away, and until the thread
/// is resumed with it the signal would die with the tracer.
fn peek(kind: libc::idtype_t, id: libc::id_t, flags: c_int) -> Result<Option<Peeked>> {
    let flags = libc::WEXITED | libc::WNOWAIT | libc::__WALL | libc::__WNOTHREAD | flags;
    let mut info = core::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is a live local of the type that the kernel fills.
    if unsafe { libc::waitid(kind, id, info.as_mut_ptr(), flags) } == -1 {
        return Err(Errno::of(&std::io::Error::last_os_error()));
    }
    // SAFETY: all zeroes is a value of it, and whatever the kernel wrote is one.
    let info = unsafe { info.assume_init() };
    // SAFETY: `waitid` fills what goes with SIGCHLD, or leaves it zero.
    let tid = unsafe { info.si_pid() };
    // SAFETY: as before.
    let status = unsafe { info.si_status() };
    let how = match info.si_code {
        libc::CLD_TRAPPED | libc::CLD_STOPPED => How::Stopped { signal: status & 0xff, event: status >> 8 },
        _ => How::Ended,
    };
    Ok((tid != 0).then_some(Peeked { tid, how }))
}

/// What happened to any of the threads that this thread traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// Nothing yet.
    Nothing,
    /// No thread is traced any more.
    Nobody,
    /// A program was executed in this process; it has not run yet.
    Executed(i32),
    /// Stopped with its whole process by a signal, to be left so.
    GroupStopped(i32),
    /// About to be handed this signal.
    Signal(i32, c_int),
    /// Stopped for any other reason; it only has to go on.
    Other(i32),
    Exited(i32),
}

/// Attaches without stopping; tells of executed programs and, if wanted, follows children.
pub(crate) fn seize_to_follow(tid: i32, children: bool) -> Result<()> {
    let follow = libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACECLONE;
    let options = libc::PTRACE_O_TRACEEXEC | if children { follow } else { 0 };
    plain(libc::PTRACE_SEIZE, tid, 0, usize::try_from(options).unwrap_or(0))
}

/// Leaves a thread in the stop of its whole process.
pub(crate) fn listen(tid: i32) -> Result<()> {
    plain(libc::PTRACE_LISTEN, tid, 0, 0)
}

/// What became of any thread that this thread traces; waits for it where `block` says so.
pub(crate) fn followed(block: bool) -> Result<Followed> {
    let Peeked { tid, how } = match peek(libc::P_ALL, 0, if block { 0 } else { libc::WNOHANG }) {
        Ok(Some(peeked)) => peeked,
        Ok(None) | Err(Errno(libc::EINTR)) => return Ok(Followed::Nothing),
        Err(Errno(libc::ECHILD)) => return Ok(Followed::Nobody),
        Err(other) => return Err(other),
    };
    let followed = match how {
        How::Ended => Followed::Exited(tid),
        // To be resumed with it at once.
        How::Stopped { signal, event: 0 } => return Ok(Followed::Signal(tid, signal)),
        How::Stopped { event: libc::PTRACE_EVENT_EXEC, .. } => Followed::Executed(tid),
        How::Stopped {
            signal: libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU,
            event: libc::PTRACE_EVENT_STOP,
        } => Followed::GroupStopped(tid),
        How::Stopped { .. } => Followed::Other(tid),
    };
    // So that the next look is at somebody else.
    reap(tid);
    Ok(followed)
}

/// The same program twice: the child's number in the one, `None` in the other.
/// Refuses where a second thread runs: it would be missing in the copy.
pub(crate) fn fork() -> Result<Option<i32>> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|error| Errno::of(&error))?.count();
    if threads != 1 {
        return Err(Errno(libc::EBUSY));
    }
    // SAFETY: this is the only thread, looked at above, so the copy has all there is.
    match unsafe { libc::fork() } {
        -1 => Err(Errno::of(&std::io::Error::last_os_error())),
        0 => Ok(None),
        child => Ok(Some(child)),
    }
}

/// Takes what is known to have become of it.
fn reap(tid: i32) {
    let mut status: c_int = 0;
    // SAFETY: `status` is a live local integer.
    let _taken = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG) };
}

/// Waits for a child of this process to end.
pub(crate) fn await_end(child: i32) {
    let mut status: c_int = 0;
    // SAFETY: `status` is a live local integer.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1
        && Errno::of(&std::io::Error::last_os_error()) == Errno(libc::EINTR)
    {}
}

/// Ends this process at once: nothing that it shares with its copy is flushed or taken down.
pub(crate) fn end_at_once(status: c_int) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(status) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    /// A thread that ends lets its tracees go just as a process that is killed does.
    #[test]
    fn a_tracer_that_dies_before_it_hands_a_signal_on_does_not_take_it_along() {
        let script = "trap 'echo got' USR1; echo ready; while :; do sleep 0.01; done";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let tid = i32::try_from(child.id()).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(std::io::Result::unwrap);
        assert_eq!(lines.next().unwrap(), "ready");
        std::thread::spawn(move || {
            seize(tid).unwrap();
            let pid = rustix::process::Pid::from_raw(tid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
            loop {
                match wait(tid).unwrap() {
                    Event::Signal(libc::SIGUSR1) => break,
                    Event::Signal(other) => resume(tid, other).unwrap(),
                    _ => resume(tid, 0).unwrap(),
                }
            }
        })
        .join()
        .unwrap();
        // Where it was lost, this is what comes instead.
        let killer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_secs(20));
            let _ = child.kill();
            child.wait()
        });
        assert_eq!(lines.next().as_deref(), Some("got"));
        let pid = rustix::process::Pid::from_raw(tid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        drop(killer);
    }
}
