//! Admission to the disk tier: what is asked for once stays in memory, what is asked for again is worth a write.
//!
//! Most of what a cache is asked for is never asked for again. A [`Ghost`] remembers what was turned away and what was
//! evicted, in a few bits each; whoever is in it when a fill begins gets in.
//!
//! How long it remembers follows from how long the disk keeps what it takes: what comes again only after that would be
//! gone before its next use, and is not worth a write. So the memory turns with the disk, a filter for each quarter of its
//! segments that is evicted. The fewer are admitted, the longer they stay and the longer it remembers: the two find their
//! balance on any traffic (`cargo bench --bench trace`). 8 bytes for each stored object bound it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// So often the ghost turns while all of the disk is evicted.
const TURNS: u64 = 4;

/// What the disk tier takes once it is full. While it has free segments it takes everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Rule {
    /// What is asked for a second time: a third to a tenth of the writes, and more hits on most traffic.
    #[default]
    SecondUse,
    /// Everything: for traffic in which nearly everything is asked for again soon.
    All,
}

impl Rule {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SecondUse => "second-use",
            Self::All => "all",
        }
    }
}

/// Remembers identities for one or two turns: until it is told to turn, or four times the number of stored objects passed
/// by.
///
/// It errs on one side: now and then (some percent) it takes what it never saw for known, never the other way round.
pub(super) struct Ghost {
    now: Filter,
    before: Filter,
}

impl Ghost {
    /// Identities of one of the two filters, for each stored object.
    const SHARE: u64 = 4;
    /// And at least.
    const LEAST: u64 = 1024;

    pub(super) fn new() -> Self {
        Self { now: Filter::new(Self::LEAST), before: Filter::new(0) }
    }

    pub(super) fn knows(&self, (a, b): (u64, u64)) -> bool {
        self.now.has(a, b) || self.before.has(a, b)
    }

    /// Notes an identity; `stored` objects set how many are remembered from the next turn on.
    pub(super) fn note(&mut self, (a, b): (u64, u64), stored: u64) {
        if self.now.left == 0 {
            self.turn(stored);
        }
        self.now.add(a, b);
    }

    /// Forgets what was noted before the last turn.
    fn turn(&mut self, stored: u64) {
        let next = Filter::new((stored * Self::SHARE).max(Self::LEAST));
        self.before = std::mem::replace(&mut self.now, next);
    }

    fn ram(&self) -> u64 {
        self.now.ram() + self.before.ram()
    }
}

/// A Bloom filter, the bits of an identity in one cache line: 8 bits for each of those it has room for.
struct Filter {
    blocks: Box<[[u64; 8]]>,
    /// How many more it takes.
    left: u64,
}

impl Filter {
    const BLOCK_BITS: u64 = 512;
    const BITS_EACH: u64 = 8;
    /// Bits set for each identity.
    const PROBES: u32 = 5;

    fn new(room: u64) -> Self {
        let blocks = (room * Self::BITS_EACH).div_ceil(Self::BLOCK_BITS) as usize;
        Self { blocks: vec![[0; 8]; blocks].into_boxed_slice(), left: room }
    }

