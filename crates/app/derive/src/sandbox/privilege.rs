use super::SandboxError;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};

/// The overflow ids, which own nothing (`nobody` and `nogroup` on Debian).
const NOBODY: u32 = 65_534;

/// Becomes nobody where it can, without groups, capabilities or a way to get
/// any. `Some(uid)` where there is no other user to become: root of a user
/// namespace that maps one id only.
pub(super) fn give_up() -> Result<Option<u32>, SandboxError> {
    let mut kept = None;
    if rustix::process::geteuid().is_root() || rustix::process::getuid().is_root() {
        empty_bounding_set()?;
        kept = become_nobody()?;
    }
    drop_capabilities()?;
    let step = |what| move |source| SandboxError::Step { what, source };
    rustix::thread::set_no_new_privs(true).map_err(step("forbid new privileges"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("forbid being traced"))?;
    // After the change of user, which clears it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(step("end with the parent"))?;
    Ok(kept)
}

fn become_nobody() -> Result<Option<u32>, SandboxError> {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    match rustix::thread::set_thread_res_gid(gid, gid, gid) {
        // The id is not mapped: a namespace with one user.
        Err(Errno::INVAL) => return Ok(Some(rustix::process::getuid().as_raw())),
        other => other.map_err(|source| SandboxError::Step { what: "change to an unprivileged group", source })?,
    }
    rustix::thread::set_thread_groups(&[]).map_err(|source| SandboxError::Step { what: "leave all groups", source })?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .map_err(|source| SandboxError::Step { what: "change to an unprivileged user", source })?;
    let now = rustix::process::getuid().as_raw();
    if now == NOBODY && rustix::process::geteuid().as_raw() == NOBODY {
        Ok(None)
    } else {
        Err(SandboxError::StillPrivileged { uid: now })
    }
}

/// Nothing is ever executed again; this is for the case that it were.
fn empty_bounding_set() -> Result<(), SandboxError> {
    for bit in 0..u64::BITS {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // Past the last capability this kernel knows, or not ours to drop.
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(source) => return Err(SandboxError::Step { what: "empty the bounding set", source }),
        }
    }
    Ok(())
}

fn drop_capabilities() -> Result<(), SandboxError> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    let step = |what| move |source| SandboxError::Step { what, source };
    rustix::thread::set_capabilities(None, none).map_err(step("drop the capabilities"))?;
    let left = rustix::thread::capabilities(None).map_err(step("read the capabilities"))?;
    if left == none { Ok(()) } else { Err(SandboxError::CapabilitiesLeft) }
}
