use std::path::{Path, PathBuf};

const NAME: &str = "salve-derive";
const OVERRIDE: &str = "SALVE_DERIVE";
const INSTALLED: &str = "/usr/lib/salve/salve-derive";

#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    #[error("salve-derive is at none of {}", list(.tried))]
    NotFound { tried: Vec<PathBuf> },
    #[error("${OVERRIDE} names {}, which is no program", path.display())]
    BadOverride { path: PathBuf },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

pub(crate) fn locate() -> Result<PathBuf, LocateError> {
    if let Some(named) = overridden() {
        return if is_program(&named) { Ok(named) } else { Err(LocateError::BadOverride { path: named }) };
    }
    let mut tried = Vec::new();
    if let Ok(own) = std::env::current_exe() {
        // Beside the program; test programs of a build lie one directory further down.
        let directories = own.parent().into_iter().chain(own.parent().and_then(Path::parent).filter(|_| in_deps(&own)));
        tried.extend(directories.map(|directory| directory.join(NAME)));
    }
    tried.push(PathBuf::from(INSTALLED));
    match tried.iter().find(|path| is_program(path)) {
        Some(found) => Ok(found.clone()),
        None => Err(LocateError::NotFound { tried }),
    }
}

/// The environment counts only where it is the caller's own: not under a changed user id.
fn overridden() -> Option<PathBuf> {
    let same_user = rustix::process::getuid() == rustix::process::geteuid();
    std::env::var_os(OVERRIDE).filter(|value| same_user && !value.is_empty()).map(PathBuf::from)
}

fn in_deps(program: &Path) -> bool {
    program.parent().and_then(Path::file_name).is_some_and(|name| name == "deps")
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
