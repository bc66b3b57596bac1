//! What purges have to know: their sequence, the fills in flight, the variants in memory, and writes that are landing.
//!
//! Everything about one primary key is behind the lock of its shard, so that "was it purged since? then insert" is
//! one step against a purge.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::disk::{Hash128, Key};
use super::epochs::Epochs;
use super::fill::{Fill, FillReader};

const SHARDS: usize = 64;
/// Purged keys that a shard remembers; beyond, it takes all its keys as purged for whoever asked before.
const REMEMBERED: usize = 4096;

pub(super) struct Shards {
    shards: [Mutex<Shard>; SHARDS],
    epochs: Arc<Epochs>,
    landed: Notify,
}

#[derive(Default)]
pub(super) struct Shard {
    /// The sequence of each key's last purge.
    purged: HashMap<Hash128, u64>,
    /// Whatever was asked for before this is taken as purged.
    floor: u64,
    /// The variants in memory, besides the primary slot; may name some that have been evicted.
    variants: HashMap<Hash128, Variants>,
    /// Keys in `variants` that make it worth looking for evicted ones.
    prune_at: usize,
    /// Purges under way, which may not have reached the disk tier yet.
    purging: HashMap<Hash128, usize>,
    purging_all: usize,
    /// Writes to the disk tier that passed the check.
    landing: HashMap<Hash128, usize>,
    fills: HashMap<Hash128, Vec<Arc<Fill>>>,
    /// Readers of fills whose own request has not taken them yet, by fill.
    own: HashMap<u64, FillReader>,
}

#[derive(Default)]
struct Variants {
    known: HashSet<Hash128>,
    /// The number of them that makes it worth looking for evicted ones.
    prune_at: usize,
}

/// Below this many, nothing is pruned.
const FEW: usize = 64;

impl Shards {
    /// Over the counter that purges by scope share.
    pub(super) fn new(epochs: Arc<Epochs>) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), epochs, landed: Notify::new() }
    }

    /// The present purge sequence.
    pub(super) fn sequence(&self) -> u64 {
        self.epochs.sequence()
    }

    /// Runs `with` on the shard of a primary key; it must neither wait nor come back here.
    pub(super) fn with<R>(&self, primary: &Hash128, with: impl FnOnce(&mut Shard) -> R) -> R {
        with(&mut self.shards[usize::from(primary[0]) % SHARDS].lock())
    }

    /// Makes everything asked before now count as purged; `remove` takes the given keys out of memory. Whether there was
    /// anything, and the mark to keep until the disk tier is purged.
    pub(super) fn purge(&'static self, primary: &Hash128, remove: impl FnOnce(&[Key]) -> bool) -> (bool, Purging) {
        let (found, _, purging) = self.purge_after(primary, u64::MAX, remove);
        (found, purging)
    }

    /// [`Shards::purge`]; the second is its sequence if the key had not been purged since `asked`.
    pub(super) fn purge_after(
        &'static self,
        primary: &Hash128,
        asked: u64,
        remove: impl FnOnce(&[Key]) -> bool,
    ) -> (bool, Option<u64>, Purging) {
        let (found, first) = self.with(primary, |shard| {
            let first = !shard.purged_since(primary, asked);
            let sequence = self.epochs.next() + 1;
            *shard.purging.entry(*primary).or_default() += 1;
            if shard.purged.len() >= REMEMBERED {
                shard.purged.clear();
                shard.floor = sequence;
            }
            shard.purged.insert(*primary, sequence);
            let mut keys = vec![Key { primary: *primary, variant: None }];
            let variants = shard.variants.remove(primary).unwrap_or_default();
            keys.extend(variants.known.into_iter().map(|variant| Key { primary: *primary, variant: Some(variant) }));
            (shard.fills.remove(primary).is_some() | remove(&keys), first.then_some(sequence))
        });
        (found, first, Purging { shards: self, primary: Some(*primary) })
    }

    /// [`Shards::purge`] for every key; memory is the caller's to clear afterwards.
    pub(super) fn purge_all(&'static self) -> Purging {
        // All at once: a look-up that saw the new sequence must see the rest as well. Nothing else takes two of them.
        let mut shards: Vec<_> = self.shards.iter().map(Mutex::lock).collect();
        let sequence = self.epochs.next() + 1;
        for shard in &mut shards {
            shard.purging_all += 1;
            shard.floor = sequence;
            shard.purged.clear();
            shard.variants.clear();
            shard.fills.clear();
        }
        self.epochs.purge_all(sequence);
        Purging { shards: self, primary: None }
    }

    /// Whether a key has a fill in flight, or variants in memory that `held` finds there.
    pub(super) fn holds(&self, primary: &Hash128, held: impl Fn(&Key) -> bool) -> bool {
        self.with(primary, |shard| {
            let variants = shard.variants.get(primary).map(|variants| &variants.known);
            let variants = variants.into_iter().flatten().map(|variant| Some(*variant));
            shard.fills.contains_key(primary)
                || std::iter::once(None).chain(variants).any(|variant| held(&Key { primary: *primary, variant }))
        })
    }

    /// Waits until no write of this key (or any) that passed the check before is still landing.
    pub(super) async fn settled(&self, primary: Option<&Hash128>) {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            landed.as_mut().enable();
            let landing = match primary {
                Some(primary) => self.with(primary, |shard| shard.landing.contains_key(primary)),
                None => self.shards.iter().any(|shard| !shard.lock().landing.is_empty()),
            };
            if !landing {
                return;
            }
            landed.await;
        }
    }

    /// Leave to write to the disk tier, unless what was asked for then has been purged; a purge waits for its end.
    pub(super) fn landing(&'static self, primary: Hash128, asked: u64) -> Option<Landing> {
        self.with(&primary, |shard| {
            if shard.purged_since(&primary, asked) {
                return None;
            }
            *shard.landing.entry(primary).or_default() += 1;
            Some(Landing { shards: self, primary })
        })
    }
}