    fn place(&self, a: u64, b: u64) -> Option<(usize, [u64; 8])> {
        // The identities of a key's variants share `a`.
        let mixed = (a ^ b.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = (u128::from(mixed) * self.blocks.len() as u128) >> 64;
        let mut bits = [0; 8];
        for n in 0..Self::PROBES {
            let bit = b.rotate_right(9 * n) % Self::BLOCK_BITS;
            bits[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        (!self.blocks.is_empty()).then_some((at as usize, bits))
    }

    fn has(&self, a: u64, b: u64) -> bool {
        let Some((at, bits)) = self.place(a, b) else { return false };
        self.blocks[at].iter().zip(bits).all(|(word, bits)| word & bits == bits)
    }

    fn add(&mut self, a: u64, b: u64) {
        let Some((at, bits)) = self.place(a, b) else { return };
        let known = self.blocks[at].iter().zip(bits).all(|(word, bits)| word & bits == bits);
        if !known {
            self.blocks[at].iter_mut().zip(bits).for_each(|(word, bits)| *word |= bits);
            self.left = self.left.saturating_sub(1);
        }
    }

    fn ram(&self) -> u64 {
        size_of_val(&*self.blocks) as u64
    }
}

/// The gate of the disk tier.
pub(super) struct Admission {
    rule: Rule,
    ghost: Mutex<Ghost>,
    /// Objects on the disk, lately.
    stored: AtomicU64,
    /// Segments evicted since the ghost turned.
    turned_over: AtomicU64,
    /// Less than half of the disk is in use: what is in its segments was purged.
    is_sparse: AtomicBool,
}

impl Admission {
    pub(super) fn new(rule: Rule) -> Self {
        let ghost = Mutex::new(Ghost::new());
        Self {
            rule,
            ghost,
            stored: AtomicU64::new(0),
            turned_over: AtomicU64::new(0),
            is_sparse: AtomicBool::new(false),
        }
    }

    /// Takes note of what the disk holds.
    pub(super) fn observe(&self, objects: u64, bytes: u64, capacity: u64) {
        self.stored.store(objects, Ordering::Relaxed);
        self.is_sparse.store(bytes < capacity / 2, Ordering::Relaxed);
    }

    /// Whether a fill may be written; if not, the next one of the same identity may.
    pub(super) fn admits(&self, id: (u64, u64), has_free: bool) -> bool {
        if self.rule == Rule::All || has_free || self.is_sparse.load(Ordering::Relaxed) {
            return true;
        }
        let mut ghost = self.ghost.lock();
        let known = ghost.knows(id);
        if !known {
            ghost.note(id, self.stored.load(Ordering::Relaxed));
        }
        known
    }

    /// Takes note that one of so many segments was evicted.
    pub(super) fn segment_evicted(&self, segments: u64) {
        if self.turned_over.fetch_add(1, Ordering::Relaxed) + 1 >= (segments / TURNS).max(1) {
            self.turned_over.store(0, Ordering::Relaxed);
            self.ghost.lock().turn(self.stored.load(Ordering::Relaxed));
        }
    }

    /// What was evicted was wanted once: it gets in again at the next request.
    pub(super) fn evicted(&self, id: (u64, u64)) {
        if self.rule == Rule::SecondUse {
            self.ghost.lock().note(id, self.stored.load(Ordering::Relaxed));
        }
    }

    /// Bytes of memory it takes.
    pub(super) fn ram(&self) -> u64 {
        self.ghost.lock().ram()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    fn id(n: u64) -> (u64, u64) {
        (xxh3_64_with_seed(&n.to_le_bytes(), 1), xxh3_64_with_seed(&n.to_le_bytes(), 2))
    }

    #[test]
    fn the_second_use_is_admitted_and_the_first_is_not() {
        let admission = Admission::new(Rule::SecondUse);
        admission.observe(10_000, 100, 100);
        let first = (0..10_000).filter(|n| admission.admits(id(*n), false)).count();
        assert!(first < 300, "{first} of 10,000 taken for known");
        assert!((0..10_000).all(|n| admission.admits(id(n), false)));
        admission.evicted(id(77_777));
        assert!(admission.admits(id(77_777), false));
    }

    #[test]
    fn all_are_admitted_where_there_is_room_or_the_rule_says_so() {
        for (rule, free, bytes) in [(Rule::All, false, 100), (Rule::SecondUse, true, 100), (Rule::SecondUse, false, 49)]
        {
            let admission = Admission::new(rule);
            admission.observe(10, bytes, 100);
            assert!((0..100).all(|n| admission.admits(id(n), free)), "{rule:?} {free} {bytes}");
        }
    }

    #[test]
    fn it_remembers_four_times_what_is_stored_in_eight_bytes_an_object_at_most() {
        let stored = 50_000;
        let mut ghost = Ghost::new();
        // Two turns, so that both filters have their size.
        (0..12 * stored).for_each(|n| ghost.note(id(n), stored));
        let last = 12 * stored;
        assert!((last - 4 * stored..last).all(|n| ghost.knows(id(n))));
        let old = (0..stored).filter(|n| ghost.knows(id(*n))).count();
        assert!(old < stored as usize / 10, "{old} of {stored} never forgotten");
        let unknown = (0..stored).filter(|n| ghost.knows(id(last + n))).count();
        assert!(unknown < stored as usize / 16, "{unknown} of {stored} taken for known");
        assert!(ghost.ram() <= 8 * stored + 128, "{}", ghost.ram());
    }

    #[test]
    fn what_comes_again_only_after_the_disk_was_turned_over_is_unknown() {
        let admission = Admission::new(Rule::SecondUse);
        admission.observe(10_000, 100, 100);
        assert!(!admission.admits(id(1), false));
        // One turn later it is known, two turns later it is not.
        (0..35).for_each(|_| admission.segment_evicted(100));
        assert!(admission.admits(id(1), false) && !admission.admits(id(2), false));
        (0..40).for_each(|_| admission.segment_evicted(100));
        assert!(!admission.admits(id(2), false));
    }

    #[test]
    fn variants_of_one_key_are_told_apart() {
        let mut ghost = Ghost::new();
        let key = id(1).0;
        ghost.note((key, id(2).1), 0);
        assert!(ghost.knows((key, id(2).1)) && !ghost.knows((key, id(3).1)));
    }
}
