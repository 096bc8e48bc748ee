//! A breakpoint of the processor's, for one thread, that nothing of is left when this
//! process is gone: it belongs to a descriptor (`perf_event_open(2)`), and what it does is
//! send its thread a signal that the thread ignores unless it is traced.

use crate::{Errno, fault};
use core::time::Duration;
use libc::{c_int, c_long, c_ulong};
use salve_elf::RuntimeAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// `struct perf_event_attr` as far as it went in its second version (`PERF_ATTR_SIZE_VER1`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    address: u64,
    len: u64,
}

const SIZE: u32 = 72;
const _: () = assert!(size_of::<Attributes>() == 72);
const PERF_TYPE_BREAKPOINT: u32 = 5;
const HW_BREAKPOINT_X: u32 = 4;
/// `disabled`, `exclude_kernel` and `exclude_hv`.
const FLAGS: u64 = 1 | 1 << 5 | 1 << 6;
const PERF_FLAG_FD_CLOEXEC: c_ulong = 8;
/// `_IO('$', 2)`: enabled for so many hits.
const PERF_EVENT_IOC_REFRESH: c_ulong = 0x2402;
const F_SETSIG: c_int = 10;
const F_SETOWN_EX: c_int = 15;

/// `struct f_owner_ex`; kind 0 is one thread.
#[repr(C)]
struct Owner {
    kind: c_int,
    id: c_int,
}

/// Whether this machine gives any.
#[derive(Debug)]
enum First<T> {
    NotAsked,
    Asked,
    /// Kept for as long as this process lives.
    There(T),
    /// Its processors, or who runs this, have none.
    None,
}

/// Opens one aside, so that nobody waits for it longer than he wants to.
#[derive(Debug)]
struct Aside<T> {
    first: Mutex<First<T>>,
    told: Condvar,
}

impl<T: Send + 'static> Aside<T> {
    const fn new() -> Self {
        Self { first: Mutex::new(First::NotAsked), told: Condvar::new() }
    }

    /// Whether it is open, or is so within `patience`; the first to ask has it opened.
    fn is_there_within(
        &'static self,
        patience: Duration,
        open: impl FnOnce() -> Result<T, Errno> + Send + 'static,
    ) -> bool {
        let mut first = self.now();
        if matches!(*first, First::NotAsked) {
            *first = First::Asked;
            let open = move || {
                let opened = open().map_or(First::None, First::There);
                *self.now() = opened;
                self.told.notify_all();
            };
            if std::thread::Builder::new().name("salve-breakpoint".to_owned()).spawn(open).is_err() {
                *first = First::NotAsked;
            }
        }
        let asked = |first: &mut First<T>| matches!(first, First::Asked);
        let (first, _) = self.told.wait_timeout_while(first, patience, asked).unwrap_or_else(PoisonError::into_inner);
        matches!(*first, First::There(_))
    }

    fn may_exist(&self) -> bool {
        !matches!(*self.now(), First::None)
    }

    fn now(&self) -> MutexGuard<'_, First<T>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static FIRST: Aside<OwnedFd> = Aside::new();

/// Whether breakpoints can be set at once, or in so short a while.
///
/// For the first event of a machine the kernel changes how it switches between tasks, and
/// waits until every processor has noticed: 15 ms, but more than 20 s were seen where a
/// hundred threads and two builds shared two processors. So one is opened aside, and kept;
/// each further one takes microseconds.
pub(crate) fn are_ready_within(patience: Duration) -> bool {
    FIRST.is_there_within(patience, || open(0, RuntimeAddr::new(0)))
}

/// Whether there may be any, as far as is known.
pub(crate) fn may_exist() -> bool {
    FIRST.may_exist()
}

#[derive(Debug)]
pub(crate) struct Breakpoint {
    event: OwnedFd,
}

/// One that is not enabled; with no number, for the calling thread.
fn open(tid: i32, at: RuntimeAddr) -> Result<OwnedFd, Errno> {
    let attributes = Attributes {
        kind: PERF_TYPE_BREAKPOINT,
        size: SIZE,
        sample_period: 1,
        flags: FLAGS,
        breakpoint_type: HW_BREAKPOINT_X,
        address: at.raw(),
        len: u64::try_from(size_of::<c_long>()).unwrap_or(8),
        ..Attributes::default()
    };
    let any_processor: c_int = -1;
    let no_group: c_int = -1;
    // SAFETY: the kernel reads a structure of exactly the size that it names, asserted above.
    let opened = unsafe {
        let call = libc::SYS_perf_event_open;
        libc::syscall(call, &raw const attributes, tid, any_processor, no_group, PERF_FLAG_FD_CLOEXEC)
    };
    let descriptor = c_int::try_from(check(opened)?).map_err(|_| Errno(libc::EBADF))?;
    // SAFETY: the kernel has just made it for this call, and nobody else has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

impl Breakpoint {
    /// When the thread is about to execute what is at `at`, once, it gets `signal`.
    pub(crate) fn set(tid: i32, at: RuntimeAddr, signal: c_int) -> Result<Self, Errno> {
        fault::step();
        let event = open(tid, at)?;
        let owner = Owner { kind: 0, id: tid };
        // SAFETY: the kernel reads a structure of this layout (`fcntl(2)`, F_SETOWN_EX).
        check(unsafe { libc::fcntl(event.as_raw_fd(), F_SETOWN_EX, &raw const owner) }.into())?;
        for (command, value) in [(F_SETSIG, signal), (libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK)] {
            // SAFETY: these take a number.
            check(unsafe { libc::fcntl(event.as_raw_fd(), command, value) }.into())?;
        }
        // SAFETY: it takes a number.
        check(unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_REFRESH, 1) }.into())?;
        Ok(Self { event })
    }

    /// By which its signals can be told from others.
    pub(crate) fn descriptor(&self) -> c_int {
        self.event.as_raw_fd()
    }
}

fn check(result: c_long) -> Result<c_long, Errno> {
    if result == -1 { Err(Errno::of(&std::io::Error::last_os_error())) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const AT_ONCE: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_breakpoint_that_takes_long_to_open_is_not_waited_for_and_is_there_later() {
        static SLOW: Aside<u8> = Aside::new();
        let (go, gone) = mpsc::channel::<()>();
        let open = move || gone.recv().map(|()| 1).map_err(|_| Errno(libc::EIO));
        assert!(!SLOW.is_there_within(AT_ONCE, open) && SLOW.may_exist());
        // Nobody opens a second one meanwhile.
        assert!(!SLOW.is_there_within(AT_ONCE, || Ok(2)));
        go.send(()).unwrap();
        assert!(SLOW.is_there_within(LONG, || Ok(3)));
    }

    #[test]
    fn where_there_are_none_nobody_asks_again() {
        static NONE: Aside<u8> = Aside::new();
        assert!(!NONE.is_there_within(LONG, || Err(Errno(libc::ENOENT))));
        assert!(!NONE.may_exist() && !NONE.is_there_within(LONG, || Ok(1)));
    }
}
