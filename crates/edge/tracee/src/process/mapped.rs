//! What a process has mapped, and the files behind that.

use super::{Process, ReadError};
use crate::limits::Limits;
use crate::maps::{self, Mapping};
use rustix::fs::OFlags;
use std::fs::File;

impl Process {
    pub fn mappings(&self, limits: &Limits) -> Result<Vec<Mapping>, ReadError> {
        Ok(maps::parse(&self.read_entry("maps", "maps", limits.max_proc_bytes)?)?)
    }

    /// Opens the file behind a mapping, even if it was deleted or lies in another
    /// mount namespace. Regular files only: opening a device can have effects.
    pub fn open_mapped(&self, mapping: &Mapping) -> Result<File, ReadError> {
        // `proc_pid_map_files(5)`: whoever else may trace the process.
        let what = "what it has mapped, which takes root or CAP_CHECKPOINT_RESTORE";
        let name = mapping.map_files_name();
        // Looked at through O_PATH first: a plain open of a FIFO would block, of a device act.
        let path = self.open_entry(&name, what, OFlags::PATH)?;
        let kind = rustix::fs::fstat(&path).map_err(|errno| ReadError::of(what, errno))?.st_mode;
        if rustix::fs::FileType::from_raw_mode(kind) != rustix::fs::FileType::RegularFile {
            return Err(ReadError::Malformed { what: "kind of the mapped file" });
        }
        self.open_entry(&name, what, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }
}
