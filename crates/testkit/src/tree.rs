//! Where the project's files are, and scratch directories that vanish.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
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
    Ok(dir)
}
