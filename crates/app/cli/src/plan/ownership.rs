//! A replacement must be owned as its target's privilege demands: whoever can
//! write the file decides what the process does from now on.

/// Who can write a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileOwner {
    pub(crate) uid: u32,
    /// Permission bits as `stat(2)` gives them.
    pub(crate) mode: u32,
}

/// What a process may do beyond what its user may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Privilege {
    /// Real, effective, saved and file-system user (`proc(5)`, `Uid:`).
    pub(crate) uids: Vec<u32>,
    /// Any capability in the permitted or ambient set.
    pub(crate) capable: bool,
}

/// Why a file is no replacement for what a process runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OwnershipProblem {
    #[error("it can be written by others than its owner (mode {mode:04o})")]
    WritableByOthers { mode: u32 },
    #[error("it is owned by user {owner}, and the process is privileged")]
    OwnerBelowPrivilege { owner: u32 },
    #[error("it is owned by user {owner}, and the process runs as user {process}")]
    OwnerIsAnother { owner: u32, process: u32 },
}

/// Whether a file on disk may replace code in a process.
pub(crate) fn may_replace(file: FileOwner, process: &Privilege) -> Result<(), OwnershipProblem> {
    if file.mode & 0o022 != 0 {
        return Err(OwnershipProblem::WritableByOthers { mode: file.mode & 0o7777 });
    }
    if file.uid == 0 {
        return Ok(());
    }
    if process.capable || process.uids.contains(&0) {
        return Err(OwnershipProblem::OwnerBelowPrivilege { owner: file.uid });
    }
    match process.uids.iter().find(|uid| **uid != file.uid) {
        Some(other) => Err(OwnershipProblem::OwnerIsAnother { owner: file.uid, process: *other }),
        None => Ok(()),
    }
}

/// Whether a package file that the operator hands over is the operator's to
/// hand over: owned by root or by one of `operators`, and not writable by all.
/// (A group may write: the operator's own group does in many checkouts.)
pub(crate) fn may_hand_over(file: FileOwner, operators: &[u32]) -> Result<(), OwnershipProblem> {
    if file.mode & 0o002 != 0 {
        return Err(OwnershipProblem::WritableByOthers { mode: file.mode & 0o7777 });
    }
    match operators.first() {
        Some(first) if file.uid != 0 && !operators.contains(&file.uid) => {
            Err(OwnershipProblem::OwnerIsAnother { owner: file.uid, process: *first })
        }
        _root_or_an_operator => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(uids: &[u32], capable: bool) -> Privilege {
        Privilege { uids: uids.to_vec(), capable }
    }

    #[test]
    fn a_file_heals_only_whom_its_owner_could_command_anyway() {
        let file = |uid, mode| FileOwner { uid, mode };
        let cases = [
            (file(0, 0o755), process(&[0; 4], true), true),
            (file(0, 0o755), process(&[33; 4], false), true),
            (file(33, 0o755), process(&[33; 4], false), true),
            (file(33, 0o755), process(&[0; 4], true), false),
            (file(33, 0o755), process(&[33; 4], true), false),
            // set-uid: real user 33, effective user 0
            (file(33, 0o755), process(&[33, 0, 0, 0], false), false),
            (file(33, 0o755), process(&[34; 4], false), false),
            (file(0, 0o777), process(&[33; 4], false), false),
            (file(0, 0o775), process(&[33; 4], false), false),
            (file(33, 0o757), process(&[33; 4], false), false),
        ];
        for (file, process, allowed) in cases {
            assert_eq!(may_replace(file, &process).is_ok(), allowed, "{file:?} for {process:?}");
        }
    }

    #[test]
    fn a_package_file_is_the_operators_own() {
        let file = |uid, mode| FileOwner { uid, mode };
        assert!(may_hand_over(file(0, 0o644), &[1000]).is_ok());
        assert!(may_hand_over(file(1000, 0o664), &[0, 1000]).is_ok());
        assert!(may_hand_over(file(1001, 0o644), &[0, 1000]).is_err());
        assert!(may_hand_over(file(0, 0o666), &[0]).is_err());
    }
}
