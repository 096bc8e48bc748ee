//! Small tools for measuring: C programs, because they do what only unsafe code can.

use crate::needs::{self, Need};
use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles one of `crates/testkit/tools/` into a directory.
pub fn compile(source: &str, into: &Path) -> Result<PathBuf> {
    needs::ensure(&[Need::Compiler])?;
    let file = crate::tree::root().join("crates/testkit/tools").join(source);
    let output = into.join(source.trim_end_matches(".c"));
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&output).arg(&file);
    let done = gcc.output().context("cannot run gcc")?;
    if !done.status.success() {
        bail!("gcc refused {}: {}", file.display(), String::from_utf8_lossy(&done.stderr));
    }
    Ok(output)
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Whether this process may trace and change the processes of others.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
