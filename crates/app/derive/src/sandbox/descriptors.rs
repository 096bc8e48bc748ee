use super::SandboxError;
use rustix::io::Errno;
use std::fs;

/// Highest of the descriptors that are ours: the channel, nothing, and standard error.
const LAST_OWN: i32 = 2;

/// Closes every descriptor that came along without being asked for, and counts
/// them. The parent marks its own close-on-exec; this is for what its parents
/// left open. Called before the first thread and before anything is opened.
pub(crate) fn close_inherited() -> Result<u32, SandboxError> {
    let mut closed = 0_u32;
    for number in open_descriptors()? {
        // The descriptor that listed the directory is gone by now: closing it
        // again says so, and anything else that is not open cannot leak.
        match nix::unistd::close(number) {
            Ok(()) => closed = closed.saturating_add(1),
            Err(nix::errno::Errno::EBADF) => {}
            Err(other) => {
                let source = Errno::from_raw_os_error(other as i32);
                return Err(SandboxError::Step { what: "close an inherited descriptor", source });
            }
        }
    }
    Ok(closed)
}

fn open_descriptors() -> Result<Vec<i32>, SandboxError> {
    let failed = |source| SandboxError::ListDescriptors { source };
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(number) = name.to_str().and_then(|n| n.parse().ok())
            && number > LAST_OWN
        {
            numbers.push(number);
        }
    }
    Ok(numbers)
}
