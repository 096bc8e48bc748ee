//! How much Salve will read, wait for and hold; every outside read names one of these.

use core::time::Duration;

/// Bounds on what is read from a process and on how long it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest image file that is read to hash it.
    pub max_image_bytes: u64,
    /// Largest `/proc/PID/maps`, `status` or `cmdline`.
    pub max_proc_bytes: usize,
    /// Largest payload file found in a process.
    pub max_payload_bytes: u64,
    /// Most threads of a process that are stopped together.
    pub max_threads: usize,
    /// Most live stack of one thread that is scanned; a deeper one counts as blocking.
    pub max_stack_bytes: u64,
    /// Most frames of one thread that are unwound when a scan found a suspicious word.
    pub max_frames: usize,
    /// How long to wait for every thread to stop before all are let go again.
    pub max_stop: Duration,
    /// How long a borrowed thread may take before it is let go, to come home by itself.
    pub max_borrow: Duration,
    /// Threads are stopped also in calls that this may cut short, such as a `write` to a pipe
    /// that is full; else they are waited for as threads in replaced functions are.
    pub may_cut_transfers: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_image_bytes: 1 << 30,
            max_proc_bytes: 32 << 20,
            max_payload_bytes: 256 << 20,
            max_threads: 20_000,
            max_stack_bytes: 16 << 20,
            max_frames: 512,
            max_stop: Duration::from_millis(100),
            max_borrow: Duration::from_secs(5),
            may_cut_transfers: false,
        }
    }
}
