//! Which threads to borrow, and in which order.

use super::{RemoteError, Target, has_descriptors_of};
use crate::process::Seccomp;
use crate::transfer;

/// Candidates that are tried before giving up for now.
const MAX_CANDIDATES: usize = 16;

/// What makes the process's first thread, which signals to the process are sent to, a worse
/// choice than any other that no filter binds: while it is traced, signals that are ignored
/// wake others.
const FIRST: u32 = 3;
/// And any that one binds, for calls of it may be forbidden.
const FILTERED: u32 = 6;

/// Threads in the order of preference: running ones first, for those lose least. And one
/// that will do when its `vfork` child is done.
pub(super) fn candidates(target: &Target<'_>) -> Result<(Vec<i32>, Option<i32>), RemoteError> {
    let (mut ranked, mut waiting) = (Vec::new(), None);
    for tid in target.process.threads(target.limits)?.into_iter().take(1024) {
        match rank(target, tid) {
            Some(Rank::Fit(rank)) => ranked.push((rank, tid)),
            Some(Rank::Waiting) => waiting = Some(tid),
            None => {}
        }
    }
    ranked.sort_unstable();
    Ok((ranked.into_iter().take(MAX_CANDIDATES).map(|(_, tid)| tid).collect(), waiting))
}

enum Rank {
    Fit(u32),
    /// It cannot stop until its `vfork` child is done, or may not until its transfer is.
    Waiting,
}

/// What a thread is good for. `/proc/PID/task/TID/syscall` says `running`, or the number of the call it sleeps in.
fn rank(target: &Target<'_>, tid: i32) -> Option<Rank> {
    let process = target.process;
    if !has_descriptors_of(process, tid) {
        return None;
    }
    let text = process.read_entry(&format!("task/{tid}/syscall"), "syscall", 512).ok()?;
    let text = String::from_utf8_lossy(&text);
    let number = text.split_ascii_whitespace().next()?;
    let in_transfer = || transfer::of_thread(process, target.memory, target.limits, tid).is_some();
    let calm: u32 = match number {
        "58" => return Some(Rank::Waiting),
        _ if in_transfer() => return Some(Rank::Waiting),
        "running" | "-1" => 0,
        // read, poll, nanosleep, futex, clock_nanosleep, ppoll: these go on as if nothing was.
        "0" | "7" | "35" | "202" | "230" | "271" => 1,
        _ => 2,
    };
    let filtered = match process.status(Some(tid)).ok()?.seccomp().ok()? {
        Seccomp::Off => 0_u32,
        Seccomp::Filter => FILTERED,
        Seccomp::Strict => return None,
    };
    if process.is_worker(tid) {
        return None;
    }
    let first = if tid == process.pid() { FIRST } else { 0 };
    calm.checked_add(filtered)?.checked_add(first).map(Rank::Fit)
}
