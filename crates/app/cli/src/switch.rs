//! The stop switch: a file that says that no Salve on this host changes anything.
//!
//! `/etc/salve/off` is there, whoever made it and whatever is in it: off. It is
//! looked at immediately before each process is changed, so that it also ends a
//! run that waits. A switch that cannot be looked at counts as off.
//!
//! Root's runs hold a lock while they change a process; `salve off` writes the
//! file and then waits for that lock, so that nothing changes any more once it
//! has returned. Whoever makes the file by hand has to allow for the change
//! that is under way.
//!
//! `SALVE_OFF` names a second file with the same meaning: a second switch can
//! only stop more. Nothing in the environment switches on.

use crate::problem::{Problem, one_line};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Survives a reboot, and configuration management can put it there.
const FILE: &str = "/etc/salve/off";
/// Held while a process is changed.
const LOCK: &str = "/run/salve/lock";
/// More than anybody writes as a reason.
const MAX_TEXT_BYTES: u64 = 4096;

/// The code of everything that is left because of the switch.
pub(crate) const CODE: &str = "off";

/// What was found in the switch's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum State {
    On,
    Off {
        path: PathBuf,
        /// What the file says, for people; empty for one that says nothing.
        said: String,
    },
}

impl State {
    /// In one sentence, where it is off.
    pub(crate) fn words(&self) -> Option<String> {
        let Self::Off { path, said } = self else { return None };
        let said = if said.is_empty() { String::new() } else { format!(": {}", one_line(said)) };
        Some(format!("Salve is switched off on this host ({}{said})", path.display()))
    }
}

/// Where the switch is looked for.
#[derive(Clone, Debug)]
pub(crate) struct Switch {
    files: Vec<PathBuf>,
    lock: Option<PathBuf>,
}

