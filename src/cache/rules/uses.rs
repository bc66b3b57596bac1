//! How often targets have been asked for, in little memory.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Counters; a power of two.
const COUNTERS: usize = 1 << 20;
/// Each target has this many of them, of which the least says most.
const ROWS: usize = 4;
/// After so many uses all counters are halved, so that what was asked for long ago is forgotten.
const PERIOD: u32 = (COUNTERS / ROWS) as u32;

/// A counting filter of 1 MiB. It may count too much where targets share counters, never too little between two
/// halvings.
#[derive(Debug, Default)]
pub struct UseCounter {
    counters: OnceLock<Box<[AtomicU8]>>,
    uses: AtomicU32,
}

impl UseCounter {
    /// Counts one use of the target with this hash, and returns how many there were, this one included; 255 at most.
    pub fn count(&self, hash: &[u8; 16]) -> u8 {
        let counters = self.counters.get_or_init(|| (0..COUNTERS).map(|_| AtomicU8::new(0)).collect());
        if self.uses.fetch_add(1, Ordering::Relaxed) % PERIOD == PERIOD - 1 {
            for counter in counters {
                counter.store(counter.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
        let mut least = u8::MAX;
        for row in 0..ROWS {
            let at = u32::from_be_bytes([hash[row * 4], hash[row * 4 + 1], hash[row * 4 + 2], hash[row * 4 + 3]]);
            let counter = &counters[at as usize % COUNTERS];
            let count = counter.load(Ordering::Relaxed).saturating_add(1);
            counter.store(count, Ordering::Relaxed);
            least = least.min(count);
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_128;

    fn hash(n: u32) -> [u8; 16] {
        xxh3_128(&n.to_be_bytes()).to_be_bytes()
    }

    #[test]
    fn uses_are_counted_apart_and_forgotten() {
        let uses = UseCounter::default();
        assert_eq!([uses.count(&hash(1)), uses.count(&hash(1)), uses.count(&hash(2))], [1, 2, 1]);
        for _ in 0..300 {
            uses.count(&hash(3));
        }
        assert_eq!(uses.count(&hash(3)), u8::MAX);
        for n in 10..10 + 10 * PERIOD {
            uses.count(&hash(n));
        }
        assert!(uses.count(&hash(3)) < 100, "old uses are forgotten");
    }
}
