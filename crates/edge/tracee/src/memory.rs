//! The memory of a process, by `/proc/PID/mem`.
//!
//! The descriptor is bound to the address space that the process had when it was
//! opened: after an `execve` it reads nothing, so that a write can never reach
//! another program. Writes are forced: they go into private mappings of files
//! that are not writable, by copying the page, never into the file.

use crate::Errno;
use crate::fault;
use crate::process::{Process, ReadError};
use core::time::Duration;
use rustix::fs::OFlags;
use salve_elf::RuntimeAddr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

const LOCK_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Memory {
    file: File,
}

/// Another descriptor of the same, to be given to the process itself. Not a duplicate:
/// that would share the lock.
pub(crate) fn another(process: &Process) -> Result<File, ReadError> {
    process.open_entry("mem", "mem", OFlags::RDWR)
}

impl Memory {
    pub(crate) fn open(process: &Process) -> Result<Self, ReadError> {
        Ok(Self { file: process.open_entry("mem", "mem", OFlags::RDWR)? })
    }

    /// Keeps other Salves away for as long as this is open; `false` if one keeps us away.
    /// Only who may trace the process can open this file, so nobody else can be in the way.
    /// Waits a little: for one that was killed and is not quite gone, or for a child that
    /// has not executed its own program yet.
    pub(crate) fn lock(&self) -> Result<bool, ReadError> {
        let start = Instant::now();
        loop {
            match rustix::fs::flock(&self.file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(true),
                Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() > LOCK_PATIENCE => return Ok(false),
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(5)),
                Err(errno) => return Err(ReadError::of("lock", errno)),
            }
        }
    }

    pub(crate) fn open_to_read(process: &Process) -> Result<Self, ReadError> {
        Ok(Self { file: process.open_entry("mem", "mem", OFlags::RDONLY)? })
    }

    /// How many bytes could be read: fewer than asked for where mapped memory ends.
    pub(crate) fn read(&self, at: RuntimeAddr, into: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0_usize;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let position = at.raw().wrapping_add(u64::try_from(done).unwrap_or(0));
            match self.file.read_at(rest, position) {
                Ok(0) => break,
                Ok(len) => done = done.saturating_add(len),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) if done > 0 => break,
                Err(error) => return Err(Errno::of(&error)),
            }
        }
        Ok(done)
    }

    pub(crate) fn read_exact(&self, at: RuntimeAddr, into: &mut [u8]) -> Result<(), Errno> {
        let want = into.len();
        // Nothing at all comes from an address space that is gone.
        if self.read(at, into)? == want { Ok(()) } else { Err(Errno::EIO) }
    }

    pub(crate) fn word(&self, at: RuntimeAddr) -> Result<u64, Errno> {
        let mut word = [0; 8];
        self.read_exact(at, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    pub(crate) fn half_word(&self, at: RuntimeAddr) -> Result<i32, Errno> {
        let mut word = [0; 4];
        self.read_exact(at, &mut word)?;
        Ok(i32::from_le_bytes(word))
    }

    /// For reading many places that lie near each other.
    pub(crate) fn near(&self) -> Near<'_> {
        Near { memory: self, start: 0, bytes: [0; NEAR_BYTES], len: 0 }
    }

    /// All of it in one write, or an error.
    pub(crate) fn write(&self, at: RuntimeAddr, bytes: &[u8]) -> Result<(), Errno> {
        fault::step();
        if fault::write_fails() {
            return Err(Errno::EIO);
        }
        loop {
            match self.file.write_at(bytes, at.raw()) {
                Ok(len) if len == bytes.len() => return Ok(()),
                // The address space is gone: its process ended, or executes another program.
                Ok(0) if !bytes.is_empty() => return Err(Errno(libc::ESRCH)),
                Ok(_) => return Err(Errno::EIO),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Errno::of(&error)),
            }
        }
    }
}

/// As much as is read at once.
const NEAR_BYTES: usize = 4096;

/// What was read around the last place: good for as long as nobody writes.
pub(crate) struct Near<'m> {
    memory: &'m Memory,
    start: u64,
    bytes: [u8; NEAR_BYTES],
    len: usize,
}

impl Near<'_> {
    pub(crate) fn read_into(&mut self, at: RuntimeAddr, bytes: &mut [u8]) -> Result<(), Errno> {
        if self.known(at, bytes).is_some() {
            return Ok(());
        }
        (self.start, self.len) = (at.raw(), 0);
        self.len = self.memory.read(at, &mut self.bytes)?;
        self.known(at, bytes).ok_or(Errno::EIO)
    }

    fn known(&self, at: RuntimeAddr, bytes: &mut [u8]) -> Option<()> {
        let into = usize::try_from(at.raw().checked_sub(self.start)?).ok()?;
        let known = self.bytes.get(..self.len)?.get(into..into.checked_add(bytes.len())?)?;
        bytes.copy_from_slice(known);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_near_each_other_and_far_apart_are_read_as_they_are() {
        let bytes: Vec<u8> = (0..3 * NEAR_BYTES).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let own = Process::open(std::process::id().cast_signed()).unwrap();
        let memory = Memory::open_to_read(&own).unwrap();
        let start = u64::try_from(bytes.as_ptr().addr()).unwrap();
        let mut near = memory.near();
        for into in [0, 5, 4091, 4092, 4096, 3, 9000, 8999, 2 * NEAR_BYTES] {
            let at = RuntimeAddr::new(start + u64::try_from(into).unwrap());
            let mut found = [0; 5];
            near.read_into(at, &mut found).unwrap();
            assert_eq!(found, bytes[into..into + 5], "{into}");
        }
        let nowhere = RuntimeAddr::new(8);
        assert!(near.read_into(nowhere, &mut [0; 5]).is_err() && near.read_into(nowhere, &mut [0; 5]).is_err());
    }
}
