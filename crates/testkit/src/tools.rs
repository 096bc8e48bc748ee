//! Small tools for measuring: C programs, because they do what only unsafe code can.

use crate::needs::{self, Need};
use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles one of `crates/testkit/tools/` into a directory.
pub fn compile(source: &str, into: &Path) -> Result<PathBuf> {
    let output = into.join(source.trim_end_matches(".c"));
    compile_as(source, &output, std::iter::empty())?;
    Ok(output)
}

/// The same to a named file, with further arguments for the compiler.
pub fn compile_as<'a>(source: &str, output: &Path, arguments: impl Iterator<Item = &'a OsStr>) -> Result<()> {
    needs::ensure(&[Need::Compiler])?;
    let file = crate::tree::root().join("crates/testkit/tools").join(source);
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(output).arg(&file).args(arguments);
    let done = gcc.output().context("cannot run gcc")?;
    if !done.status.success() {
        bail!("gcc refused {}: {}", file.display(), String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Whether this process may trace and change the processes of others.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
