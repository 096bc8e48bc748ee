//! Whether two threads have something in common (`kcmp(2)`).

use super::{Result, check};
use core::cmp::Ordering;
use libc::c_long;

/// What two threads may share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    Memory,
    Descriptors,
}

/// `include/uapi/linux/kcmp.h`; missing in the C library's headers.
const KCMP_VM: c_long = 1;
const KCMP_FILES: c_long = 2;

/// Whether they share it; an error where the kernel knows no such call.
pub(crate) fn share(what: Shared, one: i32, other: i32) -> Result<bool> {
    order(what, one, other).map(Ordering::is_eq)
}

/// An order of all that there is of it, in which what is shared is equal.
pub(crate) fn order(what: Shared, one: i32, other: i32) -> Result<Ordering> {
    let kind = match what {
        Shared::Memory => KCMP_VM,
        Shared::Descriptors => KCMP_FILES,
    };
    // SAFETY: the call takes numbers only.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, c_long::from(one), c_long::from(other), kind, 0, 0) };
    match check(order)? {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        _ => Ok(Ordering::Greater),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_shares_all_with_itself_and_neither_memory_nor_descriptors_with_its_child() {
        let own = std::process::id().cast_signed();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("it starts");
        let other = child.id().cast_signed();
        for what in [Shared::Memory, Shared::Descriptors] {
            assert_eq!(share(what, own, own), Ok(true));
            assert_eq!(share(what, own, other), Ok(false));
        }
        child.kill().and_then(|()| child.wait()).expect("it ends");
    }
}
