//! The shared cache: RFC 9111 policy as pure functions, the key, and the tiers behind pingora-cache's `Storage`.
//!
//! A look-up asks the memory tier, the fills in flight and the disk tier; a fill is written to both tiers as it
//! arrives. What a purge has taken away never comes back: each look-up, fill and write to a tier carries the purge
//! sequence it started from and is refused by a later purge of its key ([`purged`]); what is stored carries its epoch
//! and its scopes, which look-ups compare with the purges by host, prefix and tag ([`epochs`]).

pub mod admission;
pub mod direct;
pub mod disk;
pub mod key;
pub mod model;
pub mod policy;
pub mod purge;
pub mod rules;
pub mod slices;
pub mod stored;

mod entry;
mod epochs;
mod fill;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hit;
mod lock;
mod memory;
mod miss;
mod promotion;
mod purged;
mod scope;
mod storage;
mod window;

pub use entry::softly_purged;
pub use epochs::Mark;
pub use hit::{Tier, is_for_readers_alone, tier_of};
pub use scope::{MAX_DEPTH, MAX_TAG, MAX_TAGS, TAG_FIELDS, prefixes, tags};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use bytes::Bytes;
use pingora::cache::lock::CacheKeyLockImpl;
use pingora::cache::{CacheKey, CacheMeta};
use prometheus::{IntCounter, IntGauge};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::metrics::Metrics;
use epochs::Epochs;
use memory::MemoryTier;
use promotion::Promotion;
use purged::Shards;

/// What the cache is set up from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of the memory tier, metadata included; 0 turns the tier off.
    pub memory_capacity: u64,
    /// The disk tier, where there is one.
    pub disk: Option<disk::Settings>,
    /// Bytes of the largest response that is stored; `None`: what the largest tier can hold (an eighth of its capacity),
    /// and in slices any.
    pub max_object: Option<u64>,
    /// Bytes of a slice of what is stored in slices; a power of two of [`slices::SLICE_SIZES`].
    pub slice_size: u64,
    /// Seconds for which a stale response may answer while its origin server fails, where it neither forbids that nor
    /// says for how long.
    pub grace: u32,
}

impl Settings {
    /// The default of [`Settings::grace`]: a day, long enough to get up and mend the origin.
    pub const DEFAULT_GRACE: u32 = 24 * 3600;
}

/// Why a cache could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk tier cannot be used.
    #[error("disk tier: {0}")]
    Disk(#[from] disk::OpenError),
}

/// Why a purge was not carried out in full; what the memory tier held is gone all the same.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// The disk tier could not make it durable.
    #[error("disk tier: {0}")]
    Disk(#[from] disk::PurgeError),
}

/// With a disk tier, objects up to this size are held in memory as well; larger ones stream from the disk.
const SMALL_OBJECT: u64 = 1 << 20;
/// For how long requests wait for another's fetch to bring a response head before one of them asks again.
const LOCK_AGE: Duration = Duration::from_secs(30);

/// The tiers and the fills in flight. One per process, alive until its end, as pingora-cache requires.
pub struct Cache {
    memory: MemoryTier,
    promotion: Promotion,
    disk: Option<Arc<disk::DiskTier>>,
    /// Purges by scope, and the counter that orders all purges.
    epochs: Arc<Epochs>,
    shards: Shards,
    /// The counter at the last sweep, and whether one is under way.
    swept: AtomicU64,
    sweeping: AtomicBool,
    lock: &'static lock::FetchLock,
    clock: Clock,
    /// Bytes up to which an object is held in memory.
    memory_object: u64,
    max_object: u64,
    /// Bytes up to which a response is stored in slices.
    max_sliced: u64,
    slice_size: u64,
    grace: u32,
    /// Bytes of fills that are in memory as a whole, and how many there may be.
    filling: AtomicU64,
    filling_max: u64,
    next_fill: AtomicU64,
    /// Writes to the disk tier that go on after their request.
    writes: watch::Sender<usize>,
    fills_in_flight: IntGauge,
    collapsed: IntCounter,
    purges: IntCounter,
}

/// A [`CacheKey`] extension: the purge sequence at the time its request began.
#[derive(Clone, Copy)]
struct Asked(u64);

/// A [`CacheKey`] extension: bytes of the largest content that is stored under it.
#[derive(Clone, Copy)]
struct Limit(u64);

