//! Whether a target may use the memory that a livepatch costs it.
//!
//! Copied text pages and page tables are charged to the target. A target killed
//! by its own memory group's limit would have been killed by us.

use crate::outcome::NotApplied;
use crate::process::{Process, ReadError};
use crate::room;

/// Checks the limit on address space and every memory group the target is in.
pub(crate) fn check(process: &Process, mapped_bytes: u64, private_bytes: u64) -> Result<Option<NotApplied>, ReadError> {
    if let Some(limit) = room::soft_limit(process, "Max address space")? {
        let used = process.status(None)?.size_bytes("VmSize").unwrap_or(0);
        let headroom_bytes = limit.saturating_sub(used);
        if headroom_bytes < mapped_bytes {
            return Ok(Some(NotApplied::AddressSpaceLimit { headroom_bytes, need_bytes: mapped_bytes }));
        }
    }
    Ok(memory_group(process)?
        .filter(|&headroom_bytes| headroom_bytes < private_bytes)
        .map(|headroom_bytes| NotApplied::MemoryGroup { headroom_bytes, need_bytes: private_bytes }))
}

/// Bytes left in the tightest group; `None` where no memory group can be seen from here.
fn memory_group(process: &Process) -> Result<Option<u64>, ReadError> {
    let groups = process.read_entry("cgroup", "cgroup", 1 << 16)?;
    let groups = String::from_utf8_lossy(&groups).into_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut tightest: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let unified = controllers.is_empty();
        if !unified && !controllers.split(',').any(|name| name == "memory") {
            continue;
        }
        let Some((root, at)) = mount(&mounts, unified) else { continue };
        let below = path.strip_prefix(&root).unwrap_or(path);
        for left in chain(&at, below).iter().filter_map(|directory| left(directory, unified)) {
            tightest = Some(tightest.map_or(left, |least| least.min(left)));
        }
    }
    Ok(tightest)
}

/// Root and mount point of the hierarchy that has the memory controller.
fn mount(mounts: &str, unified: bool) -> Option<(String, String)> {
    mounts.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut back = back.split(' ');
        let (kind, options) = (back.next()?, back.nth(1)?);
        let fits = if unified {
            kind == "cgroup2"
        } else {
            kind == "cgroup" && options.split(',').any(|option| option == "memory")
        };
        let mut front = front.split(' ').skip(3);
        let (root, at) = (front.next()?, front.next()?);
        fits.then(|| (root.trim_end_matches('/').to_owned(), at.to_owned()))
    })
}

/// The group and all above it.
fn chain(at: &str, below: &str) -> Vec<String> {
    let mut path = format!("{at}/{}", below.trim_start_matches('/'));
    let mut all = Vec::new();
    while path.len() >= at.len() && !path.is_empty() {
        all.push(path.trim_end_matches('/').to_owned());
        match path.trim_end_matches('/').rfind('/') {
            Some(cut) => path.truncate(cut),
            None => break,
        }
    }
    all
}

/// Limit less use, counting file pages as free because the kernel takes those first.
fn left(directory: &str, unified: bool) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(format!("{directory}/{name}")).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (limit, used) = if unified {
        (number("memory.max")?, number("memory.current")?)
    } else {
        (number("memory.limit_in_bytes")?, number("memory.usage_in_bytes")?)
    };
    let statistics = read("memory.stat").unwrap_or_default();
    let prefix = if unified { "" } else { "total_" };
    let file: u64 = ["inactive_file", "active_file"]
        .iter()
        .filter_map(|name| {
            let value = statistics.lines().find_map(|line| line.strip_prefix(&format!("{prefix}{name} ")))?;
            value.trim().parse::<u64>().ok()
        })
        .fold(0, u64::saturating_add);
    Some(limit.saturating_sub(used.saturating_sub(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_the_memory_controller_is_found_among_others() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            31 25 0:27 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
            32 25 0:28 /docker/x /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(mounts, false), Some((String::new(), "/sys/fs/cgroup/memory".to_owned())));
        assert_eq!(mount(mounts, true), Some(("/docker/x".to_owned(), "/sys/fs/cgroup/unified".to_owned())));
    }

    #[test]
    fn every_group_above_counts() {
        assert_eq!(chain("/c", "/a/b"), ["/c/a/b", "/c/a", "/c"]);
        assert_eq!(chain("/c", "/"), ["/c"]);
    }

    #[test]
    fn a_group_of_version_2_is_read_like_one_of_version_1() {
        let group = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(group.path().join(name), text).unwrap();
        let directory = group.path().to_str().unwrap();
        write("memory.current", "900000\n");
        write("memory.stat", "anon 700000\ninactive_file 60000\nactive_file 40000\nslab 5\n");
        write("memory.max", "max\n");
        assert_eq!(left(directory, true), None, "no limit is no limit");
        write("memory.max", "1000000\n");
        assert_eq!(left(directory, true), Some(200_000));
        write("memory.max", "800000\n");
        assert_eq!(left(directory, true), Some(0));
        write("memory.usage_in_bytes", "900000\n");
        write("memory.limit_in_bytes", "1000000\n");
        write("memory.stat", "total_inactive_file 60000\ntotal_active_file 40000\ninactive_file 1\n");
        assert_eq!(left(directory, false), Some(200_000));
    }
}
