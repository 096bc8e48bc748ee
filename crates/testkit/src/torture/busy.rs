//! A machine whose processors others want as well.

use crate::running::Running;
use crate::tree;
use anyhow::Result;
use std::process::Command;
use tempfile::TempDir;

/// Processes that never rest, until this is dropped.
#[derive(Debug)]
pub struct Busy {
    _processes: Vec<Running>,
    _directory: TempDir,
}

impl Busy {
    pub fn start(processes: u32) -> Result<Self> {
        let directory = tree::scratch("busy")?;
        let start = |number| {
            let log = directory.path().join(format!("{number}"));
            Running::start(Command::new("/bin/sh").args(["-c", "while :; do :; done"]), log)
        };
        Ok(Self { _processes: (0..processes).map(start).collect::<Result<_>>()?, _directory: directory })
    }
}
