//! Processes that are not to be touched unless somebody says so.

use crate::process::parse_stat;

/// A process that Salve leaves alone unless it is told otherwise in so many words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Protected {
    #[error("it is process 1")]
    Init,
    #[error("it is this program")]
    Own,
    #[error("it started this program")]
    Ancestor,
}

/// Whether `pid` is one that must not be stopped by default: stopping PID 1,
/// oneself or what runs this program can stop this program with a target held.
pub fn protected(pid: i32) -> Option<Protected> {
    if pid == 1 {
        return Some(Protected::Init);
    }
    let own = rustix::process::getpid().as_raw_nonzero().get();
    if pid == own {
        return Some(Protected::Own);
    }
    let mut ancestor = own;
    // Bounded: a chain of parents is never deeper than the process table.
    for _ in 0..4096 {
        let Some(parent) = parent_of(ancestor) else { break };
        if parent == pid {
            return Some(Protected::Ancestor);
        }
        ancestor = parent;
    }
    None
}

fn parent_of(pid: i32) -> Option<i32> {
    let bytes = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&bytes).map(|stat| stat.parent).filter(|&parent| parent > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_its_parent_are_protected() {
        let own = i32::try_from(std::process::id()).expect("fits");
        assert_eq!(protected(1), Some(Protected::Init));
        assert_eq!(protected(own), Some(Protected::Own));
        assert_eq!(protected(parent_of(own).expect("has a parent")), Some(Protected::Ancestor));
    }
}
