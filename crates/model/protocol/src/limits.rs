use serde::{Deserialize, Serialize};

/// Longest request line. A tree of a thousand files with long paths needs a tenth of it.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;

/// Longest response line; the disassembly of the largest function that is shown needs most.
pub const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// Files that one side may consist of.
pub const MAX_FILES_PER_SIDE: usize = 2000;

/// Descriptors that come with one request: both sides, their changelogs, the patch file, the output.
pub const MAX_DESCRIPTORS: usize = 2 * MAX_FILES_PER_SIDE + 8;

/// What one request may use up. Exceeding any of them ends it with a typed error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimits {
    /// Writable memory of the whole process (`RLIMIT_DATA`).
    pub memory_bytes: u64,
    /// Processor time of all threads together (`RLIMIT_CPU`).
    pub cpu_seconds: u64,
    /// A package file as it is handed over, compressed.
    pub max_package_bytes: u64,
    /// One ELF image.
    pub max_image_bytes: u64,
    /// All ELF images of one side together.
    pub max_side_bytes: u64,
    /// ELF images of one side.
    pub max_images: u32,
    /// The patch file that is written.
    pub max_output_bytes: u64,
    /// Worker threads; the number of processors limits them too.
    pub max_threads: u32,
}

impl Default for ResourceLimits {
    /// Room for the largest packages a distributor ships (a hypervisor with 25 MB
    /// of text needs a fifth of the memory), and small against any server.
    fn default() -> Self {
        Self {
            memory_bytes: 2 << 30,
            cpu_seconds: 300,
            max_package_bytes: 512 << 20,
            max_image_bytes: 256 << 20,
            max_side_bytes: 512 << 20,
            max_images: 2000,
            max_output_bytes: 256 << 20,
            max_threads: 8,
        }
    }
}
