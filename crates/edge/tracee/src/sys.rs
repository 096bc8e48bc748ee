//! `ptrace(2)` and `waitpid(2)`, one unsafe operation each, with typed results.
//!
//! This is all the unsafe code there is, but for a timer (`alarm`). Every call names a thread by number and
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

fn wait_with(tid: i32, flags: c_int) -> Result<Event> {
    let mut status: c_int = 0;
    // SAFETY: `status` is a live local integer.
    let result = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::__WNOTHREAD | flags) };
    match result {
        0 => Ok(Event::None),
        -1 => match Errno::of(&std::io::Error::last_os_error()) {
            Errno(libc::ECHILD) => Ok(Event::Exited),
            Errno(libc::EINTR) => Ok(Event::None),
            other => Err(other),
        },
        _ => Ok(event(status)),
    }
}

fn event(status: c_int) -> Event {
    if !libc::WIFSTOPPED(status) {
        return Event::Exited;
    }
    match (libc::WSTOPSIG(status), status >> 16) {
        (libc::SIGTRAP, libc::PTRACE_EVENT_STOP) => Event::Stopped,
        (_, libc::PTRACE_EVENT_STOP) => Event::GroupStopped,
        (signal, 0) if signal == libc::SIGTRAP | 0x80 => Event::SystemCall,
        (signal, 0) => Event::Signal(signal),
        // No other event was asked for; a thread in one is stopped all the same.
        _ => Event::Stopped,
    }
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
    let mut status: c_int = 0;
    let flags = libc::__WALL | libc::__WNOTHREAD | if block { 0 } else { libc::WNOHANG };
    // SAFETY: `status` is a live local integer.
    let tid = unsafe { libc::waitpid(-1, &raw mut status, flags) };
    Ok(match tid {
        0 => Followed::Nothing,
        -1 => match Errno::of(&std::io::Error::last_os_error()) {
            Errno(libc::ECHILD) => Followed::Nobody,
            Errno(libc::EINTR) => Followed::Nothing,
            other => return Err(other),
        },
        tid if !libc::WIFSTOPPED(status) => Followed::Exited(tid),
        tid => match (libc::WSTOPSIG(status), status >> 16) {
            (_, libc::PTRACE_EVENT_EXEC) => Followed::Executed(tid),
            (libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU, libc::PTRACE_EVENT_STOP) => {
                Followed::GroupStopped(tid)
            }
            (signal, 0) => Followed::Signal(tid, signal),
            _ => Followed::Other(tid),
        },
    })
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

/// Waits for a child of this process to end.
pub(crate) fn reap(child: i32) {
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
