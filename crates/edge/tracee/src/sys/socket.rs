//! What of a socket has no safe wrapper.

use super::{Result, check};
use libc::c_int;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// How many bytes a receiver waits for (`SO_RCVLOWAT`, `socket(7)`).
pub(crate) fn low_water(socket: &OwnedFd) -> Result<c_int> {
    let (mut bytes, mut len): (c_int, libc::socklen_t) = (0, 4);
    let into = (&raw mut bytes).cast();
    // SAFETY: `bytes` and `len` are live locals, and `len` is the size of `bytes`.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, into, &raw mut len) };
    check(result.into()).map(|_| bytes)
}