/// Leave to change a process. While root holds it, `salve off` waits.
#[derive(Debug)]
pub(crate) struct Permit(#[expect(dead_code, reason = "its end is what unlocks")] Option<File>);

impl Switch {
    pub(crate) fn of_this_host() -> Self {
        let second = std::env::var_os("SALVE_OFF").map(PathBuf::from).filter(|path| path.is_absolute());
        let lock = rustix::process::geteuid().is_root().then(|| PathBuf::from(LOCK));
        Self { files: core::iter::once(PathBuf::from(FILE)).chain(second).collect(), lock }
    }

    /// The file that `salve off` writes.
    fn file(&self) -> &Path {
        self.files.first().map_or(Path::new(FILE), PathBuf::as_path)
    }

    /// A switch that is thrown and that `salve on` does not take back, if it is the only one.
    pub(crate) fn second(&self) -> Option<PathBuf> {
        match self.state() {
            State::Off { path, .. } if path != self.file() => Some(path),
            State::Off { .. } | State::On => None,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.files.iter().find_map(|path| look(path)).unwrap_or(State::On)
    }

    /// Leave to change one process, or why there is none. First the lock, then
    /// the file: whoever writes the file and gets the lock after us knows that
    /// we are done, and who gets it before us is seen by us.
    pub(crate) fn permit(&self) -> Result<Permit, State> {
        let held = self.lock.as_deref().and_then(|path| lock(path, FlockOperation::LockShared));
        match self.state() {
            State::On => Ok(Permit(held)),
            off @ State::Off { .. } => Err(off),
        }
    }

    /// The problem that ends a command before it begins.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        match self.state().words() {
            None => Ok(()),
            Some(words) => Err(Problem::refused(CODE, words).hint(match self.second() {
                None => "`salve on` switches it on again; --dry-run shows a plan".to_owned(),
                Some(second) => {
                    format!("{} is not `salve on`'s to take away; --dry-run shows a plan", second.display())
                }
            })),
        }
    }

    /// Switches off, if it is not already: `false` then, and who did it first
    /// stays on record. What the file says is `said`.
    pub(crate) fn off(&self, said: &str) -> Result<bool, Problem> {
        let path = self.file();
        let failed = |error: std::io::Error| {
            let problem = Problem::failed("cannot-switch", format!("cannot write {}", path.display()));
            because(problem, error)
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
        let mut file = tempfile::Builder::new()
            .prefix(".off-")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(directory)
            .map_err(failed)?;
        writeln!(file, "{said}").map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        match file.persist_noclobber(path) {
            Ok(_) => {}
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(failed(error.error)),
        }
        // After a power cut as well.
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(true)
    }

    /// Waits until no run of root's is changing a process. `false` if one still
    /// is at the end of `limit`.
    pub(crate) fn quiet(&self, limit: Duration) -> bool {
        let Some(path) = &self.lock else { return true };
        let deadline = Instant::now().checked_add(limit);
        loop {
            if lock(path, FlockOperation::NonBlockingLockExclusive).is_some() || !path.exists() {
                return true;
            }
            if deadline.is_none_or(|at| Instant::now() >= at) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Switches on: what the file said, or `None` where it was on.
    pub(crate) fn on(&self) -> Result<Option<String>, Problem> {
        let path = self.file();
        let Some(State::Off { said, .. }) = look(path) else { return Ok(None) };
        fs::remove_file(path).map_err(|error| {
            because(Problem::failed("cannot-switch", format!("cannot remove {}", path.display())), error)
        })?;
        Ok(Some(said))
    }
}

fn because(problem: Problem, error: std::io::Error) -> Problem {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied if !rustix::process::geteuid().is_root() => {
            problem.because(error).hint("run it as root")
        }
        std::io::ErrorKind::IsADirectory => problem.because(error).hint("remove what is there by hand"),
        _other => problem.because(error),
    }
}

/// `None` where there is nothing. What cannot be looked at may be there.
fn look(path: &Path) -> Option<State> {
    let off = |said: String| Some(State::Off { path: path.to_path_buf(), said });
    match rustix::fs::lstat(path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return None,
        Err(errno) => return off(format!("it cannot be looked at: {errno}")),
        Ok(_) => {}
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut text = Vec::new();
    let file = rustix::fs::open(path, flags, Mode::empty()).map(File::from);
    // A directory or a pipe says nothing and is off all the same.
    let _says_nothing = file.map(|file| file.take(MAX_TEXT_BYTES).read_to_end(&mut text));
    off(String::from_utf8_lossy(&text).trim().to_owned())
}

/// `None` where the lock cannot be had, or there is no place for one: the file
/// is the switch, the lock only tells `salve off` when it has taken effect.
fn lock(path: &Path, how: FlockOperation) -> Option<File> {
    let directory = path.parent()?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).ok()?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).ok()?);
    loop {
        match rustix::fs::flock(&file, how) {
            Ok(()) => return Some(file),
            Err(Errno::INTR) => {}
            Err(_taken) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch() -> (tempfile::TempDir, Switch) {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let files = vec![dir.path().join("etc/off"), dir.path().join("second")];
        let lock = Some(dir.path().join("run/lock"));
        (dir, Switch { files, lock })
    }

    #[test]
    fn who_switched_off_first_and_why_stays_on_record_until_it_is_on() {
        let (_dir, switch) = switch();
        assert_eq!(switch.state(), State::On);
        assert!(switch.off("by root: load").expect("written"));
        assert!(!switch.off("by another").expect("off already"));
        let State::Off { said, .. } = switch.state() else { panic!("it is on") };
        assert_eq!(said, "by root: load");
        assert!(switch.permit().is_err());
        assert_eq!(switch.check().map_err(|problem| problem.code), Err(CODE.into()));
        assert_eq!(switch.on().expect("removed").as_deref(), Some("by root: load"));
        assert_eq!(switch.on().expect("on already"), None);
        assert!(switch.permit().is_ok());
    }

    #[test]
    fn a_second_switch_is_not_taken_back_with_the_first() {
        let (dir, switch) = switch();
        let second = dir.path().join("second");
        fs::write(&second, "the vendor's").expect("written");
        assert!(switch.off("by root").expect("written"));
        assert_eq!(switch.second(), None, "the first one is what `salve on` takes back");
        assert_eq!(switch.on().expect("removed").as_deref(), Some("by root"));
        assert_eq!(switch.second(), Some(second.clone()));
        let hint = switch.check().map_err(|problem| problem.report().hint.unwrap_or_default());
        assert!(hint.is_err_and(|hint| hint.contains(&second.display().to_string()) && !hint.contains("again")));
    }

    #[test]
    fn anything_in_its_place_is_off_and_so_is_what_cannot_be_seen() {
        let (dir, switch) = switch();
        let second = dir.path().join("second");
        fs::write(&second, "").expect("written");
        assert!(matches!(switch.state(), State::Off { said, .. } if said.is_empty()), "an empty file");
        fs::remove_file(&second).expect("removed");
        std::os::unix::fs::symlink("/nowhere", &second).expect("a link");
        assert!(switch.permit().is_err(), "a link to nowhere");
        fs::remove_file(&second).expect("removed");
        fs::create_dir(&second).expect("a directory");
        assert!(switch.permit().is_err(), "a directory");
        fs::remove_dir(&second).expect("removed");
        std::os::unix::fs::symlink("loop", dir.path().join("loop")).expect("a link");
        let lost = Switch { files: vec![dir.path().join("loop/off")], lock: None };
        assert!(lost.permit().is_err(), "a path that leads nowhere for another reason than being absent");
    }

    #[test]
    fn off_waits_for_the_change_that_is_under_way() {
        let (_dir, switch) = switch();
        let permit = switch.permit().expect("on");
        let both = switch.permit().expect("two processes may be changed at once");
        assert!(switch.off("now").expect("written"));
        assert!(!switch.quiet(Duration::from_millis(30)), "one is under way");
        drop(both);
        assert!(!switch.quiet(Duration::from_millis(30)), "one is still");
        drop(permit);
        assert!(switch.quiet(Duration::from_secs(5)));
        assert!(switch.permit().is_err());
    }
}
