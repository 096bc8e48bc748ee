//! What is known of a process before anything is done to it, and what rules it out.

use crate::Errno;
use crate::image::Found;
use crate::limits::Limits;
use crate::maps::Mapping;
use crate::memory::Memory;
use crate::outcome::{Blocking, BlockingReason, Lost, NotApplied};
use crate::patcher::{ApplyError, Patcher};
use crate::present::Present;
use crate::process::{Process, ReadError};
use crate::remote::{MMAP, RemoteError, Target};
use crate::seize;
use crate::tidy::Leftovers;
use crate::transfer;
use crate::transition::Plan;
use core::time::Duration;
use salve_consistency::{Forbidden, UnwindTablesOf};
use salve_elf::RuntimeAddr;

/// Why an attempt ends before its transition.
pub(crate) enum End {
    Not(NotApplied),
    /// Threads are still on their way home from a Salve that was killed.
    Busy(Vec<Blocking>),
    /// This thread could not be borrowed yet, and no other could.
    Late {
        tid: i32,
        why: BlockingReason,
    },
    /// It was killed while a thread of it was borrowed.
    Lost(Lost),
    Error(ApplyError),
}

impl From<NotApplied> for End {
    fn from(why: NotApplied) -> Self {
        Self::Not(why)
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Exited => Self::Not(NotApplied::Exited),
            other => Self::Error(ApplyError::Read(other)),
        }
    }
}

impl From<RemoteError> for End {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Unsuitable(why) => Self::Not(NotApplied::NoThread { why }),
            RemoteError::Gone => Self::Not(NotApplied::Exited),
            RemoteError::Not(why) => Self::Not(why),
            // mmap(2): only for want of memory that may be locked.
            RemoteError::Call { call, errno: Errno(libc::EAGAIN) } if call == MMAP.1 => {
                Self::Not(NotApplied::LockedMemoryLimit)
            }
            RemoteError::Call { call, errno } => Self::Not(NotApplied::RemoteCall { call, errno }),
            RemoteError::Late { tid, why } => Self::Late { tid, why },
            RemoteError::Astray { tid } | RemoteError::Unseen { tid } => {
                Self::Late { tid, why: BlockingReason::Astray }
            }
            RemoteError::Lost(why) => Self::Lost(why),
            RemoteError::Thread(error) => Self::Error(ApplyError::Thread(error)),
            RemoteError::Unread(error) => error.into(),
        }
    }
}

/// A thread that is in the way for what it does as a whole: it steps, sleeps uninterruptibly,
/// waits for its `vfork` child or is in a transfer.
pub(crate) fn late(process: &Process, limits: &Limits, tid: i32, why: BlockingReason) -> Vec<Blocking> {
    let comm = process.thread_name(tid);
    let transfer = || {
        let memory = Memory::open_to_read(process).ok()?;
        transfer::of_thread(process, &memory, limits, tid).map(BlockingReason::Transfer)
    };
    let why = if why == BlockingReason::DidNotStop { transfer().unwrap_or(why) } else { why };
    vec![Blocking { pid: process.pid(), tid, comm, function: String::new(), why }]
}

/// Whether an attempt failed because the process ended: its memory and its threads go
/// a moment before it counts as exited.
pub(crate) fn is_of_an_end(why: &NotApplied, process: &Process) -> bool {
    const MOMENT: Duration = Duration::from_millis(20);
    let moment = match why {
        NotApplied::NoThread { .. } | NotApplied::NoStubRoom | NotApplied::RemoteCall { .. } => MOMENT,
        _other => Duration::ZERO,
    };
    process.exits_within(moment) || process.is_over()
}

/// What is known of a process before anything is done to it.
pub(crate) struct Scene {
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) images: Vec<Found>,
    pub(crate) present: Vec<Present>,
    pub(crate) leftovers: Leftovers,
    pub(crate) memory: Memory,
}

