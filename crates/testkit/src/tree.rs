//! Where the project's files are, and scratch directories that vanish.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// The root of the project's tree.
///
/// `SALVE_TREE` names another one, for a test binary that was moved.
pub fn root() -> PathBuf {
    if let Some(root) = std::env::var_os("SALVE_TREE") {
        return PathBuf::from(root);
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Where cargo builds, and where what is kept between runs lies.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A directory that is removed at the end, readable by every user so that
/// unprivileged processes can run what is in it.
pub fn scratch(label: &str) -> Result<TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::Builder::new().prefix(&format!("salve-{label}-")).tempdir().context("no scratch directory")?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot open up {}", dir.path().display()))?;
    made().push(dir.path().to_path_buf());
    Ok(dir)
}

/// Every directory that [`scratch`] made in this process.
fn made() -> MutexGuard<'static, Vec<PathBuf>> {
    static MADE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the scratch directories that are still there: for a program that is
/// told to end in the middle of its work. Gives those that could not be removed.
pub fn remove_all_scratch() -> Vec<PathBuf> {
    let mut left = std::mem::take(&mut *made());
    // What wrote into them may be dying still.
    for _ in 0..50 {
        left.retain(|directory| {
            directory.exists() && std::fs::remove_dir_all(directory).is_err() && directory.exists()
        });
        if left.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    left
}
