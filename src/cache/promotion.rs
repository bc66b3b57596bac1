//! Which objects on the disk move up to memory. To copy one there costs about as much as to answer with it, and pushes
//! others out: only what is asked for again before memory would have dropped it is worth that.

use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::Key;

/// What an object is taken to have at least, for the number of those that fit in memory.
const SMALL: u64 = 4 << 10;
const SLOTS: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 20;
/// Into so many parts the window is divided for telling when something was answered.
const PARTS: u64 = 1 << 12;

/// The objects that were answered from the disk last: as many as have the bytes that memory holds. Of two that share a
/// slot the later one is known.
pub(super) struct Promotion {
    /// Of each its mark, and in the lower half when it was answered, in parts of the window.
    slots: Box<[AtomicU64]>,
    /// Bytes in one part of the window.
    part: u64,
    /// Bytes answered from the disk so far.
    answered: AtomicU64,
}

impl Promotion {
    /// `capacity` is that of the memory tier, in bytes.
    pub(super) fn new(capacity: u64) -> Self {
        let slots = (capacity / SMALL).clamp(*SLOTS.start(), *SLOTS.end()).next_power_of_two();
        let part = (capacity / PARTS).max(1);
        Self { slots: (0..slots).map(|_| AtomicU64::new(0)).collect(), part, answered: AtomicU64::new(0) }
    }

    /// Notes an answer of `bytes` from the disk; true if there was one no more bytes ago than memory holds.
    pub(super) fn is_again(&self, key: &Key, bytes: u64) -> bool {
        // Both are hashes already.
        let hash = key
            .variant
            .iter()
            .fold(u128::from_le_bytes(key.primary), |hash, variant| hash ^ u128::from_le_bytes(*variant))
            as u64;
        let now = (self.answered.fetch_add(bytes, Ordering::Relaxed) + bytes) / self.part;
        let slot = hash as usize & (self.slots.len() - 1);
        // Never zero, which says nothing.
        let mark = hash >> 32 | 1;
        let before = self.slots[slot].swap(mark << 32 | now & u64::from(u32::MAX), Ordering::Relaxed);
        before >> 32 == mark && u64::from((now as u32).wrapping_sub(before as u32)) <= PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn key(n: u64, variant: Option<u8>) -> Key {
        let mut primary = [0; 16];
        primary[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Key { primary, variant: variant.map(|variant| [variant; 16]) }
    }

    #[test]
    fn the_second_time_counts_unless_as_much_as_memory_holds_came_between() {
        for size in [4 << 10, 16 << 10, MIB] {
            let promotion = Promotion::new(64 * MIB);
            let fit = 64 * MIB / size;
            assert!(!promotion.is_again(&key(1, None), size));
            assert!(promotion.is_again(&key(1, None), size));
            assert!(!promotion.is_again(&key(1, Some(1)), size), "a variant is another object");
            for n in 2..fit {
                promotion.is_again(&key(n, None), size);
            }
            // Small ones may have lost their slot to another, large ones never.
            assert!(promotion.is_again(&key(1, None), size) || size < MIB, "{size}");
            for n in fit..2 * fit + 2 {
                promotion.is_again(&key(n, None), size);
            }
            assert!(!promotion.is_again(&key(1, None), size), "{size}");
            let known = (2 * fit - fit / 2..2 * fit).filter(|n| promotion.is_again(&key(*n, None), 0)).count() as u64;
            assert!(known > fit / 8, "{known} of {} of {size} bytes", fit / 2);
        }
    }
}
