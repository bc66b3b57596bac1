//! The memory tier: whole objects, the least recently used of which make room.
//!
//! Before a disk tier it is also where newcomers show what they are worth: what was hit here and is not on the disk moves
//! there when it has to go. For both, recency is the right order: frequency is what the disk's admission looks at, and moka's
//! TinyLFU keeps newcomers out, the large ones above all (`cargo bench --bench trace`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;

use super::direct::WorkedOut;
use super::disk::{Hash128, Key};
use super::entry::{Body, Head};
use super::epochs::{Epochs, Standing};
use super::{Cache, PendingWrite};
use crate::metrics::TierMetrics;

/// moka's weights are 32 bits wide: in units of 64 bytes they reach 256 GiB and stay exact for small objects.
const WEIGHT_UNIT: u64 = 64;
/// What an entry costs besides its bytes: moka's node and the allocations, measured at about this.
pub(super) const ENTRY_OVERHEAD: u64 = 300;
/// Bytes of evicted objects that may be on their way to the disk at a time; beyond, they are lost.
const DEMOTING: u64 = 32 << 20;

/// An object in memory.
pub(super) struct Entry {
    pub(super) head: Head,
    pub(super) body: Body,
    /// It answered a request since it came here.
    hit: AtomicBool,
    /// The purge sequence it is older than.
    pub(super) asked: u64,
    /// No purge by scope up to this one concerns it; at least the epoch of its head.
    epoch: AtomicU64,
    /// What whoever answers with it has worked out from its head.
    pub(super) worked_out: WorkedOut,
}

impl Entry {
    pub(super) fn new(head: Head, body: Body, asked: u64) -> Self {
        let epoch = AtomicU64::new(head.mark.epoch);
        Self { head, body, hit: AtomicBool::new(false), asked, epoch, worked_out: WorkedOut::default() }
    }

    /// How it stands with purges by scope.
    pub(super) fn standing(&self, epochs: &Epochs, primary: &Hash128) -> Standing {
        epochs.standing(self.epoch.load(Ordering::Acquire), primary, &self.head.mark.scopes)
    }

    /// The same content under the head that a validation brought.
    pub(super) fn renewed(old: &Self, head: Head, asked: u64) -> Self {
        let this = Self::new(head, old.body.clone(), asked);
        this.hit.store(old.hit.load(Ordering::Relaxed), Ordering::Relaxed);
        this
    }

    fn size(&self) -> u64 {
        self.body.len() + self.head.size() + ENTRY_OVERHEAD
    }
}

pub(super) struct MemoryTier {
    objects: moka::sync::Cache<Key, Arc<Entry>>,
    metrics: TierMetrics,
    demote: Arc<OnceLock<&'static Cache>>,
}

impl MemoryTier {
    pub(super) fn new(capacity: u64, metrics: TierMetrics) -> Self {
        let demote: Arc<OnceLock<&'static Cache>> = Arc::default();
        let (evicted, target) = (metrics.clone(), Arc::clone(&demote));
        let demoting = Arc::new(AtomicU64::new(0));
        let objects = objects(
            capacity,
            |entry: &Arc<Entry>| entry.size(),
            move |key: Key, entry: Arc<Entry>, cause| {
                evicted.objects.dec();
                evicted.bytes.sub(gauge(entry.size()));
                if cause == RemovalCause::Size {
                    evicted.evictions.inc();
                    if let Some(cache) = target.get() {
                        demote_entry(cache, key, entry, &demoting);
                    }
                }
            },
        );
        metrics.capacity.set(gauge(capacity));
        Self { objects, metrics, demote }
    }

    /// Where evicted objects go that are not on the disk.
    pub(super) fn demote_to(&self, cache: &'static Cache) {
        // Set once, by `Cache::open`.
        let _ = self.demote.set(cache);
    }

    /// Whether an object more would push out none; an eighth of the capacity is left for those that come by fills.
    pub(super) fn has_room(&self) -> bool {
        self.metrics.bytes.get() < self.metrics.capacity.get() / 8 * 7
    }