impl Shard {
    /// Whether this key was purged after the given sequence was read.
    pub(super) fn purged_since(&self, primary: &Hash128, asked: u64) -> bool {
        self.floor > asked || self.purged.get(primary).is_some_and(|purge| *purge > asked)
    }

    /// Whether what a look-up finds on the disk from now on may move up to memory, as far as purges that have begun go;
    /// later ones show in [`Shard::purged_since`].
    pub(super) fn may_promote(&self, primary: &Hash128) -> bool {
        self.purging_all == 0 && !self.purging.contains_key(primary)
    }

    /// Notes a variant about to be put into memory; `held` tells which ones still are there.
    pub(super) fn note_variant(&mut self, key: &Key, held: impl Fn(&Key) -> bool) {
        let Some(variant) = key.variant else { return };
        let primary = key.primary;
        let held = |primary: Hash128, variant: &Hash128| held(&Key { primary, variant: Some(*variant) });
        // Pruning when the number has doubled keeps its cost per insertion constant.
        let variants = self.variants.entry(primary).or_default();
        if variants.known.len() >= variants.prune_at.max(FEW) {
            variants.known.retain(|variant| held(primary, variant));
            variants.prune_at = variants.known.len() * 2;
        }
        variants.known.insert(variant);
        if self.variants.len() >= self.prune_at.max(FEW) {
            self.variants.retain(|other, variants| {
                *other == primary || variants.known.iter().any(|variant| held(*other, variant))
            });
            self.prune_at = self.variants.len() * 2;
        }
    }

    /// Lets look-ups find a fill, and keeps the reader of its own request.
    pub(super) fn add_fill(&mut self, fill: &Arc<Fill>, own: FillReader, attachable: bool) {
        if attachable {
            self.fills.entry(fill.key.primary).or_default().push(Arc::clone(fill));
        }
        self.own.insert(fill.id, own);
    }

    /// The reader that was kept for the fill's own request; once.
    pub(super) fn take_own(&mut self, fill: u64) -> Option<FillReader> {
        self.own.remove(&fill)
    }

    /// Hides a fill from look-ups; those that have it go on reading.
    pub(super) fn remove_fill(&mut self, fill: &Fill) {
        if let Some(fills) = self.fills.get_mut(&fill.key.primary) {
            fills.retain(|other| other.id != fill.id);
            if fills.is_empty() {
                self.fills.remove(&fill.key.primary);
            }
        }
    }

    /// The newest fill of a key.
    pub(super) fn fill(&self, key: &Key, whole: &[u8]) -> Option<Arc<Fill>> {
        let fills = self.fills.get(&key.primary)?;
        fills.iter().rev().find(|fill| fill.key == *key && fill.head.is_of(whole)).cloned()
    }
}

/// A purge under way: until it is dropped, what the disk tier still has does not move up to memory.
pub(super) struct Purging {
    shards: &'static Shards,
    primary: Option<Hash128>,
}

impl Drop for Purging {
    fn drop(&mut self) {
        match &self.primary {
            Some(primary) => self.shards.with(primary, |shard| count_down(&mut shard.purging, primary)),
            None => self.shards.shards.iter().for_each(|shard| shard.lock().purging_all -= 1),
        }
    }
}

fn count_down(counts: &mut HashMap<Hash128, usize>, primary: &Hash128) {
    if let Some(count) = counts.get_mut(primary) {
        *count -= 1;
        if *count == 0 {
            counts.remove(primary);
        }
    }
}

/// A write to the disk tier that a purge of its key waits for.
pub(super) struct Landing {
    shards: &'static Shards,
    primary: Hash128,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.shards.with(&self.primary, |shard| count_down(&mut shard.landing, &self.primary));
        self.shards.landed.notify_waiters();
    }
}

#[cfg(test)]
impl Shard {
    pub(super) fn noted_variants(&self, primary: &Hash128) -> usize {
        self.variants.get(primary).map_or(0, |variants| variants.known.len())
    }
}
