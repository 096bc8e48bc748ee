//! Signals by which a borrowed thread says that it is through.

use crate::process::Status;
use crate::stub::Bell;

/// The bit of a signal in a mask.
pub(super) fn bit(signal: i32) -> u64 {
    u32::try_from(signal).ok().and_then(|signal| 1_u64.checked_shl(signal.checked_sub(1)?)).unwrap_or(0)
}

/// A signal that the thread may send to itself without anybody noticing: one that is
/// ignored unless it is caught, and that its process does not catch.
pub(crate) fn bell(status: &Status) -> Option<Bell> {
    let caught = u64::from_str_radix(status.field("SigCgt")?, 16).ok()?;
    let blocked = u64::from_str_radix(status.field("SigBlk")?, 16).ok()?;
    let tid = status.field("NSpid")?.split_ascii_whitespace().last()?.parse().ok()?;
    let signals = [libc::SIGURG, libc::SIGWINCH, libc::SIGCHLD];
    let signal = signals.into_iter().find(|&signal| (caught | blocked) & bit(signal) == 0)?;
    Some(Bell { signal, tid })
}
