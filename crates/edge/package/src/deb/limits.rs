/// Bounds on what a package may make its reader do and hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The `.deb` itself.
    pub max_package_bytes: u64,
    /// `control.tar`, unpacked.
    pub max_control_bytes: u64,
    /// `data.tar`, unpacked.
    pub max_unpacked_bytes: u64,
    /// Unpacked bytes for each packed one, once [`Limits::RATIO_FROM_BYTES`] are unpacked.
    pub max_ratio: u64,
    pub max_entries: u64,
    /// One file whose contents are asked for.
    pub max_file_bytes: u64,
    /// The changelog, unpacked.
    pub max_changelog_bytes: u64,
    /// Memory of the decompressor (its dictionary).
    pub max_decoder_bytes: u64,
}

impl Limits {
    /// Small archives may compress as well as they like.
    pub const RATIO_FROM_BYTES: u64 = 64 << 20;

    /// A path or a link's target; Linux's `PATH_MAX`.
    pub const MAX_PATH_BYTES: u64 = 4096;
}

impl Default for Limits {
    /// Above every package of Debian 12's main archive.
    fn default() -> Self {
        Self {
            max_package_bytes: 2 << 30,
            max_control_bytes: 64 << 20,
            max_unpacked_bytes: 8 << 30,
            max_ratio: 400,
            max_entries: 400_000,
            max_file_bytes: 1 << 30,
            max_changelog_bytes: 16 << 20,
            max_decoder_bytes: 96 << 20,
        }
    }
}
