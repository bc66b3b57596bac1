//! Which objects on the disk move up to memory. To copy one there costs about as much as to answer with it, and pushes
//! another out: only what is asked for again before memory would have dropped it is worth that.

use std::sync::atomic::{AtomicU32, Ordering};

use super::disk::Key;

/// What an object is taken to have on average, for the number of those that fit in memory.
const TYPICAL: u64 = 16 << 10;
const SLOTS: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 20;

/// The objects that were answered from the disk last, about as many as memory holds. Of two that share a slot the later
/// one is known.
pub(super) struct Promotion {
    slots: Box<[AtomicU32]>,
}

impl Promotion {
    /// `capacity` is that of the memory tier, in bytes.
    pub(super) fn new(capacity: u64) -> Self {
        let slots = (capacity / TYPICAL).clamp(*SLOTS.start(), *SLOTS.end()).next_power_of_two();
        Self { slots: (0..slots).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Notes an answer from the disk; true if there was one not long ago.
    pub(super) fn is_again(&self, key: &Key) -> bool {
        // Both are hashes already.
        let hash = key
            .variant
            .iter()
            .fold(u128::from_le_bytes(key.primary), |hash, variant| hash ^ u128::from_le_bytes(*variant))
            as u64;
        let slot = hash as usize & (self.slots.len() - 1);
        let mark = (hash >> 32) as u32 | 1;
        self.slots[slot].swap(mark, Ordering::Relaxed) == mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64, variant: Option<u8>) -> Key {
        let mut primary = [0; 16];
        primary[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Key { primary, variant: variant.map(|variant| [variant; 16]) }
    }

    #[test]
    fn the_second_time_counts_unless_it_is_long_after() {
        let promotion = Promotion::new(0);
        assert!(!promotion.is_again(&key(1, None)));
        assert!(promotion.is_again(&key(1, None)));
        assert!(!promotion.is_again(&key(1, Some(1))), "a variant is another object");
        for n in 2..20_000 {
            promotion.is_again(&key(n, None));
        }
        assert!(!promotion.is_again(&key(1, None)));
        let known = (18_977..20_000).filter(|n| promotion.is_again(&key(*n, None))).count();
        assert!(known > 500, "{known}");
    }
}
