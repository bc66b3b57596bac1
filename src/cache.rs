//! The shared cache: RFC 9111 policy as pure functions, the key, and the tiers behind pingora-cache's `Storage`.
//!
//! A look-up asks the memory tier, the fills in flight and the disk tier; a fill is written to both tiers as it
//! arrives. What a purge has taken away never comes back: each look-up, fill and write to a tier carries the purge
//! sequence it started from ([`purged`]) and is refused by a later purge of its key.

pub mod disk;
pub mod key;
pub mod policy;

mod entry;
mod fill;
mod hit;
mod memory;
mod miss;
mod purged;
mod storage;
mod window;

pub use hit::{Tier, tier_of};

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use pingora::cache::CacheKey;
use pingora::cache::lock::{CacheKeyLockImpl, CacheLock};
use prometheus::{IntCounter, IntGauge};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::metrics::Metrics;
use memory::MemoryTier;
use purged::Shards;

/// What the cache is set up from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of the memory tier, metadata included; 0 turns the tier off.
    pub memory_capacity: u64,
    /// The disk tier, where there is one.
    pub disk: Option<disk::Settings>,
    /// Bytes of the largest response that is stored; `None`: what the largest tier can hold (an eighth of its capacity).
    pub max_object: Option<u64>,
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
    disk: Option<Arc<disk::DiskTier>>,
    shards: Shards,
    lock: &'static CacheKeyLockImpl,
    clock: Clock,
    /// Bytes up to which an object is held in memory.
    memory_object: u64,
    max_object: u64,
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

impl Cache {
    /// Opens the tiers; the memory of the result is never given back.
    pub fn open(settings: &Settings, clock: Clock, metrics: &Metrics) -> Result<&'static Self, OpenError> {
        let Settings { memory_capacity, disk, max_object } = settings;
        let largest = (*memory_capacity).max(disk.as_ref().map_or(0, |disk| disk.capacity)) / 8;
        let max_object = max_object.unwrap_or(largest).min(largest);
        let small = if disk.is_some() { SMALL_OBJECT } else { u64::MAX };
        let tier = match disk {
            Some(settings) => Some(disk::DiskTier::open(settings, metrics.tier("disk"))?),
            None => None,
        };
        let cache: &'static Self = Box::leak(Box::new(Self {
            memory: MemoryTier::new(*memory_capacity, metrics.tier("memory")),
            disk: tier,
            shards: Shards::default(),
            lock: Box::leak(CacheLock::new_boxed(LOCK_AGE)),
            clock,
            memory_object: (*memory_capacity / 8).min(small).min(max_object),
            max_object,
            filling: AtomicU64::new(0),
            filling_max: *memory_capacity / 2,
            next_fill: AtomicU64::new(0),
            writes: watch::Sender::new(0),
            fills_in_flight: metrics.fills_in_flight.clone(),
            collapsed: metrics.collapsed.clone(),
            purges: metrics.purges.clone(),
        }));
        if cache.disk.is_some() {
            cache.memory.demote_to(cache);
        }
        Ok(cache)
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
        let (mut found, purging) = self.shards.purge(primary, |keys| self.memory.remove(keys));
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
