use core::fmt;
use serde::{Deserialize, Serialize};

/// How well one layer of the sandbox holds on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    Full,
    /// The kernel knows the layer, but not all of what was asked of it.
    Partial,
    Missing,
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::Missing => "missing",
        })
    }
}

/// A layer of the sandbox that is weaker than wanted, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "layer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Degradation {
    /// The kernel enforces landlock partly or not at all; the seccomp filter still forbids to open anything.
    Landlock { enforcement: Enforcement },
    /// Started as root of a user namespace that maps no other user: the
    /// capabilities are gone, the user id stays.
    UserId { uid: u32 },
    /// Debugging: asked for by an option that says `unsafe`. There is no sandbox.
    Unsandboxed,
}

impl fmt::Display for Degradation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Landlock { enforcement } => write!(f, "landlock is {enforcement} on this kernel"),
            Self::UserId { uid } => write!(f, "no unprivileged user to change to, still user {uid}"),
            Self::Unsandboxed => f.write_str("not sandboxed, as asked"),
        }
    }
}

/// What `salve-derive` gave up before it looked at the first foreign byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxReport {
    /// The system call filter; a process that could not install it refuses to work.
    pub seccomp: bool,
    pub landlock: Enforcement,
    pub uid: u32,
    pub gid: u32,
    /// Descriptors that were inherited without being asked for, and closed.
    pub descriptors_closed: u32,
    pub threads: u32,
    pub degraded: Vec<Degradation>,
}
