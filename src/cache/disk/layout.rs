//! How much room records take in a segment; for the store and its model.

use super::Key;
use super::format::{ALIGN, BLOCK, ENTRY, FRAME, RECORD_HEADER, head_id};

/// The sizes of one segment and of the records in it.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) struct Layout {
    /// Bytes of a segment.
    pub segment: u32,
    /// Body bytes of a record at most.
    pub chunk: u32,
    /// Bodies are split into CHUNK records at multiples of so many bytes.
    pub block: u32,
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
    /// The smallest segment of a real store.
    const LEAST_SEGMENT: u32 = 1 << 20;

    /// Of segments of so many bytes. Those of a model may be smaller than a store's; all sizes shrink with them.
    pub fn new(segment: u32) -> Self {
        if segment >= Self::LEAST_SEGMENT {
            return Self { segment, chunk: (segment / 16).clamp(BLOCK, 1 << 20), block: BLOCK };
        }
        let block = (segment / 256 / ALIGN * ALIGN).max(ALIGN);
        Self { segment, chunk: block * 16, block }
    }

    /// Whether a record fits behind `entries` others that end at `position`, the footer included.
    pub fn fits(&self, position: u32, entries: u32, len: u32) -> bool {
        len <= self.left(position, entries)
    }

    /// Of how many blocks a CHUNK record fits there.
    pub fn room(&self, position: u32, entries: u32) -> u32 {
        let left = self.left(position, entries);
        let most = left.saturating_sub(RECORD_HEADER as u32) / (self.block + 8);
        // Its end is rounded up.
        if most > 0 && self.chunk_record(most) > left { most - 1 } else { most }
    }

    fn left(&self, position: u32, entries: u32) -> u32 {
        let taken = u64::from(position) + (u64::from(entries) + 1) * u64::from(ENTRY) + u64::from(FRAME);
        u64::from(self.segment).saturating_sub(taken) as u32
    }

    /// Bytes of a CHUNK record of so many blocks.
    pub fn chunk_record(&self, blocks: u32) -> u32 {
        Self::record(blocks * self.block, 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_that_is_left_is_filled_to_less_than_a_block() {
        for segment in [1 << 17, 1 << 20, 16 << 20] {
            let layout = Layout::new(segment);
            for (position, entries) in (64..segment).step_by(7 * 64).zip(0..) {
                let blocks = layout.room(position, entries % 500);
                let fits = |blocks| layout.fits(position, entries % 500, layout.chunk_record(blocks));
                assert!(blocks == 0 || fits(blocks), "{segment} {position}");
                // Small blocks have a checksum each here, so that one more may fit.
                assert!(segment < 1 << 20 || !fits(blocks + 1), "{segment} {position}");
            }
        }
    }
}