impl Scene {
    /// Reads it all, and refuses what cannot be patched whatever the livepatch.
    pub(crate) fn read(patcher: &Patcher, process: &Process) -> Result<Self, End> {
        if let Some(tracer) = seize::lasting_tracer(process, None)? {
            return Err(NotApplied::AlreadyTraced { tracer }.into());
        }
        let program = patcher.program(process)?;
        let program = program.elf.as_ref().ok_or(NotApplied::NotX86_64)?;
        if !program.interpreter {
            return Err(NotApplied::StaticProgram.into());
        }
        // Opened before the mappings are read: after an exec it reads nothing, and
        // the bytes that are expected are not found.
        let memory = Memory::open(process)?;
        if !memory.lock()? {
            return Err(NotApplied::AnotherSalve.into());
        }
        let mappings = process.mappings(patcher.limits())?;
        let images = patcher.found(process, &mappings)?;
        let (present, _) = Present::find(process, &mappings, &images, patcher.limits())?;
        stack_switching(&images)?;
        // A thread that was let go in its stub is found there like that of a Salve that was killed.
        process.set_astray(None);
        let leftovers = Leftovers::find(process, &memory, &mappings, &images);
        Ok(Self { mappings, images, present, leftovers, memory })
    }

    pub(crate) fn target<'a>(&'a self, patcher: &'a Patcher, process: &'a Process) -> Target<'a> {
        Target { process, memory: &self.memory, images: &self.images, limits: patcher.limits() }
    }

    /// The unwinding tables of every image.
    pub(crate) fn tables(&self) -> Vec<UnwindTablesOf<'_>> {
        self.images
            .iter()
            .filter_map(|image| {
                let elf = image.file.elf.as_ref()?;
                let (tables, bias, span) = (elf.unwind.as_deref()?, image.bias()?, elf.span()?);
                let (start, end) = (span.start().in_process(bias), span.end().in_process(bias));
                Some(UnwindTablesOf { start, end, bias, tables })
            })
            .collect()
    }

    /// A transition that changes nothing yet.
    pub(crate) fn plan(&self) -> Plan<'_> {
        Plan {
            writes: Vec::new(),
            forbidden: Forbidden::default(),
            tables: self.tables(),
            main_stack: self.main_stack(),
            commit: None,
        }
    }

    /// The last byte of the main thread's stack, which stays where it is.
    pub(crate) fn main_stack(&self) -> Option<RuntimeAddr> {
        self.mappings.iter().find(|mapping| mapping.is_named("[stack]"))?.end.checked_sub(1)
    }
}

/// Stacks that no thread is running on cannot be found, so nothing that makes them is patched.
///
/// OpenSSL's libcrypto imports `makecontext` for its asynchronous jobs. Such a job is left
/// on a stack of its own only by `ASYNC_pause_job`, which engines call; where no other
/// image imports that, a job runs to its end on the thread that started it.
fn stack_switching(images: &[Found]) -> Result<(), NotApplied> {
    let facts = || images.iter().filter_map(|image| Some((image, &image.file.elf.as_ref()?.switching)));
    let jobs_are_paused = facts().any(|(_, switching)| switching.imports_async_pause);
    for (image, switching) in facts() {
        if let Some(symbol) = &switching.symbol
            && (jobs_are_paused || !switching.exports_async_pause)
        {
            return Err(NotApplied::StackSwitching { path: image.display(), symbol: symbol.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{ElfFacts, ImageFile, MappedImage, Switching};
    use salve_elf::ContentHash;
    use std::sync::Arc;

    fn image(switching: Switching) -> Found {
        let sha256 = ContentHash::of(b"");
        let elf = ElfFacts { loads: vec![], interpreter: false, soname: None, unwind: None, switching };
        Found {
            image: MappedImage {
                path: "lib".into(),
                deleted: false,
                sha256,
                len_bytes: 0,
                soname: None,
                mappings: vec![],
            },
            file: Arc::new(ImageFile { sha256, len_bytes: 0, elf: Some(elf) }),
        }
    }

    #[test]
    fn openssl_switches_stacks_only_where_its_jobs_are_paused() {
        let openssl = || {
            image(Switching {
                symbol: Some("makecontext".to_owned()),
                exports_async_pause: true,
                imports_async_pause: false,
            })
        };
        let program = || image(Switching::default());
        let engine = || image(Switching { imports_async_pause: true, ..Switching::default() });
        let coroutines = || image(Switching { symbol: Some("swapcontext".to_owned()), ..Switching::default() });
        assert_eq!(stack_switching(&[program(), openssl()]), Ok(()));
        assert!(stack_switching(&[program(), openssl(), engine()]).is_err());
        assert!(stack_switching(&[program(), coroutines()]).is_err());
        assert!(stack_switching(&[openssl(), coroutines()]).is_err());
    }
}