impl Cache {
    /// Opens the tiers; the memory of the result is never given back.
    pub fn open(settings: &Settings, clock: Clock, metrics: &Metrics) -> Result<&'static Self, OpenError> {
        let Settings { memory_capacity, disk, max_object, slice_size, grace } = settings;
        let largest = (*memory_capacity).max(disk.as_ref().map_or(0, |disk| disk.capacity)) / 8;
        let max_sliced = max_object.unwrap_or(u64::MAX);
        let max_object = max_object.unwrap_or(largest).min(largest);
        let small = if disk.is_some() { SMALL_OBJECT } else { u64::MAX };
        let tier = match disk {
            Some(settings) => Some(disk::DiskTier::open(settings, metrics.tier("disk"))?),
            None => None,
        };
        let epochs = tier.as_ref().map_or_else(Arc::default, |tier| Arc::clone(tier.epochs()));
        let cache: &'static Self = Box::leak(Box::new(Self {
            memory: MemoryTier::new(*memory_capacity, metrics.tier("memory")),
            promotion: Promotion::new(*memory_capacity),
            disk: tier,
            shards: Shards::new(Arc::clone(&epochs)),
            swept: AtomicU64::new(0),
            sweeping: AtomicBool::new(false),
            epochs,
            lock: Box::leak(Box::new(lock::FetchLock::new(LOCK_AGE))),
            clock,
            memory_object: (*memory_capacity / 8).min(small).min(max_object),
            max_object,
            max_sliced,
            slice_size: *slice_size,
            grace: *grace,
            filling: AtomicU64::new(0),
            filling_max: *memory_capacity / 2,
            next_fill: AtomicU64::new(0),
            writes: watch::Sender::new(0),
            fills_in_flight: metrics.fills_in_flight.clone(),
            collapsed: metrics.collapsed.clone(),
            purges: metrics.purges.clone(),
        }));
        cache.lock.serve(cache);
        if cache.disk.is_some() {
            cache.memory.demote_to(cache);
        }
        Ok(cache)
    }

    /// What binds storing here.
    pub fn rules(&self) -> policy::ResponseRules {
        policy::ResponseRules { max_object: self.max_object, grace: self.grace, ..Default::default() }
    }

    /// Bytes of the largest response content that is stored; for [`policy::ResponseRules`].
    pub fn max_object(&self) -> u64 {
        self.max_object
    }

    /// The lock that collapses requests for one key into one fetch.
    pub fn lock(&'static self) -> &'static CacheKeyLockImpl {
        self.lock
    }

    /// Marks a key with the present moment. Call it when the request begins: a response that the origin server made
    /// before a purge, but which arrives after it, is then not stored.
    pub fn stamp(&self, key: &mut CacheKey) {
        key.extensions.insert(Asked(self.shards.sequence()));
    }

    /// Stores nothing under this key whose content is larger than `bytes`.
    pub fn limit(&self, key: &mut CacheKey, bytes: u64) {
        key.extensions.insert(Limit(bytes.min(self.max_object)));
    }

    /// Makes every variant of a target invalid (RFC 9111 section 4.4): as [`Cache::purge`], but the disk is only written
    /// to where it has something that a look-up could find.
    ///
    /// The result is the key stamped with this very moment, for an answer that is not older; `None` if anything else has
    /// purged the target since the sequence `asked`.
    pub async fn invalidate(&'static self, mut key: CacheKey, asked: u64) -> Result<Option<CacheKey>, PurgeError> {
        let primary = key::tier_key(&key).primary;
        let (_, sequence, purging) =
            self.shards.purge_after(&primary, asked, |keys| self.memory.remove(keys, &self.epochs));
        self.shards.settled(Some(&primary)).await;
        // Variants are found by way of the primary slot alone.
        if let Some(disk) = &self.disk
            && disk.contains(&disk::Key { primary, variant: None })
        {
            disk.purge(&primary).await?;
        }
        drop(purging);
        Ok(sequence.map(|sequence| {
            key.extensions.insert(Asked(sequence));
            key
        }))
    }

    /// The number of purges so far, for [`Cache::invalidate`].
    pub fn sequence(&self) -> u64 {
        self.shards.sequence()
    }

    /// Puts a whole small object into the memory tier, unless its key was purged since the key was stamped or something
    /// else is there or on its way. `false` if not.
    pub fn keep(&self, key: &CacheKey, meta: &CacheMeta, body: Bytes) -> bool {
        let (tier_key, whole) = (key::tier_key(key), key.primary_key());
        let asked = self.asked(key);
        let Ok(head) = entry::Head::new(meta, whole, tier_key.variant.is_none(), asked) else { return false };
        if !head.declares(body.len() as u64) || body.len() as u64 > self.memory_object {
            return false;
        }
        let mut content = entry::Body::default();
        content.push(body);
        let entry = Arc::new(memory::Entry::new(head, content, asked));
        self.shards.with(&tier_key.primary, |shard| {
            let free = !self.memory.contains(&tier_key) && shard.fill(&tier_key, whole).is_none();
            free && self.insert(shard, tier_key, entry, asked)
        })
    }

    /// Takes every variant of a target out of all tiers. When it returns `Ok`, no later look-up finds what was stored
    /// or being stored before the call, not even after a crash. `true` if there was something to take.
    pub async fn purge(&'static self, key: &CacheKey) -> Result<bool, PurgeError> {
        self.purge_primary(&key::tier_key(key).primary).await
    }

    /// [`Cache::purge`] for every target there is.
    pub async fn purge_all(&'static self) -> Result<(), PurgeError> {
        let purging = self.shards.purge_all();
        self.memory.clear();
        self.shards.settled(None).await;
        if let Some(disk) = &self.disk {
            disk.purge_all().await?;
        }
        drop(purging);
        self.purges.inc();
        Ok(())
    }

    /// Waits for the writes under way and closes the disk tier. Requests after it are still answered, but what they
    /// bring may not reach the disk.
    pub async fn close(&self) {
        let mut writes = self.writes.subscribe();
        // The sender is a part of `self`, so waiting cannot fail.
        let _ = writes.wait_for(|count| *count == 0).await;
        if let Some(disk) = &self.disk {
            disk.close().await;
        }
    }

    async fn purge_primary(&'static self, primary: &disk::Hash128) -> Result<bool, PurgeError> {
        let (mut found, purging) = self.shards.purge(primary, |keys| self.memory.remove(keys, &self.epochs));
        // A write that passed the check before the purge may still be landing on the disk.
        self.shards.settled(Some(primary)).await;
        if let Some(disk) = &self.disk {
            found |= disk.purge(primary).await?;
        }
        drop(purging);
        self.purges.inc();
        Ok(found)
    }
}

/// Counts one write that [`Cache::close`] waits for.
struct PendingWrite(&'static Cache);

impl PendingWrite {
    fn new(cache: &'static Cache) -> Self {
        cache.writes.send_modify(|count| *count += 1);
        Self(cache)
    }
}

impl Drop for PendingWrite {
    fn drop(&mut self) {
        self.0.writes.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests;
