//! Which processes are left alone before anything is known about their code.

use super::{By, Named};

/// What is known about a process's place on the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) pid: u32,
    /// Salve itself, or a process that it descends from.
    pub(crate) own_line: bool,
    /// The first byte of its command line is `@`: by systemd's convention a
    /// daemon that serves the root file system ("Root Storage Daemons").
    pub(crate) storage_mark: bool,
    /// The base name of its program.
    pub(crate) program: String,
    /// In what way it lives elsewhere, if it does.
    pub(crate) elsewhere: Option<&'static str>,
    /// The rule of the host's list that names it; an error is a list that is not understood.
    pub(crate) listed: Listed,
}

/// What the host's list of processes to leave alone says of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Listed {
    #[default]
    No,
    Yes(Named),
    /// There is a list, and it cannot be understood.
    Unknown,
}

/// Why a process is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    Init,
    OwnLine,
    RootStorage,
    Elsewhere {
        what: &'static str,
    },
    /// The host's list names it.
    Listed(Named),
    /// The host's list cannot be understood.
    ListUnknown,
}

impl Leave {
    /// Stable, for programs.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::OwnLine => "own-ancestor",
            Self::RootStorage => "root-storage",
            Self::Elsewhere { .. } => "elsewhere",
            Self::Listed(Named { by: By::Path, .. }) => "listed-path",
            Self::Listed(Named { by: By::User, .. }) => "listed-user",
            Self::Listed(Named { by: By::Group, .. }) => "listed-group",
            Self::ListUnknown => "list-not-understood",
        }
    }

    pub(crate) fn why(self) -> String {
        match self {
            Self::Init => "process 1 is left alone".into(),
            Self::OwnLine => "Salve runs beneath it; to stop it would stop Salve".into(),
            Self::RootStorage => "it may serve the root file system; while it is stopped nothing could be read".into(),
            Self::Elsewhere { what } => {
                format!("it has {what} of its own; containers and confined services are opt-in")
            }
            Self::Listed(Named { by, line }) => {
                let what = match by {
                    By::Path => "program",
                    By::User => "user",
                    By::Group => "group",
                };
                format!("line {line} of this host's list of processes to leave alone names its {what}")
            }
            Self::ListUnknown => "this host's list of processes to leave alone cannot be understood".into(),
        }
    }
}

/// Programs that may hold the root file system on their shoulders: multipath,
/// iSCSI, network block devices, software RAID, LVM, ZFS, Ceph, Gluster, FUSE.
const ROOT_STORAGE: &[&str] = &[
    "ceph-fuse",
    "ceph-osd",
    "dmeventd",
    "drbdsetup",
    "fuse-overlayfs",
    "glusterfs",
    "glusterfsd",
    "iscsid",
    "lvmetad",
    "lvmpolld",
    "mdadm",
    "mdmon",
    "mount.ntfs",
    "mount.ntfs-3g",
    "multipathd",
    "nbd-client",
    "ntfs-3g",
    "qemu-nbd",
    "rbd-nbd",
    "rpc.gssd",
    "rpc.idmapd",
    "sshfs",
    "stratisd",
    "tgtd",
    "virtiofsd",
    "zed",
    "zfs-fuse",
];

/// `None` when nothing speaks against looking closer.
pub(crate) fn leave(standing: &Standing) -> Option<Leave> {
    if standing.pid == 1 {
        Some(Leave::Init)
    } else if standing.own_line {
        Some(Leave::OwnLine)
    } else if let Listed::Yes(named) = standing.listed {
        Some(Leave::Listed(named))
    } else if standing.listed == Listed::Unknown {
        Some(Leave::ListUnknown)
    } else if let Some(what) = standing.elsewhere {
        Some(Leave::Elsewhere { what })
    } else if standing.storage_mark || ROOT_STORAGE.binary_search(&standing.program.as_str()).is_ok() {
        Some(Leave::RootStorage)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_storage_daemons_is_sorted_for_its_search() {
        assert!(ROOT_STORAGE.is_sorted());
    }

    #[test]
    fn the_processes_that_everything_stands_on_are_left_alone() {
        let plain = Standing { pid: 812, program: "nginx".into(), ..Standing::default() };
        assert_eq!(leave(&plain), None);
        assert_eq!(leave(&Standing { pid: 1, ..plain.clone() }), Some(Leave::Init));
        assert_eq!(leave(&Standing { own_line: true, ..plain.clone() }), Some(Leave::OwnLine));
        assert_eq!(leave(&Standing { storage_mark: true, ..plain.clone() }), Some(Leave::RootStorage));
        assert_eq!(leave(&Standing { program: "multipathd".into(), ..plain.clone() }), Some(Leave::RootStorage));
        let named = Named { by: By::User, line: 3 };
        assert_eq!(leave(&Standing { listed: Listed::Yes(named), ..plain.clone() }), Some(Leave::Listed(named)));
        assert_eq!(leave(&Standing { listed: Listed::Unknown, ..plain.clone() }), Some(Leave::ListUnknown));
        assert!(Leave::Listed(named).why().contains("line 3") && Leave::Listed(named).code() == "listed-user");
        let elsewhere = Standing { elsewhere: Some("a mount namespace"), ..plain };
        assert_eq!(leave(&elsewhere), Some(Leave::Elsewhere { what: "a mount namespace" }));
    }
}
