//! Another process's memory, and what is mapped at an address of it.

use super::{Result, check};

/// `struct procmap_query` of `include/uapi/linux/fs.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct MappingQuery {
    size: u64,
    query_flags: u64,
    query_address: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) flags: u64,
    page_size: u64,
    pub(crate) offset: u64,
    pub(crate) inode: u64,
    pub(crate) dev_major: u32,
    pub(crate) dev_minor: u32,
    name_size: u32,
    build_id_size: u32,
    name_address: u64,
    build_id_address: u64,
}

/// `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: libc::c_ulong = 0xc068_6611;
const _: () = assert!(size_of::<MappingQuery>() == 0x68);

/// The mapping that holds `address`, asked of an open `/proc/PID/maps` (Linux 6.11);
/// `ENOENT` where there is none, `ENOTTY` where the kernel cannot be asked.
pub(crate) fn mapping_at(maps: &std::fs::File, address: u64) -> Result<MappingQuery> {
    let mut query = MappingQuery {
        size: u64::try_from(size_of::<MappingQuery>()).unwrap_or(0),
        query_address: address,
        ..MappingQuery::default()
    };
    // SAFETY: the request reads and fills a structure of exactly this layout, asserted above.
    let result = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(maps), PROCMAP_QUERY, &raw mut query) };
    check(libc::c_long::from(result)).map(|_| query)
}

/// Several runs of another process's memory, each an address and a length, one behind the
/// other in `into`; `None` where not all of them could be read (`process_vm_readv(2)`). A
/// process that may be traced may be read, and while it is traced its number is its own.
pub(crate) fn read_together<'i>(pid: i32, runs: &[(u64, usize)], into: &'i mut [u8]) -> Option<&'i [u8]> {
    let run = |&(at, iov_len): &(u64, usize)| {
        let iov_base = core::ptr::without_provenance_mut(usize::try_from(at).ok()?);
        Some(libc::iovec { iov_base, iov_len })
    };
    let remote: Vec<libc::iovec> = runs.iter().map(run).collect::<Option<_>>()?;
    let count = libc::c_ulong::try_from(remote.len()).ok()?;
    let want = runs.iter().try_fold(0_usize, |sum, (_, len)| sum.checked_add(*len))?;
    let room = into.get_mut(..want)?;
    let local = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    // SAFETY: `local` is a live buffer of ours that nobody else uses; the other addresses are only read, by the
    // kernel, in the other process.
    let got = unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), count, 0) };
    (usize::try_from(got) == Ok(want)).then_some(room)
}
