//! The log and what rotation made of it, as one text for each file.
//!
//! Read from the youngest back, up to a limit over all of them; then the oldest
//! that was read lacks its beginning. A file that cannot be read leaves a gap,
//! which is said; only that there is no log at all is an error.

use salve_package::rotated::{self, Age};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Of all files together, unpacked.
const MAX_BYTES: u64 = 64 << 20;
/// One file as it lies there; packed ones are read whole.
const MAX_PACKED_BYTES: u64 = 32 << 20;
/// What one packed file may come to.
const MAX_UNPACKED_BYTES: u64 = 256 << 20;

/// One file of the log.
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    /// Its beginning is missing.
    pub(super) cut: bool,
    /// Written by root or the caller, and by nobody else.
    pub(super) own: bool,
}

/// All of it that is read.
#[derive(Default)]
pub(super) struct Logs {
    /// The oldest first.
    pub(super) parts: Vec<Part>,
    /// Something older was not read.
    pub(super) cut: bool,
    /// Files that could not be read, with the reason.
    pub(super) gaps: Vec<String>,
}

impl Logs {
    pub(super) fn read(log: &Path) -> io::Result<Self> {
        let mut logs = Self::default();
        let mut left = MAX_BYTES;
        let mut missing = None;
        for (age, path) in files(log) {
            if left == 0 {
                logs.cut = true;
                break;
            }
            match part(&path, left) {
                Ok(part) => {
                    left = left.saturating_sub(u64::try_from(part.bytes.len()).unwrap_or(u64::MAX));
                    logs.cut |= part.cut;
                    logs.parts.push(part);
                }
                // Nothing was written since it was rotated.
                Err(error) if age == Age::Current => missing = Some((error, path)),
                Err(error) => logs.gaps.push(format!("{}: {error}", path.display())),
            }
        }
        match missing {
            Some((error, _)) if logs.parts.is_empty() && logs.gaps.is_empty() => return Err(error),
            Some((error, path)) if error.kind() != io::ErrorKind::NotFound => {
                logs.gaps.push(format!("{}: {error}", path.display()));
            }
            _there_is_one => {}
        }
        logs.parts.reverse();
        Ok(logs)
    }
}

/// The log and the rotated ones beside it, the youngest first.
fn files(log: &Path) -> Vec<(Age, PathBuf)> {
    let mut all = vec![(Age::Current, log.to_owned())];
    let name = log.file_name().and_then(|name| name.to_str());
    let directory = log.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Some(name), Ok(entries)) = (name, std::fs::read_dir(directory)) else { return all };
    all.extend(entries.flatten().filter_map(|entry| {
        let age = rotated::age(name, entry.file_name().to_str()?)?;
        (age != Age::Current).then(|| (age, entry.path()))
    }));
    all.sort();
    all
}

fn part(path: &Path, left: u64) -> io::Result<Part> {
    // A pipe in its place would be waited for.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let own = is_own(&metadata);
    if rotated::is_packed(&path.to_string_lossy()) {
        if metadata.len() > MAX_PACKED_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large to be unpacked"));
        }
        let mut packed = Vec::new();
        file.take(MAX_PACKED_BYTES).read_to_end(&mut packed)?;
        let mut bytes = rotated::unpack(&packed, MAX_UNPACKED_BYTES);
        let before = bytes.len().saturating_sub(usize::try_from(left).unwrap_or(usize::MAX));
        bytes.drain(..before);
        return Ok(Part { bytes, cut: before > 0, own });
    }
    let before = metadata.len().saturating_sub(left);
    file.seek(SeekFrom::Start(before))?;
    let mut bytes = Vec::new();
    file.take(left).read_to_end(&mut bytes)?;
    Ok(Part { bytes, cut: before > 0, own })
}

fn is_own(metadata: &Metadata) -> bool {
    let own = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    own && metadata.mode() & 0o022 == 0
}
