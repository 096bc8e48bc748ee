//! Writes the result to the one descriptor that may be written to.

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use salve_protocol::{Failure, FailureKind, LimitedResource};

pub(crate) fn write_whole(to: &OwnedFd, bytes: &[u8], limit_bytes: u64) -> Result<(), Failure> {
    if u64::try_from(bytes.len()).is_ok_and(|len| len > limit_bytes) {
        let kind = FailureKind::ResourceLimit { resource: LimitedResource::Output, limit: limit_bytes };
        return Err(kind.into());
    }
    let mut at = 0_usize;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pwrite(to.as_fd(), rest, u64::try_from(at).unwrap_or(u64::MAX)) {
            Ok(written) => at = at.saturating_add(written),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::new(FailureKind::Unwritable).caused_by(&errno)),
        }
    }
    Ok(())
}
