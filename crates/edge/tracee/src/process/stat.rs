//! `/proc/PID/stat`: the numbers of a process in one line.

use super::{Process, ReadError};

pub(crate) struct Stat {
    pub(super) state: u8,
    pub(crate) parent: i32,
    pub(crate) flags: u64,
    threads: u64,
    pub(crate) start_time: u64,
    heap_start: u64,
}

impl Stat {
    /// A first thread that has ended is a zombie as a process is, until the others have ended.
    pub(super) fn is_outlived(&self) -> bool {
        self.state == b'Z' && self.threads > 1
    }
}

impl Process {
    pub(super) fn stat(&self) -> Result<Stat, ReadError> {
        let what = "stat";
        let bytes = self.read_entry("stat", what, 8192)?;
        parse_stat(&bytes).ok_or(ReadError::Malformed { what })
    }

    /// Where the heap begins, whether or not it holds anything yet (`brk(2)`).
    pub(crate) fn heap_start(&self) -> Result<u64, ReadError> {
        self.stat().map(|stat| stat.heap_start)
    }
}

/// `proc_pid_stat(5)`. The name may hold anything, `)` included: the last one ends it.
pub(crate) fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let end = bytes.iter().rposition(|&byte| byte == b')')?;
    let rest = core::str::from_utf8(bytes.get(end.checked_add(1)?..)?).ok()?;
    // The first word here is field 3.
    let mut words = rest.split_ascii_whitespace();
    let state = *words.next()?.as_bytes().first()?;
    let parent = words.next()?.parse().ok()?;
    let flags = words.nth(4)?.parse().ok()?;
    let threads = words.nth(10)?.parse().ok()?;
    let start_time = words.nth(1)?.parse().ok()?;
    // Field 47; kernels before 3.5 have none, and without permission it is 0.
    let heap_start = words.nth(24).and_then(|word| word.parse().ok()).unwrap_or(0);
    Some(Stat { state, parent, flags, threads, start_time, heap_start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = b"42 (a) R 1 (b) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9911 12 13\n";
        let stat = parse_stat(line).expect("well formed");
        assert_eq!((stat.state, stat.parent, stat.flags, stat.start_time), (b'S', 7, 4_194_560, 9911));
        assert_eq!(stat.threads, 1);
    }
}
