//! Reading the host's list of processes that are left alone.

use crate::plan::{LeaveList, Named, Names};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

const FILE: &str = "/etc/salve/leave";
const MAX_BYTES: u64 = 1 << 20;

/// The lists of this host, read once; an error is a list that cannot be understood, with
/// which nobody is touched.
pub(crate) type Lists = Result<Vec<(PathBuf, LeaveList)>, String>;

/// `SALVE_LEAVE` names a second list: it can only leave more alone.
pub(crate) fn of_this_host() -> Lists {
    let second = std::env::var_os("SALVE_LEAVE").map(PathBuf::from).filter(|path| path.is_absolute());
    core::iter::once(PathBuf::from(FILE)).chain(second).map(|path| Ok((path.clone(), read(&path)?))).collect()
}

/// The rule that names a process.
pub(crate) fn named(lists: &[(PathBuf, LeaveList)], program: &str, users: &[u32], groups: &[u32]) -> Option<Named> {
    lists.iter().find_map(|(_, list)| list.names(program, users, groups))
}

fn read(path: &Path) -> Result<LeaveList, String> {
    let failed = |why: &dyn core::fmt::Display| format!("{}: {why}", path.display());
    let mut text = String::new();
    match std::fs::File::open(path) {
        Ok(file) => file.take(MAX_BYTES.saturating_add(1)).read_to_string(&mut text).map_err(|error| failed(&error))?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(LeaveList::default()),
        Err(error) => return Err(failed(&error)),
    };
    if u64::try_from(text.len()).is_ok_and(|len| len > MAX_BYTES) {
        return Err(failed(&format!("it is larger than {MAX_BYTES} bytes")));
    }
    let user = |name: &str| number(Path::new("/etc/passwd"), name);
    let group = |name: &str| number(Path::new("/etc/group"), name);
    LeaveList::parse(&text, &Names { user: &user, group: &group }).map_err(|error| failed(&error))
}

/// The third field of the line that begins with `name` (`passwd(5)`, `group(5)`). Names
/// that only a directory service knows are given by number.
fn number(file: &Path, name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}
