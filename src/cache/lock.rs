//! The lock that collapses requests for one key into one fetch (RFC 9111 section 4).
//!
//! pingora looks a key up and takes the lock in two steps. Between them another request may have fetched the object and
//! given the lock back: the first would then fetch it again. So whoever gets the lock after a miss looks once more.

use std::sync::OnceLock;
use std::time::Duration;

use http::Extensions;
use pingora::cache::CacheKey;
use pingora::cache::lock::{CacheKeyLock, CacheLock, LockCore, LockStatus, LockStub, Locked, WritePermit};

use super::entry::Head;
use super::epochs::Standing;
use super::{Cache, key};

/// What came to memory longer ago than this was there at the look-up already, which then had a reason to pass it over.
const JUST_NOW: Duration = Duration::from_secs(2);

/// pingora's lock with that second look.
pub(super) struct FetchLock {
    table: CacheLock,
    cache: OnceLock<&'static Cache>,
}

impl FetchLock {
    /// `age` is how long others wait for one fetch to bring a response head before one of them asks again.
    pub(super) fn new(age: Duration) -> Self {
        Self { table: CacheLock::new(age), cache: OnceLock::new() }
    }

    /// Names the cache whose fetches are locked; the first one stays.
    pub(super) fn serve(&self, cache: &'static Cache) {
        let _ = self.cache.set(cache);
    }
}

impl CacheKeyLock for FetchLock {
    fn lock(&self, key: &CacheKey, stale_writer: bool) -> Locked {
        match self.table.lock(key, stale_writer) {
            Locked::Write(permit) if !stale_writer && self.cache.get().is_some_and(|cache| cache.has_by_now(key)) => {
                self.table.release(key, permit, LockStatus::Done);
                released()
            }
            locked => locked,
        }
    }

    fn release(&self, key: &CacheKey, permit: WritePermit, reason: LockStatus) {
        self.table.release(key, permit, reason);
    }
}

/// A lock to wait for that is free already: the request looks the key up again at once.
fn released() -> Locked {
    let core = LockCore::new_arc(Duration::ZERO, false, Extensions::new());
    core.unlock(LockStatus::Done);
    Locked::Read(LockStub(core).read_lock())
}

impl Cache {
    /// Whether a look-up would find now what another request has begun to bring, or brought a moment ago.
    fn has_by_now(&self, key: &CacheKey) -> bool {
        let (tier_key, whole, now) = (key::tier_key(key), key.primary_key(), self.clock.now());
        let fill = self.shards.with(&tier_key.primary, |shard| shard.fill(&tier_key, whole));
        let valid = |standing| standing == Standing::Valid;
        // What is there in part may have been found, and found wanting.
        let answers = |head: &Head| !head.is_partial();
        fill.is_some_and(|fill| {
            fill.is_attachable() && answers(&fill.head) && valid(self.standing(&tier_key.primary, &fill.head))
        }) || self.memory.get(&tier_key).is_some_and(|entry| {
            entry.head.is_of(whole)
                && answers(&entry.head)
                && entry.head.is_fresh(now)
                && entry.head.is_younger_than(JUST_NOW, now)
                && valid(entry.standing(&self.epochs, &tier_key.primary))
        })
    }
}