    /// The object, now the most recently used.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.objects.get(key)
    }

    /// Counts an answer from memory.
    pub(super) fn count_hit(&self, entry: &Entry) {
        entry.hit.store(true, Ordering::Relaxed);
        self.metrics.hits.inc();
    }

    pub(super) fn insert(&self, key: Key, entry: Arc<Entry>) {
        self.metrics.objects.inc();
        self.metrics.bytes.add(gauge(entry.size()));
        self.objects.insert(key, entry);
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.objects.contains_key(key)
    }

    /// Removes these; `true` if one was there that no purge by scope had taken away.
    pub(super) fn remove(&self, keys: &[Key], epochs: &Epochs) -> bool {
        let live = |key: &Key| {
            self.objects.remove(key).is_some_and(|entry| entry.standing(epochs, &key.primary) != Standing::Gone)
        };
        keys.iter().fold(false, |found, key| live(key) | found)
    }

    /// Whether there is one that no purge by scope has taken away.
    pub(super) fn holds(&self, key: &Key, epochs: &Epochs) -> bool {
        self.get(key).is_some_and(|entry| entry.standing(epochs, &key.primary) != Standing::Gone)
    }

    /// Removes this very entry.
    pub(super) fn drop_entry(&self, key: &Key, entry: &Arc<Entry>) {
        if self.objects.get(key).is_some_and(|held| Arc::ptr_eq(&held, entry)) {
            self.objects.invalidate(key);
        }
    }

    /// Removes what purges by scope have taken away and notes of the rest that they have not; the lowest epoch that is
    /// left. It looks at everything.
    pub(super) fn sweep(&self, epochs: &Epochs) -> u64 {
        let mut oldest = u64::MAX;
        for (key, entry) in &self.objects {
            let epoch = entry.epoch.load(Ordering::Acquire);
            if let Some(raised) = epochs.advance(epoch, &key.primary, &entry.head.mark.scopes) {
                oldest = oldest.min(entry.epoch.fetch_max(raised, Ordering::AcqRel).max(raised));
            } else if entry.standing(epochs, &key.primary) == Standing::Gone {
                self.objects.invalidate(&*key);
            } else {
                oldest = oldest.min(epoch);
            }
        }
        oldest
    }

    pub(super) fn clear(&self) {
        self.objects.invalidate_all();
    }

    #[cfg(test)]
    pub(super) fn settle(&self) -> u64 {
        self.objects.run_pending_tasks();
        self.objects.weighted_size() * WEIGHT_UNIT
    }
}

/// What holds the objects: at most `capacity` bytes by `size`, in the order of use.
pub(super) fn objects<K, V>(
    capacity: u64,
    size: impl Fn(&V) -> u64 + Send + Sync + 'static,
    evicted: impl Fn(K, V, RemovalCause) + Send + Sync + 'static,
) -> moka::sync::Cache<K, V>
where
    K: std::hash::Hash + Eq + Copy + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    moka::sync::Cache::builder()
        .max_capacity(capacity / WEIGHT_UNIT)
        .eviction_policy(EvictionPolicy::lru())
        .weigher(move |_, value| u32::try_from(size(value).div_ceil(WEIGHT_UNIT)).unwrap_or(u32::MAX))
        .eviction_listener(move |key: Arc<K>, value, cause| evicted(*key, value, cause))
        .build()
}

/// Where an object goes that leaves memory: what was never hit, nowhere. What is on the disk gets its hit counted there;
/// what is not has earned its place there.
fn demote_entry(cache: &'static Cache, key: Key, entry: Arc<Entry>, demoting: &Arc<AtomicU64>) {
    let Some(disk) = cache.disk.as_ref().filter(|_| entry.hit.load(Ordering::Relaxed)) else { return };
    if disk.count_hit(&key) {
        return;
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let Some(held) = Demoting::take(demoting, entry.size()) else { return };
    // Before the task runs: a fetch that begins from now on takes it back.
    let Some(mut writer) = disk.demotion(key) else { return };
    let pending = PendingWrite::new(cache);
    runtime.spawn(async move {
        let _pending = (pending, held);
        for piece in entry.body.pieces() {
            if writer.append(piece).await.is_err() {
                return;
            }
        }
        let mut head = entry.head.clone();
        head.mark.epoch = entry.epoch.load(Ordering::Acquire);
        cache.commit(key, entry.asked, writer, &head).await;
    });
}

/// Bytes on their way from memory to the disk.
struct Demoting {
    all: Arc<AtomicU64>,
    own: u64,
}

impl Demoting {
    fn take(all: &Arc<AtomicU64>, own: u64) -> Option<Self> {
        let fits = |taken: u64| taken.checked_add(own).filter(|taken| *taken <= DEMOTING);
        all.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(Self { all: Arc::clone(all), own })
    }
}

impl Drop for Demoting {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Ordering::AcqRel);
    }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
