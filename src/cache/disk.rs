//! The disk tier: a log-structured segment store.

use std::path::PathBuf;

/// What the disk tier is set up from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its directory; created if missing. One process at a time.
    pub path: PathBuf,
    /// Bytes it may take on the disk, at least four segments.
    pub capacity: u64,
    /// Bytes of one segment; a power of two from 1 MiB to 1 GiB.
    pub segment_size: u64,
}

impl Settings {
    /// 16 MiB: large enough for sequential writes, small enough that evicting one is a small loss.
    pub const DEFAULT_SEGMENT_SIZE: u64 = 16 << 20;
}
