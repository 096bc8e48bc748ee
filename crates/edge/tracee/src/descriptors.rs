//! Descriptors in a target: which numbers it does not use, and what it has in one.
//!
//! A program may rely on the number of the next file that it opens, which is the lowest
//! that is free (`open(2)`), and it may close or replace any. So what stays open in a
//! target while it runs has a number that it will not come by, and is looked at again
//! before anything is done with that number.

use crate::outcome::NotApplied;
use crate::process::{Process, ReadError};
use crate::remote::RemoteError;
use crate::room;
use rustix::fs::OFlags;
use std::collections::BTreeSet;
use std::os::fd::AsFd;

/// Most numbers that are looked at.
const MOST: usize = 1 << 20;
/// Numbers that the target itself may come to need meanwhile.
const SPARE: usize = 16;
/// Of so many one is chosen at least.
const FEWEST: i32 = 12;
/// Numbers that shells and tools ask for by name.
const COMMON: [i32; 2] = [63, 255];
/// Below are those that programs count on.
const LOWEST: i32 = 10;

/// Which file a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(file: impl AsFd) -> Option<Self> {
        rustix::fs::fstat(file).ok().map(Self::from)
    }

    /// What the target has under this number now.
    pub(crate) fn under(process: &Process, number: i32) -> Option<Self> {
        process.stat_entry(&format!("fd/{number}")).ok().map(Self::from)
    }
}

impl From<rustix::fs::Stat> for FileId {
    fn from(stat: rustix::fs::Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// Numbers that the target does not use, far from those that it will use next; `passing`
/// are as many as will be open besides for a moment. Each further `attempt` goes farther: what
/// the target came to use last time it may come to use again.
pub(crate) fn unused<const N: usize>(process: &Process, passing: usize, attempt: u32) -> Result<[i32; N], RemoteError> {
    let used = used(process)?;
    let limit = room::soft_limit(process, "Max open files")?;
    let limit = limit.and_then(|limit| i32::try_from(limit).ok()).unwrap_or(i32::MAX);
    let need = N.saturating_add(passing).saturating_add(SPARE);
    let free = usize::try_from(limit).unwrap_or(0).saturating_sub(used.len());
    let none = RemoteError::Not(NotApplied::DescriptorLimit { free, need });
    if free < need {
        return Err(none);
    }
    // The kernel's table has so many places now; a higher number makes it larger for good.
    let places = process.status(None)?.field("FDSize").and_then(|size| size.parse::<i32>().ok()).unwrap_or(64);
    let unused = |top: i32| -> Vec<i32> {
        let part = top.checked_shr(attempt.saturating_add(1)).unwrap_or(0).max(FEWEST);
        let bottom = top.saturating_sub(part).max(LOWEST);
        (bottom..top).filter(|number| !used.contains(number) && !COMMON.contains(number)).collect()
    };
    let tops = [1, 2, 4].map(|times| places.saturating_mul(times).min(limit));
    let from = tops.into_iter().map(unused).find(|unused| unused.len() >= N).ok_or(none)?;
    Ok(some_of(&from))
}

/// So many of these, neighbours, beginning anywhere.
fn some_of<const N: usize>(free: &[i32]) -> [i32; N] {
    let mut random = [0; 8];
    // Without a random number, the first ones do.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let random = usize::try_from(u64::from_le_bytes(random) >> 1).unwrap_or(0);
    let first = random.checked_rem(free.len().max(1)).unwrap_or(0);
    core::array::from_fn(|n| {
        let index = first.saturating_add(n).checked_rem(free.len().max(1)).unwrap_or(0);
        free.get(index).copied().unwrap_or(-1)
    })
}

fn used(process: &Process) -> Result<BTreeSet<i32>, ReadError> {
    let what = "fd";
    let directory = process.open_entry(what, what, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut used = BTreeSet::new();
    for entry in rustix::fs::Dir::new(directory).map_err(|errno| ReadError::of(what, errno))? {
        let entry = entry.map_err(|errno| ReadError::of(what, errno))?;
        used.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()));
        if used.len() > MOST {
            let limit_bytes = u64::try_from(MOST).unwrap_or(u64::MAX);
            return Err(ReadError::TooLarge { what: "list of descriptors", limit_bytes });
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn unused_numbers_are_high_and_free_and_a_number_is_known_by_its_file() {
        let own = Process::open(std::process::id().cast_signed()).unwrap();
        let numbers: [i32; 3] = unused(&own, 2, 0).unwrap();
        let open = used(&own).unwrap();
        assert!(numbers.iter().all(|number| *number >= LOWEST && !open.contains(number)), "{numbers:?} {open:?}");
        assert!(numbers[0] != numbers[1] && numbers[1] != numbers[2]);
        let lowest = |attempt| unused::<3>(&own, 2, attempt).unwrap().into_iter().min().unwrap();
        assert!(lowest(1) >= 48 && lowest(2) >= 52 && lowest(30) >= 52);
        let (one, other) = (std::fs::File::open("/proc/self/maps").unwrap(), std::fs::File::open("/").unwrap());
        assert_eq!(FileId::under(&own, other.as_raw_fd()), FileId::of(&other));
        assert_ne!(FileId::under(&own, one.as_raw_fd()), FileId::of(&other));
        assert_eq!(FileId::under(&own, numbers[0]), None);
    }

    #[test]
    fn a_target_with_no_number_to_spare_is_left_alone() {
        let mut sleeper =
            std::process::Command::new("sh").args(["-c", "ulimit -n 16; exec sleep 60"]).spawn().expect("it starts");
        let process = Process::open(i32::try_from(sleeper.id()).expect("fits")).expect("it runs");
        while process.status(None).expect("it runs").field("Name") != Some("sleep") {}
        let refused = unused::<3>(&process, 2, 0);
        sleeper.kill().and_then(|()| sleeper.wait()).expect("it ends");
        let full = matches!(refused, Err(RemoteError::Not(NotApplied::DescriptorLimit { .. })));
        assert!(full, "{refused:?}");
    }
}
