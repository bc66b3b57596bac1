//! How much room records take in a segment; for the store and its model.

use super::Key;
use super::format::{ALIGN, BLOCK, ENTRY, FRAME, RECORD_HEADER, head_id};

/// The sizes of one segment and of the chunks in it.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) struct Layout {
    /// Bytes of a segment.
    pub segment: u32,
    /// Body bytes of a CHUNK record.
    pub chunk: u32,
}

impl Layout {
    /// Where the first record of a segment begins.
    pub const START: u32 = FRAME;
    /// Segments that are kept free: one for new records, one for those that eviction saves.
    pub const RESERVE: u32 = 2;
    /// What a segment's header and the fixed part of its footer take.
    pub const FRAMES: u32 = 2 * FRAME;
    /// What a record takes in the footer.
    pub const ENTRY: u32 = ENTRY;

    /// Chunks are a sixteenth of a segment, so that little is lost at its end, and at most 1 MiB.
    pub fn new(segment: u32) -> Self {
        let most = (segment / 16).min(1 << 20);
        let chunk = if most >= BLOCK { most } else { (most / ALIGN * ALIGN).max(ALIGN) };
        Self { segment, chunk }
    }

    /// Whether a record fits behind `entries` others that end at `position`, the footer included.
    pub fn fits(&self, position: u32, entries: u32, len: u32) -> bool {
        let table = (u64::from(entries) + 1) * u64::from(ENTRY) + u64::from(FRAME);
        u64::from(position) + u64::from(len) + table <= u64::from(self.segment)
    }

    /// Bytes of a CHUNK record.
    pub fn chunk_record(&self) -> u32 {
        Self::record(self.chunk, 0)
    }

    /// Bytes of a HEAD record without scopes.
    pub fn head_record(&self, body: u32, metadata: u32) -> u32 {
        Self::record(body, metadata)
    }

    fn record(body: u32, metadata: u32) -> u32 {
        (RECORD_HEADER as u32 + body.div_ceil(BLOCK) * 8 + metadata + body).next_multiple_of(ALIGN)
    }
}

/// An object's identity in index and admission.
pub(in crate::cache) fn head_identity(key: &Key, seed: u64) -> (u64, u64) {
    let id = head_id(key, seed);
    (id.a, id.b)
}
